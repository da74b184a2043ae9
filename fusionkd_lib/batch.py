"""Many runs: the graph executed on Dask distributed, every run as a notebook by papermill.

A node's outcome is a value, not an exception: a run that failed stops what needs it and nothing
else. What can heal, a lost worker, Dask starts again; the run goes on from its last epoch.
"""

import ast
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import torch
from distributed import Client, Future, KilledWorker, LocalCluster, WorkerPlugin
from nbclient.exceptions import DeadKernelError

from fusionkd_lib import chapters
from fusionkd_lib.errors import InputError
from fusionkd_lib.experiment import open_clips
from fusionkd_lib.features import load_spectrograms
from fusionkd_lib.graph import Graph, Node, unfinished
from fusionkd_lib.params import Params
from fusionkd_lib.runs import NOTEBOOK, STOP_FILE, held, outputs_root

CHAPTERS = {"branch": "03_branch_pretraining", "fusion": "04_fusion_and_distillation"}
# What a worker, perhaps on another machine, must know of the place that the command was given in.
ENVIRONMENT = ("FUSIONKD_DATA", "FUSIONKD_OUTPUTS", STOP_FILE)
GPU = "gpu"


@dataclass(frozen=True)
class Outcome:
    """What became of a node: ``done``, ``failed``, ``skipped`` or ``stopped``, and why."""

    name: str
    status: str
    message: str = ""
    seconds: float = 0.0


def run_node(node: Node, parents: Sequence[Outcome], environment: Mapping[str, str]) -> Outcome:
    """Do one piece of work, in whatever process Dask has chosen for it."""
    lacking = [parent.name for parent in parents if parent.status != "done"]
    if lacking:
        return Outcome(node.name, "skipped", f"needs {lacking[0]}")
    os.environ.update(environment)
    if Path(os.environ[STOP_FILE]).exists():
        return Outcome(node.name, "stopped")
    started = time.perf_counter()
    try:
        if node.kind == "store":
            load_spectrograms(open_clips(node.params), node.params, outputs_root() / "features")
        else:
            _execute_again_if_the_kernel_dies(node)
    except InputError as error:
        stopped = Path(os.environ[STOP_FILE]).exists()
        return Outcome(node.name, "stopped" if stopped else "failed", str(error))
    except OSError as error:  # a full disk, a folder that may not be written
        return Outcome(node.name, "failed", f"{error}: free space, or see to the folder's rights")
    return Outcome(node.name, "done", seconds=time.perf_counter() - started)


def _execute_again_if_the_kernel_dies(node: Node, *, tries: int = 3) -> None:
    # A lost kernel heals, as a lost worker does: the run goes on from its last epoch. What a cell
    # raises, a bad parameter or a divergence, would only be raised again.
    for left in reversed(range(tries)):
        try:
            return execute(node)
        except DeadKernelError:
            if not left:
                raise InputError(
                    f"{node.name}: its kernel died {tries} times: is memory too small?"
                ) from None


def execute(node: Node) -> None:
    """Have papermill execute the run's chapter; the notebook gets its name when it is through."""
    folder = node.run.folder
    folder.mkdir(parents=True, exist_ok=True)
    # Of two commands that want the same run, the second one finds it done.
    with held(folder.parent / ".locks" / f"{node.name}.notebook"):
        if node.is_done:
            return
        notebook = chapters.read(CHAPTERS[node.kind])
        partial = folder / f"partial-{NOTEBOOK}"
        chapters.execute(notebook, partial, parameters=_injected(node.params, notebook))
        partial.replace(folder / NOTEBOOK)


def _injected(params: Params, notebook: nbformat.NotebookNode) -> dict[str, Any]:
    """Return what the chapter sets itself, and what is not the library's default."""
    source = next(c.source for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    own = {target.id for statement in ast.parse(source).body for target in statement.targets}
    every = params.model_dump(mode="json")
    changed = params.model_dump(mode="json", exclude_defaults=True)
    return {key: value for key, value in every.items() if key in own or key in changed}


class IgnoreInterrupt(WorkerPlugin):
    """Leave Ctrl-C to the command: a worker that shares its terminal would die of it."""

    def setup(self, worker: Any) -> None:
        """Ignore the signal in the worker's process."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def open_client(
    scheduler: str | None, *, threads: int, workers: int | None, device_bytes: int = 0
) -> Iterator[Client]:
    """Connect to a Dask scheduler, or start a local cluster sized to the machine.

    Parameters
    ----------
    scheduler
        Address such as ``tcp://host:8786``.
    threads
        Of each run; the local cluster has a worker for so many of the machine's cores.
    workers
        Of the local cluster, if not that many.
    device_bytes
        What the largest run needs of a GPU: so many runs share it as it has room for.

    Raises
    ------
    InputError
        Where nobody answers at the address.
    """
    if scheduler:
        try:
            client = Client(scheduler, timeout="10s")
        except (OSError, ValueError) as error:
            raise InputError(
                f"--scheduler {scheduler}: no Dask scheduler answers there ({error}): start one "
                "with dask scheduler, or leave the option out"
            ) from None
        with client:
            if client.dashboard_link:
                print(f"Dask's dashboard: {client.dashboard_link}", flush=True)
            yield client
        return
    n_workers = workers or workers_that_fit(threads=threads, device_bytes=device_bytes)
    resources = {GPU: 1} if torch.cuda.is_available() else None
    # Workers only wait for kernels, so that a process each is enough, and isolates them.
    cluster = LocalCluster(
        n_workers=n_workers,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",  # any free port: two commands may run at once
        resources=resources,
        silence_logs="CRITICAL",
    )
    with cluster, Client(cluster) as client:
        client.register_plugin(IgnoreInterrupt())
        yield client


def workers_that_fit(*, threads: int, device_bytes: int) -> int:
    """Return how many runs this machine can do at once: by its cores and its GPU's memory."""
    n_workers = (os.cpu_count() or 1) // threads
    if torch.cuda.is_available() and device_bytes:
        free, _ = torch.cuda.mem_get_info()
        n_workers = min(n_workers, free // device_bytes)
    return max(1, n_workers)


def submit(graph: Graph, client: Client) -> tuple[dict[str, Future], dict[str, Outcome]]:
    """Hand the unfinished nodes to Dask; return their futures, and the outcomes known already."""
    todo = unfinished(graph)
    environment = {key: os.environ[key] for key in ENVIRONMENT if key in os.environ}
    outcomes = {name: Outcome(name, "done", "before") for name in graph if name not in todo}
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    has_gpu = any(worker.get("resources", {}).get(GPU) for worker in workers)
    futures: dict[str, Future] = {}
    for name, node in todo.items():
        parents = [futures.get(need) or outcomes[need] for need in node.needs]
        on_gpu = has_gpu and node.kind != "store" and node.params.device != "cpu"
        futures[name] = client.submit(
            run_node,
            node,
            parents,
            environment,
            key=f"{name}-{environment[STOP_FILE]}",
            resources={GPU: 1} if on_gpu else None,
        )
    return futures, outcomes


def outcome_of(name: str, future: Future) -> Outcome:
    """Return a finished future's outcome; a worker that died of it again and again is a failure."""
    try:
        return future.result()
    except KilledWorker:
        return Outcome(name, "failed", "its worker died of it several times: is memory too small?")
    except Exception as error:  # an error of ours, told without stopping the other runs
        return Outcome(name, "failed", f"{type(error).__name__}: {error}")


def forget(graph: Graph) -> None:
    """Delete the runs of a graph, so that they are done again."""
    for node in graph.values():
        if node.kind != "store":
            shutil.rmtree(node.run.folder, ignore_errors=True)


@contextmanager
def stop_file() -> Iterator[Path]:
    """Ctrl-C once asks every run to stop after its epoch; twice stops at once."""
    path = outputs_root().resolve() / f".stop-{os.getpid()}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.environ[STOP_FILE] = str(path)
    before = signal.getsignal(signal.SIGINT)

    def ask_to_stop(signal_number: int, frame: Any) -> None:
        path.touch()
        print("\nStopping after the epoch in progress; Ctrl-C again stops at once.", flush=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, ask_to_stop)
    try:
        yield path
    finally:
        signal.signal(signal.SIGINT, before)
        path.unlink(missing_ok=True)
        del os.environ[STOP_FILE]
