"""Change what a stranger may hand in, byte by byte and value by value, and see that it is refused.

Hypothesis changes parameter files, tables, taxonomies, sounds and the files of finished runs, whose
digests are then put right or not, and hands each to the command that reads it. The command must end
within five seconds of work, without a traceback, and with nothing changed outside its output
folder: in status 1 with lines on stderr that begin with ``Error: ``, or in status 0 with the answer
to the good file. Another answer is right only where the input says something else to another
reader than ours (PyYAML, Python's csv, libsndfile, safetensors, onnx); of a finished run none is
but its own. An exported file has no digest: another graph, or other weights, are another file.
An input that ends the process itself, in native code, is a fault that names it.
``python -m bench.fuzz 1000`` tries a thousand inputs; ``--keep`` writes
``outputs/bench/fuzz/<processor>.json`` as it goes.
"""

import argparse
import csv
import faulthandler
import io
import json
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import numpy as np
import onnx
import safetensors.numpy
import soundfile
import torch
import yaml
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from bench.points import Points
from bench.record import Record, place_of, shared
from fusionkd_lib import catalogue, metrics
from fusionkd_lib.cli import main as fusionkd
from fusionkd_lib.export.onnx_file import export
from fusionkd_lib.params import make_params
from fusionkd_lib.storage import file_digest
from fusionkd_lib.tagging import load_tagger

LONGEST, WAITING = 5.0, 12  # seconds of the processor; times as long for what waits
SHOWN = 2000  # bytes of an input, in a fault
CRASH = "crash"  # a file with what a process says as it dies
TRYING = "trying"  # a folder with the input that a process tries
AT_ONCE = 200  # inputs of one target, drawn by one seed
TOKENS = [b"\0", b"\xff", b"\n", b"*a", b"&a ", b"<<: ", b"[" * 99, b"{", b'"\\ud800"', b"\x1b[31m"]
TOKENS += [b"9" * 30, b"-1", b"1e999", b"NaN", b"null", b"true", b"!!python/name:os ", b",", b": "]
TOKENS += [b"\xef\xbb\xbf", b"RIFF", b"OggS", b"\x7f\xff\xff\xff", b"0x" + b"f" * 40, b"../", b"'"]


class Hang(BaseException):
    """What a command is stopped with that takes too long."""


def anything(text: str) -> object:
    """Return the whole of an answer."""
    return text


@dataclass
class Target:
    """A file that a command reads.

    Parameters
    ----------
    path, command
        Where it stands with its good content, and what reads it.
    answer
        What counts of an answer.
    says
        What other readers understand by a content: contents that say the same have the same answer.
        None where every content has, whatever it says.
    seal
        Puts right what depends on the content.
    """

    name: str
    path: Path
    command: list[str]
    says: Callable[[bytes], object] | None
    answer: Callable[[str], object] = anything
    seal: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.content = self.path.read_bytes()
        good = told_by(self.command)  # imports what the command needs
        if good.exit_code:
            raise RuntimeError(f"{self.name}: the good file is refused: {good.output}")
        self.expected = self.answer(good.stdout)

    def put(self, content: bytes) -> None:
        """Put a content in the place of the one that is there."""
        self.path.write_bytes(content)
        self.seal()

    def is_as_good(self, content: bytes) -> bool:
        """Say whether a content must have the answer of the good one."""
        if self.says is None:
            return True
        try:
            return repr(self.says(content)) == repr(self.says(self.content))
        except Exception:  # who cannot read it says nothing
            return False


def rows_of(content: bytes) -> object:
    """Return the cells of a CSV file."""
    return list(csv.reader(io.StringIO(content.decode(), newline=""), strict=True))


def samples_of(content: bytes) -> object:
    """Return the rate and the samples of a sound file."""
    samples, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    return rate, samples.tobytes()


def tensors_of(content: bytes) -> object:
    """Return the tensors of weights."""
    return {
        name: (x.dtype, x.shape, x.tobytes()) for name, x in safetensors.numpy.load(content).items()
    }


def model_of(content: bytes) -> object:
    """Return an ONNX model, without what is no part of the format."""
    model = onnx.load_from_string(content)
    model.DiscardUnknownFields()
    return model.SerializeToString(deterministic=True)


def scores_told(text: str) -> object:
    """Return the scores of a tagged recording, whatever its classes are called."""
    return list(json.loads(text)["scores"].values())


def numbers_told(text: str) -> object:
    """Return the numbers of tables, as exactly as a record proves them."""
    rows = [row for table in json.loads(text) for row in table["rows"]]
    return [{k: round(x, 6) if isinstance(x, float) else x for k, x in r.items()} for r in rows]


@st.composite
def changes(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw content with one to three changes."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(changed)))
        end = min(len(changed), start + draw(st.sampled_from([0, 1, 2, 4, 8, 64, len(content)])))
        new = draw(st.sampled_from(TOKENS) | st.binary(max_size=8) | st.just(b""))
        # In the place of as many bytes, whatever counts them is right.
        changed[start : start + len(new) if draw(st.booleans()) else end] = new
    return bytes(changed)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise a `Hang` in what takes too long; end a process that does not hear of it.

    Seconds are the processor's, for the machine may be busy; what only waits has twelve times that.
    """

    def stop(*_: object) -> None:
        raise Hang(f"more than {seconds:g} s")

    limits = {signal.ITIMER_PROF: seconds, signal.ITIMER_REAL: WAITING * seconds}
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, stop)
    for timer, limit in limits.items():
        signal.setitimer(timer, limit, limit)  # again, should a callback swallow it
    faulthandler.dump_traceback_later(4 * WAITING * LONGEST, exit=True, file=LAST_WORDS[-1])
    try:
        yield
    finally:
        for timer in limits:
            signal.setitimer(timer, 0)
        faulthandler.cancel_dump_traceback_later()


@cache
def heard() -> Points:
    """Return what hears of all that Python changes on any disk, from now on."""
    points = Points(Path("/"))
    points.listen()
    return points


def names_in(folder: Path, outputs: Path) -> set[Path]:
    """Return all that stands in a folder, but for the output folder."""
    return {path for path in folder.rglob("*") if outputs not in (path, *path.parents)}


names_before = cache(names_in)


SMALL = patch.dict(
    catalogue.TRUNKS, mobilenet_v2=catalogue.Trunk(f"{__name__}:small_trunk", depth=2)
)


# To build a whole trunk, or to resample 500 times, costs more than to read any file.
@SMALL
@patch.object(metrics, "bootstrap", partial(metrics.bootstrap, n_resamples=20))
def told_by(command: list[str]) -> Result:
    """Return what a command answers."""
    return CliRunner().invoke(fusionkd, command)


def is_inside(change: str, outputs: Path) -> bool:
    """Say whether a change that was heard of is in the output folder."""
    path = Path("/", change.partition(" ")[2])
    return outputs in (path, *path.parents)


def attempt(target: Target, content: bytes, folder: Path) -> tuple[str, str]:
    """Hand an input to its command; return what became of it, and what is wrong with that."""
    outputs, told = folder / "outputs", heard().met
    target.put(content)
    trying = folder / TRYING  # what is left of a process that died
    trying.mkdir(parents=True, exist_ok=True)
    (trying / "name").write_text(target.name)
    (trying / "content").write_bytes(content)
    before, answer = names_before(folder, outputs), None
    told.clear()
    try:
        with limited(LONGEST):
            answer = told_by(target.command)
    except Hang as error:
        return "hung", str(error)
    finally:
        changed = [change for change in told if not is_inside(change, outputs)]
        changed += map(str, sorted(names_in(folder, outputs) - before))
        target.put(target.content)
        shutil.rmtree(trying)
    if changed:
        names_before.cache_clear()
        return "changed", f"changed {changed[0]}"
    if list(outputs.glob("error-*.txt")):
        shutil.rmtree(outputs)
        return "failed", f"nobody foresaw it: {answer.stderr[:300]}"
    return judged(target, content, answer)


def judged(target: Target, content: bytes, answer: Result) -> tuple[str, str]:
    """Return what an answer is, and what is wrong with it."""
    # A copy that is not whole is a report, on stdout, with status 1.
    errors = answer.stderr.splitlines() or ["Error: "] * ("found" in answer.stdout)
    if answer.exit_code == 1 and errors and all(line.startswith("Error: ") for line in errors):
        return "refused", ""
    if answer.exit_code:
        says = f"{answer.stderr[:300]!r} and {answer.exception!r}"
        return "failed", f"status {answer.exit_code} with {says}"
    if target.answer(answer.stdout) == target.expected:
        return "the same answer", ""
    fault = f"answers {answer.stdout[:1000]}" if target.is_as_good(content) else ""
    return "another answer", fault


def fuzz_one(place: int, n_inputs: int, chance: int) -> tuple[Counter, list[str]]:
    """Try inputs of one target that are drawn by a seed; return what became of them, and faults."""
    targets, folder = WORKPLACE
    target, became, faults = targets[place], Counter(), []
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    quiet = {"database": None, "deadline": None, "suppress_health_check": checks}

    @seed(chance)
    @settings(max_examples=n_inputs, phases=[Phase.generate], **quiet)
    @given(content=changes(target.content))
    def one(content: bytes) -> None:
        what, fault = attempt(target, content, folder)
        became[what] += 1
        if fault:
            faults.append(f"{target.name}: {fault}: {shown(content, target.content)}")

    one()
    return became, faults


def shown(content: bytes, good: bytes) -> str:
    """Return a content that a person can try again: whole, or as what differs from the good one.

    >>> shown(b"a" * 3000 + b"xyz" + b"b" * 9, b"a" * 3000 + b"b" * 9)
    "the good file with bytes 3000 to 3000 replaced by b'xyz'"
    """
    if len(content) <= SHOWN:
        return repr(content)
    start = n_same(content, good)
    n_after = n_same(content[start:][::-1], good[start:][::-1])
    changed = content[start : len(content) - n_after]
    end = len(good) - n_after
    return f"the good file with bytes {start} to {end} replaced by {changed[:SHOWN]!r}"


def n_same(one: bytes, other: bytes) -> int:
    """Return how many bytes two contents begin with in common."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def died(root: Path) -> list[str]:
    """Return a fault for each input that a process was busy with when it, or its pool, died.

    Where the crash left a message of `faulthandler`'s, the others were stopped for its sake.
    """
    good = {target.name: target.content for target in WORKPLACE[0]}
    found = sorted(root.glob(f"process-*/{TRYING}"))
    crashed = [place for place in found if (place.parent / CRASH).stat().st_size]
    faults = []
    for place in crashed or found:
        name, content = (place / "name").read_text(), (place / "content").read_bytes()
        why = (place.parent / CRASH).read_text().partition("\n")[0] or "no word, as one of these"
        faults.append(f"{name}: ended the process ({why}): {shown(content, good[name])}")
    return faults or ["a process ended that tried no input"]


LAST_WORDS = [2]  # where this process says why it dies: on stderr, or in a file of its own
WORKPLACE: list = []  # the targets of this process, and their folder


def begin(root: Path) -> None:
    """Make the targets of this process, in a folder of its own."""
    folder = root / f"process-{os.getpid()}"
    folder.mkdir()
    os.environ["FUSIONKD_OUTPUTS"] = f"{folder}/outputs"
    LAST_WORDS.append(os.open(folder / CRASH, os.O_WRONLY | os.O_CREAT))
    faulthandler.enable(LAST_WORDS[-1])
    WORKPLACE[:] = targets_in(folder), folder


def fuzz(root: Path, n_inputs: int, *, workers: int = 1, record: Record | None = None) -> dict:
    """Try inputs, all targets in turn; return what became of them, and each fault."""
    record = record or Record()
    begin(root)
    names = [target.name for target in WORKPLACE[0]]
    shares = [n_inputs // len(names) + (i < n_inputs % len(names)) for i in range(len(names))]
    tasks = [
        (place, min(AT_ONCE, share - done), done)
        for done in range(0, max(shares), AT_ONCE)
        for place, share in enumerate(shares)
        if share > done
    ]
    record.tell(to_try=n_inputs)
    inputs, became, faults = Counter(), Counter(), []
    # Where there is one worker, it is this process.
    settings = {"workers": workers, "begin": begin if workers > 1 else None, "given": (root,)}
    try:
        for (place, *_), (found, wrong) in shared(fuzz_one, tasks, **settings):
            inputs[names[place]] += sum(found.values())
            became += found
            faults += wrong
            answers = {"inputs": sum(inputs.values()), "inputs_by_file": inputs, "answers": became}
            record.tell(**answers, faults=faults)
    except BrokenProcessPool:
        record.tell(faults=[*faults, *died(root)])
    return record.tell(now=True)


def targets_in(folder: Path) -> list[Target]:
    """Make good files of each kind, as the tests do, and say which command reads them."""
    if (tests := str(Path(__file__).parents[1] / "tests")) not in sys.path:
        sys.path.insert(0, tests)
    return [*inputs_in(folder), *branch_in(folder), *pair_in(folder)]


def inputs_in(folder: Path) -> Iterator[Target]:
    """Make parameters, tables and a taxonomy."""
    hostile, miniature = import_module("hostile"), import_module("miniature")
    path = folder / "run.yaml"
    path.write_text("epochs: 3\nrepresentations: [logmel, cqt]\ngrid:\n  fold: [1]\n")
    yield Target(path.name, path, ["run", str(path), "--dry-run"], yaml.safe_load)
    root = miniature.make_urbansound8k(folder / "UrbanSound8K")
    check = ["data", "check", "urbansound8k", "--json", "--root", str(root)]
    path = root / "metadata" / "UrbanSound8K.csv"
    yield Target(path.name, path, check, rows_of)
    labels = miniature.make_sonyc_ust(folder / "SONYC")
    predictions = hostile.write_predictions(folder / "predictions.csv")
    score = [str(part) for part in hostile.score(labels, predictions)]
    for path in (predictions, labels / "annotations.csv"):
        yield Target(path.name, path, score, rows_of)
    path = labels / "dcase-ust-taxonomy.yaml"
    yield Target(path.name, path, score, yaml.safe_load)


def branch_in(folder: Path) -> Iterator[Target]:
    """Make a trained branch, and the sounds that it tags."""
    hostile = import_module("hostile")
    with SMALL:
        run = hostile.tiny_run(folder / "branch")
    for suffix in ("wav", "flac", "ogg", "aiff", "mp3"):
        path = folder / f"x.{suffix}"
        soundfile.write(path, np.tile(hostile.tone(), 2), 8000)
        command = ["tag", str(run.folder), str(path)]
        yield Target(f"sound.{suffix}", path, command, samples_of, scores_told)
    command = ["tag", str(run.folder), str(folder / "x.wav")]
    for name in sealed(run.folder):
        says, path = tensors_of if name.endswith(".safetensors") else None, run.folder / name
        told = {"says": says, "answer": scores_told, "seal": partial(seal, run.folder)}
        yield Target(f"branch/{name}", path, command, **told)
    path = run.folder / "complete.json"
    yield Target(f"branch/{path.name}", path, command, None, scores_told)
    yield from exported_in(folder, run.folder)


def small_trunk(*, width: float, pretrained: bool) -> tuple[torch.nn.Sequential, int]:
    """Return two layers, so that files are small, and what is not weights a good part of them."""
    n_channels = round(16 * width)
    layers = torch.nn.Conv2d(3, n_channels, 3, 4), torch.nn.BatchNorm2d(n_channels)
    return torch.nn.Sequential(*layers), n_channels


def exported_in(folder: Path, run: Path) -> Iterator[Target]:
    """Export the branch to a file that tags a sound; its metadata are a target of their own."""
    with SMALL:
        export(load_tagger(run), path := folder / "x.onnx")
    command = ["tag", str(path), str(folder / "x.wav")]
    yield Target("exported.onnx", path, command, model_of, scores_told)
    model, facts = onnx.load(path), folder / "facts.txt"
    facts.write_text("".join(f"{x.key}={x.value}\n" for x in model.metadata_props))
    told = {"says": facts_of, "answer": scores_told, "seal": partial(put_facts, facts, model, path)}
    yield Target("exported.onnx, metadata", facts, command, **told)


def facts_of(content: bytes) -> dict[str, str]:
    """Return what lines of ``key=value`` say."""
    lines = content.decode(errors="replace").split("\n")
    return {key: value for key, _, value in (line.partition("=") for line in lines) if key}


def put_facts(facts: Path, model: onnx.ModelProto, path: Path) -> None:
    """Write a model with the metadata that a file of facts tells."""
    onnx.helper.set_model_props(model, facts_of(facts.read_bytes()))
    onnx.save(model, path)


def pair_in(folder: Path) -> Iterator[Target]:
    """Make a finished pair, and have it tabled."""
    scores = np.array([[0.75, 0.25], [0.625, 0.375], [0.25, 0.75]])
    params = make_params({"representations": ["logmel", "gammatone"], "epochs": 2})
    alone = dict.fromkeys(params.representations, scores)
    both = {"alone": alone, "together": {**alone, "fused": scores}}
    *_, run = import_module("handmade").write_pair(folder / "runs", params, both)
    command = ["table", "--json", "--runs", str(folder / "runs")]
    for name in sealed(run.folder):
        told = {"says": None, "answer": numbers_told}
        yield Target(f"pair/{name}", run.folder / name, command, **told)
        told["seal"] = partial(seal, run.folder)
        yield Target(f"pair/{name}, sealed again", run.folder / name, command, **told)
    (clips,) = (folder / "runs" / "test-clips").iterdir()
    for name, path in (("complete.json", run.folder / "complete.json"), ("test clips", clips)):
        yield Target(f"pair/{name}", path, command, None, numbers_told)


def sealed(run: Path) -> dict[str, str]:
    """Return the digests of a finished run's files."""
    return json.loads((run / "complete.json").read_bytes())["files"]


def seal(run: Path) -> None:
    """Put the digests of a finished run right."""
    files = {name: file_digest(run / name) for name in sealed(run)}
    (run / "complete.json").write_text(json.dumps({"version": 1, "files": files}))


def main() -> None:
    """Try as many inputs as are asked for; print a record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("inputs", nargs="?", type=int, default=1000)
    # Two at least: that one died must be told by another.
    parser.add_argument("--workers", type=int, default=max(2, os.cpu_count()))
    parser.add_argument("--keep", action="store_true", help="keep the record in outputs/bench")
    wanted = parser.parse_args()
    record = Record(place_of("fuzz") if wanted.keep else None)
    with tempfile.TemporaryDirectory() as folder:
        report = fuzz(Path(folder), wanted.inputs, workers=wanted.workers, record=record)
    print(json.dumps(report, indent=1))
    sys.exit(1 if report["faults"] else 0)


if __name__ == "__main__":
    main()
