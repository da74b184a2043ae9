"""What a person sees while runs are under way: live lines on a terminal, plain lines in a log.

The epochs are read from the runs' own ``history.csv``, so that it does not matter on which machine
a run happens.
"""

import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext

import numpy as np
from distributed import Future
from rich.live import Live
from rich.text import Text

from fusionkd_lib.engine.batch import Outcome, outcome_of
from fusionkd_lib.engine.graph import Graph, Node
from fusionkd_lib.reading import parse_csv, read_bytes

POLL_SECONDS = 0.5


def watch(
    futures: Mapping[str, Future], graph: Graph, outcomes: Mapping[str, Outcome]
) -> dict[str, Outcome]:
    """Show progress until every future has finished; return every outcome by name."""
    outcomes, told = dict(outcomes), set()
    with Live() if sys.stdout.isatty() else nullcontext() as live:
        while True:
            for name, future in futures.items():
                if name not in outcomes and future.done():
                    outcomes[name] = outcome_of(name, future)
                    count = f"({len(outcomes)}/{len(graph)})"
                    print(count, _ending(outcomes[name]), flush=True)
            running = [graph[name] for name in futures if name not in outcomes]
            lines = list(filter(None, map(_progress, running)))
            if live:
                total = f"{len(outcomes)} of {len(graph)} nodes finished"
                live.update(Text("\n".join([*lines, total])))
            elif new := [line for line in lines if line not in told]:
                told.update(new)
                print(*new, sep="\n", flush=True)
            if len(outcomes) == len(graph):
                return outcomes
            time.sleep(POLL_SECONDS)


def _ending(outcome: Outcome) -> str:
    took = f" in {outcome.seconds:.0f} s" if outcome.status == "done" else ""
    why = f": {outcome.message}" if outcome.status == "skipped" else ""
    return f"{outcome.name}: {outcome.status}{took}{why}"


def _progress(node: Node) -> str:
    """Return a run's epoch, loss, best validation and time left; nothing where it has not begun."""
    try:
        content = read_bytes(node.run.folder / "history.csv", remedy="")
        history = parse_csv(content).astype(float)
        is_whole = {"loss", "seconds"} <= set(history) and np.isfinite(history).all(axis=None)
    except ValueError:  # not there yet, or nothing of ours: the run itself will say
        return ""
    if node.kind == "store" or history.empty or not is_whole:
        return ""
    left = (node.n_epochs - len(history)) * history["seconds"].median()
    best = f", best validation {history['val_loss'].min():.3f}" if "val_loss" in history else ""
    minutes, seconds = divmod(round(left), 60)
    return (
        f"  {node.name}: epoch {len(history)}/{node.n_epochs}, "
        f"loss {history['loss'].iloc[-1]:.3f}{best}, {minutes}:{seconds:02d} left"
    )
