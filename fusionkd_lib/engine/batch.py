"""Many runs: the graph executed on Dask distributed, every run as a notebook by papermill.

A node's outcome is a value, not an exception: a run that failed stops what needs it and nothing
else. What can heal, a lost kernel or worker, is started again; the run goes on from its last epoch.
"""

import ast
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from distributed import Client, Future, KilledWorker
from distributed.client import FutureCancelledError
from nbclient.exceptions import DeadKernelError

from fusionkd_lib.catalogue import BASELINES
from fusionkd_lib.engine import notebooks
from fusionkd_lib.engine.graph import CHAPTERS, Graph, Node, unfinished
from fusionkd_lib.errors import InputError, Stopped, seen
from fusionkd_lib.experiment import clips_of, score_baselines, spectrograms_of
from fusionkd_lib.params import Params
from fusionkd_lib.runs import NOTEBOOK, STOP_FILE, outputs_root
from fusionkd_lib.storage import replacing

# What a worker, perhaps on another machine, must know of the place that the command was given in.
ENVIRONMENT = ("FUSIONKD_DATA", "FUSIONKD_OUTPUTS", STOP_FILE)
GPU = "gpu"  # the resource that a worker of a cluster elsewhere may have
LESS_MEMORY = "set micro_batch, or run fewer at once"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Outcome:
    """What became of a node: ``done``, ``failed``, ``skipped`` or ``stopped``, and why."""

    name: str
    status: str
    message: str = ""
    seconds: float = 0.0


def run_node(node: Node, parents: Sequence[Outcome], environment: Mapping[str, str]) -> Outcome:
    """Do one piece of work, on whatever worker Dask has chosen for it."""
    lacking = [parent.name for parent in parents if parent.status != "done"]
    if lacking:
        return Outcome(node.name, "skipped", f"needs {lacking[0]}")
    os.environ.update(environment)
    started = time.perf_counter()
    try:
        _refuse_if_stopped()
        if node.kind == "store":
            spectrograms_of(node.params, clips_of(node.params))
        elif node.kind == BASELINES:
            score_baselines(node.params)
        else:
            _execute_again_if_the_kernel_dies(node)
    except Stopped:
        return Outcome(node.name, "stopped")
    except InputError as error:
        return Outcome(node.name, "failed", str(error))
    except OSError as error:  # a full disk, a folder that may not be written
        return Outcome(node.name, "failed", f"{error}: free space, or check permissions")
    return Outcome(node.name, "done", seconds=time.perf_counter() - started)


def _refuse_if_stopped() -> None:
    if Path(os.environ[STOP_FILE]).exists():
        raise Stopped


def _execute_again_if_the_kernel_dies(node: Node, *, tries: int = 3) -> None:
    # A lost kernel heals, as a lost worker does: the run goes on from its last epoch. What a cell
    # raises, a bad parameter or a divergence, would only be raised again.
    for _ in range(tries):
        try:
            return execute(node)
        except DeadKernelError:
            _refuse_if_stopped()
    told = f"its kernel died {tries} times, most often for want of memory"
    raise InputError(f"{told}: {LESS_MEMORY}")


def execute(node: Node) -> None:
    """Have papermill execute the run's chapter; the notebook gets its name when it is through."""
    # Where two commands want the same run, the second one finds it done.
    with node.notebook_held():
        if node.is_done:
            return
        node.run.folder.mkdir(parents=True, exist_ok=True)
        notebook = notebooks.read(CHAPTERS[node.kind])
        partial = node.run.folder / f"partial-{NOTEBOOK}"
        given = _injected(node.params, notebook)
        # NumPy's libraries would else start a thread for every core, in each run.
        threads = dict.fromkeys(THREADS, str(node.params.threads))
        notebooks.execute(notebook, partial, parameters=given, environment=threads)
        with replacing(node.run.folder / NOTEBOOK) as whole:
            partial.replace(whole)


def _injected(params: Params, notebook: nbformat.NotebookNode) -> dict[str, Any]:
    """Return what the chapter sets itself, and what is not the library's default."""
    source = next(c.source for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    own = {target.id for statement in ast.parse(source).body for target in statement.targets}
    every = params.model_dump(mode="json")
    changed = params.model_dump(mode="json", exclude_defaults=True)
    return {key: value for key, value in every.items() if key in own or key in changed}


def submit(graph: Graph, client: Client) -> tuple[dict[str, Future], dict[str, Outcome]]:
    """Hand the unfinished nodes to Dask; return their futures, and the outcomes known already."""
    todo = unfinished(graph)
    # Workers in this process share its environment; nothing is written into it.
    names = () if client.cluster else ENVIRONMENT
    environment = {key: os.environ[key] for key in names if key in os.environ}
    outcomes = {name: Outcome(name, "done", "before") for name in graph if name not in todo}
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    has_gpu = any(worker.get("resources", {}).get(GPU) for worker in workers)
    futures: dict[str, Future] = {}
    for name, node in todo.items():
        parents = [futures.get(need) or outcomes[need] for need in node.needs]
        on_gpu = has_gpu and node.kind in CHAPTERS and node.params.device != "cpu"
        key = f"{name}-{os.environ[STOP_FILE]}"
        work = (run_node, node, parents, environment)
        futures[name] = client.submit(*work, key=key, resources={GPU: 1} if on_gpu else None)
    return futures, outcomes


def outcome_of(name: str, future: Future) -> Outcome:
    """Return a finished future's outcome; a run that kills one worker after another has failed."""
    try:
        return future.result()
    except KilledWorker:
        told = f"it killed several workers, most often for want of memory: {LESS_MEMORY}"
        return Outcome(name, "failed", told)
    except FutureCancelledError:
        return Outcome(
            name, "failed", "the scheduler is gone: start it, and the same command again"
        )
    except Exception as error:  # an error of ours, told without stopping the other runs
        return Outcome(name, "failed", seen(f"{type(error).__name__}: {error}"))


@contextmanager
def stop_file() -> Iterator[Path]:
    """Ctrl-C once asks every run to stop after its epoch; twice stops at once."""
    path = outputs_root().absolute() / f".stop-{os.getpid()}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.environ[STOP_FILE] = str(path)
    before = signal.getsignal(signal.SIGINT)

    def ask_to_stop(signal_number: int, frame: Any) -> None:
        path.touch()
        print("\nStopping after the epoch in progress; Ctrl-C again stops at once", flush=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, ask_to_stop)
    try:
        yield path
    finally:
        signal.signal(signal.SIGINT, before)
        path.unlink(missing_ok=True)
        del os.environ[STOP_FILE]
