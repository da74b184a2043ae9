"""Change what a stranger may hand in, byte by byte and value by value, and see that it is refused.

Hypothesis changes parameter files, tables, taxonomies, sounds and the files of a finished record,
whose digests are then put right, and hands each to the command that reads it. The command must end
in status 0, or in status 1 with one line on stderr; without a traceback, within five seconds, and
without a byte outside its output folder. ``python -m bench.fuzz 1000`` tries a thousand inputs.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np
import soundfile
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fusionkd_lib.cli import main as fusionkd
from fusionkd_lib.storage import file_digest

LONGEST = 5.0  # seconds
TOKENS = [b"\0", b"\xff", b"\n", b"*a", b"&a ", b"<<: ", b"[" * 99, b"{", b'"\\ud800"', b"\x1b[31m"]
TOKENS += [b"9" * 30, b"-1", b"1e999", b"NaN", b"null", b"true", b"!!python/name:os ", b",", b": "]
TOKENS += [b"\xef\xbb\xbf", b"RIFF", b"OggS", b"\x7f\xff\xff\xff", b"0x" + b"f" * 40, b"../", b"'"]


class Hang(BaseException):
    """What a command is stopped with that takes too long."""


@dataclass
class Target:
    """A file that a command reads: where it stands, its good content, the command."""

    name: str
    path: Path
    command: list[str]
    content: bytes = b""
    seal: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.content = self.path.read_bytes()


@dataclass
class Findings:
    """What was tried, and what should not be."""

    counts: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


@st.composite
def changes(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw content with one to three changes."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(changed)))
        end = min(len(changed), start + draw(st.sampled_from([0, 1, 2, 4, 8, 64, len(content)])))
        changed[start:end] = draw(st.sampled_from(TOKENS) | st.binary(max_size=8) | st.just(b""))
    return bytes(changed)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise a `Hang` in what takes too long."""

    def stop(*_: object) -> None:
        raise Hang(f"more than {seconds:g} s")

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def names_in(folder: Path, outputs: Path) -> set[Path]:
    """Return all that stands in a folder, but for the output folder."""
    return {path for path in folder.rglob("*") if outputs not in (path, *path.parents)}


def attempt(target: Target, content: bytes, folder: Path) -> str:
    """Hand an input to its command; return what is wrong with the answer, or nothing."""
    target.path.write_bytes(content)
    target.seal()
    outputs, before = folder / "outputs", names_in(folder, folder / "outputs")
    try:
        with limited(LONGEST):
            answer = CliRunner().invoke(fusionkd, target.command)
    except Hang as error:
        return str(error)
    finally:
        target.path.write_bytes(target.content)
        target.seal()
    # A copy that is not whole is a report, on stdout, with status 1.
    errors = answer.stderr.splitlines() or ["Error: "] * ("found" in answer.stdout)
    if written := names_in(folder, outputs) - before:
        return f"wrote {sorted(written)[0]}"
    if list(outputs.glob("error-*.txt")):
        shutil.rmtree(outputs)
        return f"nobody foresaw it: {answer.stderr[:300]}"
    if answer.exit_code == 1 and not (errors and all(x.startswith("Error: ") for x in errors)):
        return f"status 1 with {answer.stderr[:300]!r} and {answer.exception!r}"
    return "" if answer.exit_code in (0, 1) else f"status {answer.exit_code}: {answer.stderr[:300]}"


def fuzz(targets: list[Target], folder: Path, n_inputs: int, *, seed: int = 0) -> Findings:
    """Try inputs drawn by a seed, each of one target, all targets in turn."""
    findings = Findings()
    for place, target in enumerate(targets):
        n = n_inputs // len(targets) + (place < n_inputs % len(targets))
        if n:
            _fuzz_one(target, folder, n, findings)
    return findings


def _fuzz_one(target: Target, folder: Path, n_inputs: int, findings: Findings) -> None:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    quiet = {"database": None, "deadline": None, "suppress_health_check": checks}
    only = settings(max_examples=n_inputs, phases=[Phase.generate], derandomize=True, **quiet)

    @only
    @given(content=changes(target.content))
    def one(content: bytes) -> None:
        findings.counts[target.name] += 1
        if fault := attempt(target, content, folder):
            findings.faults.append(f"{target.name}: {fault}: {content[:2000]!r}")

    one()


def targets_in(folder: Path) -> list[Target]:
    """Make good files of each kind, as the tests do, and say which command reads them."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    hostile, miniature = import_module("hostile"), import_module("miniature")
    (folder / "run.yaml").write_text(
        "epochs: 3\nrepresentations: [logmel, cqt]\ngrid:\n  fold: [1]\n"
    )
    found = [Target("parameters", folder / "run.yaml", ["run", f"{folder}/run.yaml", "--dry-run"])]
    root, labels = (
        miniature.make_urbansound8k(folder / "UrbanSound8K"),
        miniature.make_sonyc_ust(folder / "SONYC"),
    )
    check = ["data", "check", "urbansound8k", "--json", "--root", str(root)]
    found.append(Target("metadata", root / "metadata" / "UrbanSound8K.csv", check))
    predictions = hostile.write_predictions(folder / "p.csv")
    evaluate = [str(part) for part in hostile.score(labels, predictions)]
    for name in (predictions, labels / "annotations.csv", labels / "dcase-ust-taxonomy.yaml"):
        found.append(Target(name.name, name, evaluate))
    run = hostile.tiny_run(folder / "runs")
    for suffix in ("wav", "flac", "ogg", "aiff", "mp3"):
        path = folder / f"x.{suffix}"
        soundfile.write(path, np.tile(hostile.tone(), 2), 8000)
        found.append(Target(suffix, path, ["tag", str(run.folder), str(path)]))

    complete = run.folder / "complete.json"

    def seal() -> None:
        told = json.loads(complete.read_bytes())
        files = {name: file_digest(run.folder / name) for name in told["files"]}
        complete.write_text(json.dumps(told | {"files": files}))

    sealed = json.loads(complete.read_text())["files"]
    for name in sorted(sealed):
        command = ["tag", str(run.folder), str(folder / "x.wav")]
        found.append(Target(name, run.folder / name, command, seal=seal))
    found.append(Target("complete.json", complete, ["tag", str(run.folder), f"{folder}/x.wav"]))
    return found


def main() -> None:
    """Try as many inputs as the first argument says, 1,000 by default; print a record."""
    n_inputs, started = int(sys.argv[1]) if len(sys.argv) > 1 else 1000, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FUSIONKD_OUTPUTS"] = f"{folder}/outputs"
        findings = fuzz(targets_in(Path(folder)), Path(folder), n_inputs)
    seconds = round(time.monotonic() - started)
    print(
        json.dumps(
            {"inputs": findings.counts, "seconds": seconds, "faults": findings.faults}, indent=1
        )
    )
    sys.exit(1 if findings.faults else 0)


if __name__ == "__main__":
    main()
