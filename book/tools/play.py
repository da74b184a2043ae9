"""Things to play with: a listening game, a threshold that moves, seeds drawn one after the other.

Each is one output of a cell: HTML with the data of a run and a script from the folder ``play``. It
asks for nothing elsewhere, stores and sends nothing, and has no id, so that it may be shown twice.
JupyterLab runs it when its cell is run, and the web book when its page is opened. Who has no
scripts, as on GitHub, sees the sentence or the table that stands in its place.
"""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from IPython.display import HTML
from matplotlib.axes import Axes
from scipy.stats import t as student

from fusionkd_book import figures
from fusionkd_lib.records import Record

SOURCES = Path(__file__).with_suffix("")
ELSEWHERE = "Nothing moves here, as on GitHub? It plays in JupyterLab (run the cell) and on the web"
N_CLIPS = 10
MARKED = (0.75, 0.5, 0.25)  # thresholds of the figure that does not move
AFTER, TAUGHT = "after less before", "with the teacher less without (lambda 0)"

Gains = Mapping[str, Sequence[float]]


def _page(name: str, data: Mapping[str, Any], instead: str = "") -> HTML:
    """Return an output: what stands there without scripts, the data, and the scripts."""
    style = (SOURCES / "play.css").read_text(encoding="utf-8")
    script = "".join((SOURCES / f"{x}.js").read_text(encoding="utf-8") for x in ("common", name))
    told = json.dumps(data).replace("<", "\\u003c")  # no data ends the script
    return HTML(
        f'<div class="play"><p><em>{ELSEWHERE} book (<code>make site</code>).</em></p>{instead}'
        f'<style>{style}</style><script type="application/json">{told}</script>'
        f"<script>(() => {{\n{script}}})();</script></div>"
    )


def draw_clips(groups: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Return the first row of each of ten recordings that are drawn, whatever their classes.

    Some class may so come twice and another not at all: nobody can guess by elimination.
    """
    _, first = np.unique(groups, return_index=True)
    return np.random.default_rng(seed).permutation(first)[:N_CLIPS]


def listening(
    sounds: Sequence[np.ndarray],
    truth: np.ndarray,
    network: np.ndarray,
    classes: Sequence[str],
    *,
    sample_rate: int,
) -> HTML:
    """Return the game: name each clip, then see your confusion matrix beside the network's.

    Parameters
    ----------
    sounds
        One (N,) per clip.
    truth, network
        (n,) the class of each clip, and what the network called it.
    classes
        Their names.
    """
    names = [name.replace("_", " ") for name in classes]
    clips = (base64.b64encode(figures.mp3(sound, sample_rate)).decode() for sound in sounds)
    data = {
        "classes": names,
        "sounds": [f"data:audio/mpeg;base64,{clip}" for clip in clips],
        "truth": truth.tolist(),
        "network": network.tolist(),
    }
    said = (
        (html.escape(names[t]), html.escape(names[a])) for t, a in zip(truth, network, strict=True)
    )
    rows = "".join(
        f"<tr><td>{i}</td><td>{t}</td><td>{a}</td></tr>" for i, (t, a) in enumerate(said, 1)
    )
    head = "<tr><th>Clip</th><th>It was</th><th>The network said</th></tr>"
    summary = "<summary>The clips, and what the network said</summary>"
    table = f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"
    return _page("listening", data, f"<details>{summary}{table}</details>")


def cuts(truth: np.ndarray, scores: np.ndarray) -> list[tuple[float, int, int]]:
    """Return (threshold, clips said, hits) for each score, from the highest down.

    A clip is said where its score is at least the threshold; clips of one score are said together.

    Parameters
    ----------
    truth
        (n,) which clips have the tag.
    scores
        (n,)

    >>> cuts(np.array([1, 0, 1]), np.array([0.9, 0.5, 0.5]))
    [(0.9, 1, 1), (0.5, 3, 2)]
    """
    order = np.argsort(-scores, kind="stable")
    hits, ranked = truth[order].astype(int).cumsum(), scores[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    return [(float(ranked[i]), int(i) + 1, int(hits[i])) for i in last]


def threshold(truth: np.ndarray, scores: np.ndarray, *, tag: str) -> HTML:
    """Return the slider: precision, recall, hits, false alarms and misses of one tag."""
    ranked = truth[np.argsort(-scores, kind="stable")].astype(int)
    data = {"tag": tag.replace("_", " "), "total": int(truth.sum()), "points": cuts(truth, scores)}
    return _page("threshold", data | {"ranked": "".join(map(str, ranked))})


def at_marked(truth: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
    """Return rows of a table: what three thresholds do, each with its precision and recall."""
    rows = []
    for value in MARKED:
        said = scores >= value
        hits, n_said, total = int((said & (truth == 1)).sum()), int(said.sum()), int(truth.sum())
        counts = {"Hits": hits, "False alarms": n_said - hits, "Misses": total - hits}
        shares = {"Precision": _share(hits, n_said), "Recall": _share(hits, total)}
        rows.append({"Threshold": f"{value:g}"} | counts | shares)
    return rows


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "–"


def draw_thresholds(truth: np.ndarray, scores: np.ndarray) -> Axes:
    """Draw the curve of one tag with three thresholds marked on it."""
    ax = figures.plt.subplots(figsize=(5, 3.2))[1]
    _, said, hits = np.array(cuts(truth, scores)).T
    ax.plot(hits / truth.sum(), hits / said, color=figures.COLOURS["logmel"])
    for value, mark in zip(MARKED, figures.MARKS, strict=False):
        chosen = scores >= value
        if chosen.any():
            right = (chosen & (truth == 1)).sum()
            place = (right / truth.sum(), right / chosen.sum())
            ax.plot(*place, mark, color="#D55E00", ms=9, label=f"threshold {value:g}")
    ax.set(xlabel="recall", ylabel="precision", xlim=(-0.02, 1.05), ylim=(-0.02, 1.05))
    ax.legend(frameon=False, loc="lower left")
    figures.sns.despine(ax=ax)
    return ax


def gains_by_seed(runs: Sequence[Record]) -> tuple[list[int], dict[str, list[float]]]:
    """Return the seeds of a pair and, for each, the gain of a branch in points of the metric.

    A gain is the mean over the branches of the pair: after the joint phase less before and, where
    all seeds have both arms, with distillation less with lambda 0.
    """
    named = {run.name: run for run in runs}
    fused = [run for run in runs if run.provenance.kind == "fusion"]
    taught = {run.params.seed: run for run in fused if run.params.kd_weight > 0}
    alone = {run.params.seed: run for run in fused if run.params.kd_weight == 0}
    series = {AFTER: [_gain(taught[s], _parents(taught[s], named)) for s in sorted(taught)]}
    if alone.keys() == taught.keys():
        both = ((taught[seed], alone[seed]) for seed in sorted(taught))
        series[TAUGHT] = [_gain(x, dict.fromkeys(x.params.representations, y)) for x, y in both]
    return sorted(taught), series


def _parents(run: Record, named: Mapping[str, Record]) -> dict[str, Record]:
    parents = (named[name] for name in run.provenance.parents)
    return {parent.params.representations[0]: parent for parent in parents}


def _gain(run: Record, than: Mapping[str, Record]) -> float:
    each = [run.score(name) - than[name].score(name) for name in run.params.representations]
    return round(100 * float(np.mean(each)), 6)  # a difference of nothing is 0


def seeds(numbers: Sequence[int], series: Gains) -> HTML:
    """Return the drawing of seeds: the gain of each, and the mean of those so far."""
    quantiles = [float(student.ppf(0.975, df)) for df in range(1, len(numbers))]
    return _page("seeds", {"seeds": list(numbers), "quantiles": quantiles, "series": dict(series)})


def interval(gains: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean over seeds and the ends of its 95 % interval (Student's)."""
    half = student.ppf(0.975, len(gains) - 1) * np.std(gains, ddof=1) / len(gains) ** 0.5
    return float(np.mean(gains)), float(np.mean(gains) - half), float(np.mean(gains) + half)


def draw_seeds(series: Gains) -> Axes:
    """Draw a strip of dots for each kind of gain, a dot per seed, over its mean and interval."""
    ax = figures.plt.subplots(figsize=(figures.WIDTH, 1 + 1.1 * len(series)))[1]
    for row, gains in enumerate(series.values()):
        signs = np.sign(gains)
        heights = row - np.linspace(0.1, 0.6, len(gains))
        for sign, mark, colour in ((1, "^", "#0072B2"), (-1, "v", "#D55E00"), (0, "o", "0.5")):
            is_so = signs == sign
            ax.plot(np.array(gains)[is_so], heights[is_so], mark, color=colour, alpha=0.8)
        middle, low, high = interval(gains)
        ax.plot([low, high], [row + 0.12] * 2, color="0.3", lw=3, alpha=0.6)
        ax.plot(middle, row + 0.12, "D", color="black")
    ax.axvline(0, color="0.4", ls=":")
    ax.set_yticks(np.arange(len(series)) - 0.2, [name.replace(" (", "\n(") for name in series])
    ax.set(xlabel="gain of a branch in points", ylim=(len(series) - 0.7, -0.75))
    figures.sns.despine(ax=ax)
    return ax


def tell(series: Gains) -> str:
    """Say what the seeds say together, and how often one of them alone would have misled."""
    told = []
    for name, gains in series.items():
        middle, low, high = interval(gains)
        where = (
            "lies above zero" if low > 0 else "lies below zero" if high < 0 else "has zero in it"
        )
        signs = np.sign(gains)
        count = {sign: int((signs == sign).sum()) for sign in (1, -1, 0)}
        other = count[-int(np.sign(middle))] if middle else 0
        told.append(
            f"*{name[:1].upper() + name[1:]}*, {len(gains)} seeds. Gains: {count[1]}, losses: "
            f"{count[-1]}, neither: {count[0]}. The mean is **{middle:+.1f} points**; its "
            f"interval, {low:+.1f} to {high:+.1f}, {where}. Seeds that alone would have told the "
            f"opposite of the mean: {other}."
        )
    return "\n\n".join(told)
