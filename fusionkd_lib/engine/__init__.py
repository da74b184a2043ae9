"""Many runs: parameters -> a graph of runs -> each run an executed notebook.

`graph` plans, `clusters` opens a place to work, `batch` hands the plan to it, `notebooks` executes
a chapter, `watching` shows what happens. One entry point: `execute`.
"""

import os
import sys
from collections.abc import Mapping
from typing import Any


def execute(graph: Mapping, *, workers: int | None = None, **cluster: Any) -> dict[str, Any]:
    """Do all that is unfinished of a graph, and show it; return what became of each node.

    Parameters
    ----------
    graph
        From `graph.plan`.
    workers
        Runs at once on this machine, if not as many as it does well.
    cluster
        ``scheduler`` and its certificates, as of `clusters.open_client`.

    Ctrl-C twice ends the process, with status 130.

    Raises
    ------
    InputError
        Where there is no such scheduler.
    """
    # A plan alone, or a notebook, needs no Dask.
    from fusionkd_lib.engine import batch, clusters, watching

    workers = workers or clusters.default_workers(graph)
    try:
        with batch.stop_file(), clusters.open_client(workers=workers, **cluster) as client:
            futures, outcomes = batch.submit(graph, client)
            return watching.watch(futures, graph, outcomes)
    except KeyboardInterrupt:
        print("Stopped at once; the same command goes on", file=sys.stderr, flush=True)
        # A thread in the middle of a store cannot be stopped, and an orderly end would abort on it.
        os._exit(130)
