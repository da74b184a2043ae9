"""Many runs: parameters -> a graph of runs -> each run an executed notebook.

`graph` plans, `clusters` opens a place to work, `batch` hands the plan to it, `notebooks` executes
a chapter, `watching` shows what happens. One entry point: `execute`.
"""

from collections.abc import Mapping
from typing import Any

from fusionkd_lib.errors import Stopped


def execute(graph: Mapping, *, workers: int | None = None, **cluster: Any) -> dict[str, Any]:
    """Do all that is unfinished of a graph, and show it; return what became of each node.

    Parameters
    ----------
    graph
        From `graph.plan`.
    workers
        Runs at once on this machine, if not as many as it does well.
    cluster
        ``scheduler`` and ``tls``, as of `clusters.open_client`.

    Raises
    ------
    InputError
        Where there is no such scheduler.
    Stopped
        Where Ctrl-C was pressed twice.
    """
    # A plan alone, or a notebook, needs no Dask.
    from fusionkd_lib.engine import batch, clusters, watching

    workers = workers or clusters.default_workers(graph)
    try:
        with batch.stop_file(), clusters.open_client(workers=workers, **cluster) as client:
            futures, outcomes = batch.submit(graph, client)
            return watching.watch(futures, graph, outcomes)
    except KeyboardInterrupt:
        raise Stopped("Stopped at once; the same command goes on") from None
