# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 8 · Your own data
#
# Somewhere on your disk is a folder of sounds: birds, machines, a kitchen. This chapter takes such a folder
# through everything that the book did with UrbanSound8K, and ends with a tagged recording. Nothing in the
# library has to be changed for it: `dataset: folder` in a parameter file is enough.
#
# **You will learn** how a folder becomes a dataset, what to ask of it before anything is trained, why the number of
# *recordings* counts and not the number of clips, how to train and judge branches and a pair on it, how to tag a
# new recording, and how many recordings are enough.
#
# **You need** about a minute and no download; from [chapter 1](01_sounds_and_labels.py), what a fold is. The sounds
# are **synthetic**, made by a few lines of NumPy. They stand in for yours, which is what their status says in
# every table: *stand-in*.

# %%
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import soundfile
import torch
from IPython.display import Markdown, display
from scipy.signal import lfilter

from fusionkd_book import exercises, figures
from fusionkd_lib import baselines, experiment, metrics, tables
from fusionkd_lib.params import load_params
from fusionkd_lib.runs import outputs_root
from fusionkd_lib.tagging import load_tagger, tag_file

figures.use_style()
plt = figures.plt
home = outputs_root().resolve() / "chapter_08"
home.mkdir(parents=True, exist_ok=True)
os.environ |= {"FUSIONKD_OUTPUTS": str(home.parent), "FUSIONKD_DATA": str(home)}
RATE = 8000  # Hz

# %% [markdown]
# ## A folder of sounds
#
# Four things happen in our kitchen: a *bell* rings, a tap *drips*, a *fan* turns, a *kettle* whistles. The folded cell
# makes a recording of any of them. Each recording has a pitch and a pace of its own, and a room of its own behind
# it: a hiss and a hum, as loud as what we want to hear.


# %% tags=["hide-input"] jupyter={"source_hidden": true}
CLASSES = ("bell", "drip", "fan", "kettle")


def strokes(time, draw, pitch, label):
    """Add up strokes at a steady pace: long ones of two partials, or short ones that rise."""
    gap, sound = draw.uniform(0.25, 0.6), np.zeros_like(time)
    decay = draw.uniform(0.08, 0.3) if label == "bell" else draw.uniform(0.01, 0.04)
    for onset in np.arange(draw.uniform(0, gap), time[-1], gap):
        since = np.maximum(time - onset, 0)
        if label == "bell":
            stroke = np.sin(2 * np.pi * pitch * since) + np.sin(2 * np.pi * 1.47 * pitch * since)
        else:
            stroke = np.sin(2 * np.pi * pitch * (1 + 2 * since) * since)
        sound += (time >= onset) * np.exp(-since / decay) * stroke
    return sound


def record(label, number, seconds):
    """Return recording `number` of a class: (N,) float32 at `RATE`, always the same."""
    draw = np.random.default_rng([CLASSES.index(label), number])
    time = np.arange(round(seconds * RATE)) / RATE
    colour, hum, pitch = draw.uniform(0.5, 0.97), 50 * draw.integers(1, 5), draw.uniform(300, 2500)
    room = lfilter([1], [1, -colour], draw.standard_normal(len(time)))
    room = room / room.std() + draw.uniform(0, 1.5) * np.sin(2 * np.pi * hum * time)
    if label == "fan":
        air = lfilter([1], [1, -draw.uniform(0.3, 0.9)], draw.standard_normal(len(time)))
        sound = air * (1 + 0.8 * np.sin(2 * np.pi * draw.uniform(4, 12) * time))
    elif label == "kettle":
        waver = 3 * np.sin(2 * np.pi * draw.uniform(4, 9) * time)
        sound = np.sin(2 * np.pi * pitch * time + waver) + 0.5 * draw.standard_normal(len(time))
    else:
        sound = strokes(time, draw, pitch, label)
    loud = 10 ** (draw.uniform(0, 16) / 20) / np.abs(sound).max()
    mixed = room + loud * sound
    return (0.5 * mixed / np.abs(mixed).max()).astype(np.float32)


# %% [markdown]
# Of each class we make twelve recordings of four seconds, and cut each into four clips: this is how most datasets come
# about. Beside the clips we write **a table, `clips.csv`**, one row per clip:
#
# | column | what it holds |
# |---|---|
# | `path` | the sound file, seen from the folder |
# | `label` | what is to be heard; several are separated by `;`, and then every clip may carry any number |
# | `fold` | 1, 2, ... as many as you like; or, in its place, `split`: train, validation or test |
# | `recording` | where it was cut from; left out, each file counts as a recording of its own |

# %% tags=["nbval-check-output"]
rows = []
for label in CLASSES:
    for number in range(12):
        whole = record(label, number, seconds=4)
        for cut in range(4):
            path = f"{label}/{label}{number:02d}-{cut}.wav"
            (home / "kitchen" / label).mkdir(parents=True, exist_ok=True)
            clip = whole[cut * RATE : (cut + 1) * RATE]
            soundfile.write(home / "kitchen" / path, clip, RATE)
            rows.append((path, label, 1 + number % 4, f"{label}{number:02d}"))
listed = pd.DataFrame(rows, columns=["path", "label", "fold", "recording"])
listed.to_csv(home / "kitchen" / "clips.csv", index=False)
print(listed[::16].head(4).to_string(index=False))

# %% [markdown]
# The fold goes with the *recording*: all four clips of `bell04` are in fold 1. If you have no table, one folder per class
# will do (`bell/`, `drip/`, ...). Folds are then drawn from the names of the files, and every table says that
# a recording may be on two sides. A little below you see what that costs.
#
# Listen to one of each, and look.

# %%
first = {label: record(label, 0, seconds=4)[:RATE] for label in CLASSES}
figures.players(first, sample_rate=RATE, status="synthetic")

# %%
SETTINGS = """\
dataset: folder
data_folder: kitchen  # in the folder that FUSIONKD_DATA names
data_status: stand-in  # for sounds of your own: leave it out, they are real
representations: [logmel, gammatone]
fold: 1  # the test fold
sample_rate: 8000
duration: 1.0
n_fft: 512
hop_length: 128
n_mels: 64
gammatone_bands: 64
trunk: efficientnet_lite0
weights: imagenet
head: [64]
validation: none
select: last
optimizer: adamw
schedule: one_cycle
lr: 1.0e-3
weight_decay: 0.01
augmentation: [shift]
epochs: 4
joint_epochs: 3
batch_size: 16
shortcuts: [channels_last, fused_optimizer, reuse_memory]
threads: 1
"""
(home / "kitchen.yaml").write_text(SETTINGS)
(params,) = load_params(home / "kitchen.yaml")
torch.set_num_threads(params.threads)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
prepared = experiment.prepare(params)
clips, spectrograms = prepared.clips, prepared.data.spectrograms["logmel"]
frequencies = experiment.representations_of(params)["logmel"].frequencies
panels = {
    label: (spectrograms[int((clips.targets == k).argmax())], frequencies)
    for k, label in enumerate(clips.classes)
}
axes = figures.spectrogram_grid(panels, n_columns=2, seconds=params.duration)
figures.show(
    axes[0, 0].figure,
    alt="Log-mel spectrograms of a bell, a drip, a fan and a kettle, each in front of its room",
    caption="**Figure 8.1.** One clip of each class. What fills the picture from side to side is the room, not the label.",
)

# %% [markdown]
# ## Ask what is wrong
#
# Most folders are not as tidy as this one. Here is a copy in which four things went wrong, as they do: a copy that stopped
# half-way, a clip that came from another device, one that was put into the wrong fold, and a label with a typing error.
#
# **Predict:** which of the four would stop a training that simply begins? And which would quietly make the result
# look *better*?


# %% tags=["nbval-check-output"]
def fusionkd(*words):
    command = [sys.executable, "-c", "from fusionkd_lib.cli import main; main()", *words]
    answer = subprocess.run(command, cwd=home, capture_output=True, text=True)
    print(answer.stdout + answer.stderr)


spoilt = shutil.copytree(home / "kitchen", home / "spoilt", dirs_exist_ok=True)
(spoilt / "drip" / "drip05-1.wav").write_bytes(b"")
soundfile.write(spoilt / "fan" / "fan03-2.wav", record("fan", 3, seconds=1), 44100)
wrong = listed.copy()
wrong.loc[2, "fold"] = 3  # the third clip of bell00
wrong.loc[191, "label"] = "ketle"
wrong.to_csv(spoilt / "clips.csv", index=False)
fusionkd("data", "check", "folder", "--root", "spoilt")

# %% [markdown]
# The empty file stops a training, at some point and with some message. The typing error makes a class of one clip, which a
# network would learn to ignore; here the run is refused, since a label has to be learned from one recording and tested
# on another. The other rate is a remark and no fault: every clip is brought to one rate. The wrong fold is the dangerous one. It
# stops nothing, and it helps: part of the test has then been heard in training. (This library leaves such clips out of training and says how
# many; most code does not.) Now the good folder:

# %% tags=["nbval-check-output"]
fusionkd("data", "check", "folder", "--root", "kitchen")

# %% [markdown]
# ## Why recordings matter
#
# How much can a leak be worth? We ask the simplest classifier there is, the nearest neighbour, which repeats the label of the training
# clip that looks most alike. It is judged on the same clips twice: with our folds, and with folds that were drawn for each
# *file*, as they are where nobody says which clips belong together.
#
# **Predict** both numbers. Chance is 25 %.


# %%
def neighbour(clips):  # → accuracy in % on each fold, with all others to look in
    statistics, accuracies = baselines.band_statistics(spectrograms), []
    for fold in sorted(set(clips.table["fold"])):
        test = (clips.table["fold"] == fold).to_numpy()
        scores = baselines.nearest_neighbour(
            statistics[~test], clips.targets[~test], statistics[test], n_classes=4
        )
        accuracies.append(100 * metrics.accuracy(clips.targets[test], scores))
    return np.array(accuracies)


shuffled = np.random.default_rng(0).permutation(clips.table["fold"])
by_recording = neighbour(clips)
by_file = neighbour(replace(clips, table=clips.table.assign(fold=shuffled)))

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, ax = plt.subplots(figsize=(6, 1.8))
for y, (values, colour) in enumerate(((by_file, "#D55E00"), (by_recording, "#0072B2"))):
    ax.plot(values, np.full(len(values), y), "o", color=colour, alpha=0.5)
    ax.plot(values.mean(), y, "|", color=colour, ms=18, mew=2)
ax.axvline(25, color="0.6", ls=":")
ax.set_yticks((0, 1), ("folds by file", "folds by recording"))
ax.set(
    xlabel="accuracy in % (dots: the four folds; dotted: chance)", xlim=(0, 102), ylim=(1.5, -0.5)
)
figures.sns.despine()
figures.show(
    figure,
    alt="Accuracy of a nearest neighbour on four folds, drawn by file and by recording",
    caption="**Figure 8.2.** The same sounds, labels and classifier. Only the folds differ.",
)
display(
    Markdown(
        f"Folds by file: **{by_file.mean():.0f} %**. Folds by recording: **{by_recording.mean():.0f} %**. The difference of "
        f"{by_file.mean() - by_recording.mean():.0f} points is knowledge of {clips.table['group'].nunique()} rooms, and worth nothing in the next kitchen."
    )
)

# %% [markdown]
# So if you take one thing from this chapter: find out which of your files belong together, and write it into `recording`. A
# recording need not be a file. It is whatever makes clips alike without being the label: the same bird, the same
# machine, the same microphone on the same day.
#
# ## The parameter file
#
# Everything that decides a run stands in the file that was written above. Four keys are about your data: `dataset: folder`,
# the place (`data_folder` in `$FUSIONKD_DATA`, or `data_root` with a path of its own), and `fold`, the one
# to test on. `sample_rate` and `duration` are what every clip is brought to. The rest is the recipe of
# [chapter 0](00_the_whole_game.py): trunks that have learned from photographs, since a few hundred clips do not teach a
# network to see, and four epochs. No choice is made while it trains (`select: last`), so that no clip is needed
# to choose on (`validation: none`).
#
# On a command line, `fusionkd run kitchen.yaml` would now do it all. It also keeps a notebook of each run, which takes longer; here
# we call the functions that it calls.
#
# **Predict:** a support vector machine looks at three numbers per band, a network at the whole picture. Which
# wins with so few recordings?

# %%
branches = [experiment.train_branch(params, name) for name in params.representations]
pair = experiment.train_fusion(params)
machines = experiment.score_baselines(params)
(table,) = tables.collect([*branches, pair, machines])

# %% tags=["hide-input"] jupyter={"source_hidden": true}
shown = [
    {
        "Classifier": row.classifier,
        "Accuracy (%)": f"{row.ours:.1f}",
        "95 % interval": f"{row.low:.1f} to {row.high:.1f}",
    }
    for row in table.rows
]
display(Markdown(f"**{table.measured}**\n\n{tables.markdown(shown)}\n\n*{table.note}*"))

# %% tags=["hide-input"] jupyter={"source_hidden": true}
ours = {row.head: row for row in table.rows}
best = max((row for row in table.rows if row.head.startswith("svm")), key=lambda row: row.ours)
fused, test = table.row("fused"), pair.test
draws = [
    100 * metrics.bootstrap(metrics.accuracy, test.targets, scores, test.groups)
    for scores in (pair.scores["fused"], machines.scores[best.head])
]
low, high = np.quantile(draws[0] - draws[1], [0.025, 0.975])
verdict = "is settled" if low * high > 0 else "stays open"
display(
    Markdown(
        f"Chance is {ours['chance'].ours:.0f} %. The fused classifier has **{fused.ours:.0f} %**, the best machine {best.ours:.0f} %. With "
        f"{len(set(test.groups))} test recordings the interval of the first is **{fused.high - fused.low:.0f} points** wide. Their difference, drawn on "
        f"the same recordings, is {fused.ours - best.ours:+.1f} points, {low:+.1f} to {high:+.1f}: on this fold, with this seed, which is better {verdict}."
    )
)

# %% [markdown]
# Read such a table from the top. If your networks are not above *chance*, look at the labels. If the *nearest neighbour* is almost
# perfect, look for a leak. If the networks are not above the *machines*, you may not need one. And before you say that
# one row beats another, take the difference on the same recordings, as above and in
# [chapter 4](04_fusion_and_distillation.py). With `grid: {fold: [1, 2, 3, 4]}` in place of `fold`, all folds are
# tested in turn, every recording once, and the intervals shrink.
#
# ## Tag a new recording
#
# A branch is there to be used. Here is a recording that was not in the folder: a tap in a new kitchen, and after four
# seconds, a kettle. `fusionkd tag RUN new.wav --windows` prints what the next cell computes.
#
# **Predict:** a clip of this dataset has one label. What will be said of a recording that has two?

# %%
new = np.concatenate([record("drip", 50, seconds=4), record("kettle", 51, seconds=4)])
soundfile.write(home / "new.wav", new, RATE)
found = tag_file(load_tagger(pair.folder), home / "new.wav", windows=True)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figures.players({"a new recording": new}, sample_rate=RATE, status="synthetic")
starts = [window["start_seconds"] for window in found["windows"]]
figure, ax = plt.subplots(figsize=(6, 2.6))
for label, colour in zip(CLASSES, ("#0072B2", "#D55E00", "#009E73", "#CC79A7"), strict=True):
    heights = [window["scores"][label] for window in found["windows"]]
    ax.step([*starts, 8], [*heights, heights[-1]], where="post", color=colour, label=label)
ax.axvline(4, color="0.7", ls=":")
ax.set(xlabel="time (s)", ylabel="score", ylim=(0, 1.02))
ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
figures.sns.despine()
figures.show(
    figure,
    alt="Scores of the four classes in each second of a recording: a tap for four seconds, then a kettle",
    caption="**Figure 8.3.** The fused classifier, second by second. The tap ends and the kettle begins at the dotted line.",
)
seconds = [max(window["scores"], key=window["scores"].get) for window in found["windows"]]
truth = ["drip"] * 4 + ["kettle"] * 4
right = sum(a == b for a, b in zip(seconds, truth, strict=True))
display(
    Markdown(
        f"**{right} of {len(truth)}** seconds are named rightly. Of the whole recording it says *{found['tags'][0]}*, "
        f"with {100 * max(found['scores'].values()):.0f} %: the mean of all seconds, in which one label must win."
    )
)

# %% [markdown]
# If your recordings hold several sounds at once, say so in the labels: `drip;kettle`. Then each label is a question of its own, and
# a recording gets as many tags as reach their thresholds.
#
# ## With your own
#
# **How many recordings?** An accuracy $p$ that was measured on $n$ recordings has a 95 % interval of about
# $\pm 1.96\,\sqrt{p\,(1-p)/n}$. For $p$ = 80 %:

# %% tags=["nbval-check-output"]
for n in (12, 50, 200, 800):
    print(f"{n:4d} test recordings: ± {100 * 1.96 * np.sqrt(0.8 * 0.2 / n):4.1f} points")

# %% [markdown]
# More clips of the same recordings do not help. Fifty recordings per class are a good beginning; with ten, trust the
# order of magnitude alone.
#
# **Folds.** Five is usual. Spread the recordings of *each class* over all of them; `data check` prints in how many folds a label is. A split
# that somebody has published stays as it is: write it into `split`, and `fold: 1` tests on *test*.
#
# **Licences.** Sounds have owners, and networks that were trained on them may be bound by their terms: UrbanSound8K, for
# example, is not for commercial use. Keep the licence of each recording in a further column of the table, which may have as many as you
# like. Where people can be heard, ask whether you may record them at all.
#
# **Changes.** A run is named after its parameters and its place, not after the sounds. When you have changed the
# folder, `fusionkd run --force kitchen.yaml` trains again.
#
# ## Recap
#
# - A table of paths, labels, folds and recordings is a dataset; a folder per class is one too, with a doubt attached.
# - `fusionkd data check folder` first. What it finds wrong is cheap now and dear later.
# - Folds by file measure how well rooms are known. Folds by recording measure how well sounds are.
# - A table begins with chance and simple machines, and is as sharp as its number of test recordings.
#
# ## Exercises
#
# Write in the first cell of each, and run it; the folded cell after it holds a solution.
#
# **1. Fold by recording.** Give each clip a fold. Recordings get the folds 1, 2, ..., `n_folds`, 1, 2, ... in the order in which
# they first appear.


# %%
def folds_of(recordings, n_folds):  # (n,) → (n,) whole numbers
    ...


exercises.check("8.1", folds_of)


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# Solution. pandas numbers what it sees in the order of appearance.
def solution_1(recordings, n_folds):
    return pd.factorize(recordings)[0] % n_folds + 1


exercises.check("8.1", solution_1)

# %% [markdown]
# **2. How many?** You expect 80 % and want an interval of ± 5 points. How many test recordings do you need at least?

# %%
n_recordings = ...

exercises.check("8.2", n_recordings)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
# Solution. The formula above, solved for n and rounded up.
exercises.check("8.2", np.ceil(1.96**2 * 0.8 * 0.2 / 0.05**2))

# %% [markdown]
# **3.** The folds of exercise 1 keep recordings together. Why might a class still be missing from a fold, and what would you do?
#
# <details><summary>Solution</summary>
#
# The recordings of a rare class may stand side by side in the table, or there may be fewer of them than folds. Number the recordings within each class
# instead (`groupby("label")`), as this chapter does; with fewer recordings than folds, use fewer folds.
#
# </details>
#
# **4.** Make the kitchen a task of several tags: mix clips of two classes, and label them with both. Which metric does the table then
# have, and what becomes of chance?
#
# <details><summary>Hint</summary>
#
# Mix clips of recordings that are in the same fold, or a recording stands on two sides again. The
# metric is the AUPRC of [chapter 3](03_branch_pretraining.py), in which chance is the share of tags that are present.
#
# </details>
#
# **Next:** the appendices. [The paper on one page](appendix_one_page.py) holds the whole method in 250 lines;
# [reading the paper closely](appendix_reading_the_paper.py) asks what it leaves open.
