"""A page for the runs behind each row of the tables: scores, parameters, history, provenance."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from fusionkd_book import figures
from fusionkd_lib import catalogue, tables
from fusionkd_lib.errors import InputError
from fusionkd_lib.records import Record
from fusionkd_lib.runs import find_records
from fusionkd_lib.tables import METRIC_NAMES, Row, Table

NATURE = {"branch": "alone", "fusion": "fused and distilled", "baselines": "baselines"}
STROKES = ("-", "--", ":", "-.")  # of runs that stand beside each other
Rows = Sequence[tuple[Table, Row]]


def write(places: Iterable[Path], folder: Path) -> dict[str, str]:
    """Write a page for the runs behind each row, and the text of all tables.

    Parameters
    ----------
    places
        Folders of finished runs.
    folder
        Where the pages go.

    Returns
    -------
    links : dict
        The rows of each table, as chapters show them -> the same rows with links to the pages.

    Raises
    ------
    InputError
        Where a record is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures.use_style()
    runs, found = {}, []
    for place in places:
        records, faults = find_records(place)
        if faults:
            raise InputError(faults[0])
        runs |= {run.name: run for run in records}
        found += tables.collect(records)
    behind: dict[tuple[str, ...], list[tuple[Table, Row]]] = {}
    for table in found:
        for row in _with_runs(table):
            behind.setdefault(row.runs, []).append((table, row))
    homes = {name: names[0] for names in behind for name in names}
    for names, rows in behind.items():
        page = folder / f"{names[0]}.md"
        page.write_text(_page([runs[name] for name in names], rows, homes, page), encoding="utf-8")
    texts = [table.to_markdown().split("\n\n") for table in found]
    both = zip(texts, found, strict=True)
    links = {text[1]: linked(text[1], table, to="/records/{}.md") for text, table in both}
    told = [f"## {title.strip('*')}\n\n{links[rows]}\n\n{note}" for title, rows, note in texts]
    (folder / "tables.txt").write_text("\n\n".join(told), encoding="utf-8")
    return links


def _with_runs(table: Table) -> list[Row]:
    return [row for row in table.rows if row.runs]  # the others' runs are not there


def linked(rows: str, table: Table, *, to: str) -> str:
    """Make each classifier of a table's rows a link, ``{}`` in it standing for the first run."""
    for row in _with_runs(table):
        link = f"| [{row.classifier}]({to.format(row.runs[0])}) |"
        rows = rows.replace(f"| {row.classifier} ".ljust(rows.index("|", 1)) + "|", link)
    return rows


def _page(runs: Sequence[Record], rows: Rows, homes: Mapping[str, str], page: Path) -> str:
    """Return the text of a page, and draw its figure beside it."""
    params, told = runs[0].params, runs[0].provenance
    names = " + ".join(map(catalogue.label, params.representations))
    scores = [
        {"Fold": run.params.fold, "Seed": run.params.seed}
        | {catalogue.label(head): f"{100 * run.score(head):.1f}" for head in run.scores}
        for run in runs
    ]
    behind = "".join(f"- *{row.classifier}* in {table.title}\n" for table, row in rows)
    parts = [
        f"# {names}, {NATURE[told.kind]} · {told.dataset} ({told.data_status})",
        f"These runs stand behind the rows\n\n{behind}",
        f"## Scores\n\n{METRIC_NAMES[told.metric].capitalize()} on the test clips, in %.",
        tables.markdown(scores),
        _history(runs, page.with_suffix(".svg")) if len(runs[0].history) else "",
        "## Parameters\n\nOf the first run; the others differ in fold and seed alone.",
        f"```yaml\n{yaml.safe_dump(params.model_dump(mode='json'), sort_keys=False)}```",
        "## Provenance",
        *(_provenance(run, homes) for run in runs),
    ]
    return "\n\n".join(parts) + "\n"


def _history(runs: Sequence[Record], picture: Path) -> str:
    """Draw the loss of the runs, and return what a page shows of their epochs."""
    ax = figures.plt.subplots(figsize=(6, 3))[1]
    for index, run in enumerate(runs):
        name, stroke = f"fold {run.params.fold}, seed {run.params.seed}", STROKES[index % 4]
        ax.plot(run.history["epoch"], run.history["loss"], stroke, label=name)
    ax.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
    ax.legend(frameon=False)
    figures.sns.despine(ax=ax)
    ax.figure.savefig(picture)
    figures.plt.close(ax.figure)
    alt = f"Training loss by epoch, one line for each of {len(runs)} runs"
    epochs = [run.history.round(5).to_dict("records") for run in runs]
    folds = [_fold(run.name, tables.markdown(e)) for run, e in zip(runs, epochs, strict=True)]
    return "\n\n".join([f"## History\n\n![{alt}]({picture.name})", *folds])


def _provenance(run: Record, homes: Mapping[str, str]) -> str:
    told = run.provenance.model_dump(mode="json")
    parents = [f"[{name}](/records/{homes[name]}.md)" for name in told["parents"] if name in homes]
    stands = f"It stands on {' and '.join(parents)}.\n\n" if parents else ""
    return _fold(run.name, f"{stands}```yaml\n{yaml.safe_dump(told, sort_keys=False)}```")


def _fold(title: str, text: str) -> str:
    return f":::{{dropdown}} {title}\n{text}\n:::"
