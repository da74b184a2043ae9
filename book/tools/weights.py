"""The weights that come with the book: trained by ``params/weights``, kept in ``book/weights``.

Each parameter file there describes one run, and gives one ONNX file of its name, with its card.
"""

from collections.abc import Iterator
from pathlib import Path

from fusionkd_book.publish import copy_record
from fusionkd_lib import experiment
from fusionkd_lib.params import Params, load_params
from fusionkd_lib.records import Record
from fusionkd_lib.runs import find_records, project_root

FOLDER, RECIPES = Path("book", "weights"), Path("params", "weights")
RECORDS = Path("outputs", "reference", "weights")


def recipes() -> dict[str, Params]:
    """Return the parameters behind each file of weights, by its name without the ending."""
    paths = sorted((project_root() / RECIPES).glob("*.yaml"))
    return {path.stem: params for path in paths for params in load_params(path)}


def path_of(name: str) -> Path:
    """Return where a file of weights lies."""
    return project_root() / FOLDER / f"{name}.onnx"


def kept() -> dict[str, Record]:
    """Return the committed records: the branch ``alone``, the ``committee``, the ``machines``."""
    runs, _ = find_records(project_root() / RECORDS)
    names = {"branch": "alone", "fusion": "committee", "baselines": "machines"}
    return {names[run.provenance.kind]: run for run in runs}


def make() -> Iterator[Path]:
    """Train what is missing, and write the files, and the records with baselines beside them."""
    from fusionkd_lib.export.onnx_file import export  # onnx is not needed to read the book
    from fusionkd_lib.tagging import load_tagger

    for name, params in recipes().items():
        run = train(params)
        given = {"precision": "float16", "all_heads": len(run.scores) > 1}
        export(load_tagger(run.folder), path_of(name), **given)
        keep(run)
        yield path_of(name)
    keep(experiment.score_baselines(recipes()["fused"]))


def train(params: Params) -> Record:
    """Return the finished run of one branch, or of several and their fusion."""
    if len(params.representations) > 1:
        return experiment.train_fusion(params)
    return experiment.train_branch(params, params.representations[0])


def keep(run: Record) -> None:
    """Copy the compact record of a run beside the others."""
    copy_record(run, project_root() / RECORDS)
