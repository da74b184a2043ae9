"""Parameter files -> the graph of runs: spectrogram stores -> branch runs -> fusion runs.

Equal nodes of several files are one node: each store is filled once, each branch is trained once.
"""

import shutil
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

from fusionkd_lib import experiment
from fusionkd_lib.catalogue import BASELINES, DATASETS, REPRESENTATIONS
from fusionkd_lib.params import Params
from fusionkd_lib.records import Record
from fusionkd_lib.runs import NOTEBOOK, Run, run_name, settle
from fusionkd_lib.storage import digest, held

Graph = Mapping[str, "Node"]
# The chapter that a run of a kind is executed as; the other kinds are no notebooks.
CHAPTERS = {"branch": "03_branch_pretraining", "fusion": "04_fusion_and_distillation"}
# What the time of an epoch depends on.
ALIKE = {
    *("dataset", "trunk", "width", "sample_rate", "duration", "threads", "shortcuts"),
    *("clips_per_class", "n_scenes"),
}


@dataclass(frozen=True)
class Node:
    """One piece of work.

    Parameters
    ----------
    name
        The run's folder, or the store.
    needs
        Names of the nodes that must be done before.
    branch
        The representation, of a branch run; `BASELINES`, of these.
    """

    name: str
    kind: Literal["store", "baselines", "branch", "fusion"]
    params: Params
    needs: tuple[str, ...] = ()
    branch: str | None = None

    @property
    def run(self) -> Run:
        """The run that a node makes, but for a store."""
        return Run.of(self.params, branch=self.branch)

    @property
    def n_epochs(self) -> int:
        """How many epochs the run has."""
        return self.params.n_epochs(self.kind)

    @property
    def is_done(self) -> bool:
        """Whether the run is complete, its notebook included; a store is looked at when it runs."""
        run = self.run
        is_whole = self.kind not in CHAPTERS or (run.folder / NOTEBOOK).exists()
        return self.kind != "store" and run.is_complete and is_whole

    def notebook_held(self) -> AbstractContextManager[None]:
        """Keep other commands off the run's notebook; wait, and say for whom."""
        return held(self.run.folder.parent / ".locks" / f"{self.name}.notebook")


def plan(settings: Iterable[Params]) -> Graph:
    """Return the nodes that parameters ask for, by name, each after those that it needs.

    Raises
    ------
    InputError
        Where a run could not even begin, such as a CQT above Nyquist.
    """
    stores, branches, pairs = {}, {}, {}
    for params in map(settle, settings):
        experiment.representations_of(params)
        store, names = _store_name(params), params.representations
        known = stores[store].params.representations if store in stores else ()
        shared = params.replace(representations=list(dict.fromkeys(known + names)), branch=None)
        stores[store] = Node(store, "store", shared)
        needs = tuple(run_name(params, branch=branch) for branch in names)
        for name, branch in zip(needs, names, strict=True):
            alone = params.replace(branch=branch)
            branches.setdefault(name, Node(name, "branch", alone, (store,), branch))
        if len(names) > 1:
            name, pair = run_name(params), params.replace(branch=None)
            pairs[name] = Node(name, "fusion", pair, needs)
            if params.judged_on == "test":
                name = run_name(pair, branch=BASELINES)
                pairs[name] = Node(name, BASELINES, pair, (store,), BASELINES)
    return stores | branches | pairs


def _store_name(params: Params) -> str:
    """Name what the spectrograms of a run depend on, whichever of them it reads."""
    keys = {"dataset", "data_root", "data_folder", *DATASETS[params.dataset].settings}
    keys = keys.union(*(entry.settings for entry in REPRESENTATIONS.values()))
    content = [params.model_dump(include=keys), vars(experiment.clip_format(params))]
    return f"store-{params.dataset}-{digest(content)[:8]}"


def unfinished(graph: Graph) -> dict[str, Node]:
    """Return the nodes that are still to run: no store whose every run is done."""
    todo = {name: node for name, node in graph.items() if node.kind != "store" and not node.is_done}
    needed = {need for node in todo.values() for need in node.needs}
    stores = {name: node for name, node in graph.items() if node.kind == "store" and name in needed}
    return stores | todo


def forget(graph: Graph) -> None:
    """Delete the runs of a graph, each once nobody is at it, so that they are done again."""
    for node in graph.values():
        if node.kind != "store":
            with node.notebook_held(), node.run.held():
                shutil.rmtree(node.run.folder, ignore_errors=True)


def estimate_seconds(node: Node, past: Iterable[Record]) -> float | None:
    """Estimate a run's training time from the fastest similar run of the past, if there is one.

    Similar runs are of one kind and agree in `ALIKE`; time grows with the number of epochs.
    """
    setting = node.params.model_dump(include=ALIKE)
    rates = [
        run.provenance.training_seconds / len(run.history)
        for run in past
        if run.provenance.kind == node.kind and run.params.model_dump(include=ALIKE) == setting
    ]
    return min(rates) * node.n_epochs if rates else None


def describe(graph: Graph, past: Iterable[Record]) -> str:
    """Return what is done, what will run, what is shared, and about how long it will take."""
    past, todo, lines = list(past), unfinished(graph), []
    runs = {name: node for name, node in todo.items() if node.kind in CHAPTERS}
    seconds = {name: estimate_seconds(node, past) for name, node in runs.items()}
    for name in graph:
        n_sharing = sum(name in other.needs for other in graph.values())
        shared = f", shared by {n_sharing} runs" if n_sharing > 1 else ""
        about = f", about {seconds[name]:.0f} s" if seconds.get(name) else ""
        lines.append(f"  {'will run' if name in todo else 'done    '}  {name}{shared}{about}")
    known = list(filter(None, seconds.values()))
    total = f"; those of known speed train for about {sum(known) / 60:.1f} min" if known else ""
    n_unknown = len(runs) - len(known)
    total += f"; {n_unknown} resemble no run yet, and have no estimate" if n_unknown else ""
    return "\n".join([f"{len(graph)} nodes, {len(todo)} to run{total}:", *lines])
