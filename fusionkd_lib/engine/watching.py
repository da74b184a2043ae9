"""What a person sees while runs are under way: a live line a run, or plain lines in a log.

The epochs are read from the runs' own ``history.csv``, so that it does not matter on which machine
a run happens.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pandas as pd
from distributed import Future
from rich.console import Console
from rich.live import Live
from rich.table import Table

from fusionkd_lib.engine.batch import Outcome, outcome_of
from fusionkd_lib.engine.graph import Graph, Node

POLL_SECONDS = 0.5


@dataclass
class Watch:
    """The state of a batch: outcomes so far, and the epochs of what is running."""

    graph: Graph
    outcomes: dict[str, Outcome]
    seen: dict[str, int] = field(default_factory=dict)

    def running(self) -> dict[str, pd.DataFrame]:
        """Return the histories of runs that are under way."""
        histories = {}
        for name, node in self.graph.items():
            if node.kind != "store" and name not in self.outcomes:
                history = read_history(node)
                if len(history):
                    histories[name] = history
        return histories


def read_history(node: Node) -> pd.DataFrame:
    """Return the epochs that a run has behind it, none where it has not begun."""
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


def watch(
    futures: Mapping[str, Future],
    graph: Graph,
    outcomes: Mapping[str, Outcome],
    *,
    console: Console | None = None,
) -> dict[str, Outcome]:
    """Show progress until every future has finished; return every outcome by name."""
    console = console or Console()
    state = Watch(graph, dict(outcomes))
    if not console.is_terminal:
        return _poll(futures, state, lambda: _print_epochs(state), console)
    with Live(console=console, refresh_per_second=4) as live:
        return _poll(futures, state, lambda: live.update(_live_table(state)), console)


def _poll(
    futures: Mapping[str, Future], state: Watch, show: Callable[[], None], console: Console
) -> dict[str, Outcome]:
    while True:
        for name, future in futures.items():
            if name not in state.outcomes and future.done():
                state.outcomes[name] = outcome_of(name, future)
                console.print(_line(state, state.outcomes[name]), highlight=False, soft_wrap=True)
        if len(state.outcomes) == len(state.graph):
            return state.outcomes
        show()
        time.sleep(POLL_SECONDS)


def _line(state: Watch, outcome: Outcome) -> str:
    counted = f"({len(state.outcomes)}/{len(state.graph)})"
    took = f" in {outcome.seconds:.0f} s" if outcome.status == "done" else ""
    why = f": {outcome.message}" if outcome.message and outcome.status == "skipped" else ""
    return f"{counted} {outcome.name}: {outcome.status}{took}{why}"


def _print_epochs(state: Watch) -> None:
    for name, history in state.running().items():
        if state.seen.get(name) != len(history):
            # What an earlier, interrupted command trained is told in one line.
            state.seen[name] = len(history)
            told = ", ".join(filter(None, describe_progress(state.graph[name], history)))
            print(f"  {name}: {told}", flush=True)


def _live_table(state: Watch) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, history in state.running().items():
        table.add_row(name, *describe_progress(state.graph[name], history))
    table.add_row(f"{len(state.outcomes)} of {len(state.graph)} nodes finished")
    return table
