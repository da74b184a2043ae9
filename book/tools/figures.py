"""The figures of the book, but for those that a chapter draws in a few lines of its own.

Each function draws on the axes it is given, or on new ones, and returns them. Colours and strokes
stand for the same representation in every figure; what a colour tells, a shape tells too. No figure
is wider than `WIDTH`.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import soundfile
from IPython.core.pylabtools import print_figure
from IPython.display import HTML, Markdown, display
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import LogLocator, NullLocator

from fusionkd_lib import catalogue
from fusionkd_lib.records import Record
from fusionkd_lib.tables import Table, collect

COLOURS = {name: entry.colour for name, entry in catalogue.REPRESENTATIONS.items()}
COLOURS |= {f"{catalogue.label(name)} (KD)": colour for name, colour in COLOURS.items()}
COLOURS |= {catalogue.FUSED: "#000000", catalogue.MEAN: "#666666"}
STROKES = dict(zip(catalogue.REPRESENTATIONS, cycle(("-", "--", ":")), strict=False))
STROKES |= {catalogue.FUSED: "-."}
MARKS = "osD^v"  # of series that stand beside each other
BASELINE = "0.55"  # the colour of what a network has to beat
PICTURE = {"origin": "lower", "aspect": "auto", "cmap": "magma"}
FLOOR = 80  # dB shown below the loudest point of a spectrogram
WIDTH = 6  # inches: on a phone, 360 pixels wide, type of 10 points is then 8 pixels high
ROUND = [step * 10**power for power in range(1, 5) for step in (1, 2, 5)]  # Hz


def use_style() -> None:
    """Set the look of every figure of the book."""
    sns.set_theme(context="notebook", style="ticks", font_scale=0.9)
    plt.rcParams.update(
        {
            "figure.dpi": 110,
            "figure.figsize": (WIDTH, 3.4),
            "figure.constrained_layout.use": True,
            "image.interpolation": "nearest",  # every value is one rectangle
        }
    )


def show(drawn: Any, *, alt: str, caption: str = "", vector: bool = False) -> None:
    """Display a figure once, with its alternative text and, below it, its caption.

    The text goes into the metadata of the output, where nbconvert and the web book look for it, and
    into the picture itself.

    Parameters
    ----------
    drawn
        A figure, or axes of it: one or an array of them.
    alt
        What a reader is told who does not see the figure.
    caption
        Its number in the chapter and its message, in Markdown: ``**Figure 2.1.** A short ...``.
    vector
        Whether it is a drawing, sharp at every size (SVG); else it is made of pixels (PNG).
    """
    figure = np.ravel(drawn)[0].figure
    form, kind = ("svg", "image/svg+xml") if vector else ("png", "image/png")
    picture = print_figure(figure, form, base64=True, metadata={"Title": alt})
    plt.close(figure)
    display({kind: picture}, metadata={kind: {"alt": alt}}, raw=True)
    if caption:
        display(Markdown(caption))


def label(name: str) -> str:
    """Return what a figure calls a representation or the fused classifier."""
    known = name in catalogue.REPRESENTATIONS or name in catalogue.LABELS or "svm_" in name
    return catalogue.label(name) if known else name[:1].upper() + name[1:]


def show_spectrogram(
    spectrogram: np.ndarray,
    *,
    frequencies: np.ndarray,
    seconds: float,
    ax: Axes | None = None,
    title: str = "",
    span: tuple[float, float] | None = None,
) -> Axes:
    """Show a spectrogram (F, T) in dB over time, round frequencies of its own on the axis.

    ``span`` holds the dB of black and of white. Without it, 0 dB is the loudest point shown.
    """
    ax = ax or plt.subplots(figsize=(5, 3))[1]
    low, high = span or (-FLOOR, 0)
    values = spectrogram if span else spectrogram - spectrogram.max()
    extent = (0, seconds, 0, len(values))
    ax.imshow(values, extent=extent, vmin=low, vmax=high, **PICTURE)
    ticks = round_rows(frequencies)
    ax.set_yticks(list(ticks.values()), [hertz(frequency) for frequency in ticks])
    ax.set(xlabel="time (s)", ylabel="frequency (Hz)", title=title)
    return ax


def decibel_scale(axes: Axes | Sequence[Axes], *, label: str = "dB below the loudest") -> None:
    """Put one scale beside spectrograms that share it; the last of the axes holds one of them."""
    axes = np.ravel(axes)
    (image,) = axes[-1].get_images()
    axes[-1].figure.colorbar(image, ax=axes, label=label, aspect=30)


def round_rows(frequencies: np.ndarray) -> dict[int, float]:
    """Return where round frequencies in Hz lie among the rows (F,), none too near to the next."""
    rows: dict[int, float] = {}
    for frequency in ROUND[::-1]:
        row = np.interp(frequency, frequencies, 0.5 + np.arange(len(frequencies)))
        is_inside = frequencies[0] <= frequency <= frequencies[-1]
        if is_inside and all(below - row > len(frequencies) / 8 for below in rows.values()):
            rows[frequency] = float(row)
    return rows


def hertz(frequency: float, _: object = None) -> str:
    """Write 200 Hz as 200, 2000 Hz as 2k."""
    return f"{frequency / 1000:g}k" if frequency >= 1000 else f"{frequency:g}"


def round_ticks(*axes: Axis) -> None:
    """Put 1, 2, 5, 10, ... on logarithmic axes."""
    for axis in axes:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(hertz)
        axis.set_minor_locator(NullLocator())


def learning_curve(history: pd.DataFrame, *, selected: int, ax: Axes | None = None) -> Axes:
    """Show training and validation loss by epoch, and the epoch whose weights were kept."""
    ax = ax or plt.subplots()[1]
    ax.plot(history["epoch"], history["loss"], "--", label="training", color="0.5")
    if "val_loss" in history:
        ax.plot(history["epoch"], history["val_loss"], label="validation", color="#0072B2")
    ax.axvline(selected, ls=":", color="0.6", zorder=0, label=f"kept: epoch {selected}")
    ax.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=False)
    sns.despine(ax=ax)
    return ax


def loss_terms(history: pd.DataFrame, *, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Show the cross-entropy and distillation terms of the joint phase, and the ramped lambda."""
    axes = plt.subplots(3, 1, figsize=(WIDTH, 7), sharex=True)[1] if axes is None else axes
    for ax, prefix, title in zip(
        axes, ("ce_", "kd_"), ("cross-entropy (Eq. 3)", "distillation (Eq. 2)"), strict=False
    ):
        for column in history.filter(regex=f"^{prefix}(?!weight)"):
            name = column.removeprefix(prefix)
            look = {"color": COLOURS[name], "ls": STROKES[name], "label": label(name)}
            ax.plot(history["epoch"], history[column], **look)
        ax.set(title=title, ylim=(0, None))
        ax.legend(frameon=False)
    axes[2].plot(history["epoch"], history["kd_weight"], color="0.3")
    axes[2].set(title="ramped lambda", xlabel="epoch of the joint phase", ylim=(0, None))
    for ax in axes:
        ax.xaxis.get_major_locator().set_params(integer=True)
        sns.despine(ax=ax)
    return axes


def confusion(matrix: np.ndarray, classes: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Show a confusion matrix (K, K), rows true and columns predicted, in clips."""
    ax = ax or plt.subplots(figsize=(WIDTH, 5))[1]
    names = [name.replace("_", " ") for name in classes]
    look = {"annot": True, "fmt": "d", "cmap": "Blues", "cbar": False, "square": True}
    sns.heatmap(matrix, xticklabels=names, yticklabels=names, ax=ax, **look)
    ax.set(xlabel="predicted", ylabel="true")
    return ax


def class_scores(
    figures: Mapping[str, Sequence[float]],
    classes: Sequence[str],
    *,
    ylabel: str,
    ax: Axes | None = None,
) -> Axes:
    """Show one figure a class for several classifiers, such as recall."""
    ax = ax or plt.subplots(figsize=(WIDTH, 3.8))[1]
    x = np.arange(len(classes))
    for index, (name, values) in enumerate(figures.items()):
        offset, mark = (index - (len(figures) - 1) / 2) * 0.2, MARKS[index % len(MARKS)]
        ax.plot(x + offset, values, mark, color=COLOURS.get(name, "0.65"), label=label(name))
    ax.set_xticks(x, [name.replace("_", " ") for name in classes], rotation=40, ha="right")
    ax.set(ylabel=ylabel, ylim=(-0.02, 1.02))
    ax.grid(axis="y", alpha=0.3)
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(figures))
    sns.despine(ax=ax)
    return ax


def spectrogram_grid(
    panels: Mapping[str, tuple[np.ndarray, np.ndarray]], *, n_columns: int, seconds: float
) -> np.ndarray:
    """Show titled spectrograms (F, T) in dB, each with its frequencies (F,), row by row."""
    n_rows = -(-len(panels) // n_columns)
    size = WIDTH, 0.6 + 1.6 * n_rows
    axes = plt.subplots(n_rows, n_columns, figsize=size, squeeze=False)[1]
    for ax, (title, (values, frequencies)) in zip(axes.flat, panels.items(), strict=True):
        show_spectrogram(values, frequencies=frequencies, seconds=seconds, ax=ax, title=title)
        ax.set(xlabel="time (s)" if ax in axes[-1] else "", ylabel="Hz" if ax in axes[:, 0] else "")
        if len({tuple(frequencies) for _, frequencies in panels.values()}) == 1:
            ax.label_outer()
    decibel_scale(axes)
    return axes


def feature_maps(maps: Mapping[str, np.ndarray]) -> Sequence[Axes]:
    """Show maps (f, t) of any height, two in a row, a rectangle for each value."""
    n_rows = -(-len(maps) // 2)
    axes = plt.subplots(n_rows, 2, figsize=(WIDTH, 1.6 * n_rows), squeeze=False)[1].ravel()
    for ax, (title, values) in zip(axes, maps.items(), strict=True):
        ax.imshow(values, origin="lower", cmap="magma")
        ax.set(title=title, xticks=[], yticks=range(len(values)))
    return axes


def opinions(
    probabilities: Mapping[str, Sequence[float]], classes: Sequence[str], *, title: str
) -> Axes:
    """Show what several classifiers say about one clip: a bar per class and classifier."""
    ax, greys = plt.subplots(figsize=(WIDTH, 3.8))[1], iter(("0.75", "0.5", "0.25"))
    width, hatches = 0.8 / len(probabilities), cycle(("", "////", "...."))
    for index, (name, values) in enumerate(probabilities.items()):
        x = np.arange(len(classes)) + width * (index - (len(probabilities) - 1) / 2)
        look = {"color": COLOURS.get(name) or next(greys), "hatch": next(hatches)}
        ax.bar(x, values, width, **look, edgecolor="white", lw=0, label=label(name))
    names = [name.replace("_", " ") for name in classes]
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right")
    ax.set(ylabel="probability", xlabel=title)
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(probabilities))
    sns.despine(ax=ax)
    return ax


def precision_recall(points: Sequence[tuple[float, float, float | None]]) -> Axes:
    """Show points (recall, precision, threshold) as a curve, and the area under it."""
    ax = plt.subplots(figsize=(5, 3.2))[1]
    recall, precision, _ = zip(*points, strict=True)
    ax.fill_between(recall, precision, color=COLOURS["logmel"], alpha=0.15)
    ax.plot(recall, precision, "o-", color=COLOURS["logmel"])
    for x, y, threshold in points[1:-1]:  # the ends are of the metric's making
        ax.annotate(f"{threshold:.1f}", (x, y), xytext=(5, 4), textcoords="offset points")
    ax.set(xlabel="recall", ylabel="precision", xlim=(-0.02, 1.12), ylim=(-0.02, 1.12))
    sns.despine(ax=ax)
    return ax


def table_figure(table: Table, *, ax: Axes | None = None) -> Axes:
    """Show the rows of a table with their intervals, and the paper's values as open diamonds."""
    ax = ax or plt.subplots(figsize=(WIDTH, 1.2 + 0.32 * len(table.rows)))[1]
    rows = table.rows[::-1]
    baselines = catalogue.baselines_of(table.params.representations)
    for y, row in enumerate(rows):
        if row.ours is not None:  # else a parent that is not there
            colour = COLOURS.get(row.head, BASELINE)
            ax.plot([row.low, row.high], [y, y], color=colour, alpha=0.5)
            ax.plot(row.ours, y, "s" if row.head in baselines else "o", color=colour)
    paper = [np.nan if row.paper is None else row.paper for row in rows]
    told = f"Paper ({table.paper_data})"
    ax.plot(paper, range(len(rows)), "D", mfc="none", color="0.6", label=told)
    machines = [row.ours for row in rows if row.head.startswith(catalogue.SUPPORT_VECTORS)]
    if machines:
        ax.axvline(max(machines), color=BASELINE, ls=":", label="best SVM")
    ax.set_yticks(range(len(rows)), [row.classifier for row in rows])
    ax.set(xlabel=f"Table {table.numeral} · {table.params.pair}\n{table.measured}")
    ax.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1))
    sns.despine(ax=ax)
    return ax


def seed_dots(runs: Sequence[Record], *, ax: Axes | None = None) -> Axes:
    """Show the rows of one table but for chance, a dot for each seed of its runs."""
    tables = _by_seed(runs)
    rows = [[row for row in table.rows[::-1] if row.head != catalogue.CHANCE] for table in tables]
    ax = ax or plt.subplots(figsize=(WIDTH, 0.6 + 0.32 * len(rows[0])))[1]
    for y, row in (place for seed in rows for place in enumerate(seed)):
        ax.plot(row.ours, y, "o", color=COLOURS.get(row.head, BASELINE), alpha=0.6)
    ax.set_yticks(range(len(rows[0])), [row.classifier for row in rows[0]])
    ax.set(xlabel=tables[0].measured)
    sns.despine(ax=ax)
    return ax


def seed_gains(runs: Sequence[Record]) -> str:
    """Say what each branch gained in the joint phase, from the lowest seed to the highest."""
    tables, told = _by_seed(runs), []
    for name in tables[0].params.representations:
        gains = [table.row(name).ours - table.row(name, alone=True).ours for table in tables]
        told.append(f"{label(name)} {min(gains):+.1f} to {max(gains):+.1f} points")
    return ", ".join(told)


def _by_seed(runs: Sequence[Record]) -> list[Table]:
    seeds = sorted({run.params.seed for run in runs})
    apart = [[x for x in runs if x.params.seed == seed or not len(x.history)] for seed in seeds]
    return [table for group in apart for table in collect(group)]


def players(sounds: Mapping[str, np.ndarray], *, sample_rate: int, status: str) -> None:
    """Display one audio player a sound (N,), its name above it, each sound at the same peak.

    The sounds are embedded as MP3, a tenth of the size of the WAV that a notebook embeds itself. A
    sentence says what they are (``status`` as of their clips) and, for pages that drop players,
    where they can be heard.
    """
    blocks = [
        f'<div style="display:inline-block;margin:0 1em 0.6em 0"><div>{name}</div>'
        f'<audio controls style="width:15em" src="data:audio/mpeg;base64,'
        f'{base64.b64encode(mp3(sound, sample_rate)).decode()}"></audio></div>'
        for name, sound in sounds.items()
    ]
    display(HTML("".join(blocks)))
    kind = "Synthesised, not recorded" if status == "synthetic" else f"Recorded ({status} data)"
    display(Markdown(f"*{kind}. No player here, as on GitHub? `make lab` and `make site` play.*"))


def mp3(sound: np.ndarray, sample_rate: int) -> bytes:
    """Return a sound (N,), at nine tenths of full scale, as the bytes of an MP3 file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.9 * sound / np.abs(sound).max(), sample_rate, format="MP3")
    return buffer.getvalue()


def framework(
    waveform: np.ndarray, spectrograms: Mapping[str, np.ndarray], *, ax: Axes | None = None
) -> Axes:
    """Draw the paper's Fig. 1 around a clip (N,) and its two spectrograms (F, T) in dB."""
    ax = ax or plt.subplots(figsize=(WIDTH, 6.4))[1]
    ax.set(xlim=(0, 6), ylim=(0, 6.9))
    ax.axis("off")
    _inset(ax, 2.2, 5.7, 1.6, 0.8).plot(waveform, color="0.4", lw=0.4)
    ax.text(3, 6.6, "clip $x$", ha="center")
    for (name, spectrogram), x, index in zip(spectrograms.items(), (1, 5), (1, 2), strict=True):
        colour, inwards = COLOURS[name], 1 if x < 3 else -1
        image = _inset(ax, x - 0.8, 4.6, 1.6, 1)
        image.imshow(spectrogram - spectrogram.max(), vmin=-FLOOR, vmax=0, **PICTURE)
        ax.text(x, 5.7, label(name), ha="center", color=colour, weight="bold")
        _arrow(ax, (3 - 0.85 * inwards, 6), (x, 5.98), style="-")
        for y, text in ((3.9, "trunk"), (2.9, "map $M$"), (1.9, "head")):
            _box(ax, x, y, text.replace("$M$", f"$M_{index}$"), colour)
        _box(ax, x, 0.9, f"logits $f_{index}(x)$", colour, fill=True)
        for start, end in ((4.6, 4.15), (3.65, 3.15), (2.65, 2.15), (1.65, 1.15)):
            _arrow(ax, (x, start), (x, end))
        _arrow(ax, (x + 0.6 * inwards, 2.9), (3 - 0.65 * inwards, 2.9))
        _arrow(ax, (3 - 0.7 * inwards, 0.9), (x + 0.7 * inwards, 0.9), style="--")
        ax.text((x + 3) / 2, 0.42, "distil (Eq. 2)", ha="center", style="italic")
    for y, text in ((2.9, "pool, stack"), (1.9, "head")):
        _box(ax, 3, y, text, COLOURS["fused"])
    _box(ax, 3, 0.9, "logits $g(x)$", COLOURS["fused"], fill=True)
    for start, end in ((2.65, 2.15), (1.65, 1.15)):
        _arrow(ax, (3, start), (3, end))
    ax.text(3, 0.1, "all three also learn from the labels (Eq. 1 and 3)", ha="center")
    return ax


def _inset(ax: Axes, x: float, y: float, width: float, height: float) -> Axes:
    inset = ax.inset_axes([x, y, width, height], transform=ax.transData)
    inset.set(xticks=[], yticks=[])
    return inset


def _box(
    ax: Axes, x: float, y: float, text: str, colour: str, *, width: float = 1.2, fill: bool = False
) -> None:
    width, (face, ink) = (1.4, (colour, "white")) if fill else (width, ("white", "black"))
    rounded = "round,pad=0,rounding_size=0.08"
    corner = (x - width / 2, y - 0.25)
    ax.add_patch(FancyBboxPatch(corner, width, 0.5, boxstyle=rounded, fc=face, ec=colour, lw=1.5))
    ax.text(x, y, text, ha="center", va="center", color=ink)


def _arrow(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], *, style: str = "-"
) -> None:
    arrow = {"arrowstyle": "->", "ls": style, "color": "0.3", "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=arrow)
