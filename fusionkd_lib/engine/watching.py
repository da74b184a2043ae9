"""What a person sees while runs are under way: one live line per run, or plain lines in a log.

The epochs are read from the runs' own ``history.csv``, so that it does not matter on which machine
a run happens.
"""

import time
from collections.abc import Mapping
from contextlib import nullcontext

import pandas as pd
from distributed import Future
from rich.console import Console
from rich.live import Live
from rich.table import Table

from fusionkd_lib.engine.batch import Outcome, outcome_of
from fusionkd_lib.engine.graph import Graph, Node

POLL_SECONDS = 0.5


def read_history(node: Node) -> pd.DataFrame:
    """Return the epochs that a run has finished, none if it has not begun."""
    try:
        return pd.read_csv(node.run.folder / "history.csv")
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return pd.DataFrame()


def describe_progress(node: Node, history: pd.DataFrame) -> list[str]:
    """Return epoch, loss, best validation and time left, as a person reads them."""
    last, left = history.iloc[-1], node.n_epochs - len(history)
    best = f"best validation {history['val_loss'].min():.3f}" if "val_loss" in history else ""
    minutes, seconds = divmod(round(left * history["seconds"].median()), 60)
    return [
        f"epoch {len(history)}/{node.n_epochs}",
        f"loss {last['loss']:.3f}",
        best,
        f"{minutes}:{seconds:02d} left",
    ]


def watch(futures: Mapping[str, Future], graph: Graph, outcomes: Mapping[str, Outcome]) -> dict:
    """Show progress until every future has finished; return every outcome by name."""
    console, outcomes, seen = Console(), dict(outcomes), {}
    live = Live(console=console, refresh_per_second=4) if console.is_terminal else None
    with live or nullcontext():
        while True:
            for name, future in futures.items():
                if name not in outcomes and future.done():
                    outcomes[name] = outcome_of(name, future)
                    told = f"({len(outcomes)}/{len(graph)}) {_line(outcomes[name])}"
                    console.print(told, highlight=False, soft_wrap=True)
            if len(outcomes) == len(graph):
                return outcomes
            running = _running(graph, outcomes)
            if live:
                live.update(_live_table(running, f"{len(outcomes)} of {len(graph)} nodes finished"))
            else:
                _print_epochs(running, seen)
            time.sleep(POLL_SECONDS)


def _running(graph: Graph, outcomes: Mapping[str, Outcome]) -> dict[str, list[str]]:
    """Return the progress of the runs that are under way."""
    running = {}
    for name, node in graph.items():
        if node.kind != "store" and name not in outcomes and len(history := read_history(node)):
            running[name] = describe_progress(node, history)
    return running


def _line(outcome: Outcome) -> str:
    took = f" in {outcome.seconds:.0f} s" if outcome.status == "done" else ""
    why = f": {outcome.message}" if outcome.status == "skipped" else ""
    return f"{outcome.name}: {outcome.status}{took}{why}"


def _print_epochs(running: Mapping[str, list[str]], seen: dict[str, str]) -> None:
    for name, (epoch, *more) in running.items():
        if seen.get(name) != epoch:
            # What an earlier, interrupted command trained is told in one line.
            seen[name] = epoch
            print(f"  {name}: {', '.join(filter(None, [epoch, *more]))}", flush=True)


def _live_table(running: Mapping[str, list[str]], last: str) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, progress in running.items():
        table.add_row(name, *progress)
    table.add_row(last)
    return table
