"""Many runs: from parameter files to executed notebooks, each branch and each pair once.

papermill executes chapter 03 for every branch run that is not there yet, and chapter 04 for every
pair.
"""

import ast
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import nbformat

from fusionkd_lib import chapters
from fusionkd_lib.errors import InputError
from fusionkd_lib.features import build_representations
from fusionkd_lib.params import Params
from fusionkd_lib.runs import NOTEBOOK, Run

BRANCH_CHAPTER = "03_branch_pretraining"
FUSION_CHAPTER = "04_fusion_and_distillation"


@dataclass(frozen=True)
class Node:
    """One notebook run: a branch's, or a pair's."""

    run: Run
    params: Params
    branch: str | None = None

    @property
    def chapter(self) -> str:
        """The chapter that the run executes."""
        return BRANCH_CHAPTER if self.branch else FUSION_CHAPTER

    @property
    def is_done(self) -> bool:
        """Whether the run is complete, its notebook included."""
        return self.run.is_complete and (self.run.folder / NOTEBOOK).exists()


def plan(settings: Iterable[Params]) -> list[Node]:
    """Return the runs that parameters ask for, each once, branches before the pairs they are in.

    Raises
    ------
    InputError
        Where a run could not even begin, such as a CQT above Nyquist.
    """
    nodes: dict[str, Node] = {}
    for params in settings:
        build_representations(params)
        for name in params.representations:
            run = Run.of(params, branch=name)
            nodes.setdefault(run.name, Node(run, params.replace(branch=name), name))
    for params in settings:
        if len(params.representations) > 1:
            run = Run.of(params)
            nodes.setdefault(run.name, Node(run, params.replace(branch=None)))
    return list(nodes.values())


def execute(node: Node) -> None:
    """Have papermill execute the run's chapter; the notebook gets its name when it is through."""
    node.run.folder.mkdir(parents=True, exist_ok=True)
    partial = node.run.folder / f"partial-{NOTEBOOK}"
    notebook = chapters.read(node.chapter)
    values = _injected(node.params, notebook)
    chapters.execute(notebook, partial, parameters=values, show_output=True)
    partial.replace(node.run.folder / NOTEBOOK)


def _injected(params: Params, notebook: nbformat.NotebookNode) -> dict[str, Any]:
    """Return what the chapter sets itself, and what is not the library's default."""
    source = next(c.source for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    own = {target.id for statement in ast.parse(source).body for target in statement.targets}
    every = params.model_dump(mode="json")
    changed = params.model_dump(mode="json", exclude_defaults=True)
    return {key: value for key, value in every.items() if key in own or key in changed}


def run_all(
    nodes: list[Node], *, force: bool = False, report: Callable[[str], None] = print
) -> list[str]:
    """Execute what is not done yet, one run after the other; a failure does not stop the others.

    Returns
    -------
    list of str
        One sentence for each run that failed.
    """
    failures = []
    for number, node in enumerate(nodes, start=1):
        label = f"[{number}/{len(nodes)}] {node.run.name}"
        if force:
            shutil.rmtree(node.run.folder, ignore_errors=True)
        if node.is_done:
            report(f"{label}: done before")
            continue
        report(f"{label}: chapter {node.chapter}")
        started = time.perf_counter()
        try:
            execute(node)
            report(f"{label}: done in {time.perf_counter() - started:.0f} s")
        except InputError as error:
            failures.append(f"{node.run.name}: {error}")
            report(f"{label}: failed")
    return failures
