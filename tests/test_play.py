"""Things to play with: their data are right, ask for nothing elsewhere, and may be shown twice."""

import base64
import io
import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import soundfile
from bs4 import BeautifulSoup
from handmade import write_pair
from scipy import stats
from sklearn.metrics import precision_recall_curve, precision_score, recall_score

from fusionkd_book import play
from fusionkd_lib.params import load_params, make_params
from fusionkd_lib.runs import find_records, run_name

ROOT = Path(__file__).parents[1]
PAIR = ("logmel", "gammatone")
RATE = 16000
NAMES = ("a_car", "b</script><b>", "c & d")
TRUTH, NETWORK = np.array([0, 1, 2, 2]), np.array([0, 2, 2, 1])


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def soup(output) -> BeautifulSoup:
    return BeautifulSoup(output.data, "html.parser")


def data_of(output) -> dict:
    (script,) = soup(output).select("script[type='application/json']")
    return json.loads(script.string)


def tagged(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return 60 clips of which some have a tag, and scores of which many are equal."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, 60)
    return truth, np.round(0.3 * truth + 0.7 * rng.random(60), 1)


def a_game():
    sounds = [np.sin(np.arange(RATE) * (i + 1) / 20) for i in range(len(TRUTH))]
    return play.listening(sounds, TRUTH, NETWORK, NAMES, sample_rate=RATE)


SERIES = {play.AFTER: [1.0, -2.0, 0.0, 3.5], play.TAUGHT: [0.5, 0.25, 0.75, 1.0]}
GAMES = {
    "listening": a_game,
    "threshold": lambda: play.threshold(*tagged(0), tag="a</script>_b"),
    "seeds": lambda: play.seeds(range(4), SERIES),
}


# All three


@pytest.mark.parametrize("name", GAMES)
def test_a_game_asks_for_nothing_elsewhere_and_keeps_nothing(name):
    text = GAMES[name]().data
    assert set(re.findall(r"\w+://[^\s\"'`)]+", text)) == {"http://www.w3.org/2000/svg"}  # a name
    reaching = r"fetch\(|XMLHttp|sendBeacon|WebSocket|import\(|Storage|cookie|@import|url\("
    assert re.findall(reaching, text) == []
    sources = [
        tag[key]
        for tag in soup(GAMES[name]()).select("*")
        for key in ("src", "href")
        if tag.get(key)
    ]
    assert sources == []


@pytest.mark.parametrize("name", GAMES)
def test_a_game_that_is_shown_twice_has_no_id_twice_and_no_name_in_common(name):
    text = GAMES[name]().data
    assert soup(GAMES[name]()).select("[id], [name]") == []
    assert re.findall(r"\bid:|\.id\b|\"id\"|getElementById|window\.", text) == []
    *_, script = soup(GAMES[name]()).select("script")
    assert re.fullmatch(r"\(\(\) => \{\n.*\}\)\(\);", script.string, re.DOTALL)


@pytest.mark.parametrize("name", GAMES)
def test_no_name_ends_the_script_or_becomes_a_tag(name):
    made = soup(GAMES[name]())
    assert len(made.select("script")) == 2
    assert made.select("b") == []


@pytest.mark.parametrize("name", GAMES)
def test_who_has_no_scripts_reads_where_it_plays(name):
    made = soup(GAMES[name]())
    for hidden in made.select("script, style"):
        hidden.decompose()
    assert "JupyterLab" in made.text
    assert "make site" in made.text


# The listening game


def test_the_game_holds_the_sounds_the_truth_and_what_the_network_said():
    data = data_of(a_game())
    assert data["classes"] == ["a car", "b</script><b>", "c & d"]
    assert (data["truth"], data["network"]) == (TRUTH.tolist(), NETWORK.tolist())
    for sound in data["sounds"]:
        kind, _, content = sound.partition(",")
        heard, rate = soundfile.read(io.BytesIO(base64.b64decode(content)))
        assert (kind, rate) == ("data:audio/mpeg;base64", RATE)
        assert 1 <= len(heard) / RATE < 1.2  # an MP3 has silence around it


def test_without_scripts_a_fold_has_the_answers():
    rows = [
        [cell.text for cell in row.select("td")]
        for row in soup(a_game()).select("details tbody tr")
    ]
    shown = [name.replace("_", " ") for name in NAMES]
    pairs = zip(TRUTH, NETWORK, strict=True)
    assert rows == [[f"{i}", shown[t], shown[n]] for i, (t, n) in enumerate(pairs, 1)]


def test_ten_clips_are_of_ten_recordings_and_the_same_each_time():
    groups = np.repeat([f"r{i}" for i in range(30)], 3)
    drawn = play.draw_clips(groups)
    assert len(set(groups[drawn])) == 10
    assert (drawn == play.draw_clips(groups)).all()
    every = np.concatenate([play.draw_clips(groups, seed=seed) for seed in range(300)])
    counts = np.unique(groups[every], return_counts=True)[1]
    assert len(counts) == 30
    assert stats.chisquare(counts).pvalue > 1e-3  # each recording as often as another


# The threshold


@pytest.mark.parametrize("seed", range(5))
def test_every_stop_of_the_slider_is_a_point_of_scikit_learns_curve(seed):
    truth, scores = tagged(seed)
    data = data_of(play.threshold(truth, scores, tag="siren"))
    precision, recall, thresholds = precision_recall_curve(truth, scores)
    at, said, hits = np.array(data["points"])[::-1].T
    assert data["total"] == truth.sum()
    # scikit-learn leaves out lower thresholds once all is found; its last point is at none.
    kept = np.isin(at, thresholds)
    np.testing.assert_allclose(at[kept], thresholds)
    np.testing.assert_allclose((hits / said)[kept], precision[:-1])
    np.testing.assert_allclose((hits / data["total"])[kept], recall[:-1])
    assert (hits[~kept] == data["total"]).all()


def test_the_strokes_below_the_curve_are_the_clips_by_falling_score():
    truth, scores = np.array([1, 0, 1, 0]), np.array([0.2, 0.9, 0.7, 0.1])
    assert data_of(play.threshold(truth, scores, tag="siren"))["ranked"] == "0110"


def test_the_marked_thresholds_are_those_of_scikit_learn_in_table_and_figure():
    truth, scores = tagged(1)
    rows = play.at_marked(truth, scores)
    lines = play.draw_thresholds(truth, scores).get_lines()[1:]
    for row, line in zip(rows, lines, strict=True):
        said = scores >= float(row["Threshold"])
        right = precision_score(truth, said), recall_score(truth, said)
        assert [row["Precision"], row["Recall"]] == [f"{100 * share:.0f} %" for share in right]
        assert (line.get_ydata()[0], line.get_xdata()[0]) == pytest.approx(right)
        assert row["Hits"] + row["Misses"] == truth.sum()
        assert row["Hits"] + row["False alarms"] == said.sum()


def test_a_threshold_at_which_nothing_is_said_has_no_precision_and_no_mark():
    truth, scores = np.array([1, 0]), np.array([0.6, 0.2])
    strict, *_ = play.at_marked(truth, scores)
    assert (strict["Precision"], strict["Recall"], strict["Misses"]) == ("–", "0 %", 1)
    assert len(play.draw_thresholds(truth, scores).get_lines()) == 3


# Seeds


def write_seeds(root: Path, *, control: bool) -> None:
    """Write three seeds whose branches name 10 of 20 clips before, and 11, 10 and 7 after."""
    before = right(10)
    for seed, n_right in enumerate((11, 10, 7)):
        for weight in (0.01, 0.0) if control else (0.01,):
            after = right(n_right if weight else 9)
            both = {
                "alone": dict.fromkeys(PAIR, before),
                "together": dict(zip((*PAIR, "fused"), (after, before, after), strict=True)),
            }
            write_pair(
                root,
                make_params({"representations": PAIR, "seed": seed, "kd_weight": weight}),
                both,
            )


def right(n: int) -> np.ndarray:
    return np.eye(10)[np.where(np.arange(20) < n, 0, 1)]


@pytest.mark.parametrize("control", [False, True])
def test_a_gain_is_the_mean_of_two_branches_against_before_and_against_lambda_0(tmp_path, control):
    write_seeds(tmp_path, control=control)
    numbers, series = play.gains_by_seed(find_records(tmp_path)[0])
    assert numbers == [0, 1, 2]
    expected = {play.AFTER: [2.5, 0, -7.5]} | ({play.TAUGHT: [5, 2.5, -5]} if control else {})
    assert series == expected


def test_the_interval_over_seeds_is_that_of_scipys_test():
    gains = SERIES[play.AFTER]
    middle, low, high = play.interval(gains)
    ends = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
    assert (middle, low, high) == pytest.approx((np.mean(gains), ends.low, ends.high))
    data = data_of(play.seeds(range(4), SERIES))
    half = data["quantiles"][-1] * stats.sem(gains)  # as the page computes it
    assert (middle - half, middle + half) == pytest.approx((low, high))
    assert data["series"] == SERIES


def test_the_sentence_goes_with_the_signs():
    after, taught = play.tell(SERIES).split("\n\n")
    assert "Gains: 2, losses: 1, neither: 1." in after
    assert "has zero in it" in after
    assert after.endswith("the mean: 1.")
    assert "lies above zero" in taught
    turned = play.tell({name: [-gain for gain in gains] for name, gains in SERIES.items()})
    assert "Gains: 1, losses: 2" in turned
    assert "lies below zero" in turned


def test_the_strip_has_a_mark_for_each_seed_that_points_where_it_went():
    ax = play.draw_seeds(SERIES)
    marks = {"^": 0, "v": 0, "o": 0}
    for line in ax.get_lines():
        if line.get_marker() in marks:
            marks[line.get_marker()] += len(line.get_xdata())
    assert marks == {"^": 6, "v": 1, "o": 1}


def test_the_committed_seeds_are_of_the_parameter_file_and_each_on_one_kind_of_processor():
    runs, _ = find_records(ROOT / "outputs" / "reference" / "twenty")
    arms = [run for run in runs if run.provenance.kind == "fusion"]
    wanted = {run_name(p): p.seed for p in load_params(ROOT / "params" / "seeds" / "twenty.yaml")}
    assert set(wanted.values()) == set(range(20))
    assert {run.name for run in arms} <= wanted.keys()
    # What is compared, within a seed, was rounded alike.
    kinds = {(run.params.seed, run.provenance.processor) for run in runs}
    assert len(kinds) == len({run.params.seed for run in runs})
    numbers, series = play.gains_by_seed(runs)
    assert len(arms) == 2 * len(numbers) >= 6  # with the teacher and without
    assert {len(gains) for gains in series.values()} == {len(numbers)}
    assert len(series) == 2
