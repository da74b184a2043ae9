"""The study's numbers, from hand-made runs: whole blocks, the endpoint, its verdict, Holm."""

import numpy as np
import pytest
from handmade import write_pair
from scipy.special import erfinv

from fusionkd_book import study, verdicts
from fusionkd_lib.catalogue import FUSED
from fusionkd_lib.params import load_params
from fusionkd_lib.runs import find_records, run_name

N = 400
ARM = """
grid:
  representations: [[logmel, gammatone], [logmel, cqt]]
  fold: [1, 2]
  seed: [0, 1]
select: last
"""
# What each arm changes, and the share of clips that its branches name rightly.
ARMS = {
    "none": ("kd_weight: 0.0", 0.6),
    "paper": ("", 0.6),
    "chosen": ("kd_weight: 1.0", 0.65),
    "equal": ("kd_weight: 0.0\nfused_weight: 0.0", 0.7),
}


def right(share: float) -> np.ndarray:
    """Scores of clips of class 0, so great a share of which is recognised, spread evenly."""
    return np.eye(10)[np.where(np.arange(N) * 7 % N < share * N, 0, 1)]


@pytest.fixture
def folder(tmp_path):
    """Four arms of two pairs, two folds and two seeds, none of which has run."""
    for arm, (line, _) in ARMS.items():
        (tmp_path / "pretrained").mkdir(exist_ok=True)
        (tmp_path / "pretrained" / f"{arm}.yaml").write_text(f"{ARM}{line}\n")
    return tmp_path


def write_arm(folder, arm: str, share: float | None = None, *, seeds=(0, 1)) -> None:
    share = ARMS[arm][1] if share is None else share
    for params in load_params(folder / "pretrained" / f"{arm}.yaml"):
        if params.seed in seeds:
            alone = {name: right(0.5) for name in params.representations}
            after = {name: right(share) for name in params.representations}
            scores = {"alone": alone, "together": after | {FUSED: right(0.9)}}
            write_pair(folder / "runs", params, scores)


def blocks_of(folder) -> list[study.Block]:
    records = {record.name: record for record in find_records(folder / "runs")[0]}
    return study.blocks("pretrained", records, folder=folder)


def test_a_block_counts_for_a_question_when_both_of_its_arms_are_whole(folder):
    def answer(*arms: str) -> list[tuple[int, int]]:
        return [(block.fold, block.seed) for block in study.answering(blocks_of(folder), *arms)]

    write_arm(folder, "chosen")
    write_arm(folder, "none", seeds=[1])
    (
        folder / "runs" / sorted(run.name for run in (folder / "runs").glob("*fold2-seed1*+*"))[0]
    ).rename(folder / "elsewhere")
    assert answer("chosen", "none") == [(1, 1)]
    assert answer("chosen", "equal") == []
    assert answer("chosen", study.BEFORE) == [(1, 0), (1, 1), (2, 0)]


def test_a_contrast_of_some_cells_is_theirs_alone(folder):
    write_arm(folder, "none")
    for params in load_params(folder / "pretrained" / "chosen.yaml"):
        after = {"logmel": right(0.8), params.representations[1]: right(0.6), FUSED: right(0.9)}
        alone = {name: right(0.5) for name in params.representations}
        write_pair(folder / "runs", params, {"alone": alone, "together": after})
    cells = [("logmel + cqt", "logmel")]
    assert study.contrast(blocks_of(folder), "chosen", "none").points == pytest.approx(10)
    found = study.contrast(blocks_of(folder), "chosen", "none", cells=cells)
    assert found.points == pytest.approx(20)
    assert found.ends[0] > 10


def test_each_question_is_answered_by_the_difference_of_its_arms(folder):
    for arm in ARMS:
        write_arm(folder, arm)
    found = blocks_of(folder)
    (answer,) = study.endpoint(found)
    assert (answer["Points"], answer["On"]) == (
        "+5.0",
        "2 folds, 800 clips, 2 seeds, 4 blocks of 9",
    )
    told = {
        row["Difference"]: (row["Points"], row["Verdict"]) for row in study.secondary(found, [])
    }
    assert told == {
        "Chosen less equal training": ("-5.0", "loss"),
        "Chosen less the branches before": ("+15.0", "gain"),
        "The paper's less lambda 0": ("+0.0", "open"),
    }


def test_the_ledger_says_of_a_teacher_what_the_study_says(folder):
    for arm in ARMS:
        write_arm(folder, arm)
    found = blocks_of(folder)
    rows = verdicts.ledger([], [], [], study=study.endpoint(found) + study.secondary(found, []))
    told = {
        row["Claim"]: (row["Ours"], row["Verdict"]) for row in rows if "teacher" in row["Claim"]
    }
    claim = "It is the teacher that makes them better, not more training "
    claim += "(the study: {}, ImageNet weights)"
    assert told == {
        claim.format("softened scores at weight 1"): ("+5.0", "held"),
        claim.format("the paper's distillation"): ("+0.0", "open"),
    }


def test_the_interval_is_that_of_recordings_drawn_within_each_fold(folder):
    for arm in ARMS:
        write_arm(folder, arm)
    contrast = study.contrast(blocks_of(folder), "chosen", "none")
    # All cells and seeds are won together, so that what is left is the luck of 400 recordings in
    # each of two folds; by the law of large numbers the ends are nearly the normal ones.
    won = (right(0.65) - right(0.6))[:, 0]
    deviation = 100 * won.std() / np.sqrt(N) / np.sqrt(2)
    assert contrast.n_recordings == 2 * N
    assert contrast.ends == pytest.approx((5 - 1.96 * deviation, 5 + 1.96 * deviation), abs=0.15)


def test_seeds_are_drawn_too(folder):
    for arm in ("none", "paper", "equal"):
        write_arm(folder, arm)
    write_arm(folder, "chosen", 0.6, seeds=[0])
    write_arm(folder, "chosen", 0.8, seeds=[1])
    contrast = study.contrast(blocks_of(folder), "chosen", "none")
    # Two seeds, 0 and 20 points: both, one of each twice, with the same draw in both folds.
    means = np.round(contrast.drawn / 10)
    assert contrast.points == pytest.approx(10)
    shares = [(means == mean).mean() for mean in (0, 1, 2)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.02)


@pytest.mark.parametrize(
    ("points", "spread", "verdict"),
    [
        (3.0, 1.0, "gain"),
        (0.0, 0.5, "no gain worth having"),
        (-2.0, 0.5, "no gain worth having"),
        # Half of the interval, 3.92 points, must come down to 1.0 points: 15.4 times as many.
        (1.0, 2.0, "open; about 1,540 recordings or more would decide it"),
        (0.5, 0.25, "gain"),  # small as it is
    ],
)
def test_the_verdict_is_the_protocols(points, spread, verdict):
    quantiles = (np.arange(100_001) + 0.5) / 100_001
    normal = points + spread * np.sqrt(2) * erfinv(2 * quantiles - 1)
    assert study.Contrast(points, normal, 100).verdict == verdict


def test_an_end_that_decides_is_told_with_the_digits_that_show_on_which_side_it_lies():
    close = study.Contrast(0.06, np.linspace(-1.47, 1.47, 3) / 0.95, 100)
    clear = study.Contrast(-0.04, np.linspace(-1.4, 1.2, 3), 100)
    assert close.told == ("+0.06", "-1.47 to +1.47")
    assert clear.told == ("+0.0", "-1.3 to +1.1")


def test_what_these_recordings_left_open_fewer_do_not_decide():
    # The upper end lies 2.0 from a point that is 1.9 below the mark, the lower one only 1.5.
    drawn = np.concatenate([np.full(60, x) for x in (-1.9, 1.6)] + [np.full(1900, -0.4)])
    contrast = study.Contrast(-0.4, drawn, 332)
    assert contrast.ends == (-1.9, 1.6)
    assert contrast.verdict == "open; about 370 recordings or more would decide it"


def test_a_fold_with_one_seed_weighs_as_much_as_one_with_two(folder):
    write_arm(folder, "none")
    write_arm(folder, "chosen", 0.7, seeds=[0])
    write_arm(folder, "chosen", 0.8, seeds=[1])
    found = [b for b in blocks_of(folder) if (b.fold, b.seed) != (2, 1)]
    contrast = study.contrast(found, "chosen", "none")
    assert contrast.points == pytest.approx((15 + 10) / 2)
    assert contrast.on == "2 folds, 800 clips, 2 seeds, 3 blocks"
    # Of fold 1 both seeds, or one of them twice; fold 2 has nothing to draw.
    means = np.round(contrast.drawn / 2.5)
    shares = [(means == mean).mean() for mean in (4, 5, 6)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.1)


def test_folds_that_draw_their_own_seeds_leave_less_to_cancel(folder):
    write_arm(folder, "none")
    for params in load_params(folder / "pretrained" / "chosen.yaml"):
        is_good = params.fold == params.seed + 1  # seed 0 in fold 1, seed 1 in fold 2
        after = {name: right(0.8 if is_good else 0.6) for name in params.representations}
        alone = {name: right(0.5) for name in params.representations}
        write_pair(folder / "runs", params, {"alone": alone, "together": after | {FUSED: right(1)}})
    together, apart = (
        study.contrast(blocks_of(folder), "chosen", "none", one_draw_of_seeds=one)
        for one in (True, False)
    )
    assert together.points == apart.points == pytest.approx(10)
    # Each fold has 0, 10, 20 points with shares 1/4, 1/2, 1/4: a variance of 50, of the mean 25.
    assert together.drawn.std() < 2
    assert apart.drawn.std() == pytest.approx(5, rel=0.1)


def test_each_recording_counts_the_same_where_that_is_asked():
    groups = np.array(["long", "long", "long", "short"])
    cells = {"a": np.array([True, True, False, False]), "b": np.array([True, True, True, True])}
    block = study.Block(1, 0, groups, {"none": cells}).by_recording()
    assert block.groups.tolist() == ["long", "short"]
    assert block.share("none") == pytest.approx([(2 / 3 + 1) / 2, (0 + 1) / 2])


def test_holms_correction_of_a_hand_worked_case():
    # 0.01 x 4; 0.02 x 3; 0.03 x 2, which may not be below the one before; 0.6.
    corrected = study.holm({"d": 0.6, "b": 0.02, "a": 0.01, "c": 0.03})
    assert corrected == pytest.approx({"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.6})


def test_without_blocks_nothing_is_said():
    assert study.endpoint([]) == []
    assert study.secondary([], []) == []


@pytest.mark.parametrize("trunk", study.ARMS_OF)
def test_the_arms_differ_in_the_distillation_alone(trunk):
    distillation = {"kd_weight", "kd_loss", "temperature", "teacher", "ramp_epochs", "fused_weight"}
    found = {
        path.stem: [params.model_dump(exclude=distillation) for params in load_params(path)]
        for path in (study.FOLDER / trunk).glob("*.yaml")
    }
    assert set(found) == set(study.ARMS_OF[trunk])
    assert all(settings == found["none"] for settings in found.values())


@pytest.mark.parametrize("trunk", study.ARMS_OF)
def test_the_arms_of_a_committed_block_ran_on_one_kind_of_processor(trunk):
    records, processors = study.read_records(), {}
    for arm in study.ARMS_OF[trunk]:
        for params in load_params(study.FOLDER / trunk / f"{arm}.yaml"):
            if run := records.get(run_name(params)):
                processors.setdefault((params.fold, params.seed), set()).add(
                    run.provenance.processor
                )
    assert [block for block, of in processors.items() if len(of) > 1] == []
