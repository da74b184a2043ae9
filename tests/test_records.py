"""Records: the reader takes nothing on trust, and names what it refuses in one sentence.

A hand-made fusion run is damaged; its two branches stay as they are. Where a file is ``resealed``,
its digest in ``complete.json`` is made to fit: it is refused for its content.
"""

import json
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from handmade import write_pair, write_run
from hostile import assert_nothing_was_executed, check, holding, pickled, table, text, truncated
from safetensors.torch import save_file

from fusionkd_book.publish import copy_record
from fusionkd_lib.params import make_params
from fusionkd_lib.records import COMPLETE, FILES, MOST_BYTES, TEST_CLIPS, TestClips
from fusionkd_lib.runs import Run, find_records
from fusionkd_lib.storage import file_digest, write_json
from fusionkd_lib.tables import collect

PAIR = ("logmel", "gammatone")
HEADS = (*PAIR, "fused")
N_CLIPS, N_CLASSES = 6, 3
DELETE = "delete the run's folder, and it is done again"


def scores(seed: int, *, n: int = N_CLIPS) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(N_CLASSES), size=n)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    """Return a fusion run beside its branches."""
    params = make_params({"representations": PAIR, "epochs": 2, "joint_epochs": 3})
    both = {
        "alone": {name: scores(seed) for seed, name in enumerate(PAIR)},
        "together": {head: scores(seed) for seed, head in enumerate(HEADS, start=5)},
    }
    targets = np.arange(N_CLIPS) % N_CLASSES
    return write_pair(tmp_path_factory.mktemp("whole"), params, both, targets=targets)[-1]


@pytest.fixture
def run(whole, tmp_path) -> Run:
    """Return the same run in a folder of this test's own."""
    shutil.copytree(whole.folder.parent, tmp_path / "runs")
    return Run(tmp_path / "runs" / whole.name)


# How a run is damaged


def seal(run: Run) -> None:
    """Make every file, whatever became of it, the run's own."""
    complete = json.loads((run.folder / COMPLETE).read_text())
    complete["files"] = {name: file_digest(run.folder / name) for name in complete["files"]}
    write_json(run.folder / COMPLETE, complete)


def damaged(name: str, make: Callable[[Path], object]) -> Callable[[Run], None]:
    return lambda run: make(run.folder / name)


def resealed(name: str, make: Callable[[Path], object]) -> Callable[[Run], None]:
    return lambda run: (make(run.folder / name), seal(run))


def edited(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Change what a JSON file holds, in place."""

    def make(path: Path) -> None:
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return make


def put(*keys: str | int, to: object) -> Callable[[Path], None]:
    def change(values: dict) -> None:
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = to

    return edited(change)


def arrays(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Change the arrays of a file, in place."""

    def make(path: Path) -> None:
        with np.load(path) as stored:
            values = dict(stored)
        change(values)
        np.savez(path, **values)

    return make


def one(head: str, change: Callable[[np.ndarray], object]) -> Callable[[Path], None]:
    return arrays(lambda values: values.update({head: change(values[head])}))


def entries(content: bytes) -> Callable[[Path], None]:
    """Write a file in which that stands for the scores of every classifier."""

    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for head in HEADS:
                archive.writestr(f"{head}.npy", content)

    return make


def headed(kind: str, shape: str, content: bytes = b"") -> Callable[[Path], None]:
    """Write scores of that content, whatever the header says of it."""
    header = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return entries(b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + content)


def encrypted(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for signature, flag in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flag] |= 1
    path.write_bytes(content)


def sparse(n_bytes: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with path.open("ab") as file:
            file.truncate(n_bytes)

    return make


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def clips_file(run: Run) -> Path:
    (path,) = (run.folder.parent / TEST_CLIPS).iterdir()
    return path


def other_clips(change: Callable[[dict], object]) -> Callable[[Run], None]:
    """Hand the run test clips of its own under the digest that they have."""

    def make(run: Run) -> None:
        path = clips_file(run)
        mine = shutil.copy(path, path.with_name("mine.npz"))
        arrays(change)(mine)
        with np.load(mine) as values:
            digest = TestClips(**values).digest
        mine.rename(path.with_name(f"{digest}.npz"))
        put("test_clips", to=digest)(run.folder / "provenance.json")
        seal(run)

    return make


def as_another_run(run: Run) -> None:
    """Let the run be one of fold 2, its folder's name but its own."""
    params = run.folder / "params.yaml"
    params.write_text(yaml.safe_dump(yaml.safe_load(params.read_text()) | {"fold": 2}))
    seal(run)


def with_another_branch(run: Run) -> None:
    """Do a branch again, with other scores, after the fusion run was finished."""
    root, params = run.folder.parent, run.record.params
    targets = np.arange(N_CLIPS) % N_CLASSES
    write_run(root, params, {"cqt": scores(77)}, branch="cqt", targets=targets)
    write_run(root, params, {"logmel": scores(77)}, branch="logmel", targets=targets)


def provenance(**told: object):
    return resealed("provenance.json", edited(lambda values: values.update(told)))


def metric(*keys: str | int, to: object):
    return resealed("metrics.json", put(*keys, to=to))


def history(change: Callable[[str], str]):
    return resealed("history.csv", text(change))


def score(head: str, change: Callable[[np.ndarray], object]):
    return resealed("scores.npz", one(head, change))


def with_one(value: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: np.where(np.arange(values.size).reshape(values.shape) == 4, value, values)


def single(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: change(values).astype(np.float32)


NESTED = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
BOMB = b"\0" * (MOST_BYTES // 2)
ANY_FILE = {
    "gone": (damaged, Path.unlink, "missing or changed since its run"),
    "changed": (damaged, lambda p: holding(p.read_bytes() + b" ")(p), "missing or changed"),
    "cut": (damaged, lambda p: holding(p.read_bytes()[:-9])(p), "missing or changed"),
    "a folder": (damaged, folder_instead, "missing or changed"),
    "too large": (damaged, sparse(MOST_BYTES + 1), "has more than 67,108,864 bytes"),
    "of no bytes": (resealed, holding(b""), "cannot be read"),
    "of invalid UTF-8": (resealed, holding(b"\xff\xfe\x80"), "cannot be read"),
    "nested deeply": (resealed, holding(NESTED), "cannot be read"),
    "a pickle": (resealed, lambda p: p.write_bytes(pickled(p)), "cannot be read"),
}
FAULTS = {
    f"{name} {what}": (how(name, make), (f"/{name}: {says}",))
    for name in FILES
    for what, (how, make, says) in ANY_FILE.items()
}
FAULTS |= {
    f"complete.json {what}": (damaged(COMPLETE, make), (f"/{COMPLETE}: ", says))
    for what, make, says in [
        ("a folder", folder_instead, "missing or changed"),
        ("too large", sparse(MOST_BYTES + 1), "has more than 67,108,864 bytes"),
        ("of no bytes", holding(b""), "cannot be read"),
        ("of invalid UTF-8", holding(b"\xff"), "cannot be read"),
        ("nested deeply", holding(NESTED), "cannot be read"),
        ("a list", holding(b"[1]"), "cannot be read"),
        ("of another version", put("version", to=2), "version: Input should be 1"),
        ("of no version", edited(lambda v: v.pop("version")), "version: Field required"),
        ("of no files", edited(lambda v: v.pop("files")), "files: Field required"),
        ("of no digests", put("files", "scores.npz", to=3), "files.scores.npz: "),
    ]
}
FAULTS |= {
    "complete.json of one file less": (
        damaged(COMPLETE, edited(lambda values: values["files"].pop("scores.npz"))),
        ("/scores.npz: missing or changed",),
    ),
    # Parameters
    "parameters of another run": (as_another_run, ("this is the run urban_synth-fold2-",)),
    "parameters of another dataset": (
        resealed("params.yaml", text(lambda t: t.replace("urban_synth", "urbansound8k"))),
        ("provenance.json", "dataset"),
    ),
    "a parameter of another version": (
        resealed("params.yaml", text(lambda t: t + "warmup: 3\n")),
        ("params.yaml", "unknown key 'warmup'"),
    ),
    "parameters that execute": (
        resealed("params.yaml", holding(b"seed: !!python/object/apply:os.mkdir [executed]")),
        ("params.yaml", "cannot be read"),
    ),
    "a parameter that is no date": (
        resealed("params.yaml", holding(b"seed: 2020-99-99")),
        ("params.yaml", "cannot be read"),
    ),
    "a parameter of 5000 digits": (
        resealed("params.yaml", holding(b"seed: " + b"9" * 5000)),
        ("params.yaml", "cannot be read"),
    ),
    "shortcuts that are not named": (
        resealed("params.yaml", text(lambda t: t.replace("shortcuts: []", "shortcuts: all"))),
        ("shortcuts",),
    ),
    # Provenance
    "provenance with an unknown key": (provenance(author="x"), ("author: Extra inputs",)),
    "provenance of a wrong type": (provenance(n_train="20"), ("n_train: ", "integer")),
    "provenance with a negative count": (provenance(n_dropped=-1), ("n_dropped: ",)),
    "provenance with NaN": (provenance(peak_mebibytes=float("nan")), ("peak_mebibytes: ",)),
    "provenance with an infinity": (provenance(training_seconds=1e999), ("training_seconds: ",)),
    "provenance without a key": (
        resealed("provenance.json", edited(lambda values: values.pop("data_note"))),
        ("provenance.json", "data_note: Field required"),
    ),
    "made clips called real": (provenance(data_status="real"), ("provenance.json", "status")),
    "made clips called UrbanSound8K": (provenance(dataset="UrbanSound8K"), ("dataset",)),
    "a fusion called a branch": (provenance(kind="branch"), ("provenance.json", "kind")),
    "another metric": (provenance(metric="micro_auprc"), ("test-clips", "targets")),
    "a class too many": (provenance(classes=list("abcd")), ("scores.npz", "(6, 4)")),
    "a clip too many": (provenance(n_test=7), ("test-clips", "targets")),
    "an epoch that never was": (provenance(selected_epoch={"joint": 4}), ("selected epoch",)),
    "no branches": (provenance(parents={}), ("the branches that it stands on",)),
    "branches of other runs": (
        provenance(parents={"../../x": "0" * 64, "y" * 300: "0" * 64}),
        ("the branches that it stands on",),
    ),
    "a branch that has changed since": (with_another_branch, ("the branches that it stands on",)),
    # Metrics
    "an accuracy of 97": (metric("fused", "accuracy", to=97), ("fused.accuracy", "less than")),
    "an accuracy of 0.97": (metric("fused", "accuracy", to=0.97), ("accuracy of fused is not",)),
    "an accuracy in words": (metric("fused", "accuracy", to="0.5"), ("metrics.json", "accuracy")),
    "no accuracy": (metric("fused", "accuracy", to=None), ("metrics.json", "accuracy")),
    "accuracies": (metric("fused", "accuracy", to=[0.5]), ("accuracy of fused is not",)),
    "a recall of NaN": (metric("cqt", to={"accuracy": float("nan")}), ("cqt.accuracy",)),
    "recalls of too few classes": (
        metric("fused", "per_class_recall", to=[0.5]),
        ("per_class_recall of fused is not",),
    ),
    "metrics of no names": (metric("fused", to=3), ("metrics.json", "fused")),
    "metrics of another classifier": (metric("cqt", to={}), ("it is not of logmel, gammatone, ",)),
    "an unknown metric": (metric("fused", "f1", to=0.5), ("fused has other metrics",)),
    "a threshold below 0": (metric("fused", "thresholds", 1, to=-0.1), ("greater than",)),
    "a threshold above 1": (metric("fused", "thresholds", 1, to=1.1), ("less than",)),
    "a threshold of NaN": (metric("fused", "thresholds", 1, to=float("nan")), ("thresholds",)),
    "a threshold in words": (metric("fused", "thresholds", 1, to="0.5"), ("thresholds",)),
    "a threshold too few": (metric("fused", "thresholds", to=[0.5, 0.5]), ("one per class",)),
    "a class without threshold": (metric("fused", "thresholds", 1, to=None), ("one per class",)),
    "no thresholds": (
        resealed("metrics.json", edited(lambda values: values["fused"].pop("thresholds"))),
        ("one per class",),
    ),
    # Scores
    "a score of 1.5": (score("fused", single(with_one(1.5))), ("fused has a score outside",)),
    "a score of NaN": (score("fused", single(with_one(np.nan))), ("fused has a score outside",)),
    "scores of another clip": (score("logmel", single(lambda x: x[:-1])), ("(5, 3), not float32",)),
    "scores of another shape": (score("logmel", single(lambda x: x.T)), ("(3, 6), not float32",)),
    "scores in float16": (
        score("logmel", lambda x: x.astype(np.float16)),
        ("float16 (6, 3), not",),
    ),
    "scores in the other byte order": (score("logmel", lambda x: x.astype(">f4")), (">f4",)),
    "other scores": (score("logmel", single(lambda x: x[::-1])), ("accuracy of logmel is not",)),
    "no scores of a classifier": (
        resealed("scores.npz", arrays(lambda values: values.pop("fused"))),
        ("it is not of logmel, gammatone, fused",),
    ),
    "scores of one more classifier": (
        resealed("scores.npz", arrays(lambda values: values.update(cqt=values["fused"]))),
        ("it is not of logmel, gammatone, fused",),
    ),
    "neither scores nor metrics of a classifier": (
        lambda run: (
            arrays(lambda values: values.pop("fused"))(run.folder / "scores.npz"),
            edited(lambda values: values.pop("fused"))(run.folder / "metrics.json"),
            seal(run),
        ),
        ("scores.npz", "it is not of logmel, gammatone, fused"),
    ),
    "scores that unpack to too many bytes": (
        resealed("scores.npz", headed("'<f2'", f"({2 * MOST_BYTES},)", BOMB)),
        ("it unpacks to too many bytes",),
    ),
    "scores that say they are terabytes": (
        resealed("scores.npz", headed("'<f2'", f"({2**42},)", b"\0" * 36)),
        ("scores.npz", "cannot be read"),
    ),
    "scores of a trillion empty words": (
        resealed("scores.npz", headed("'<U0'", f"({2**40},)")),
        ("not float32",),
    ),
    "scores that are pickled": (
        resealed("scores.npz", lambda path: headed("'|O'", "(6, 3)", pickled(path))(path)),
        ("scores.npz", "allow_pickle"),
    ),
    "scores of no known type": (
        resealed("scores.npz", headed("'nonsense'", "(6, 3)", b"\0" * 36)),
        ("scores.npz", "cannot be read"),
    ),
    "scores that are no arrays": (
        resealed("scores.npz", entries(b"half")),
        ("scores.npz", "cannot be read"),
    ),
    "scores under a password": (resealed("scores.npz", encrypted), ("encrypted",)),
    # History
    "a history with text": (history(lambda t: t.replace("0.5", "x")), ("history.csv", "'x'")),
    "a history with NaN": (history(lambda t: t.replace("0.5", "nan")), ("finite numbers",)),
    "a history with an infinity": (history(lambda t: t.replace("0.5", "inf")), ("finite",)),
    "a history with a gap": (history(lambda t: t.replace("0.5", "")), ("finite numbers",)),
    "epochs out of order": (
        history(lambda t: "".join(np.array(t.splitlines(keepends=True))[[0, 2, 1, 3]])),
        ("its epochs are not 1 to 3",),
    ),
    "an epoch too few": (history(lambda t: t[: t.index("3,")]), ("its epochs are not 1 to 3",)),
    "a history of no epochs": (history(lambda t: t.replace("epoch", "era")), ("'epoch'",)),
    # Test clips
    "no test clips": (lambda run: clips_file(run).unlink(), ("test-clips/", "missing")),
    "test clips cut": (lambda run: truncated(clips_file(run)), ("test-clips/", "cannot be read")),
    "test clips changed": (
        lambda run: one("targets", lambda x: x[::-1])(clips_file(run)),
        ("test-clips/", "changed since"),
    ),
    "test clips without names": (
        lambda run: arrays(lambda values: values.pop("clips"))(clips_file(run)),
        ("test-clips/", "cannot be read"),
    ),
    "test clips too large": (
        lambda run: sparse(MOST_BYTES + 1)(clips_file(run)),
        ("has more than 67,108,864 bytes",),
    ),
    "a target that is no class": (
        other_clips(lambda values: values.update(targets=values["targets"] + 1)),
        ("test-clips/", "its targets are no classes"),
    ),
    "targets that are no whole numbers": (
        other_clips(lambda values: values.update(targets=values["targets"] / 2)),
        ("test-clips/", "another shape or type"),
    ),
    "recordings of fewer clips": (
        other_clips(lambda values: values.update(groups=values["groups"][:-1])),
        ("test-clips/", "no names"),
    ),
    "clips that are called numbers": (
        other_clips(lambda values: values.update(clips=np.arange(N_CLIPS))),
        ("test-clips/", "no names"),
    ),
}
# What damages more than the run itself.
SHARED = [name for name in FAULTS if "test clips" in name or "branch that has changed" in name]


@table(FAULTS)
def test_a_damaged_run_is_named_and_no_other_is_lost(run, tmp_path, make, says, request):
    make(run)
    records, faults = find_records(run.folder.parent)
    of_the_run = [sentence for sentence in faults if f"/{run.name}" in sentence]
    (sentence,) = of_the_run
    check(sentence, "delete ", *says)
    if request.node.callspec.id not in SHARED:
        assert faults == of_the_run
        assert len(records) == 2
    assert {record.name for record in records} < {f.name for f in run.folder.parent.iterdir()}
    collect(records)
    assert_nothing_was_executed(tmp_path)


def test_a_copy_under_another_name_is_named_and_the_run_itself_is_there(run):
    root = run.folder.parent
    shutil.copytree(run.folder, root / "copy")
    records, faults = find_records(root)
    assert len(records) == 3
    assert faults == [f"{root}/copy: this is the run {run.name} under another name: delete it"]


# What a whole record says


def test_a_record_proves_itself(whole):
    record = whole.record
    assert tuple(record.scores) == tuple(record.metrics) == HEADS
    for head, values in record.scores.items():
        assert values.dtype == np.float32
        metrics = dict(record.metrics[head])
        assert metrics.pop("thresholds") == [0.5] * N_CLASSES
        right = values.argmax(axis=1) == record.test.targets
        assert metrics == {
            "accuracy": right.mean(),
            "per_class_recall": right.reshape(-1, N_CLASSES).mean(axis=0).tolist(),
        }


@pytest.mark.parametrize("folder", ["reference", "reference/tuning"])
def test_every_committed_record_proves_itself(folder):
    records, faults = find_records(Path(__file__).parents[1] / "outputs" / folder)
    assert records
    assert faults == []


def test_a_second_run_of_a_fold_does_not_store_the_names_of_its_clips_again(tmp_path):
    n, sizes = 1000, []
    for seed in range(3):
        params = make_params({"representations": ["logmel"], "epochs": 1, "seed": seed})
        write_run(tmp_path, params, {"logmel": scores(seed, n=n)}, branch="logmel")
        sizes.append(sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()))
    assert len(list((tmp_path / TEST_CLIPS).iterdir())) == 1
    # Three scores of four bytes per clip, and some text, such as the names of 80 parameters.
    assert sizes[2] - sizes[1] == pytest.approx(sizes[1] - sizes[0], abs=100)
    assert sizes[1] - sizes[0] < n * N_CLASSES * 4 + 3000 < sizes[0]


def test_a_run_that_is_done_again_mends_the_test_clips_that_it_shares(run):
    record, path = run.record, clips_file(run)
    path.write_bytes(b"")
    record.test.write(run.folder.parent)
    records, faults = find_records(run.folder.parent)
    assert (len(records), faults) == (3, [])


def test_a_copy_is_a_record_without_weights_and_notebook(run, tmp_path):
    (run.folder / "notebook.ipynb").touch()
    copies = tmp_path / "copies"
    for record in find_records(run.folder.parent)[0]:
        copy_record(record, copies)
    records, faults = find_records(copies)
    assert (len(records), faults) == (3, [])
    assert {path.name for path in (copies / run.name).iterdir()} == {*FILES, COMPLETE}
    shutil.rmtree(next(path for path in copies.iterdir() if "-logmel-" in path.name))
    records, faults = find_records(copies)  # a fusion run without one of its branches
    assert (len(records), faults) == (2, [])


def test_weights_may_be_larger_than_what_else_a_run_leaves(run):
    path = run.folder / "fused.safetensors"
    save_file({"weight": torch.zeros(MOST_BYTES // 4 + 1)}, path)
    complete = json.loads((run.folder / COMPLETE).read_text())
    complete["files"][path.name] = file_digest(path)
    write_json(run.folder / COMPLETE, complete)
    assert len(run.record.weights("fused")["weight"]) == MOST_BYTES // 4 + 1


def test_a_folder_without_runs_has_no_records(tmp_path):
    assert find_records(tmp_path) == find_records(tmp_path / "nowhere") == ([], [])


# What nobody thought of

VALUES = (
    None,
    True,
    -1,
    0.5,
    2,
    10**400,
    float("nan"),
    "0.5",
    "a\nb" * 99,
    [],
    [[0.5]],
    {},
    {"a": 1},
)


def places(value: object) -> list[tuple]:
    """Return where values stand in plain data, as keys from the outside in."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    found = [(key, x) for key, x in inside]
    deeper = [(key, *keys) for key, x in found if isinstance(x, dict | list) for keys in places(x)]
    return [*((key,) for key, _ in found), *deeper]


def in_json(path: Path, generator: random.Random) -> None:
    keys = generator.choice(places(json.loads(path.read_text())))
    put(*keys, to=generator.choice(VALUES))(path)


def in_bytes(path: Path, generator: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(generator.choice([1, 1, 3])):
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    path.write_bytes(content)


@pytest.mark.parametrize("name", [*FILES, COMPLETE])
def test_whatever_becomes_of_a_file_it_is_refused_in_a_sentence_or_its_metrics_are_true(run, name):
    generator, path = random.Random(0), run.folder / name
    before = {path: path.read_bytes() for path in (path, run.folder / COMPLETE)}
    for change in [in_bytes] * 8 + [in_json] * 20 * name.endswith(".json"):
        change(path, generator)
        if name != COMPLETE:
            seal(run)
        records, faults = find_records(run.folder.parent)
        assert len(records) + len(faults) == 3
        for sentence in faults:
            check(sentence, str(run.folder), "delete")
        for record in records:
            for head, values in record.scores.items():
                right = values.argmax(axis=1) == record.test.targets
                assert record.score(head) == pytest.approx(right.mean(), abs=1e-9)
        json.dumps([table.to_dict() for table in collect(records)], allow_nan=False)
        for changed, content in before.items():
            changed.write_bytes(content)
