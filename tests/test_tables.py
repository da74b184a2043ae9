"""Tables: values of hand-made runs, the paper's beside them, and what must be said of both."""

import json
from collections.abc import Callable, Iterable
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from handmade import write_baselines, write_pair, write_run
from sklearn.metrics import average_precision_score

from fusionkd_lib.catalogue import FUSED, MEAN
from fusionkd_lib.errors import InputError
from fusionkd_lib.params import Params, make_params
from fusionkd_lib.runs import Run, find_records
from fusionkd_lib.tables import Difference, Table, collect, compare, interval, markdown, trace_row

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
KEYS = {"classifier", "head", "ours", "low", "high", "paper", "folds", "clips", "seeds"}
N = 40


def right(n_right: int, *, n: int = N) -> np.ndarray:
    """Scores of clips of class 0, so many of which are recognised, the others spread evenly."""
    is_right = np.zeros(n, dtype=bool)
    is_right[np.linspace(0, n - 1, n_right).astype(int)] = True
    return np.eye(10)[np.where(is_right, 0, 1)]


def fused(
    root: Path, params: Params, counts: list[int], *, n: int = N, **told: object
) -> list[Run]:
    """Write a fusion run and its branches: the branches alone, after distillation, the fused."""
    names = params.representations
    scores = [right(count, n=n) for count in counts]
    both = {
        "alone": dict(zip(names, scores, strict=False)),
        "together": dict(zip((*names, FUSED), scores[len(names) :], strict=True)),
    }
    return write_pair(root, params, both, **told)


def tables_of(root: Path) -> list[Table]:
    records, faults = find_records(root)
    assert faults == []
    return collect(records)


def told(rows: Iterable, key: str) -> list:
    return [getattr(row, key) for row in rows]


def papers(table: Table) -> list:
    """The rows of a table that the paper has too: no baselines, no mean."""
    return [row for row in table.rows if row.head in (*table.params.representations, FUSED)]


@pytest.fixture
def one(tmp_path) -> Callable[..., Table]:
    """Return a function that makes the one table of runs written by another one."""

    def make(*args: object, **options: object) -> Table:
        fused(tmp_path, *args, **options)
        (table,) = tables_of(tmp_path)
        return table

    return make


# Rows


def test_a_table_has_the_papers_rows_and_says_how_many_folds_clips_and_seeds(one):
    table = one(make_params({}), [20, 22, 30, 24, 32])
    assert told(table.rows, "classifier") == [
        "Log-mel",
        "Gammatone",
        "Log-mel (KD)",
        "Gammatone (KD)",
        "Mean of branches (KD)",
        "Fused classifier",
    ]
    assert told(table.rows, "head") == ["logmel", "gammatone", "logmel", "gammatone", MEAN, FUSED]
    assert told(papers(table), "ours") == pytest.approx([50, 55, 75, 60, 80])
    assert {(row.folds, row.clips, row.seeds) for row in table.rows} == {(1, N, 1)}
    assert table.title == "Table I · logmel + gammatone · accuracy in %, urban synth (synthetic)"


def test_values_are_means_over_folds_and_seeds(tmp_path):
    counts = {(1, 0): 20, (1, 1): 24, (2, 0): 30, (2, 1): 26, (3, 0): 40}
    for (fold, seed), count in counts.items():
        fused(tmp_path, make_params({"fold": fold, "seed": seed}), [count] * 5)
    (table,) = tables_of(tmp_path)
    for row in table.rows:
        assert row.ours == pytest.approx(100 * np.mean(list(counts.values())) / N)
        assert (row.folds, row.clips, row.seeds) == (3, 3 * N, 2)
        assert len(row.runs) == 5


@pytest.mark.parametrize("pair", PAIRS)
def test_the_papers_values_stand_beside_ours_with_their_data(one, pair):
    table = one(make_params({"representations": pair}), [20] * 5)
    assert told(papers(table), "paper") == PAPER_ACCURACY[pair]
    assert table.row(MEAN).paper is None
    assert "Paper (UrbanSound8K, 10 folds)" in table.to_markdown()
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
    both = {"alone": dict.fromkeys(pair, noise), "together": scores}
    write_pair(tmp_path, params, both, targets=targets)
    (table,) = tables_of(tmp_path)
    assert told(papers(table), "paper") == PAPER_AUPRC[pair]
    assert "Paper (DCASE 2019 Task 5, validate)" in table.to_markdown()
    pooled = [average_precision_score(targets.ravel(), x.ravel()) for x in scores.values()]
    ours = told(papers(table), "ours")[2:]
    assert ours == pytest.approx([100 * area for area in pooled], abs=1.5)
    assert "micro AUPRC in %" in table.title


def test_three_branches_have_seven_rows_and_no_values_of_the_paper(one):
    params = make_params({"representations": ["logmel", "gammatone", "cqt"]})
    table = one(params, [10, 12, 14, 16, 18, 20, 22])
    assert told(papers(table), "ours") == pytest.approx([25, 30, 35, 40, 45, 50, 55])
    assert told(table.rows, "paper") == [None] * 8
    assert table.title.startswith("Table logmel + gammatone + cqt · ")


def test_a_row_is_found_by_its_classifier_before_and_after_distillation(one):
    table = one(make_params({}), [20, 22, 30, 24, 32])
    assert table.row("gammatone", alone=True).classifier == "Gammatone"
    assert table.row("gammatone").classifier == "Gammatone (KD)"
    assert table.row(FUSED).ours == 80


# Intervals


def test_the_interval_is_the_normal_one_of_independent_clips(one):
    n = 400
    table = one(make_params({}), [300, 300, 300, 300, 400], n=n)
    half = 196 * np.sqrt(0.75 * 0.25 / n)
    for row in table.rows[:4]:
        assert row.low < row.ours < row.high
        assert (row.low, row.high) == pytest.approx((75 - half, 75 + half), abs=1)
    assert (table.rows[-1].low, table.rows[-1].high) == (100, 100)


def test_more_folds_narrow_the_interval_and_more_seeds_alone_do_not(tmp_path):
    widths = {}
    for what, runs in {
        "one": [(1, 0)],
        "seeds": [(1, 0), (1, 1), (1, 2)],
        "folds": [(1, 0), (2, 0), (3, 0), (4, 0)],
    }.items():
        for fold, seed in runs:
            fused(tmp_path / what, make_params({"fold": fold, "seed": seed}), [50] * 5, n=100)
        (table,) = tables_of(tmp_path / what)
        widths[what] = table.rows[0].high - table.rows[0].low
    # The same clips, drawn alike.
    assert widths["seeds"] == pytest.approx(widths["one"])
    assert widths["folds"] == pytest.approx(widths["one"] / 2, rel=0.15)


def test_a_test_set_of_one_recording_has_no_interval(tmp_path):
    fused(tmp_path, make_params({}), [1] * 5, n=1)
    (table,) = tables_of(tmp_path)
    assert {(row.ours, row.low, row.high) for row in table.rows} == {(100, None, None)}
    rows = [table.row("logmel")], [table.row("logmel", alone=True)]
    assert compare(*rows, find_records(tmp_path)[0]) is None
    assert "nan" not in table.to_markdown()


def test_an_interval_is_written_with_one_decimal_or_not_at_all():
    assert interval(23.44, 41.16) == "23.4 to 41.2"
    assert interval(None, None) is None


# Differences


def gains(records: list) -> list[Difference]:
    """What each branch of the one table gained."""
    (table,) = collect(records)
    rows = [([table.row(x)], [table.row(x, alone=True)]) for x in table.params.representations]
    return [gain for pair in rows if (gain := compare(*pair, records))]


def test_a_gain_is_a_difference_in_points_and_its_interval_pairs_the_recordings(tmp_path):
    n, half = 400, 1.96 * 100 * np.sqrt(0.05 * 0.95 / 400)
    # The same 300 clips are right before and after; 20 more are, of a branch that has learned.
    learned = right(300, n=n)
    learned[np.flatnonzero(learned[:, 0] == 0)[:20]] = np.eye(10)[0]
    both = {
        "alone": {"logmel": right(300, n=n), "gammatone": right(300, n=n)},
        "together": {"logmel": learned, "gammatone": right(300, n=n), FUSED: learned},
    }
    write_pair(tmp_path, make_params({}), both)
    records, _ = find_records(tmp_path)
    logmel, gammatone = gains(records)
    assert logmel.points == pytest.approx(5)
    assert (logmel.low, logmel.high) == pytest.approx((5 - half, 5 + half), abs=0.4)
    # Paired: the clips that are right in both do not widen it.
    assert astuple(gammatone) == (0, 0, 0)
    assert (logmel.verdict, gammatone.verdict) == ("gain", "open")


def test_a_fold_whose_branch_is_missing_is_left_out_of_the_gain_on_both_sides(tmp_path):
    fused(tmp_path, make_params({"fold": 1}), [20, 20, 24, 20, 20])
    lost, *_ = fused(tmp_path, make_params({"fold": 2}), [10, 20, 40, 20, 20])
    (lost.folder / "complete.json").unlink()
    records, _ = find_records(tmp_path)
    assert [gain.points for gain in gains(records)] == pytest.approx([10, 0])


def test_the_mean_of_several_differences_has_the_interval_of_the_mean(tmp_path):
    n = 400
    # Among the recordings, one branch wins where the other loses: their mean does not differ.
    halves = right(200, n=n), 1 - right(200, n=n)
    both = {
        "alone": {"logmel": halves[0], "gammatone": halves[1]},
        "together": {"logmel": halves[1], "gammatone": halves[0], FUSED: halves[0]},
    }
    write_pair(tmp_path, make_params({}), both)
    records, _ = find_records(tmp_path)
    (table,) = collect(records)
    after = [table.row(name) for name in PAIRS[0]]
    before = [table.row(name, alone=True) for name in PAIRS[0]]
    assert all(gain.high - gain.low > 10 for gain in gains(records))
    assert astuple(compare(after, before, records)) == (0, 0, 0)


# Baselines


def test_baselines_stand_above_the_branches_and_are_compared_with_every_seed(tmp_path):
    for seed, count in enumerate((30, 34)):
        fused(tmp_path, make_params({"seed": seed}), [count] * 5)
    (bare,) = tables_of(tmp_path)
    assert "It lacks baselines" in bare.note
    scores = {"chance": right(4), "svm_gammatone": right(20)}
    write_baselines(tmp_path, make_params({"seed": 7, "lr": 0.5}), scores)
    records, _ = find_records(tmp_path)
    (table,) = collect(records)
    names = ["Chance", "Nearest neighbour", "SVM, Log-mel", "SVM, Gammatone", "SVM, all"]
    assert told(table.rows, "classifier")[:6] == [*names, "Log-mel"]
    assert told(table.rows, "ours")[:6] == pytest.approx([10, 10, 10, 50, 10, 80])
    assert (table.rows[0].seeds, table.rows[5].seeds) == (1, 2)
    assert "lacks" not in table.note
    rows = [table.row("gammatone", alone=True)], [table.row("svm_gammatone")]
    assert compare(*rows, records).points == pytest.approx(30)


@pytest.mark.parametrize("change", [{"fold": 2}, {"hop_length": 256}, {"train_folds": [1, 2]}])
def test_baselines_on_other_clips_or_spectrograms_do_not_count(tmp_path, change):
    fused(tmp_path, make_params({}), [20] * 5)
    write_baselines(tmp_path, make_params(change), {"chance": right(4)})
    (table,) = tables_of(tmp_path)
    assert told(table.rows, "classifier")[0] == "Log-mel"


def test_the_mean_of_the_branches_is_of_their_scores(tmp_path):
    # Each is sure of half the clips and unsure of the others: together they are right on all.
    sure, unsure = np.array([0.9, 0.1]), np.array([0.4, 0.6])
    first = np.where(np.arange(N)[:, None] < N // 2, sure, unsure)
    pair = {"logmel": first, "gammatone": first[::-1]}
    both = {"alone": pair, "together": {**pair, FUSED: first}}
    write_pair(tmp_path, make_params({}), both)
    (table,) = tables_of(tmp_path)
    assert [table.row(head).ours for head in ("logmel", MEAN)] == [50, 100]


# What belongs together


def test_fold_and_seed_belong_to_one_table_and_every_other_setting_makes_another(tmp_path):
    for change in ({}, {"fold": 2}, {"seed": 1}, {"lr": 0.5}, {"kd_loss": "kl"}):
        fused(tmp_path, make_params(change), [20] * 5)
    assert sorted(len(table.row(FUSED).runs) for table in tables_of(tmp_path)) == [1, 1, 3]


def test_data_of_another_status_are_never_in_one_table(tmp_path):
    values = {"dataset": "urbansound8k", "allow_partial": True}
    for fold, status in ((1, "partial"), (2, "partial"), (3, "real")):
        fused(tmp_path, make_params(values | {"fold": fold}), [20] * 5, data_status=status)
    assert sorted((table.rows[0].folds, table.title[-9:]) for table in tables_of(tmp_path)) == [
        (1, "8K (real)"),
        (2, "(partial)"),
    ]


def test_other_clips_are_never_in_one_table(tmp_path):
    for fold, data in ((1, "one copy"), (2, "another")):
        fused(tmp_path, make_params({"fold": fold}), [20] * 5, data=data)
    assert [table.rows[0].folds for table in tables_of(tmp_path)] == [1, 1]


def test_tables_come_in_the_papers_order(tmp_path):
    for pair in (PAIRS[2], ("stft", "cqt"), PAIRS[0], PAIRS[1]):
        fused(tmp_path, make_params({"representations": pair}), [20] * 5)
    titles = [table.title.split(" · ")[0] for table in tables_of(tmp_path)]
    assert titles == ["Table I", "Table II", "Table III", "Table stft + cqt"]


def test_unfinished_runs_are_not_counted(one, tmp_path):
    cut = Run(tmp_path / "urban_synth-cut")
    cut.begin(make_params({"fold": 2}))
    cut.write_history([{"epoch": 1}])
    assert told(one(make_params({}), [20] * 5).rows, "folds") == [1] * 6


def test_without_a_fusion_run_there_is_no_table(tmp_path):
    write_run(tmp_path, make_params({}), {"logmel": right(3)}, branch="logmel")
    assert tables_of(tmp_path) == tables_of(tmp_path / "nowhere") == []


# What is said


def test_data_networks_and_schedule_are_told_below_the_table(one):
    params = make_params({"width": 0.25, "epochs": 5, "joint_epochs": 3, "sample_rate": 16000})
    note = one(params, [20] * 5, n_dropped=7).note
    for words in (
        "Data: synthetic. 40 clips.",
        "mobilenet_v2 at width 0.25, 5 + 3 epochs, 16000 Hz.",
        "7 training clips left out: their recording is in the test fold.",
    ):
        assert words in note


def test_a_table_in_markdown_shows_the_same_values(one):
    table = one(make_params({}), [20, 22, 30, 24, 32])
    title, header, rule, *rows, note = [line for line in table.to_markdown().splitlines() if line]
    assert (title, note) == (f"**{table.title}**", table.note)
    names = [cell.strip() for cell in header.strip("|").split("|")]
    assert [name for name in names if not name.startswith("Paper")] == COLUMNS
    assert set(rule) == {"|", "-"}
    assert len({len(line) for line in (header, rule, *rows)}) == 1  # aligned as plain text
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[1] for row in cells] == ["50.0", "55.0", "75.0", "60.0", "90.0", "80.0"]
    assert cells[0][2] == f"{table.rows[0].low:.1f} to {table.rows[0].high:.1f}"


def test_markdown_shows_what_is_missing_as_a_dash():
    rows = [{"a": 1, "b": None}, {"a": "long", "b": 2.5}]
    assert markdown(rows).splitlines() == [
        "| a    | b   |",
        "|------|-----|",
        "| 1    | –   |",
        "| long | 2.5 |",
    ]


def strictly(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_a_missing_branch_leaves_its_row_empty_and_the_others_as_they_are(tmp_path):
    runs = fused(tmp_path, make_params({}), [20, 22, 30, 24, 32])
    (runs[0].folder / "complete.json").unlink()
    records, _ = find_records(tmp_path)
    (table,) = collect(records)
    assert table.rows[0].ours is None
    assert told(papers(table)[1:], "ours") == pytest.approx([55, 75, 60, 80])
    assert [row.low is None for row in table.rows] == [True] + [False] * 5
    assert (table.rows[0].folds, table.rows[0].clips, table.rows[0].runs) == (0, 0, ())
    assert len(gains(records)) == 1
    assert "nan" not in table.to_markdown()


def test_plain_data_are_json_with_numbers_alone_and_nothing_of_the_runs(tmp_path):
    pair = ["logmel", "stft"]
    runs = fused(tmp_path, make_params({"representations": pair}), [20, 22, 30, 24, 32])
    (runs[0].folder / "complete.json").unlink()
    (table,) = tables_of(tmp_path)
    plain = json.loads(json.dumps(table.to_dict()), parse_constant=strictly)
    assert set(plain) == {"title", "metric", "dataset", "status", "note", "rows"}
    assert all(set(row) == KEYS for row in plain["rows"])
    assert [row["ours"] for row in plain["rows"]][1:] == pytest.approx([55, 75, 60, 90, 80])
    assert [row["paper"] for row in plain["rows"]] == [None] * 6
    for row in plain["rows"]:
        assert all(isinstance(row[key], str) for key in ("classifier", "head"))
        assert all(isinstance(row[key], int) for key in ("folds", "clips", "seeds"))
        values = [row[key] for key in ("ours", "low", "high")]
        assert all(isinstance(value, float) for value in values) or values == [None] * 3


def test_a_value_of_a_table_is_traced_to_its_runs(tmp_path):
    for fold in (1, 2):
        fused(tmp_path, make_params({"fold": fold}), [20, 22, 30, 24, 32])
    records, _ = find_records(tmp_path)
    found = collect(records)
    steps = trace_row(found, records, "table i", "Gammatone (KD)")
    assert [step["fold"] for step in steps] == [1, 2]
    assert {step["metrics"]["accuracy"] for step in steps} == {24 / N}
    assert {step["head"] for step in steps} == {"gammatone"}
    means = trace_row(found, records, "Table I", "Mean of branches (KD)")
    # Where one branch is right and the other wrong, they tie, and the first class, 0, is right.
    either = (right(30) + right(24))[:, 0].clip(max=1).mean()
    assert [step["metrics"] for step in means] == [{"accuracy": pytest.approx(either)}] * 2
    assert [len(step["parents"]) for step in steps] == [2, 2]
    assert json.loads(json.dumps(steps), parse_constant=strictly) == steps
    with pytest.raises(InputError, match="no row of Table I is called 'CQT': there are Log-mel,"):
        trace_row(found, records, "Table I", "CQT")
    with pytest.raises(InputError, match="no table is called 'Table II': fusionkd table"):
        trace_row(found, records, "Table II", "Log-mel")
