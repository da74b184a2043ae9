import base64
import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import soundfile
from handmade import write_pair
from matplotlib.colors import to_rgb
from PIL import Image

from fusionkd_book import figures
from fusionkd_lib.params import make_params
from fusionkd_lib.runs import find_records
from fusionkd_lib.tables import collect

RATE = 16000


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def displayed(monkeypatch):
    """Return the list of what is displayed, positional and keyword arguments of each call."""
    shown = []
    monkeypatch.setattr(figures, "display", lambda *args, **kwargs: shown.append((args, kwargs)))
    return shown


@pytest.mark.parametrize(("status", "kind"), [("synthetic", "Synth"), ("partial", "Recorded")])
def test_a_player_has_a_line_that_stays_where_players_are_dropped(displayed, status, kind):
    figures.players({"hiss": np.ones(RATE)}, sample_rate=RATE, status=status)
    _, ((line,), _) = displayed
    assert line.data.startswith(f"*{kind}")
    assert "<" not in line.data  # GitHub drops HTML of its own choice
    assert "`make site`" in line.data


def test_a_player_holds_the_sound_under_its_name(displayed):
    tone = 0.01 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    figures.players({"quiet tone": tone}, sample_rate=RATE, status="synthetic")
    html = displayed[0][0][0].data
    assert ">quiet tone<" in html
    encoded = re.search(r"base64,([^\"]+)", html).group(1)
    decoded, rate = soundfile.read(io.BytesIO(base64.b64decode(encoded)))
    middle = decoded[RATE // 4 : 3 * RATE // 4]
    loudest = np.abs(np.fft.rfft(middle)).argmax() * rate / len(middle)
    assert loudest == pytest.approx(440, abs=2)
    assert np.abs(middle).max() == pytest.approx(0.9, abs=0.1)


def test_a_grid_is_filled_row_by_row_and_names_frequencies_once_if_they_are_shared():
    shared, others = np.array([100.0, 1000.0, 4000.0]), np.array([50.0, 200.0, 800.0])
    pictures = {name: np.arange(6.0).reshape(3, 2) for name in "abcd"}
    axes = figures.spectrogram_grid(
        {name: (values, shared) for name, values in pictures.items()}, n_columns=2, seconds=1.0
    )
    assert [ax.get_title() for ax in axes.flat] == list("abcd")
    named = [ax.yaxis.get_tick_params()["labelleft"] for ax in axes.flat]
    assert named == [True, False, True, False]
    apart = {name: (pictures[name], x) for name, x in zip("ab", (shared, others), strict=True)}
    axes = figures.spectrogram_grid(apart, n_columns=2, seconds=1.0)
    assert all(ax.yaxis.get_tick_params()["labelleft"] for ax in axes.flat)


def test_round_frequencies_stand_where_they_are_and_not_on_top_of_each_other():
    octaves = 50 * 2.0 ** np.arange(9)  # Hz, row by row
    rows = figures.round_rows(octaves)
    assert {f: rows[f] for f in (200, 12800) if f in rows} == {200: 2.5}  # the middle of row 2
    assert set(rows) <= {50, 100, 200, 500, 1000, 2000, 5000, 10000}
    assert rows[10000] == pytest.approx(7.5 + (10000 - 6400) / 6400)
    assert min(np.diff(sorted(rows.values()))) > len(octaves) / 8
    assert [figures.hertz(f) for f in (50, 2000, 12500)] == ["50", "2k", "12.5k"]


def test_a_spectrogram_is_shown_below_its_loudest_point_or_in_the_decibels_that_are_asked_for():
    values = np.array([[-90.0, -30.0], [-50.0, -20.0]])
    settings = {"frequencies": np.array([100.0, 1000.0]), "seconds": 1.0}
    relative = figures.show_spectrogram(values, **settings)
    absolute = figures.show_spectrogram(values, span=(-100, 0), **settings)
    (below,), (shown,) = relative.get_images(), absolute.get_images()
    assert below.get_array().tolist() == [[-70, -10], [-30, 0]]
    assert below.get_clim() == (-80, 0)
    assert shown.get_array().tolist() == values.tolist()
    assert shown.get_clim() == (-100, 0)
    figures.decibel_scale([relative])
    assert relative.figure.axes[-1].get_ylabel().startswith("dB")


def test_series_beside_each_other_differ_in_shape():
    values = {name: [0.1, 0.2] for name in ("logmel", "cqt", "gammatone")}
    ax = figures.class_scores(values, ["siren", "drill"], ylabel="recall")
    assert len({line.get_marker() for line in ax.get_lines()}) == 3
    bars = figures.opinions(values, ["siren", "drill"], title="a clip").patches
    assert len({bar.get_hatch() for bar in bars}) == 3
    assert len({figures.STROKES[name] for name in values}) == 3


def test_maps_of_any_height_are_shown_value_by_value():
    maps = {"four rows": np.eye(4, 6), "three rows": np.eye(3, 6)}
    shown = [ax.get_images()[0].get_array() for ax in figures.feature_maps(maps)]
    assert [np.array_equal(*pair) for pair in zip(shown, maps.values(), strict=True)] == [True] * 2


def test_opinions_are_a_bar_for_every_class_and_classifier():
    values = {"label": [0.0, 1.0], "cqt": [0.4, 0.6]}
    ax = figures.opinions(values, ["dog_bark", "siren"], title="a clip")
    assert [bar.get_height() for bar in ax.patches] == [0.0, 1.0, 0.4, 0.6]
    assert to_rgb(ax.patches[2].get_facecolor()) == to_rgb(figures.COLOURS["cqt"])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["dog bark", "siren"]


def test_a_curve_names_the_threshold_of_each_point_but_for_its_two_ends():
    points = [(0.0, 1.0, None), (0.5, 1.0, 0.9), (1.0, 0.75, 0.4), (1.0, 0.0, None)]
    ax = figures.precision_recall(points)
    assert ax.get_lines()[0].get_xydata().tolist() == [list(point[:2]) for point in points]
    assert [(note.get_text(), note.xy) for note in ax.texts] == [
        ("0.9", (0.5, 1.0)),
        ("0.4", (1.0, 0.75)),
    ]


@pytest.mark.parametrize(("vector", "kind"), [(False, "image/png"), (True, "image/svg+xml")])
def test_a_shown_figure_tells_its_text_in_its_output_and_is_shown_once(displayed, vector, kind):
    _, axes = plt.subplots(1, 2)
    figures.show(axes, alt="a & b", caption="*Nothing* is drawn.", vector=vector)
    ((picture,), told), ((caption,), _) = displayed
    assert told == {"metadata": {kind: {"alt": "a & b"}}, "raw": True}
    if vector:
        assert "<title>a &amp; b</title>" in picture[kind]
    else:
        image = Image.open(io.BytesIO(base64.b64decode(picture[kind])))
        assert image.info["Title"] == "a & b"
    assert caption.data == "*Nothing* is drawn."
    assert plt.get_fignums() == []  # or the notebook would show it again


@pytest.mark.parametrize("missing", [[], [0], [0, 1]])
def test_a_figure_of_a_table_shows_the_rows_that_are_there(tmp_path, missing):
    pair, scores = ("logmel", "gammatone"), np.eye(10)[np.arange(20) % 3]
    both = {
        "alone": dict.fromkeys(pair, scores),
        "together": dict.fromkeys([*pair, "fused"], scores),
    }
    runs = write_pair(tmp_path, make_params({"representations": pair}), both)
    for index in missing:
        (runs[index].folder / "complete.json").unlink()
    (table,) = collect(find_records(tmp_path)[0])
    ax = figures.table_figure(table)
    labels = [tick.get_text() for tick in ax.get_yticklabels()]
    heights = dict(zip(labels, ax.get_yticks(), strict=True))
    dots = [line for line in ax.get_lines() if line.get_marker() == "o"]
    shown = {(*line.get_xdata(), *line.get_ydata(), to_rgb(line.get_color())) for line in dots}
    names = ["Log-mel", "Gammatone", "Log-mel (KD)", "Gammatone (KD)", "Mean of branches (KD)"]
    names += ["Fused classifier"]
    heads, there = [*pair, *pair, "mean", "fused"], set(range(6)) - set(missing)
    # Every third of the classes is 0, and so are all targets: 7 of 20.
    assert shown == {(35, heights[names[i]], to_rgb(figures.COLOURS[heads[i]])) for i in there}


def test_the_framework_shows_both_branches_and_their_teacher():
    clip = np.random.default_rng(0).standard_normal(RATE)
    ax = figures.framework(clip, {"cqt": np.zeros((84, 9)), "gammatone": np.zeros((128, 9))})
    texts = {text.get_text() for text in ax.texts}
    assert {"CQT", "Gammatone", "logits $f_1(x)$", "logits $f_2(x)$", "logits $g(x)$"} <= texts
    assert [image.get_array().shape for inset in ax.child_axes for image in inset.images] == [
        (84, 9),
        (128, 9),
    ]


def test_each_seed_has_a_dot_in_every_row_and_a_gain_from_the_lowest_to_the_highest(tmp_path):
    pair = ("logmel", "gammatone")
    for seed, n_right in enumerate((10, 12, 17)):
        scores = np.eye(10)[np.where(np.arange(20) < n_right, 0, 1)]
        start = np.eye(10)[np.where(np.arange(20) < 12, 0, 1)]
        together = dict.fromkeys([*pair, "fused"], scores)
        both = {"alone": dict.fromkeys(pair, start), "together": together}
        write_pair(tmp_path, make_params({"representations": pair, "seed": seed}), both)
    records, _ = find_records(tmp_path)
    ax = figures.seed_dots(records)
    shown = [(*line.get_xdata(), *line.get_ydata()) for line in ax.get_lines()]
    fused = [x for x, y in shown if y == 0]
    assert (fused, len(shown)) == ([50, 60, 85], 3 * 6)
    assert figures.seed_gains(records) == (
        "Log-mel -10.0 to +25.0 points, Gammatone -10.0 to +25.0 points"
    )
