"""Where runs are done: inside this process, or on a Dask cluster of one's own.

The cluster inside this process is threads, which fill stores and wait for kernels. The processes
that Dask would start listen on a port, and run whatever code comes through it as the user; threads
speak through memory, and nothing listens.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psutil
import torch
from distributed import Client, Scheduler, Security, SpecCluster, Worker

from fusionkd_lib.engine.graph import Graph
from fusionkd_lib.errors import InputError

# Dask logs a traceback where its scheduler is gone, or closes before a last message has left; what
# became of the runs is told anyway.
for part in ("client", "batched"):
    logging.getLogger(f"distributed.{part}").setLevel(logging.CRITICAL)
LOCAL = {"protocol": "inproc://", "dashboard": False}


def open_client(
    *, workers: int, scheduler: str | None = None, **tls: str | None
) -> AbstractContextManager[Client]:
    """Connect to a Dask scheduler, or start a cluster inside this process.

    Parameters
    ----------
    workers
        Runs at once of the cluster inside this process.
    scheduler
        Address such as ``tcp://host:8786`` or ``tls://host:8786``.
    tls
        Certificates of a ``tls://`` scheduler by their names in `distributed.Security`; Dask's own
        configuration has those that are left out.

    Raises
    ------
    InputError
        Where nobody answers at the address, or not to these certificates.
    """
    if not scheduler:
        return _local_client(workers)
    encrypted = scheduler.startswith("tls://")
    if not encrypted:
        print(f"{scheduler}: whoever reaches this port can run code as its user", flush=True)
    try:
        given = {name: file for name, file in tls.items() if file}
        security = Security(require_encryption=True, **given) if encrypted else None
        client = Client(scheduler, timeout="10s", security=security)
    except (OSError, ValueError, TypeError) as error:  # TypeError: TLS without certificates
        raise InputError(
            f"--scheduler {scheduler}: no Dask scheduler answers there ({error}): start one with "
            "dask scheduler, check the certificates of a tls:// one, or leave the option out"
        ) from None
    if not client.scheduler_info()["workers"]:
        print(f"{scheduler}: waiting for workers: dask worker {scheduler}", flush=True)
    if client.dashboard_link:
        print(f"Dask's dashboard: {client.dashboard_link}", flush=True)
    return client


def default_workers(graph: Graph) -> int:
    """Return how many runs this machine does at once: one on a GPU, else as its cores allow."""
    settings = [node.params for node in graph.values()]
    if torch.cuda.is_available() and any(params.device != "cpu" for params in settings):
        return 1
    return max(1, (os.cpu_count() or 1) // min(params.threads for params in settings))


class Unheard:
    """Without the server of web pages that Dask starts even where there is no dashboard."""

    def start_http_server(self, *arguments: Any, **options: Any) -> None:
        """Start nothing."""


class LocalScheduler(Unheard, Scheduler):
    """A scheduler in this process."""


class LocalWorker(Unheard, Worker):
    """A worker in this process: one thread, which can be left behind but not stopped."""

    async def close(self, timeout: float = 3, **options: Any) -> str | None:
        """Close, with little patience for what is under way."""
        return await super().close(timeout=timeout, **options)


@contextmanager
def _local_client(workers: int) -> Iterator[Client]:
    # Memory is the kernels', which Dask does not see.
    options = LOCAL | {"nthreads": 1, "memory_limit": 0}
    with (
        SpecCluster(
            scheduler={"cls": LocalScheduler, "options": LOCAL | {"port": 0}},
            workers={i: {"cls": LocalWorker, "options": options} for i in range(workers)},
            silence_logs="CRITICAL",
        ) as cluster,
        Client(cluster) as client,
    ):
        try:
            yield client
        except KeyboardInterrupt:
            # Kernels have sessions of their own, which Ctrl-C does not reach.
            for kernel in psutil.Process().children():
                kernel.kill()
            raise
