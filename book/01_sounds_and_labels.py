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
# # 1 · Sounds and labels
#
# Most of what goes wrong in a tagging experiment goes wrong before the first network is built: the same
# recording on both sides of a split, a label that means something else than its name, silence where
# there should be sound. This chapter listens first, counts second, and trains nothing bigger than a
# nearest neighbour.
#
# **You will learn** what the paper's two datasets hold, how a leak between training and test inflates
# a score, what a crowd of volunteers agrees on, and which traps we found in the files themselves.
#
# **You need** about half a minute; no download. The sounds are synthetic. The facts about the real
# datasets are counted from their own tables; the counts are committed in
# `outputs/reference/datasets.json`, and counted anew wherever `FUSIONKD_DATA` points at the datasets.

# %% tags=["parameters"]
dataset = "urban_synth"
clips_per_class = 12  # in each of the five folds
sample_rate = 16000
duration = 2.0  # seconds
representations = ["logmel"]
n_mels = 64

# %%
from fusionkd_lib.params import notebook_params

params = notebook_params(globals())

# %%
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from fusionkd_book import figures
from fusionkd_lib import audio, experiment, tables
from fusionkd_lib.datasets import sonyc_labels, sonyc_ust, urban_synth, urbansound8k
from fusionkd_lib.runs import project_root
from fusionkd_lib.storage import write_json

plt = figures.plt
figures.use_style()
torch.set_num_threads(params.threads)

# %% [markdown]
# ## Ten sounds
#
# UrbanSound8K has ten classes, most of them chosen from what New Yorkers complain about to their city. *Urban
# synth*, this book's stand-in that needs no download, has the same ten, each from a physical model a
# few lines long: two steel plates behind a flared horn, cylinders that fire in turn.

# %% tags=["nbval-check-output"]
prepared = experiment.prepare(params)
clips, spectrograms, targets = (
    prepared.clips,
    prepared.data.spectrograms["logmel"],
    prepared.clips.targets,
)
print(clips.note)
print(", ".join(clips.classes))

# %% [markdown]
# **Predict** while you listen: which two would *you* confuse on a bad telephone line?

# %%
first = [int((targets == label).argmax()) for label in range(len(clips.classes))]
figures.players(
    {clips.classes[targets[i]].replace("_", " "): clips.read(i, params.sample_rate) for i in first},
    sample_rate=params.sample_rate,
)

# %% mystnb={"image": {"alt": "Log-mel spectrograms of one clip of each of the ten classes"}}
frequencies = experiment.representations_of(params)["logmel"].frequencies
figure, axes = plt.subplots(2, 5, figsize=(11, 4.2), sharex=True, sharey=True)
for ax, i in zip(axes.flat, first, strict=True):
    figures.show_spectrogram(
        spectrograms[i], frequencies=frequencies, seconds=params.duration, ax=ax
    )
    ax.set(title=clips.classes[targets[i]].replace("_", " "))
    ax.label_outer()

# %% [markdown]
# Look for three kinds of pattern. Horizontal lines are **tones**: horn, siren, music. Vertical strokes
# are **blows**: gun shot, jackhammer, bark. What fills the picture evenly is **noise**: air conditioner,
# engine, drill. Two sounds of one kind are hard to tell apart, for you and for a network alike.
#
# ## A recording is not a clip
#
# Nobody recorded thousands of dogs. UrbanSound8K is cut from far fewer field recordings, and several
# clips come from each: the same dog in the same yard through the same microphone. Urban synth copies
# that: three clips to a recording. Here are the three clips of one, and then a clip of another one.

# %% mystnb={"image": {"alt": "Spectrograms of three clips of one car-horn recording, nearly alike, and of one clip of another recording"}}
horns = np.flatnonzero(targets == clips.classes.index("car_horn"))[:4]
figure, axes = plt.subplots(1, 4, figsize=(11, 2.6), sharey=True)
for ax, i in zip(axes, horns, strict=True):
    figures.show_spectrogram(
        spectrograms[i], frequencies=frequencies, seconds=params.duration, ax=ax
    )
    ax.set(title=clips.table["group"][i])
    ax.label_outer()

# %% [markdown]
# The horn is pressed at other moments, but its pitch, its room and the hum of its street stay. That is
# not what we want a classifier to learn; it is what a classifier will learn if it pays.
#
# ## The leak
#
# Now an experiment. Each clip is described by three figures for each mel band: mean, deviation, and
# mean change from frame to frame. The classifier is the simplest there is: find the most similar
# training clip and repeat its label. A support vector machine, more serious, comes along. Both are
# scored by five-fold cross-validation, twice:
#
# - **random split**: the clips are shuffled, as the default of many a library has it;
# - **fold split**: the dataset's own folds, which keep each recording together.
#
# **Predict:** the sounds, the labels and the classifiers are the same. How far apart will the two scores
# be?

# %%
from sklearn.model_selection import PredefinedSplit, StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

change = np.abs(np.diff(spectrograms, axis=2)).mean(axis=2)
described = np.concatenate([spectrograms.mean(axis=2), spectrograms.std(axis=2), change], axis=1)
splits = {
    "random split": StratifiedKFold(5, shuffle=True, random_state=0),
    "fold split": PredefinedSplit(clips.table["fold"]),
}
classifiers = {"nearest neighbour": KNeighborsClassifier(1), "support vectors": SVC(C=10)}
scores = {
    (name, split): cross_val_score(
        make_pipeline(StandardScaler(), classifier), described, targets, cv=cv
    )
    for name, classifier in classifiers.items()
    for split, cv in splits.items()
}

# %% mystnb={"image": {"alt": "Accuracy of two classifiers in five folds: near the top with a random split, far lower with the fold split"}}
figure, ax = plt.subplots(figsize=(6, 2.4))
for y, ((_, split), values) in enumerate(scores.items()):
    colour = "#D55E00" if split == "random split" else "#0072B2"
    ax.plot(100 * values, np.full(5, y), "o", color=colour, alpha=0.5)
    ax.plot(100 * values.mean(), y, "|", color=colour, ms=18, mew=2)
ax.set_yticks(range(4), [f"{name}, {split}" for name, split in scores])
ax.set(xlabel="accuracy in % (dots: the five folds)", xlim=(None, 100.5))
ax.invert_yaxis()
figures.sns.despine()

# %%
means = {key: 100 * values.mean() for key, values in scores.items()}
told = "; ".join(
    f"{name} **{means[name, 'random split']:.0f} %** against **{means[name, 'fold split']:.0f} %**"
    for name in classifiers
)
display(
    Markdown(
        f"Random split against fold split: {told}. Same sounds, same labels, same classifiers."
    )
)

# %% [markdown]
# Where do the lost points come from? Ask the nearest neighbour whom it asked.

# %%
scaled = StandardScaler().fit_transform(described)
neighbour = NearestNeighbors(n_neighbors=2).fit(scaled).kneighbors(scaled)[1][:, 1]
groups = clips.table["group"].to_numpy()
same = groups[neighbour] == groups
display(
    Markdown(
        f"For **{100 * same.mean():.0f} %** of all clips the most similar other clip is *of the same recording*, though a "
        f"recording has only {urban_synth.CLIPS_PER_RECORDING} of the {len(clips)} clips. A random split puts most of these "
        "pairs on two sides; the score then measures how well the classifier recognises recordings."
    )
)

# %% [markdown]
# The random split is not "a bit optimistic". It answers another question: *how well do I know the dogs
# that I have met?* On the lamp post you will meet others. Hence the first rule of this book: **what
# shares a recording stays on one side**, and results on UrbanSound8K are given on its official folds,
# never on reshuffled ones.
#
# ## The real tables
#
# Both datasets come with a table that can be counted without hearing a single clip. The next cell (folded
# away; open it to check our arithmetic) holds two functions that count, and what they return is the
# committed record that the rest of the chapter reads.


# %% tags=["hide-input"] jupyter={"source_hidden": true}
def count_urbansound8k(metadata):
    """Count what UrbanSound8K.csv says of clips, recordings, folds and lengths."""
    recording = metadata.groupby("fsID")
    length = (metadata["end"] - metadata["start"]).round(3).clip(upper=4)
    pairs = (
        metadata[recording["fold"].transform("nunique") > 1]
        .groupby(["fsID", "fold", "class"])
        .size()
    )
    lengths = metadata.groupby("class").apply(
        lambda rows: np.histogram(length[rows.index], np.arange(0, 4.5, 0.5))[0]
    )
    return {
        "source": urbansound8k.SOURCE,
        "clips": len(metadata),
        "recordings": int(metadata["fsID"].nunique()),
        "most clips of a recording": int(recording.size().max()),
        "clips by fold": metadata["fold"].value_counts().sort_index().tolist(),
        "clips by class": metadata["class"].value_counts().sort_index().to_dict(),
        "recordings by class": metadata.groupby("class")["fsID"].nunique().to_dict(),
        "in two folds": [[int(r), int(fold), name, int(n)] for (r, fold, name), n in pairs.items()],
        "shorter than 4 s": int((length < 4).sum()),
        "shorter than 1 s": int((length < 1).sum()),
        "clips by half second of length": {
            name: counts.tolist() for name, counts in lengths.items()
        },
    }


def count_sonyc(annotations, taxonomy):
    """Count what annotations.csv says of rows, sensors, votes and the agreed truth."""
    coarse, fine = (
        sonyc_labels.presence_of(
            annotations, taxonomy, level=level, coarse_labels="shipped", incomplete=True
        )
        for level in sonyc_labels.LEVELS
    )
    split, names = annotations["split"], annotations["audio_filename"]
    crowd = annotations["annotator_id"] > 0
    share = {s: coarse[crowd & (split == s)].groupby(names).mean() for s in ("train", "validate")}
    truth = sonyc_labels.agreed_truth(annotations, coarse)
    against = {}  # both say so, the crowd says so, the truth says so
    for rule, heard in (("any", share["validate"] > 0), ("majority", share["validate"] > 0.5)):
        against[rule] = [int(x.to_numpy().sum()) for x in (heard & (truth == 1), heard, truth == 1)]
    who = np.select(
        [crowd, annotations["annotator_id"] < 0], ["volunteers", "staff"], "agreed truth"
    )
    impact = coarse["2_machinery-impact"].fillna(0)
    fine_of = {c: fine[list(taxonomy.fine_tags(c, True))].fillna(0).max(axis=1) for c in (2, 3)}
    return {
        "source": sonyc_ust.SOURCE,
        "rows": len(annotations),
        "clips": names.groupby(split).nunique().to_dict(),
        "sensors": annotations["sensor_id"].groupby(split).nunique().to_dict(),
        "volunteers": int(annotations["annotator_id"][crowd].nunique()),
        "votes a clip": sorted(set(annotations[crowd].groupby("audio_filename").size().tolist())),
        "any": (share["train"] > 0).mean().round(4).to_dict(),
        "majority": (share["train"] > 0.5).mean().round(4).to_dict(),
        "mean": share["train"].mean().round(4).to_dict(),
        "truth": truth.mean().round(4).to_dict(),
        "clips with 1, 2, 3 votes": {
            tag: [int((3 * votes).round().eq(n).sum()) for n in (1, 2, 3)]
            for tag, votes in share["train"].items()
        },
        "crowd against truth": against,
        "column 2 unlike the OR of 2-*": int((impact != fine_of[2]).sum()),
        "column 2 unlike it, in the truth": int(
            (impact != fine_of[2])[who == "agreed truth"].sum()
        ),
        "column 2 unlike the OR of 2-* and 3-1": int(
            (impact != fine_of[2].combine(fine_of[3], max)).sum()
        ),
        "rows, rows with -1": {
            w: [int((who == w).sum()), int(fine[who == w].isna().any(axis=1).sum())]
            for w in sorted(set(who))
        },
    }


# %% tags=["nbval-check-output"]
record_file = project_root() / "outputs" / "reference" / "datasets.json"
folder = Path(os.environ.get("FUSIONKD_DATA", "not set"))
sonyc = next(filter(Path.is_dir, [folder / "SONYC-UST", folder / "SONYC-UST-standin"]), None)
if sonyc and (folder / "UrbanSound8K").is_dir():
    counted = {
        "urbansound8k": count_urbansound8k(
            urbansound8k.read_metadata(folder / "UrbanSound8K" / urbansound8k.METADATA)
        ),
        "sonyc_ust": count_sonyc(
            sonyc_labels.read_annotations(sonyc / sonyc_labels.ANNOTATIONS),
            sonyc_labels.read_taxonomy(sonyc / sonyc_labels.TAXONOMY),
        ),
    }
    write_json(record_file, counted)
record = json.loads(record_file.read_text())
us8k, sonyc = record["urbansound8k"], record["sonyc_ust"]
print(
    us8k["source"],
    f"{us8k['clips']:,d} clips,",
    f"{us8k['recordings']:,d} recordings,",
    f"{len(us8k['clips by fold'])} folds",
)
print(
    sonyc["source"],
    f"{sonyc['rows']:,d} rows,",
    sonyc["clips"],
    "clips,",
    sonyc["sensors"],
    "sensors",
)

# %% [markdown]
# ## UrbanSound8K: fewer sounds than clips
#
# Field recordings from Freesound, cut into clips of at most four seconds, with at most a thousand clips
# to a class. The left panel is what the dataset's description shows. The right one is what a classifier
# has to learn from.

# %% tags=["hide-input"] jupyter={"source_hidden": true} mystnb={"image": {"alt": "Clips and recordings of each class of UrbanSound8K: most classes have a thousand clips, but from 45 to 337 recordings"}}
figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
for ax, key in zip(axes, ("clips by class", "recordings by class"), strict=True):
    ax.barh([name.replace("_", " ") for name in us8k[key]], us8k[key].values(), color="#0072B2")
    ax.set(xlabel=key.split()[0])
    figures.sns.despine(ax=ax)
axes[0].invert_yaxis()

# %%
by_class = us8k["recordings by class"]
fewest = min(by_class, key=by_class.get)
display(
    Markdown(
        f"All {us8k['clips by class'][fewest]:,d} clips of *{fewest.replace('_', ' ')}* come from **{by_class[fewest]}** recordings, "
        f"{by_class[fewest] / 10:.1f} to a fold. The longest recording alone gave {us8k['most clips of a recording']} clips. An accuracy on this "
        f"dataset rests on about {us8k['recordings'] / 10:.0f} recordings a fold, not on {us8k['clips'] / 10:.0f} independent clips: "
        "this is why our intervals resample recordings."
    )
)

# %% [markdown]
# ### Five that sit in two folds
#
# The official folds keep each recording together. We checked. Almost.

# %%
twice = pd.DataFrame(us8k["in two folds"], columns=["Recording", "Fold", "Class", "Clips"])
halves = twice.groupby("Recording")["Class"].nunique()
display(Markdown(tables.markdown(twice.to_dict("records"))))
display(
    Markdown(
        f"**{twice['Recording'].nunique()}** recordings, **{twice['Clips'].sum()}** clips, sit in two folds each. In "
        f"{(halves > 1).sum()} of the {len(halves)} the two halves carry different classes: the recording was cut once for each."
    )
)

# %% [markdown]
# So this leak does not even help: who recognises the yard gives the wrong answer. Small as it is, a rule
# with exceptions is no rule. With `drop_leaked: true`, the default, training leaves out the clips whose
# recording is in the test fold; each table of ours says how many.
#
# ### Short clips
#
# The paper says that each clip has four seconds. Many have; some classes are another matter.

# %% tags=["hide-input"] jupyter={"source_hidden": true} mystnb={"image": {"alt": "Share of clips of each class of UrbanSound8K by length in half seconds; gun shots, car horns and dog barks are often short"}}
lengths = pd.DataFrame(us8k["clips by half second of length"]).T
lengths.columns = [f"{x / 2:g} to {x / 2 + 0.5:g}" for x in range(8)]
figure, ax = plt.subplots(figsize=(7, 3.4))
figures.sns.heatmap(
    100 * lengths.div(lengths.sum(axis=1), axis=0),
    annot=True,
    fmt=".0f",
    cmap="Blues",
    cbar=False,
    ax=ax,
    yticklabels=[name.replace("_", " ") for name in lengths.index],
)
ax.set(xlabel="length in s", title="% of the clips of a class")
figures.sns.despine()

# %%
display(
    Markdown(
        f"**{us8k['shorter than 4 s']:,d}** of {us8k['clips']:,d} clips are shorter than 4 s, **{us8k['shorter than 1 s']}** shorter than 1 s."
    )
)

# %% [markdown]
# They must be padded. The paper pads *spectrograms* "with zeros", we pad the *waveform*. In decibels
# that is not the same thing at all. **Predict:** what does a zero look like in a spectrogram in dB?

# %% mystnb={"image": {"alt": "A short dog bark padded in two ways: dark silence after it when the waveform is padded, a bright block when the dB spectrogram is padded with zeros"}}
module = experiment.representations_of(params)["logmel"]
n_samples = round(params.duration * params.sample_rate)
short = clips.read(first[clips.classes.index("dog_bark")], params.sample_rate)[: n_samples // 2]
padded = module(torch.from_numpy(audio.fit_length(short, n_samples))[None])[0, 0].numpy()
cut = module(torch.from_numpy(short)[None])[0, 0].numpy()
zeros = np.pad(cut, ((0, 0), (0, padded.shape[1] - cut.shape[1])))
figure, axes = plt.subplots(1, 2, figsize=(9, 2.6), sharey=True)
for ax, values, title in zip(
    axes, (padded, zeros), ("waveform padded", "spectrogram padded with zeros"), strict=True
):
    image = ax.imshow(
        values,
        origin="lower",
        aspect="auto",
        vmin=-100,
        vmax=cut.max(),
        cmap="magma",
        extent=(0, params.duration, 0, len(values)),
    )
    ax.set(title=title, xlabel="time (s)")
axes[0].set(ylabel="mel band")
scale = figure.colorbar(image, ax=axes, label="dB")

# %%
display(
    Markdown(
        f"The padded waveform ends at {padded[:, -1].max():.0f} dB, the padded spectrogram at {zeros[:, -1].max():.0f} dB, "
        f"which is louder than {100 * (spectrograms < 0).mean():.0f} % of all values of all clips."
    )
)

# %% [markdown]
# In dB, zero is not silence. It is a block of noise louder than nearly everything else, and it also moves
# the mean and the deviation that the network's input is normalised by. That a clip ends early shows in
# either picture, and lengths go with classes, as the figure before says: even honest padding is a hint
# that a lamp post would not give. `pad: spectrogram` is the switch for those who want the paper's letter.
#
# ## SONYC-UST: many sounds at once
#
# The second dataset comes from sensors on New York's buildings. A clip is ten seconds of whatever
# happened, and any number of eight coarse tags may hold. Urban synth has *scenes* of that kind. Here is
# one with its events drawn in; the real dataset has no onsets, only tags.

# %% tags=["nbval-check-output"]
scenes = urban_synth.scenes(n_scenes=8, duration=4.0)
busiest = int(scenes.targets.sum(axis=1).argmax())
events = scenes.events[scenes.events["clip"] == scenes.table["clip"][busiest]].sort_values("onset")
print(events[["label", "onset", "offset"]].to_string(index=False))
print("target:", scenes.targets[busiest].astype(int), "of", len(scenes.classes), "tags")

# %% mystnb={"image": {"alt": "Log-mel spectrogram of a synthetic street scene with bars above it that show from when to when each event sounds"}}
scene = scenes.read(busiest, params.sample_rate)
values = module(torch.from_numpy(scene)[None])[0, 0].numpy()
figure, (bars, ax) = plt.subplots(2, 1, figsize=(8, 4.2), sharex=True, height_ratios=(1, 2.4))
bars.barh(
    events["label"],
    events["offset"] - events["onset"],
    left=events["onset"],
    color="#D55E00",
    height=0.6,
)
bars.invert_yaxis()
figures.sns.despine(ax=bars)
figures.show_spectrogram(values, frequencies=frequencies, seconds=4.0, ax=ax)

# %%
figures.players({"the scene": scene}, sample_rate=params.sample_rate)

# %% [markdown]
# ## What a crowd hears
#
# Volunteers annotated the training clips, three to a clip. The city lab's staff agreed on a truth for the
# validation clips. How should three opinions become one target? We take a tag as present if **any** of
# the three heard it; `majority` and `mean` are switches. Which is closest to what experts say?

# %% tags=["hide-input"] jupyter={"source_hidden": true} mystnb={"image": {"alt": "Share of clips that carry each coarse tag: any volunteer, majority, mean vote on the training clips, and the staff's truth on the validation clips"}}
names = [tag.split("_", 1)[1] for tag in sonyc["any"]]
figure, ax = plt.subplots(figsize=(9, 3.2))
styles = {
    "any": ("o", "#0072B2"),
    "majority": ("o", "#D55E00"),
    "mean": ("o", "#009E73"),
    "truth": ("D", "black"),
}
for rule, (marker, colour) in styles.items():
    where = "validate" if rule == "truth" else "train"
    ax.plot(
        names,
        [100 * x for x in sonyc[rule].values()],
        marker,
        color=colour,
        mfc="none" if rule == "truth" else colour,
        label=f"{rule} ({where})",
    )
ax.set(ylabel="% of clips", ylim=(0, None))
ax.tick_params(axis="x", rotation=25)
ax.grid(axis="y", alpha=0.3)
ax.legend(frameon=False)
figures.sns.despine()

# %%
rows = [
    {
        "Rule": rule,
        "Right of those heard": f"{100 * hits / heard:.0f} %",
        "Heard of those true": f"{100 * hits / true:.0f} %",
        "Tags set": heard,
    }
    for rule, (hits, heard, true) in sonyc["crowd against truth"].items()
]
display(Markdown(tables.markdown(rows)))
display(
    Markdown(
        f"Volunteers annotated the {sonyc['clips']['validate']} validation clips as well, so that the rules can be held against "
        f"the staff's {sonyc['crowd against truth']['any'][2]} true tags. The majority is hardly ever wrong, and misses half."
    )
)

# %% [markdown]
# Volunteers do not invent much; they overlook. That is why `any` is our default: it trades a little
# precision for a lot of recall.
#
# ### A column that is not what it is called
#
# Each coarse tag has finer ones below it, and the coarse column should be 1 where any of its fine ones
# is. We recomputed all eight from the fine ones. Seven agree.

# %%
display(
    Markdown(
        f"`2_machinery-impact_presence` differs from the OR of its fine tags in **{sonyc['column 2 unlike the OR of 2-*']}** of "
        f"{sonyc['rows']:,d} rows ({sonyc['column 2 unlike it, in the truth']} of them in the agreed truth). From the OR of its own "
        f"*and of* `3-1_non-machinery-impact` it differs in {sonyc['column 2 unlike the OR of 2-* and 3-1']}."
    )
)

# %% [markdown]
# *Non-machinery impact* was counted in with *machinery impact*. The challenge was scored on the column as
# it is, so that we keep it to stay comparable (`coarse_labels: shipped`); `recomputed` is the switch. A
# network cannot learn the name of a column, only its contents.
#
# ### Minus one
#
# A tag is 1, 0 or -1. The last means *not annotated*, which is not *absent*. It becomes NaN in our targets,
# and neither loss nor metric looks at it. Who left gaps?

# %%
left = pd.DataFrame(
    [(who, *counts) for who, counts in sonyc["rows, rows with -1"].items()],
    columns=["Annotator", "Rows", "Rows with -1"],
)
display(Markdown(tables.markdown(left.to_dict("records"))))

# %% [markdown]
# Only single members of the staff, whose rows we do not train on, and who looked at some categories
# only. Whoever reads all rows as votes, and -1 as 0, gets hundreds of false negatives for nothing.
#
# ## Recap
#
# - What shares a recording stays on one side of a split. A random split scores memory.
# - UrbanSound8K has far fewer recordings than clips; five recordings sit in two folds; some classes are
#   short, and padding has to be silence.
# - SONYC-UST has volunteers who overlook, experts who agree, and one coarse column that holds two.
# - Read the table before you hear the sound, and hear the sound before you train the network.
#
# ## Exercises
#
# **1.** Give urban synth one clip to a recording: take every third row. What does the random split score now?
#
# <details><summary>Solution</summary>
#
# `keep = np.arange(0, len(clips), 3)`, then the two `cross_val_score` calls on `described[keep]` and
# `targets[keep]`, with `PredefinedSplit(clips.table["fold"][keep])`. Nothing is left to leak, and the two
# splits agree within their noise, at about the level of the fold split with fewer training clips. The
# random split is no sin in itself: it is one where clips come in families.
#
# </details>
#
# **2.** The nearest neighbour loses more to the fold split than the support vectors do. Why?
#
# <details><summary>Hint</summary>
#
# Which of the two depends on a single training clip? A more flexible method gains more from a leak. A deep
# network is more flexible than either.
#
# </details>
#
# **3.** A classifier that answers *jackhammer* to every clip of UrbanSound8K has which accuracy? And one
# that predicts no tag at all for SONYC-UST gets which share of all tags right?
#
# <details><summary>Solution</summary>
#
# `us8k["clips by class"]["jackhammer"] / us8k["clips"]`, about one in nine. And
# `1 - np.mean(list(sonyc["truth"].values()))`, about four in five: for rare tags, accuracy praises silence.
# Hence the area under the precision-recall curve, where silence earns nothing.
#
# </details>
#
# **Next:** [chapter 2](02_three_ways_to_look.py) builds the three pictures of a sound, from the waveform up.
