"""An exported file without this project: its card's lines, where only their four packages are."""

import ast
import json
import re
import subprocess
import venv

import numpy as np
import pytest
import soundfile

from fusionkd_lib.runs import project_root
from fusionkd_lib.tagging import load_tagger, tag_file

ROOT = project_root()
PACKAGES = ("onnxruntime", "numpy", "soundfile", "soxr")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Return the Python of an environment that holds the four packages, and what they need."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    given = [python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "requirements.lock"]
    if subprocess.run([*given, *PACKAGES]).returncode:
        pytest.skip("packages cannot be installed here")
    return python


def test_nothing_of_this_project_is_there(bare):
    for name in ("torch", "librosa", "fusionkd_lib"):
        assert subprocess.run([bare, "-I", "-c", f"import {name}"], capture_output=True).returncode


def test_the_cards_lines_tag_a_stereo_recording_of_another_rate_as_the_project_does(bare, tmp_path):
    file = ROOT / "book" / "weights" / "logmel.onnx"
    noise = np.random.default_rng(0).standard_normal((44_100 * 5, 2))
    soundfile.write(tmp_path / "x.wav", 0.1 * noise, 44_100)
    (code,) = re.findall("```python\n(.*?)```", file.with_suffix(".md").read_text(), re.DOTALL)
    code = code.replace(json.dumps(file.name), json.dumps(str(file)))
    given = [bare, "-I", "-c", code, tmp_path / "x.wav"]
    told = subprocess.run(given, capture_output=True, text=True, check=True).stdout
    scores, tags = map(ast.literal_eval, told.splitlines())
    expected = tag_file(load_tagger(file), tmp_path / "x.wav")
    assert tags == expected["tags"]
    assert scores == pytest.approx(expected["scores"], abs=1e-4)
