"""Many runs: parameters -> a graph of runs -> each run an executed notebook.

`graph` plans, `clusters` opens a place to work, `batch` hands the plan to it, `notebooks` executes
a chapter, `watching` shows what happens. One entry point: `execute`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fusionkd_lib.errors import Stopped

if TYPE_CHECKING:
    from fusionkd_lib.engine.batch import Outcome
    from fusionkd_lib.engine.graph import Graph


def execute(
    graph: Graph,
    *,
    scheduler: str | None = None,
    tls: Mapping[str, str | None] | None = None,
    workers: int | None = None,
) -> dict[str, Outcome]:
    """Do all that is unfinished of a graph, and show it; return what became of each node.

    Parameters
    ----------
    graph
        From `graph.plan`.
    scheduler, tls, workers
        As of `clusters.open_client`; by default as many runs at once as this machine does well.

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
        with (
            batch.stop_file(),
            clusters.open_client(scheduler, workers=workers, tls=tls) as client,
        ):
            futures, outcomes = batch.submit(graph, client)
            return watching.watch(futures, graph, outcomes)
    except KeyboardInterrupt:
        raise Stopped("Stopped at once; the same command goes on") from None
