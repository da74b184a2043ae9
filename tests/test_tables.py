"""Tables: figures of hand-made runs, the paper's beside them, and what must be said of both."""

import json
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from fusionkd_lib import tables
from fusionkd_lib.errors import InputError
from fusionkd_lib.metrics import micro_auprc
from fusionkd_lib.models import FUSED
from fusionkd_lib.params import Params, make_params
from fusionkd_lib.runs import Run, run_name

mpl.use("Agg")

PAIRS = [("logmel", "gammatone"), ("logmel", "cqt"), ("gammatone", "cqt")]
# Copied from the paper's Tables I to III, row by row.
PAPER_ACCURACY = {
    PAIRS[0]: [78.3, 74.9, 80.6, 76.2, 79.5],
    PAIRS[1]: [78.3, 79.8, 80.6, 74.1, 81.4],
    PAIRS[2]: [74.98, 79.8, 76.0, 76.2, 79.5],
}
PAPER_AUPRC = {
    PAIRS[0]: [81.4, 81.9, 84.02, 82.5, 83.92],
    PAIRS[1]: [81.44, 78.68, 82.53, 81.17, 82.41],
    PAIRS[2]: [81.90, 78.68, 83.08, 81.58, 83.27],
}
COLUMNS = ["Classifier", "Ours", "95 % interval", "Folds", "Clips", "Seeds"]
N = 40


def right(n_right: int, *, n: int = N) -> np.ndarray:
    """Scores of clips of class 0, so many of which are recognised, the others spread evenly."""
    is_right = np.zeros(n, dtype=bool)
    is_right[np.linspace(0, n - 1, n_right).astype(int)] = True
    return np.eye(10)[np.where(is_right, 0, 1)]


def finished(
    root: Path,
    params: Params,
    scores: dict[str, np.ndarray],
    *,
    branch: str | None = None,
    targets: np.ndarray | None = None,
    **told: object,
) -> Run:
    """Write a finished run with these scores of its classifiers."""
    run = Run(root / run_name(params, branch=branch))
    n = len(next(iter(scores.values())))
    targets = np.zeros(n, dtype=np.int64) if targets is None else targets
    run.begin(params)
    run.write_history([{"epoch": 1, "loss": 1.0}])
    if targets.ndim == 2:
        figures = {head: {"micro_auprc": micro_auprc(targets, x)} for head, x in scores.items()}
    else:
        figures = {head: {"accuracy": float(x[:, 0].mean())} for head, x in scores.items()}
    provenance = {
        "kind": "branch" if branch else "fusion",
        "dataset": "urban synth",
        "data_status": "synthetic",
        "data_note": "Forty clips.",
        "classes": list("abcdefghij"),
        "n_test": n,
        "n_dropped": 0,
        "parents": {},
    }
    groups = np.array([f"r{i}" for i in range(n)])
    run.finish(
        metrics=figures,
        scores={"clips": groups, "groups": groups, "targets": targets, **scores},
        weights={},
        provenance=provenance | told,
    )
    return run


def fused(
    root: Path, params: Params, counts: list[int], *, n: int = N, **told: object
) -> list[Run]:
    """Write a fusion run and its branches: the branches alone, after distillation, the fused."""
    names = params.representations
    alone, taught, together = counts[: len(names)], counts[len(names) : -1], counts[-1]
    parents = [
        finished(root, params, {name: right(count, n=n)}, branch=name, **told)
        for name, count in zip(names, alone, strict=True)
    ]
    scores = {name: right(count, n=n) for name, count in zip(names, taught, strict=True)}
    told |= {"parents": {parent.name: "digest" for parent in parents}}
    return [*parents, finished(root, params, {**scores, FUSED: right(together, n=n)}, **told)]


@pytest.fixture
def one(tmp_path) -> Callable[..., tables.Table]:
    """Return a function that makes the one table of runs written by another one."""

    def make(*args: object, **options: object) -> tables.Table:
        fused(tmp_path, *args, **options)
        (table,) = tables.collect(tables.find_runs(tmp_path))
        return table

    return make


def ends(row: dict) -> list[float]:
    return [float(end) for end in row["95 % interval"].split(" to ")]


# Rows


def test_a_table_has_the_papers_rows_and_says_how_many_folds_clips_and_seeds(one):
    table = one(make_params({}), [20, 22, 30, 24, 32])
    rows = table.rows.to_dict("records")
    assert [row["Classifier"] for row in rows] == [
        "Log-mel",
        "Gammatone",
        "Log-mel (KD)",
        "Gammatone (KD)",
        "Fused classifier",
    ]
    assert [row["Ours"] for row in rows] == [50.0, 55.0, 75.0, 60.0, 80.0]
    assert {(row["Folds"], row["Clips"], row["Seeds"]) for row in rows} == {(1, N, 1)}
    assert {row["chance"] for row in rows} == {10.0}
    assert table.title == "Table I · logmel + gammatone · accuracy in %, urban synth (synthetic)"


def test_figures_are_means_over_folds_and_seeds(tmp_path):
    counts = {(1, 0): 20, (1, 1): 24, (2, 0): 30, (2, 1): 26, (3, 0): 40}
    for (fold, seed), count in counts.items():
        fused(tmp_path, make_params({"fold": fold, "seed": seed}), [count] * 5)
    (table,) = tables.collect(tables.find_runs(tmp_path))
    for row in table.rows.to_dict("records"):
        assert row["Ours"] == pytest.approx(100 * np.mean(list(counts.values())) / N, abs=0.05)
        assert (row["Folds"], row["Clips"], row["Seeds"]) == (3, 3 * N, 2)
        assert len(row["runs"]) == 5


@pytest.mark.parametrize("pair", PAIRS)
def test_the_papers_figures_stand_beside_ours_with_their_data(one, pair, tmp_path):
    table = one(make_params({"representations": pair}), [20] * 5)
    assert table.rows["Paper (UrbanSound8K, 10 folds)"].tolist() == PAPER_ACCURACY[pair]
    numeral = ["I", "II", "III"][PAIRS.index(pair)]
    assert table.title.startswith(f"Table {numeral} · ")


@pytest.mark.parametrize("pair", PAIRS)
def test_several_tags_are_compared_by_micro_auprc(tmp_path, pair):
    generator = np.random.default_rng(0)
    targets = (generator.uniform(size=(60, 8)) < 0.4).astype(np.float32)
    noise = generator.uniform(0.01, 0.5, size=targets.shape)
    params = make_params({"representations": pair, "dataset": "urban_synth_scenes"})
    heads = (*pair, FUSED)
    scores = {head: noise + 0.1 * i * targets for i, head in enumerate(heads, start=1)}
    finished(tmp_path, params, scores, targets=targets, parents={"a": "", "b": ""})
    (table,) = tables.collect(tables.find_runs(tmp_path))
    assert table.rows["Paper (DCASE 2019 Task 5, validate)"].tolist() == PAPER_AUPRC[pair]
    ours = table.rows["Ours"].tolist()[2:]
    pooled = [average_precision_score(targets.ravel(), x.ravel()) for x in scores.values()]
    assert ours == pytest.approx([100 * area for area in pooled], abs=1.5)
    assert table.rows["chance"].tolist()[2:] == [round(100 * float(targets.mean()), 1)] * 3
    assert "micro AUPRC in %" in table.title


def test_three_branches_have_seven_rows_and_no_figures_of_the_paper(one):
    params = make_params({"representations": ["logmel", "gammatone", "cqt"]})
    table = one(params, [10, 12, 14, 16, 18, 20, 22])
    assert table.rows["Ours"].tolist() == [25.0, 30.0, 35.0, 40.0, 45.0, 50.0, 55.0]
    assert table.rows.filter(like="Paper").isna().all(axis=None)
    assert table.title.startswith("Table logmel + gammatone + cqt · ")


# Intervals


def test_the_interval_is_the_normal_one_of_independent_clips(one):
    n = 400
    table = one(make_params({}), [300, 300, 300, 300, 400], n=n)
    half = 196 * np.sqrt(0.75 * 0.25 / n)
    for row in table.rows.to_dict("records")[:4]:
        low, high = ends(row)
        assert low < row["Ours"] < high
        assert (low, high) == pytest.approx((75 - half, 75 + half), abs=1)
    assert ends(table.rows.iloc[-1]) == [100, 100]


def test_more_folds_narrow_the_interval_and_more_seeds_alone_do_not(tmp_path):
    widths = {}
    for what, runs in {
        "one": [(1, 0)],
        "seeds": [(1, 0), (1, 1), (1, 2)],
        "folds": [(1, 0), (2, 0), (3, 0), (4, 0)],
    }.items():
        for fold, seed in runs:
            fused(tmp_path / what, make_params({"fold": fold, "seed": seed}), [50] * 5, n=100)
        (table,) = tables.collect(tables.find_runs(tmp_path / what))
        low, high = ends(table.rows.iloc[0])
        widths[what] = high - low
    assert widths["seeds"] == widths["one"]  # the same clips, drawn alike
    assert widths["folds"] == pytest.approx(widths["one"] / 2, rel=0.15)


# What belongs together


def test_fold_and_seed_belong_to_one_table_and_every_other_setting_makes_another(tmp_path):
    for change in ({}, {"fold": 2}, {"seed": 1}, {"lr": 0.5}, {"kd_loss": "kl"}):
        fused(tmp_path, make_params(change), [20] * 5)
    found = tables.collect(tables.find_runs(tmp_path))
    assert sorted(len(table.rows["runs"].iloc[-1]) for table in found) == [1, 1, 3]


def test_data_of_another_status_are_never_in_one_table(tmp_path):
    values = {"dataset": "urbansound8k", "allow_partial": True}
    for fold, status in ((1, "partial"), (2, "partial"), (3, "real")):
        told = {"data_status": status, "dataset": "UrbanSound8K"}
        fused(tmp_path, make_params(values | {"fold": fold}), [20] * 5, **told)
    found = tables.collect(tables.find_runs(tmp_path))
    assert sorted((table.rows["Folds"][0], table.title[-9:]) for table in found) == [
        (1, "8K (real)"),
        (2, "(partial)"),
    ]


def test_tables_come_in_the_papers_order(tmp_path):
    for pair in (PAIRS[2], ("stft", "cqt"), PAIRS[0], PAIRS[1]):
        fused(tmp_path, make_params({"representations": pair}), [20] * 5)
    titles = [table.title.split(" · ")[0] for table in tables.collect(tables.find_runs(tmp_path))]
    assert titles == ["Table I", "Table II", "Table III", "Table stft + cqt"]


def test_unfinished_runs_are_not_counted(one, tmp_path):
    cut = Run(tmp_path / "urban_synth-cut")
    cut.begin(make_params({"fold": 2}))
    cut.write_history([{"epoch": 1}])
    assert one(make_params({}), [20] * 5).rows["Folds"].tolist() == [1] * 5


def test_without_a_fusion_run_there_is_no_table(tmp_path):
    finished(tmp_path, make_params({}), {"logmel": right(3)}, branch="logmel")
    assert tables.collect(tables.find_runs(tmp_path)) == []
    assert tables.collect(tables.find_runs(tmp_path / "nowhere")) == []


# What is said


def test_data_networks_and_schedule_are_told_below_the_table(one):
    params = make_params({"width": 0.25, "epochs": 5, "joint_epochs": 3, "sample_rate": 16000})
    note = one(params, [20] * 5, n_dropped=7).note
    for told in (
        "Data: synthetic. Forty clips.",
        "mobilenet_v2 at width 0.25, 5 + 3 epochs, 16000 Hz.",
        "7 training clips left out: their recording is in the test fold.",
    ):
        assert told in note


def test_markdown_is_a_table_of_the_same_cells(one):
    table = one(make_params({}), [20, 22, 30, 24, 32])
    title, header, rule, *rows, note = [line for line in table.to_markdown().splitlines() if line]
    assert (title, note) == (f"**{table.title}**", table.note)
    names = [cell.strip() for cell in header.strip("|").split("|")]
    assert [name for name in names if not name.startswith("Paper")] == COLUMNS
    assert set(rule) == {"|", "-"}
    assert len({len(line) for line in (header, rule, *rows)}) == 1  # aligned as plain text
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[1] for row in cells] == ["50.0", "55.0", "75.0", "60.0", "80.0"]


def strictly(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_a_missing_parent_leaves_its_row_empty_and_the_others_as_they_are(tmp_path):
    runs = fused(tmp_path, make_params({}), [20, 22, 30, 24, 32])
    (tmp_path / runs[0].name / "complete.json").unlink()
    (table,) = tables.collect(tables.find_runs(tmp_path))
    rows = json.loads(json.dumps(table.to_dict()), parse_constant=strictly)["rows"]
    assert [row["Ours"] for row in rows] == [None, 55.0, 75.0, 60.0, 80.0]
    assert [row["95 % interval"] is None for row in rows] == [True] + [False] * 4
    assert (rows[0]["Folds"], rows[0]["Clips"], rows[0]["runs"]) == (0, 0, [])
    assert "nan" not in table.to_markdown()


def test_plain_data_are_json_with_every_figure(one):
    table = one(make_params({"representations": ["logmel", "stft"]}), [20, 22, 30, 24, 32])
    plain = json.loads(json.dumps(table.to_dict()), parse_constant=strictly)
    assert set(plain) == {"title", "note", "rows"}
    assert [row["Ours"] for row in plain["rows"]] == [50.0, 55.0, 75.0, 60.0, 80.0]
    assert [row["Paper (UrbanSound8K, 10 folds)"] for row in plain["rows"]] == [None] * 5


def test_a_figure_shows_the_rows_that_are_there(tmp_path):
    from fusionkd_lib import plots

    runs = fused(tmp_path, make_params({}), [20, 22, 30, 24, 32])
    (tmp_path / runs[0].name / "complete.json").unlink()
    (table,) = tables.collect(tables.find_runs(tmp_path))
    ax = plots.table_figure(table)
    shown = {float(x) for line in ax.lines if line.get_marker() == "o" for x in line.get_xdata()}
    assert shown == {55.0, 75.0, 60.0, 80.0}
    (paper,) = [line for line in ax.lines if line.get_marker() == "D"]
    assert paper.get_xdata().tolist() == PAPER_ACCURACY[PAIRS[0]][::-1]
    mpl.pyplot.close("all")


def test_a_figure_of_a_table_is_traced_to_its_runs(tmp_path):
    for fold in (1, 2):
        fused(tmp_path, make_params({"fold": fold}), [20, 22, 30, 24, 32])
    runs = tables.find_runs(tmp_path)
    steps = tables.trace(tables.collect(runs), runs, "table i", "Gammatone (KD)")
    assert [step["fold"] for step in steps] == [1, 2]
    assert {step["figure"]["accuracy"] for step in steps} == {24 / N}
    assert {step["head"] for step in steps} == {"gammatone"}
    with pytest.raises(InputError, match="no row of Table I is called 'CQT': there are Log-mel,"):
        tables.trace(tables.collect(runs), runs, "Table I", "CQT")
    with pytest.raises(InputError, match="no table is called 'Table II': fusionkd table"):
        tables.trace(tables.collect(runs), runs, "Table II", "Log-mel")
