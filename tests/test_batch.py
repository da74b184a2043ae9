"""Batches: every store and run once, branches before pairs, a failure stops what needs it alone."""

import errno
import os
import threading
from collections import Counter
from types import SimpleNamespace

import pytest
from distributed import KilledWorker
from nbclient.exceptions import DeadKernelError

from fusionkd_lib.catalogue import BASELINES
from fusionkd_lib.engine import batch, clusters, graph, notebooks
from fusionkd_lib.engine.graph import Graph, Node, plan, unfinished
from fusionkd_lib.errors import InputError, Stopped
from fusionkd_lib.params import Params, make_params
from fusionkd_lib.runs import COMPLETE, NOTEBOOK, STOP_FILE, outputs_root, run_name

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


def test_three_pairs_are_one_store_three_branches_and_three_fusions_with_baselines(pairs):
    nodes = plan(pairs)
    assert kinds(nodes) == {"store": 1, "branch": 3, "fusion": 3, "baselines": 3}
    branches = {node.branch for node in nodes.values() if node.kind == "branch"}
    assert branches == {"logmel", "gammatone", "cqt"}
    (store,) = (node for node in nodes.values() if node.kind == "store")
    assert set(store.params.representations) == {"logmel", "gammatone", "cqt"}


def test_every_node_comes_after_those_that_it_needs(pairs):
    nodes = plan([*pairs, *(params.replace(seed=1) for params in pairs)])
    assert kinds(nodes) == {"store": 1, "branch": 6, "fusion": 6, "baselines": 3}
    order = list(nodes)
    for name, node in nodes.items():
        assert node.name == name
        assert all(order.index(need) < order.index(name) for need in node.needs)
        before = {"store": None, "branch": "store", "baselines": "store", "fusion": "branch"}
        kind_before = before[node.kind]
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
    # The number of mel bands is no matter of the gammatone, nor the learning rate of baselines.
    assert kinds(plan(settings)) == {"store": 3, "branch": 7, "fusion": 4, "baselines": 3}


def test_a_pair_that_is_judged_on_validation_clips_has_no_baselines(tiny):
    params = tiny(judged_on="validation", validation="grouped", select="last")
    assert kinds(plan([params])) == {"store": 1, "branch": 2, "fusion": 1}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            {"cqt_bins": 84, "representations": ["logmel", "cqt"]},
            "cqt_bins=84: .* above the Nyquist",
        ),
        ({"fmax": 5000.0}, r"fmax=5000: must .* 4000 Hz, the Nyquist frequency"),
        ({"fmin": 3000.0, "fmax": 2000.0}, "fmin=3000 and fmax=2000: must"),
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
    assert kinds(unfinished(nodes)) == {"store": 1, "fusion": 3, "baselines": 3}
    for node in nodes.values():
        if node.kind == "baselines":
            finish(node)
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
    graph.forget(nodes)
    assert unfinished(nodes).keys() == nodes.keys()


@pytest.mark.parametrize("who", ["the command that executes it", "its training"])
def test_a_run_is_not_forgotten_under_a_command_that_is_at_it(tiny, capsys, who):
    *_, node = plan([tiny(representations=["logmel"])]).values()
    finish(node)
    forgetting = threading.Thread(target=graph.forget, args=({node.name: node},))
    with node.notebook_held() if who == "the command that executes it" else node.run.held():
        forgetting.start()
        forgetting.join(timeout=0.3)
        assert node.is_done
    forgetting.join()
    assert not node.run.folder.exists()
    assert f": waiting for process {os.getpid()} on " in capsys.readouterr().out


def test_a_description_tells_what_is_done_what_runs_and_what_is_shared(pairs):
    nodes = plan(pairs)
    done, other = [name for name, node in nodes.items() if node.kind == "branch"][:2]
    finish(nodes[done])
    header, *lines = graph.describe(nodes, []).splitlines()
    assert header.startswith("10 nodes, 9 to run")
    assert f"  done      {done}, shared by 2 runs" in lines
    assert f"  will run  {other}, shared by 2 runs" in lines
    assert len(lines) == 10


def test_the_time_of_a_run_is_estimated_from_the_fastest_like_one(tiny):
    nodes = plan([tiny(epochs=5, joint_epochs=3)])
    branch, _, fusion = (node for node in nodes.values() if node.kind in graph.CHAPTERS)

    def past(kind: str, seconds: float, n_epochs: int, **change: object) -> SimpleNamespace:
        return SimpleNamespace(
            provenance=SimpleNamespace(kind=kind, training_seconds=seconds),
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


@pytest.mark.parametrize(
    ("gpu", "device", "threads", "workers"),
    [
        (False, "auto", [2], 8),
        (False, "auto", [4, 2], 8),
        (False, "auto", [32], 1),
        (True, "auto", [2], 1),
        (True, "cpu", [2], 8),
    ],
)
def test_as_many_runs_at_once_as_sixteen_cores_or_one_gpu_allow(
    tiny, monkeypatch, gpu, device, threads, workers
):
    monkeypatch.setattr(clusters.os, "cpu_count", lambda: 16)
    monkeypatch.setattr(clusters.torch.cuda, "is_available", lambda: gpu)
    nodes = plan([tiny(device=device, threads=number) for number in threads])
    assert clusters.default_workers(nodes) == workers


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

    cluster = "inside this process"

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

    def score(params: Params) -> None:
        execute(Node(run_name(params, branch=BASELINES), BASELINES, params, branch=BASELINES))

    monkeypatch.setattr(batch, "execute", execute)
    monkeypatch.setattr(batch, "score_baselines", score)
    monkeypatch.setattr(batch, "spectrograms_of", lambda params, clips: names.append("store"))
    monkeypatch.setenv(STOP_FILE, str(tmp_path / "stop"))
    return names


def outcomes(nodes: Graph) -> dict[str, batch.Outcome]:
    futures, known = batch.submit(nodes, HereAndNow())
    return known | {name: batch.outcome_of(name, future) for name, future in futures.items()}


def test_three_pairs_are_six_trainings_and_none_the_second_time(pairs, executed):
    nodes = plan(pairs)
    assert {outcome.status for outcome in outcomes(nodes).values()} == {"done"}
    assert executed.count("store") == 1
    assert len(executed) == len(set(executed)) == 10
    executed.clear()
    assert {(o.status, o.message) for o in outcomes(nodes).values()} == {("done", "before")}
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
        pair = "+".join(node.params.representations)
        what = f"{node.kind} of {pair}" if node.kind == "baselines" else node.branch or pair
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
        "baselines of logmel+gammatone": ("done", ""),
        "baselines of logmel+cqt": ("done", ""),
        "baselines of gammatone+cqt": ("done", ""),
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


def test_a_worker_elsewhere_takes_over_where_the_command_was_given(tiny, executed, monkeypatch):
    given = {"FUSIONKD_OUTPUTS": str(outputs_root()), STOP_FILE: os.environ[STOP_FILE]}
    nodes, sent = plan([tiny(representations=["logmel"])]), []
    monkeypatch.setattr(batch, "run_node", lambda node, parents, given: sent.append(given))
    for cluster in ("inside this process", None):
        monkeypatch.setattr(HereAndNow, "cluster", cluster)
        batch.submit(nodes, HereAndNow())
    assert sent == [{}, {}, given, given]
    monkeypatch.undo()
    monkeypatch.setenv(STOP_FILE, "another command's")
    batch.run_node(next(iter(nodes.values())), [batch.Outcome("parent", "done")], given)
    assert os.environ[STOP_FILE] == given[STOP_FILE]


def test_runs_ask_a_cluster_that_has_gpus_for_one_and_stores_do_not(tiny, executed, monkeypatch):
    asked, has = [], {"workers": {"one": {"resources": {"gpu": 1}}, "other": {}}}
    monkeypatch.setattr(HereAndNow, "scheduler_info", lambda client, n_workers: has)

    def submit(client: HereAndNow, *work: object, key: str, resources: dict | None) -> Done:
        asked.append(resources)
        return Done(key)

    monkeypatch.setattr(HereAndNow, "submit", submit)
    for device in ("auto", "cpu"):
        batch.submit(plan([tiny(representations=["logmel"], device=device)]), HereAndNow())
    assert asked == [None, {"gpu": 1}, None, None]


def test_a_cell_that_a_person_stopped_is_no_failure(tiny, executed, monkeypatch):
    def stop(node: Node) -> None:
        raise Stopped("stopped after epoch 3")

    monkeypatch.setattr(batch, "execute", stop)
    statuses = [o.status for o in outcomes(plan([tiny()])).values()]
    assert statuses == ["done", "stopped", "stopped", "skipped", "done"]


def test_a_kernel_that_was_killed_to_stop_is_not_started_again(
    tiny, executed, monkeypatch, tmp_path
):
    def die(node: Node) -> None:
        executed.append(node.name)
        (tmp_path / "stop").touch()
        raise DeadKernelError("killed")

    monkeypatch.setattr(batch, "execute", die)
    *_, outcome = outcomes(plan([tiny(representations=["logmel"])])).values()
    assert (outcome.status, executed) == ("stopped", ["store", outcome.name])


def test_a_stop_is_no_failure(pairs, executed, tmp_path):
    (tmp_path / "stop").touch()
    statuses = [outcome.status for outcome in outcomes(plan(pairs)).values()]
    assert statuses == ["stopped", *["skipped"] * 9]
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
    assert ("its kernel died 3 times, most often for want" in outcome.message) == (deaths == 3)


def test_a_lost_worker_and_an_error_of_ours_are_told_as_outcomes():
    lost = KilledWorker("task", SimpleNamespace(address="tcp://elsewhere"), 3)
    outcome = batch.outcome_of("run", Done(lost))
    assert (outcome.status, outcome.name) == ("failed", "run")
    assert "it killed several workers, most often for want of memory: set micro" in outcome.message
    outcome = batch.outcome_of("run", Done(KeyError("fold")))
    assert (outcome.status, outcome.message) == ("failed", "KeyError: 'fold'")


@pytest.mark.parametrize("change", [{}, {"fusion": "conv", "threads": 3, "tap": -2, "fmax": 3e3}])
def test_a_chapter_runs_with_exactly_the_nodes_parameters(tiny, monkeypatch, change):
    injected: dict[str, dict] = {}

    def record(notebook, path, *, parameters, environment):
        cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
        namespace: dict[str, object] = {}
        exec(cell.source, namespace)
        namespace.pop("__builtins__")
        assert environment["OMP_NUM_THREADS"] == str(parameters["threads"])
        injected[path.parent.name] = make_params(namespace | parameters)
        path.write_text("{}")

    monkeypatch.setattr(notebooks, "execute", record)
    nodes = plan([tiny(**change)])
    runs = {name: node for name, node in nodes.items() if node.kind in graph.CHAPTERS}
    for node in runs.values():
        batch.execute(node)
        assert (node.run.folder / NOTEBOOK).exists()
        assert not (node.run.folder / f"partial-{NOTEBOOK}").exists()
    assert injected == {name: node.params for name, node in runs.items()}
