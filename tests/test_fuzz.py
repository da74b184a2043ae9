"""Fuzz: what a stranger hands in is used, or refused in a sentence."""

import time
from pathlib import Path

from bench import fuzz


def test_a_hundred_changed_inputs_are_used_or_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSIONKD_OUTPUTS", str(tmp_path / "outputs"))
    findings = fuzz.fuzz(fuzz.targets_in(tmp_path), tmp_path, 100)
    assert findings.faults == []
    assert sum(findings.counts.values()) == 100


def test_a_fault_would_be_found(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSIONKD_OUTPUTS", str(tmp_path / "outputs"))
    (target, *_) = fuzz.targets_in(tmp_path)

    def fail(files: tuple) -> None:
        (Path(tmp_path) / "written").touch()
        raise KeyError("x")

    monkeypatch.setattr("fusionkd_lib.cli._plan", fail)
    assert "wrote" in fuzz.attempt(target, target.content, tmp_path)
    assert "nobody foresaw it" in fuzz.attempt(target, target.content, tmp_path)
    monkeypatch.setattr(fuzz, "LONGEST", 0.01)
    monkeypatch.setattr("fusionkd_lib.cli._plan", lambda files: time.sleep(1))
    assert "more than 0.01 s" in fuzz.attempt(target, target.content, tmp_path)
