import base64
import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import soundfile

from fusionkd_book import figures

RATE = 16000


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_a_player_holds_the_sound_under_its_name():
    tone = 0.01 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    html = figures.players({"quiet tone": tone}, sample_rate=RATE).data
    assert ">quiet tone<" in html
    encoded = re.search(r"base64,([^\"]+)", html).group(1)
    decoded, rate = soundfile.read(io.BytesIO(base64.b64decode(encoded)))
    middle = decoded[RATE // 4 : 3 * RATE // 4]
    loudest = np.abs(np.fft.rfft(middle)).argmax() * rate / len(middle)
    assert loudest == pytest.approx(440, abs=2)
    assert np.abs(middle).max() == pytest.approx(0.9, abs=0.1)


def test_the_framework_shows_both_branches_and_their_teacher():
    clip = np.random.default_rng(0).standard_normal(RATE)
    ax = figures.framework(clip, {"cqt": np.zeros((84, 9)), "gammatone": np.zeros((128, 9))})
    texts = {text.get_text() for text in ax.texts}
    assert {"CQT", "Gammatone", "logits $f_1(x)$", "logits $f_2(x)$", "logits $g(x)$"} <= texts
    assert [image.get_array().shape for inset in ax.child_axes for image in inset.images] == [
        (84, 9),
        (128, 9),
    ]
