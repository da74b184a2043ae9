"""Batches: every store and run once, branches before pairs, a failure stops what needs it alone."""

import errno
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from distributed import KilledWorker
from nbclient.exceptions import DeadKernelError

from fusionkd_lib import batch, chapters, graph
from fusionkd_lib.errors import InputError
from fusionkd_lib.graph import Graph, Node, plan, unfinished
from fusionkd_lib.params import Params, make_params
from fusionkd_lib.runs import COMPLETE, NOTEBOOK, STOP_FILE

PAIRS = [["logmel", "gammatone"], ["logmel", "cqt"], ["gammatone", "cqt"]]


@pytest.fixture
def pairs(tiny) -> list[Params]:
    return [tiny(representations=pair) for pair in PAIRS]


def kinds(nodes: Graph) -> Counter:
    return Counter(node.kind for node in nodes.values())


def finish(node: Node) -> None:
    """Leave behind what a finished run leaves."""
    node.run.folder.mkdir(parents=True, exist_ok=True)
    (node.run.folder / COMPLETE).write_text("{}")
    (node.run.folder / NOTEBOOK).write_text("{}")


# The plan


def test_three_pairs_are_one_store_three_branches_and_three_fusions(pairs):
    nodes = plan(pairs)
    assert kinds(nodes) == {"store": 1, "branch": 3, "fusion": 3}
    branches = {node.branch for node in nodes.values() if node.kind == "branch"}
    assert branches == {"logmel", "gammatone", "cqt"}
    (store,) = (node for node in nodes.values() if node.kind == "store")
    assert set(store.params.representations) == {"logmel", "gammatone", "cqt"}


def test_every_node_comes_after_those_that_it_needs(pairs):
    nodes = plan([*pairs, *(params.replace(seed=1) for params in pairs)])
    assert kinds(nodes) == {"store": 1, "branch": 6, "fusion": 6}
    order = list(nodes)
    for name, node in nodes.items():
        assert node.name == name
        assert all(order.index(need) < order.index(name) for need in node.needs)
        kind_before = {"store": None, "branch": "store", "fusion": "branch"}[node.kind]
        assert {nodes[need].kind for need in node.needs} == ({kind_before} - {None})
        if node.kind == "fusion":
            branches = [nodes[need].branch for need in node.needs]
            assert branches == list(node.params.representations)
            assert {nodes[need].params.seed for need in node.needs} == {node.params.seed}


def test_the_same_parameters_twice_are_the_same_nodes(pairs):
    assert plan(pairs * 2) == plan(pairs)


def test_a_single_representation_is_a_branch_and_no_pair(tiny):
    assert kinds(plan([tiny(representations=["cqt"])])) == {"store": 1, "branch": 1}


def test_other_sounds_are_another_store(tiny):
    settings = [tiny(), tiny(data_seed=1), tiny(n_mels=20), tiny(lr=0.5)]
    assert kinds(plan(settings)) == {
        "store": 3,
        "branch": 7,
        "fusion": 4,
    }  # n_mels is not the gammatone's


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            {"cqt_bins": 84, "representations": ["logmel", "cqt"]},
            "cqt_bins=84 .* above the Nyquist",
        ),
        ({"fmax": 5000.0}, r"fmax=5000 must .* Nyquist frequency 4000 Hz"),
        ({"fmin": 3000.0, "fmax": 2000.0}, "fmin=3000 must lie in"),
    ],
)
def test_what_could_not_even_begin_is_refused_before_anything_runs(tiny, change, fault):
    with pytest.raises(InputError, match=fault):
        plan([tiny(), tiny(**change)])


# What is left to do


def test_what_is_done_is_not_planned_again_and_a_store_only_where_it_is_needed(pairs):
    nodes = plan(pairs)
    assert unfinished(nodes).keys() == nodes.keys()
    done = [name for name, node in nodes.items() if node.branch in ("logmel", "gammatone")]
    for name in done:
        finish(nodes[name])
    assert unfinished(nodes).keys() == nodes.keys() - done
    (last,) = (name for name, node in nodes.items() if node.branch == "cqt")
    finish(nodes[last])
    assert kinds(unfinished(nodes)) == {"fusion": 3}  # their branches' stores are there
    for node in nodes.values():
        if node.kind == "fusion":
            finish(node)
    assert unfinished(nodes) == {}


@pytest.mark.parametrize("missing", [COMPLETE, NOTEBOOK])
def test_a_run_is_done_only_with_its_records_and_its_notebook(tiny, missing):
    nodes = plan([tiny(representations=["logmel"])])
    (node,) = (node for node in nodes.values() if node.kind == "branch")
    finish(node)
    assert node.is_done
    (node.run.folder / missing).unlink()
    assert not node.is_done


def test_forgotten_runs_are_done_again(pairs):
    nodes = plan(pairs)
    for node in nodes.values():
        if node.kind != "store":
            finish(node)
    assert unfinished(nodes) == {}
    batch.forget(nodes)
    assert unfinished(nodes).keys() == nodes.keys()


def test_a_description_tells_what_is_done_what_runs_and_what_is_shared(pairs):
    nodes = plan(pairs)
    done, other = [name for name, node in nodes.items() if node.kind == "branch"][:2]
    finish(nodes[done])
    header, *lines = graph.describe(nodes, []).splitlines()
    assert header.startswith("7 nodes, 6 to run")
    assert f"  done      {done}, shared by 2 runs" in lines
    assert f"  will run  {other}, shared by 2 runs" in lines
    assert len(lines) == 7


def test_the_time_of_a_run_is_estimated_from_the_fastest_like_one(tiny):
    nodes = plan([tiny(epochs=5, joint_epochs=3)])
    branch, *_, fusion = (node for node in nodes.values() if node.kind != "store")

    def past(kind: str, seconds: float, n_epochs: int, **change: object) -> SimpleNamespace:
        return SimpleNamespace(
            provenance={"kind": kind, "training_seconds": seconds},
            history=[None] * n_epochs,
            params=tiny(epochs=2, **change),
        )

    runs = [
        past("branch", 8.0, 2),  # four seconds an epoch
        past("branch", 6.0, 2),
        past("branch", 1.0, 2, width=0.5),
        past("fusion", 14.0, 2),
    ]
    assert graph.estimate_seconds(branch, runs) == 5 * 3.0
    assert graph.estimate_seconds(fusion, runs) == 3 * 7.0
    assert graph.estimate_seconds(fusion, runs[:3]) is None


def test_what_is_stored_on_the_gpu_counts_too():
    whole = make_params({"dataset": "urbansound8k"})
    stored = whole.replace(store_on_device=True)
    halved = stored.replace(store_dtype="float16")
    alone, *others = (graph.device_bytes(plan([params])) for params in (whole, stored, halved))
    n_values = 8732 * (128 + 128) * 345
    assert [other - alone for other in others] == [4 * n_values, 2 * n_values]
    synthetic = make_params({"store_on_device": True, "clips_per_class": 3})
    assert graph.device_bytes(plan([synthetic])) - alone == 3 * 10 * 5 * 256 * 345 * 4


@pytest.mark.parametrize(("gigabytes", "workers"), [(0, 8), (9, 8), (20, 4), (50, 1), (100, 1)])
def test_so_many_runs_share_a_gpu_as_it_has_room_for(monkeypatch, gigabytes, workers):
    monkeypatch.setattr(batch.os, "cpu_count", lambda: 16)
    monkeypatch.setattr(batch.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(batch.torch.cuda, "mem_get_info", lambda: (80 * 10**9, 81 * 10**9))
    need = gigabytes * 10**9
    assert batch.workers_that_fit(threads=2, device_bytes=need) == workers
    monkeypatch.setattr(batch.torch.cuda, "is_available", lambda: False)
    assert batch.workers_that_fit(threads=2, device_bytes=need) == 8


# Execution, without Dask: every piece of work is done where it is submitted


class Done:
    """A future that has finished."""

    def __init__(self, value: object) -> None:
        self.value = value

    def result(self) -> object:
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


class HereAndNow:
    """A client whose one worker is this process."""

    def scheduler_info(self, n_workers: int) -> dict:
        return {"workers": {}}

    def submit(self, function, node, parents, environment, *, key, resources) -> Done:
        known = [p.result() if isinstance(p, Done) else p for p in parents]
        return Done(function(node, known, environment))


@pytest.fixture
def executed(monkeypatch, tmp_path) -> list[str]:
    """Have runs finish without training; return the names of what was executed."""
    names: list[str] = []

    def execute(node: Node) -> None:
        names.append(node.name)
        finish(node)

    monkeypatch.setattr(batch, "execute", execute)
    monkeypatch.setattr(
        batch, "load_spectrograms", lambda clips, params, root: names.append("store")
    )
    # A worker takes over the environment of the command that it works for.
    monkeypatch.setenv(STOP_FILE, str(tmp_path / "stop"))
    return names


def outcomes(nodes: Graph) -> dict[str, batch.Outcome]:
    futures, known = batch.submit(nodes, HereAndNow())
    return known | {name: batch.outcome_of(name, future) for name, future in futures.items()}


def test_three_pairs_are_six_trainings_and_none_the_second_time(pairs, executed):
    nodes = plan(pairs)
    assert {outcome.status for outcome in outcomes(nodes).values()} == {"done"}
    assert executed.count("store") == 1
    assert len(executed) == len(set(executed)) == 7
    executed.clear()
    assert {(o.status, o.message) for o in outcomes(nodes).values()} == {
        ("done", "before"),
    }
    assert executed == []


def test_a_failure_stops_what_needs_it_and_nothing_else(pairs, executed, monkeypatch):
    nodes, succeed = plan(pairs), batch.execute

    def fail_with_cqt(node: Node) -> None:
        if node.branch == "cqt":
            raise InputError("cell 7 of notebook.ipynb: InputError: training diverged")
        succeed(node)

    monkeypatch.setattr(batch, "execute", fail_with_cqt)
    found = {}
    for name, outcome in outcomes(nodes).items():
        node = nodes[name]
        what = node.branch or "+".join(node.params.representations)
        found["store" if node.kind == "store" else what] = (outcome.status, outcome.message)
    (cqt,) = (name for name, node in nodes.items() if node.branch == "cqt")
    skipped = ("skipped", f"needs {cqt}")
    assert found == {
        "store": ("done", ""),
        "logmel": ("done", ""),
        "gammatone": ("done", ""),
        "cqt": ("failed", "cell 7 of notebook.ipynb: InputError: training diverged"),
        "logmel+gammatone": ("done", ""),
        "logmel+cqt": skipped,
        "gammatone+cqt": skipped,
    }
    executed.clear()
    monkeypatch.setattr(batch, "execute", succeed)  # the same command goes on with these alone
    assert {outcome.status for outcome in outcomes(nodes).values()} == {"done"}
    assert len(executed) == 1 + 3


def test_a_store_that_cannot_be_filled_stops_its_runs(tiny, executed):
    nodes = plan([tiny(dataset="urbansound8k", data_root="nowhere", representations=["logmel"])])
    store, run = outcomes(nodes).values()
    assert (store.status, run.status) == ("failed", "skipped")
    assert "nowhere" in store.message
    assert executed == []


def test_a_full_disk_fails_its_run_with_the_way_out(tiny, executed, monkeypatch):
    def full(node: Node) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "history.csv")

    monkeypatch.setattr(batch, "execute", full)
    *_, outcome = outcomes(plan([tiny(representations=["logmel"])])).values()
    assert outcome.status == "failed"
    assert "No space left on device: 'history.csv': free space" in outcome.message


def test_a_stop_is_no_failure(pairs, executed, tmp_path):
    (tmp_path / "stop").touch()
    statuses = [outcome.status for outcome in outcomes(plan(pairs)).values()]
    assert statuses == ["stopped", *["skipped"] * 6]
    assert executed == []


@pytest.mark.parametrize(("deaths", "status"), [(2, "done"), (3, "failed")])
def test_a_kernel_that_dies_is_started_again_twice(tiny, executed, monkeypatch, deaths, status):
    nodes, left = plan([tiny(representations=["logmel"])]), [DeadKernelError("died")] * deaths
    succeed = batch.execute

    def die(node: Node) -> None:
        if left:
            raise left.pop()
        succeed(node)

    monkeypatch.setattr(batch, "execute", die)
    *_, outcome = outcomes(nodes).values()
    assert outcome.status == status
    assert ("its kernel died 3 times: is memory too small" in outcome.message) == (deaths == 3)


def test_a_lost_worker_and_an_error_of_ours_are_told_as_outcomes():
    lost = KilledWorker("task", SimpleNamespace(address="tcp://elsewhere"), 3)
    outcome = batch.outcome_of("run", Done(lost))
    assert (outcome.status, outcome.name) == ("failed", "run")
    assert "died of it several times: is memory too small" in outcome.message
    outcome = batch.outcome_of("run", Done(KeyError("fold")))
    assert (outcome.status, outcome.message) == ("failed", "KeyError: 'fold'")


# Notebooks


@pytest.mark.parametrize("change", [{}, {"fusion": "conv", "threads": 3, "tap": -2, "fmax": 3e3}])
def test_a_chapter_runs_with_exactly_the_nodes_parameters(tiny, monkeypatch, change):
    injected: dict[str, dict] = {}

    def record(notebook, path, *, parameters):
        cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
        namespace: dict[str, object] = {}
        exec(cell.source, namespace)
        namespace.pop("__builtins__")
        injected[path.parent.name] = make_params(namespace | parameters)
        path.write_text("{}")

    monkeypatch.setattr(chapters, "execute", record)
    nodes = plan([tiny(**change)])
    runs = {name: node for name, node in nodes.items() if node.kind != "store"}
    for node in runs.values():
        batch.execute(node)
        assert (node.run.folder / NOTEBOOK).exists()
        assert not (node.run.folder / f"partial-{NOTEBOOK}").exists()
    assert injected == {name: node.params for name, node in runs.items()}


def notebook_of(*sources: str) -> nbformat.NotebookNode:
    """Return a notebook of these cells, with the header of a chapter."""
    notebook = chapters.read("03_branch_pretraining")
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    return notebook


def test_a_cell_that_fails_is_named_with_its_notebook(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = notebook_of("x = 1", "raise ValueError('lr = 3 is wrong')", "y = 2")
    path = tmp_path / "notebook.ipynb"
    with pytest.raises(InputError, match=rf"cell 2 of {re.escape(str(path))}: ValueError: lr = 3"):
        chapters.execute(notebook, path)
    assert list(tmp_path.iterdir()) == [path]  # to look at what happened; and no sockets


def test_kernels_that_start_at_the_same_time_speak_through_sockets_of_their_own(
    tmp_path, monkeypatch
):
    folders = []

    def record(notebook, path, *, parameters, progress_bar, config):
        assert config.KernelManager.transport == "ipc"
        folders.append(Path(config.KernelManager.ip).parent)
        assert folders[-1].is_dir()
        if len(folders) < 3:  # while this one runs, another one begins
            chapters.execute(notebook, path)

    monkeypatch.setattr(chapters.papermill, "execute_notebook", record)
    chapters.execute(notebook_of("x = 1"), tmp_path / "notebook.ipynb")
    assert len(set(folders)) == 3
    assert not any(folder.exists() for folder in folders)


def test_chapters_become_notebooks_that_papermill_can_fill(tmp_path):
    paths = chapters.write_notebooks(tmp_path)
    sources = sorted((Path(__file__).parents[1] / "book").glob("*.py"))
    assert [path.stem for path in paths] == [source.stem for source in sources]
    for name in batch.CHAPTERS.values():
        notebook = nbformat.read(tmp_path / f"{name}.ipynb", as_version=4)
        tags = [tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])]
        assert tags.count("parameters") == 1
        assert notebook.metadata["kernelspec"]["language"] == "python"
