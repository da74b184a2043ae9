"""Fuzz: what a stranger hands in is used, or refused in a sentence."""

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from bench import fuzz


@pytest.fixture
def parameters(tmp_path, monkeypatch) -> fuzz.Target:
    """Return the target that is a file of parameters."""
    monkeypatch.setenv("FUSIONKD_OUTPUTS", str(tmp_path / "outputs"))
    return next(fuzz.inputs_in(tmp_path))


def test_a_hundred_changed_inputs_are_used_or_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSIONKD_OUTPUTS", str(tmp_path / "outputs"))
    report = fuzz.fuzz(tmp_path, 100)
    assert report["faults"] == []
    assert report["inputs"] == sum(report["inputs_by_file"].values()) == 100
    assert sum(report["answers"].values()) == 100
    assert set(report["answers"]) <= {"refused", "the same answer", "another answer"}


def test_what_should_not_be_is_found(tmp_path, parameters, monkeypatch):
    def fail(files: tuple) -> None:
        (tmp_path / "written").touch()
        raise KeyError("x")

    def tried() -> tuple[str, str]:
        return fuzz.attempt(parameters, parameters.content, tmp_path)

    assert tried() == ("the same answer", "")
    with monkeypatch.context() as patch:
        patch.setattr("fusionkd_lib.cli._plan", fail)
        assert tried() == ("changed", f"changed open {tmp_path / 'written'}".replace(" /", " "))
        assert "nobody foresaw it" in tried()[1]
        patch.setattr("fusionkd_lib.cli._plan", lambda files: {})
        what, fault = tried()
        assert (what, fault[:7]) == ("another answer", "answers")
        patch.setattr(fuzz, "LONGEST", 0.01)
        patch.setattr("fusionkd_lib.cli._plan", lambda files: time.sleep(1))
        assert tried() == ("hung", "more than 0.01 s")


def test_a_file_outside_that_is_changed_or_removed_is_found_wherever_it_is(
    tmp_path, parameters, monkeypatch, tmp_path_factory
):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "x"
    folder = tmp_path / "place"
    for change in (lambda: elsewhere.write_text("longer"), elsewhere.unlink):
        elsewhere.write_text("there")
        monkeypatch.setattr("fusionkd_lib.cli._plan", lambda files, change=change: change() and {})
        assert fuzz.attempt(parameters, parameters.content, folder)[0] == "changed"


def test_an_input_must_have_the_answer_of_the_good_one_where_it_says_the_same(tmp_path, parameters):
    assert parameters.is_as_good(parameters.content + b"# a remark\n")
    assert not parameters.is_as_good(parameters.content + b"seed: 1\n")
    assert not parameters.is_as_good(b"{")
    content = b"a,b\n1,2\n"
    assert fuzz.rows_of(content) == fuzz.rows_of(b'a,"b"\r\n1,2') != fuzz.rows_of(b"a,b\n1,3\n")


def test_inputs_are_shared_by_two_processes_and_each_counts_once(tmp_path, monkeypatch):
    def one(folder: Path) -> list:
        return [next(fuzz.inputs_in(folder))]

    monkeypatch.setenv("FUSIONKD_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setattr(fuzz, "targets_in", one)
    monkeypatch.setattr(fuzz, "AT_ONCE", 4)
    report = fuzz.fuzz(tmp_path, 10, workers=2)
    assert report["inputs_by_file"] == Counter({"run.yaml": 10})


def test_an_input_that_ends_a_process_is_named(tmp_path, monkeypatch):
    def crash(files: tuple) -> dict:
        tries = Path(os.environ["FUSIONKD_OUTPUTS"]).with_name(fuzz.TRYING).exists()
        if tries and os.getpid() != here:
            signal.raise_signal(signal.SIGSEGV)
        return {}

    def one(folder: Path) -> list:
        return [next(fuzz.inputs_in(folder))]

    here = os.getpid()
    monkeypatch.setenv("FUSIONKD_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setattr(fuzz, "targets_in", one)
    monkeypatch.setattr("fusionkd_lib.cli._plan", crash)
    faults = fuzz.fuzz(tmp_path, 10, workers=2)["faults"]
    assert faults
    for fault in faults:
        assert "run.yaml: ended the process (Fatal Python error: Segmentation fault): b'" in fault


def test_what_differs_from_a_long_good_file_is_shown():
    good = bytes(range(250)) * 20
    changed = good[:1000] + b"xyz" + good[1010:]
    told = fuzz.shown(changed, good)
    assert told == "the good file with bytes 1000 to 1010 replaced by b'xyz'"
