"""Every figure that more than one chapter shows.

Each function draws on the axes it is given, or on new ones, and returns them. Colours stand for the
same representation in every figure.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from fusionkd_lib.tables import LABELS, Table

# Okabe and Ito's palette, told apart by colour-blind readers too.
COLOURS = {
    "logmel": "#0072B2",
    "cqt": "#D55E00",
    "gammatone": "#009E73",
    "stft": "#CC79A7",
    "fused": "#000000",
}
FLOOR = 80  # dB shown below the loudest point of a spectrogram


def use_style() -> None:
    """Set the look of every figure of the book."""
    sns.set_theme(context="notebook", style="ticks", font_scale=0.9)
    plt.rcParams.update({"figure.dpi": 90, "figure.constrained_layout.use": True})


def label(name: str) -> str:
    """Return what a figure calls a representation or the fused classifier."""
    return LABELS.get(name, name.capitalize())


def show_spectrogram(
    spectrogram: np.ndarray,
    *,
    frequencies: np.ndarray,
    seconds: float,
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Show a spectrogram (F, T) in dB over time, its own frequencies on the axis."""
    ax = ax or plt.subplots(figsize=(5, 3))[1]
    top = spectrogram.max()
    extent = (0, seconds, 0, len(spectrogram))
    ax.imshow(
        spectrogram,
        origin="lower",
        aspect="auto",
        extent=extent,
        vmin=top - FLOOR,
        vmax=top,
        cmap="magma",
    )
    ticks = np.linspace(0, len(frequencies) - 1, 5).round().astype(int)
    ax.set_yticks(ticks + 0.5, [_hertz(frequencies[tick]) for tick in ticks])
    ax.set(xlabel="time (s)", ylabel="frequency (Hz)", title=title)
    return ax


def _hertz(frequency: float) -> str:
    return f"{frequency / 1000:.1f}k" if frequency >= 1000 else f"{frequency:.0f}"


def learning_curve(history: pd.DataFrame, *, selected: int, ax: Axes | None = None) -> Axes:
    """Show training and validation loss by epoch, and the epoch whose weights were kept."""
    ax = ax or plt.subplots(figsize=(6, 3.2))[1]
    ax.plot(history["epoch"], history["loss"], label="training", color="0.6")
    if "val_loss" in history:
        ax.plot(history["epoch"], history["val_loss"], label="validation", color="#0072B2")
    ax.axvline(selected, color="0.8", zorder=0, label=f"kept: epoch {selected}")
    ax.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=False)
    sns.despine(ax=ax)
    return ax


def loss_terms(history: pd.DataFrame, *, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Show the cross-entropy and distillation terms of the joint phase, and the ramped lambda."""
    axes = plt.subplots(1, 3, figsize=(11, 3))[1] if axes is None else axes
    for ax, prefix, title in zip(
        axes, ("ce_", "kd_"), ("cross-entropy (Eq. 3)", "distillation (Eq. 2)"), strict=False
    ):
        for column in history.filter(regex=f"^{prefix}(?!weight)"):
            name = column.removeprefix(prefix)
            ax.plot(history["epoch"], history[column], color=COLOURS[name], label=label(name))
        ax.set(title=title, xlabel="epoch", ylim=(0, None))
        ax.legend(frameon=False)
    axes[2].plot(history["epoch"], history["kd_weight"], color="0.3")
    axes[2].set(title="ramped lambda", xlabel="epoch", ylim=(0, None))
    for ax in axes:
        ax.xaxis.get_major_locator().set_params(integer=True)
        sns.despine(ax=ax)
    return axes


def confusion(matrix: np.ndarray, classes: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Show a confusion matrix (K, K), rows true and columns predicted, in clips."""
    ax = ax or plt.subplots(figsize=(6, 5))[1]
    names = [name.replace("_", " ") for name in classes]
    sns.heatmap(
        matrix,
        annot=True,
        fmt="d",
        cmap="Blues",
        cbar=False,
        square=True,
        xticklabels=names,
        yticklabels=names,
        ax=ax,
    )
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
    ax = ax or plt.subplots(figsize=(9, 3.2))[1]
    x = np.arange(len(classes))
    for index, (name, values) in enumerate(figures.items()):
        offset = (index - (len(figures) - 1) / 2) * 0.2
        ax.plot(x + offset, values, "o", color=COLOURS.get(name), label=label(name))
    ax.set_xticks(x, [name.replace("_", " ") for name in classes], rotation=30, ha="right")
    ax.set(ylabel=ylabel, ylim=(-0.02, 1.02))
    ax.grid(axis="y", alpha=0.3)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    sns.despine(ax=ax)
    return ax


def table_figure(table: Table, *, ax: Axes | None = None) -> Axes:
    """Show the rows of a table with their intervals, and the paper's figures as open diamonds."""
    ax = ax or plt.subplots(figsize=(6.5, 2.6))[1]
    rows = table.rows.iloc[::-1].reset_index(drop=True)
    paper = next(column for column in rows if column.startswith("Paper"))
    for y, row in rows.iterrows():
        low, high = (float(x) for x in row["95 % interval"].split(" to "))
        ax.plot([low, high], [y, y], color=COLOURS[row["head"]], alpha=0.5)
        ax.plot(row["Ours"], y, "o", color=COLOURS[row["head"]])
    ax.plot(rows[paper].astype(float), rows.index, "D", mfc="none", color="0.6", label=paper)
    ax.axvline(rows["chance"].iloc[0], color="0.8", ls=":", label="chance")
    ax.set_yticks(rows.index, rows["Classifier"])
    ax.set(xlabel=table.title.split(" · ")[-1], title=" · ".join(table.title.split(" · ")[:2]))
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")
    sns.despine(ax=ax)
    return ax
