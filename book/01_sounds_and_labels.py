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
# recording on both sides of a split, a label that does not mean what its name says, silence where
# there should be sound. This chapter listens first, counts second, and trains nothing bigger than a
# support vector machine.
#
# **You will learn** what the paper's two datasets hold, how a leak between training and test inflates
# a score, what a crowd of volunteers agrees on, and which traps we found in the files themselves.
#
# **You need** about half a minute and no download. The sounds are synthetic. The facts about the real
# datasets are counted from their own tables; the counts are committed in
# `outputs/reference/datasets.json`, and made anew wherever `FUSIONKD_DATA` points at the datasets.

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

from fusionkd_book import exercises, figures
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
# few lines long: two steel plates behind a flared horn, or cylinders that fire in turn.

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
    status=clips.status,
)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
frequencies = experiment.representations_of(params)["logmel"].frequencies
panels = {
    clips.classes[targets[i]].replace("_", " "): (spectrograms[i], frequencies) for i in first
}
axes = figures.spectrogram_grid(panels, n_columns=2, seconds=params.duration)
figures.show(
    axes,
    alt="Log-mel spectrograms of one clip of each of the ten classes",
    caption="**Figure 1.1.** One synthesised clip of each class as a log-mel spectrogram: made "
    "of lines, of strokes, or of what fills the picture.",
)

# %% [markdown]
# Look for three kinds of pattern. Horizontal lines are **tones**: horn, siren, music. Vertical strokes
# are **blows**: gun shot, jackhammer, bark. What fills the picture evenly is **noise**: air conditioner,
# engine, drill. Two sounds of the same kind are hard to tell apart, for you and for a network alike.
#
# ## A recording is not a clip
#
# Nobody recorded thousands of dogs. UrbanSound8K is cut from far fewer field recordings, and several
# clips come from each: the same dog in the same yard through the same microphone. Urban synth copies
# that: three clips per recording. Here are the three clips of one recording, and then a clip of another.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
horns = np.flatnonzero(targets == clips.classes.index("car_horn"))[:4]
panels = {
    f"clip {n}: {clips.table['group'][i]}": (spectrograms[i], frequencies)
    for n, i in enumerate(horns, 1)
}
axes = figures.spectrogram_grid(panels, n_columns=2, seconds=params.duration)
figures.show(
    axes,
    alt="Spectrograms of three clips of one car-horn recording, nearly alike, and of one "
    "clip of another recording",
    caption="**Figure 1.2.** Clips 1 to 3 are of one recording and have its lines in common. "
    "Clip 4 is of another, and is the only one that is news.",
)

# %% [markdown]
# The horn is pressed at other moments, but its pitch, its room and the hum of its street stay the same. We do
# not want a classifier to learn these, but it will if it pays.
#
# ## The leak
#
# Now an experiment. Each clip is described by three numbers per mel band: mean, deviation, and
# mean change from frame to frame. The classifier is the simplest there is: find the most similar
# training clip and repeat its label. A support vector machine, a more serious one, comes along. Both are
# scored by five-fold cross-validation, twice:
#
# - **random split**: the clips are shuffled, as many libraries do by default;
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

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, ax = plt.subplots(figsize=(figures.WIDTH, 2.4))
for y, ((_, split), values) in enumerate(scores.items()):
    colour, mark = ("#D55E00", "o") if split == "random split" else ("#0072B2", "s")
    ax.plot(100 * values, np.full(5, y), mark, color=colour, alpha=0.5)
    ax.plot(100 * values.mean(), y, "|", color=colour, ms=18, mew=2)
ax.set_yticks(range(4), [f"{name}, {split}" for name, split in scores])
ax.set(xlabel="accuracy in %, each of five folds and their mean", xlim=(None, 100.5))
ax.invert_yaxis()
figures.sns.despine()
figures.show(
    ax,
    alt="Accuracy of a nearest neighbour and a support vector machine in each of five "
    "folds, with a random split and with the fold split",
    caption="**Figure 1.3.** Shuffled clips (circles) against whole recordings (squares): the "
    "split alone moves the score.",
)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
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

# %% tags=["hide-input"] jupyter={"source_hidden": true}
display(
    Markdown(
        f"For **{100 * same.mean():.0f} %** of all clips the most similar other clip is *of the same recording*, though a "
        f"recording has only {urban_synth.CLIPS_PER_RECORDING} of the {len(clips)} clips. A random split puts most of these "
        "pairs on two sides; the score then measures how well the classifier recognises recordings."
    )
)

# %% [markdown]
# The random split is not "a bit optimistic". It answers another question: *how well do I know the dogs
# that I have met?* On the lamp post you will meet others. Hence the first rule of this book: **clips that
# share a recording stay on one side**, and results on UrbanSound8K are given on its official folds,
# never on reshuffled ones.
#
# ## The real tables
#
# Both datasets come with a table that can be counted without hearing a single clip. The next cell (folded;
# open it to check our arithmetic) holds two functions that count, and what they return is the
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


RULES = {
    "any": 0,
    "majority": 0.5,
}  # a tag is set where more than this share of the votes is for it


def count_sonyc(annotations, taxonomy):
    """Count what annotations.csv says of rows, sensors, and votes against the agreed truth."""
    coarse, fine = (
        sonyc_labels.presence_of(
            annotations, taxonomy, level=level, coarse_labels="shipped", incomplete=True
        )
        for level in sonyc_labels.LEVELS
    )
    split, names = annotations["split"], annotations["audio_filename"]
    crowd = annotations["annotator_id"] > 0
    truth = sonyc_labels.agreed_truth(annotations, coarse) == 1
    votes = coarse[crowd & (split == "validate")]
    voted_on = truth.loc[names[votes.index]].set_axis(votes.index)
    share = votes.groupby(names).mean()
    who = np.select(
        [crowd, annotations["annotator_id"] < 0], ["volunteers", "staff"], "agreed truth"
    )
    alone = coarse[(who == "staff") & (split == "validate")]
    known = truth.loc[names[alone.index]].set_axis(alone.index)
    fine_of = {
        tag: fine[list(taxonomy.fine_tags(number, True))].fillna(0).max(axis=1)
        for number, tag in enumerate(coarse, 1)
    }
    impact, others = "2_machinery-impact", "3_non-machinery-impact"
    unlike = {tag: coarse[tag].fillna(0) != fine_of[tag] for tag in coarse}
    return {
        "source": sonyc_ust.SOURCE,
        "rows": len(annotations),
        "clips": names.groupby(split).nunique().to_dict(),
        "sensors": annotations["sensor_id"].groupby(split).nunique().to_dict(),
        "volunteers": int(annotations["annotator_id"][crowd].nunique()),
        "votes a clip": sorted(set(annotations[crowd].groupby("audio_filename").size().tolist())),
        "truth": truth.sum().to_dict(),  # clips
        "votes": votes.sum().astype(int).to_dict(),
        "votes that are true": (votes * voted_on).sum().astype(int).to_dict(),
        "set": {rule: (share > least).sum().to_dict() for rule, least in RULES.items()},
        "set and true": {
            rule: ((share > least) & truth).sum().to_dict() for rule, least in RULES.items()
        },
        "unlike the OR of the fine ones": {tag: int(x.sum()) for tag, x in unlike.items()},
        "column 2 unlike it, in the truth": int(unlike[impact][who == "agreed truth"].sum()),
        "column 2 unlike the OR of 2-* and 3-1": int(
            (coarse[impact].fillna(0) != fine_of[impact].combine(fine_of[others], max)).sum()
        ),
        "rows, rows with -1": {
            w: [int((who == w).sum()), int(fine[who == w].isna().any(axis=1).sum())]
            for w in sorted(set(who))
        },
        "-1 that is true": int((alone.isna() & known).to_numpy().sum()),
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
# per class. The left panel is what the dataset's description shows. The right one is what a classifier
# has to learn from.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(1, 2, sharey=True)
for ax, key in zip(axes, ("clips by class", "recordings by class"), strict=True):
    ax.barh([name.replace("_", " ") for name in us8k[key]], us8k[key].values(), color="#0072B2")
    ax.set(xlabel=key.split()[0])
    figures.sns.despine(ax=ax)
axes[0].invert_yaxis()
few, many = min(us8k["recordings by class"].values()), max(us8k["recordings by class"].values())
figures.show(
    axes,
    alt="Clips and recordings of each class of UrbanSound8K: most classes have a thousand "
    f"clips, but from {few} to {many} recordings",
    caption="**Figure 1.4.** The classes look balanced in clips. In recordings they are not: "
    f"from {few} to {many}.",
)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
by_class = us8k["recordings by class"]
fewest = min(by_class, key=by_class.get)
display(
    Markdown(
        f"All {us8k['clips by class'][fewest]:,d} clips of *{fewest.replace('_', ' ')}* come from **{by_class[fewest]}** recordings, "
        f"{by_class[fewest] / 10:.1f} per fold. One recording alone gave {us8k['most clips of a recording']} clips. An accuracy on this "
        f"dataset rests on about {us8k['recordings'] / 10:.0f} recordings per fold, not on {us8k['clips'] / 10:.0f} independent clips: "
        "this is why our intervals resample recordings."
    )
)

# %% [markdown]
# ### Five that sit in two folds
#
# The official folds keep each recording together. We checked. Almost.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
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
# Where the halves carry different classes, the leak does not even help: a classifier that recognises the yard
# gives the wrong answer. Small as it is, a rule with exceptions is no rule. With `drop_leaked: true`, the
# default, training leaves out the clips whose recording is in the test fold; each of our tables says how many.
#
# ### Short clips
#
# The paper says that each clip is four seconds long. Most are, but not in every class.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
lengths = pd.DataFrame(us8k["clips by half second of length"]).T
lengths.columns = [f"{x / 2:g} to {x / 2 + 0.5:g}" for x in range(8)]
figure, ax = plt.subplots(figsize=(figures.WIDTH, 3.8))
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
ax.tick_params(axis="x", rotation=40)
figures.sns.despine()
figures.show(
    ax,
    alt="Share of clips of each class of UrbanSound8K by length in half seconds; gun shots, "
    "car horns and dog barks are often short",
    caption="**Figure 1.5.** Gun shots, car horns and dog barks are often short, an air "
    "conditioner hardly ever: length alone is a hint.",
)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
display(
    Markdown(
        f"**{us8k['shorter than 4 s']:,d}** of {us8k['clips']:,d} clips are shorter than 4 s, **{us8k['shorter than 1 s']}** shorter than 1 s."
    )
)

# %% [markdown]
# They must be padded. The paper pads *spectrograms* "with zeros", we pad the *waveform*. In decibels
# that is not the same thing at all. **Predict:** what does a zero look like in a spectrogram in dB?

# %%
module = experiment.representations_of(params)["logmel"]
n_samples = round(params.duration * params.sample_rate)
short = clips.read(first[clips.classes.index("dog_bark")], params.sample_rate)[: n_samples // 2]
padded = module(torch.from_numpy(audio.fit_length(short, n_samples))[None])[0, 0].numpy()
cut = module(torch.from_numpy(short)[None])[0, 0].numpy()
zeros = np.pad(cut, ((0, 0), (0, padded.shape[1] - cut.shape[1])))

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(1, 2, figsize=(figures.WIDTH, 2.6))
look = {"frequencies": frequencies, "seconds": params.duration, "span": (-100, cut.max())}
for ax, values, title in zip(axes, (padded, zeros), ("waveform", "spectrogram"), strict=True):
    figures.show_spectrogram(values, ax=ax, title=f"{title} padded", **look).label_outer()
figures.decibel_scale(axes, label="dB")
figures.show(
    axes,
    alt="A short dog bark padded in two ways: dark silence after it when the waveform is "
    "padded, a bright block when the dB spectrogram is padded with zeros",
    caption="**Figure 1.6.** The same bark, padded twice. Zeros in a waveform are silence; "
    "zeros in decibels are a wall of noise.",
)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
display(
    Markdown(
        f"The padded waveform ends at {padded[:, -1].max():.0f} dB, the padded spectrogram at {zeros[:, -1].max():.0f} dB, "
        f"which is louder than {100 * (spectrograms < 0).mean():.0f} % of all values of all clips."
    )
)

# %% [markdown]
# In dB, zero is not silence. It is a block louder than nearly everything else, and it also moves
# the mean and the deviation that the network's input is normalised by. That a clip ends early shows in
# either picture, and lengths go with classes, as the figure above shows: even honest padding is a hint
# that a lamp post would not give. `pad: spectrogram` is the switch for those who take the paper literally.
#
# ## SONYC-UST: many sounds at once
#
# The second dataset comes from sensors on New York's buildings. A clip is ten seconds of whatever
# happened, and any number of eight coarse tags may apply. Urban synth has *scenes* of that kind. Here is
# one with its events drawn above it; the real dataset has no onsets, only tags.

# %% tags=["nbval-check-output"]
scenes = urban_synth.scenes(n_scenes=8, duration=4.0)
busiest = int(scenes.targets.sum(axis=1).argmax())
events = scenes.events[scenes.events["clip"] == scenes.table["clip"][busiest]].sort_values("onset")
print(events[["label", "onset", "offset"]].to_string(index=False))
print("target:", scenes.targets[busiest].astype(int), "of", len(scenes.classes), "tags")

# %% tags=["hide-input"] jupyter={"source_hidden": true}
scene = scenes.read(busiest, params.sample_rate)
values = module(torch.from_numpy(scene)[None])[0, 0].numpy()
figure, (bars, ax) = plt.subplots(
    2, 1, figsize=(figures.WIDTH, 4.4), sharex=True, height_ratios=(1, 2.2)
)
bars.barh(
    events["label"],
    events["offset"] - events["onset"],
    left=events["onset"],
    color="#D55E00",
    height=0.6,
)
bars.invert_yaxis()
figures.sns.despine(ax=bars)
ax = figures.show_spectrogram(values, frequencies=frequencies, seconds=4.0, ax=ax)
figures.decibel_scale([bars, ax])
figures.show(
    ax,
    alt="Log-mel spectrogram of a synthetic street scene with bars above it that show from "
    "when to when each event sounds",
    caption="**Figure 1.7.** A synthesised scene and its events: several sound at once. A "
    "tagger is told which, and never when.",
)

# %%
figures.players({"the scene": scene}, sample_rate=params.sample_rate, status=scenes.status)

# %% [markdown]
# ## What a crowd hears
#
# Three volunteers annotated each clip. For the validation clips, the project's own staff agreed on a truth
# besides, so that there the crowd can be compared with experts on the same sounds. How should three opinions
# become one target? We take a tag as present if **any** of the three heard it; `majority` and `mean` are
# switches.
#
# **Predict:** which does a volunteer do more often, hear a sound that is not there or miss one that is? And which
# of the two will three volunteers do, if one vote is enough?

# %% tags=["hide-input"] jupyter={"source_hidden": true}
n_clips = sonyc["clips"]["validate"]
crowd = pd.DataFrame(
    {
        "any": sonyc["set"]["any"],
        "majority": sonyc["set"]["majority"],
        "mean": {tag: n / 3 for tag, n in sonyc["votes"].items()},
        "truth": sonyc["truth"],
    }
).rename(index=lambda tag: tag.split("_", 1)[1])
figure, ax = plt.subplots(figsize=(figures.WIDTH, 3.8))
colours = ("#0072B2", "#D55E00", "#009E73", "black")
for (rule, clips_set), marker, colour in zip(crowd.items(), "^vsD", colours, strict=True):
    face = "none" if rule == "truth" else colour
    ax.plot(crowd.index, 100 * clips_set / n_clips, marker, color=colour, mfc=face, label=rule)
ax.set(ylabel="% of the validation clips", ylim=(0, None))
ax.set_xticks(range(len(crowd)), crowd.index, rotation=40, ha="right")
ax.grid(axis="y", alpha=0.3)
ax.legend(frameon=False)
figures.sns.despine()
figures.show(
    ax,
    alt="Share of the validation clips that carry each coarse tag by three rules, any "
    "volunteer, majority and mean vote, and by the staff's agreed truth",
    caption="**Figure 1.8.** How often a tag is set depends on the rule as much as on the "
    "sound; no rule is near the truth (open diamonds) for every tag.",
)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
hits = pd.DataFrame(sonyc["set and true"]).set_axis(crowd.index)
for table in (crowd, hits):
    table.loc["**all eight**"] = table.sum()
rows = [
    {"Tag": tag, "Clips": int(crowd["truth"][tag])}
    | {
        f"{rule}: {what}": f"{100 * hits[rule][tag] / crowd[of][tag]:.0f} %"
        for rule in RULES
        for what, of in (("set that are true", rule), ("true that are set", "truth"))
    }
    for tag in crowd.index
]
display(Markdown(tables.markdown(rows)))

# %% tags=["hide-input"] jupyter={"source_hidden": true}
truth, votes, right = (pd.Series(sonyc[key]) for key in ("truth", "votes", "votes that are true"))
missed, invented = 3 * truth - right, votes - right
chances = 3 * truth.sum(), 3 * (n_clips * len(truth) - truth.sum())
only = crowd.index[:-1]
too_many = (crowd["any"] - hits["any"] > crowd["truth"] - hits["any"])[only].sum()
doubtful = (hits["any"] < 2 / 3 * crowd["any"])[only].sum()
f_score = {rule: (2 * hits[rule] / (crowd[rule] + crowd["truth"]))[only] for rule in RULES}
better = int((f_score["any"] > f_score["majority"]).sum())
display(
    Markdown(
        f"A single volunteer misses **{100 * missed.sum() / chances[0]:.0f} %** of the tags that are there, and sets {100 * invented.sum() / chances[1]:.1f} % "
        f"of those that are not; misses outnumber inventions for {(missed > invented).sum()} of the {len(truth)} tags. With `any`, three volunteers pool "
        f"their inventions too: for **{too_many}** of the {len(truth)} tags more clips are wrongly set than missed, and for {doubtful} "
        f"more than a third of what is set is not there. The F score, the harmonic mean of a rule's two columns, is higher with `any` for {better} of the {len(truth)} tags."
    )
)

# %% [markdown]
# Neither rule is safe. Where one vote is enough, one volunteer's mistake sets a tag; where two are required, a
# sound that is easily missed is lost. Our default is `any`, the rule that finds more of what is there. A network
# trained on it learns from false positives as well, most of all for the tags where *any: set that are true* is low.
#
# ### A column that is not what it is called
#
# Each coarse tag has finer ones below it, and the coarse column should be 1 where any of its fine ones
# is. We recomputed all eight from the fine ones.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
unlike = sonyc["unlike the OR of the fine ones"]
display(
    Markdown(
        f"{sum(n == 0 for n in unlike.values())} of the {len(unlike)} agree in all {sonyc['rows']:,d} rows. `2_machinery-impact_presence` differs from "
        f"the OR of its fine tags in **{unlike['2_machinery-impact']}** ({sonyc['column 2 unlike it, in the truth']} of them in the agreed truth). From the "
        f"OR of its own *and of* `3-1_non-machinery-impact` it differs in {sonyc['column 2 unlike the OR of 2-* and 3-1']}."
    )
)

# %% [markdown]
# *Non-machinery impact* was counted in with *machinery impact*. The challenge was scored on the column as
# it is, so we keep it to stay comparable (`coarse_labels: shipped`); `recomputed` is the switch. A
# network cannot learn the name of a column, only its contents.
#
# ### Minus one
#
# A tag is 1, 0 or -1. The last means *not annotated*, which is not the same as *absent*. It becomes NaN in our
# targets, and neither loss nor metric looks at it. Who left gaps?

# %% tags=["hide-input"] jupyter={"source_hidden": true}
left = pd.DataFrame(
    [(who, *counts) for who, counts in sonyc["rows, rows with -1"].items()],
    columns=["Annotator", "Rows", "Rows with -1"],
)
display(Markdown(tables.markdown(left.to_dict("records"))))
display(
    Markdown(
        f"By the agreed truth, **{sonyc['-1 that is true']:,d}** of these gaps in the coarse tags stand for a sound that is there."
    )
)

# %% [markdown]
# The gaps are in the rows of single members of the staff, who looked at some categories only, and on whose rows
# we do not train. Anyone who reads all rows as votes, and -1 as 0, gets that many false negatives for nothing.
#
# ## Recap
#
# - Clips that share a recording stay on one side of a split. A random split scores memory.
# - UrbanSound8K has far fewer recordings than clips; five recordings sit in two folds; the clips of some classes
#   are short, and padding has to be silence.
# - SONYC-UST has volunteers who miss much, and invent enough to matter where one vote decides; experts who
#   agree; and one coarse column that holds two categories.
# - Read the table before you hear the sound, and hear the sound before you train the network.
#
# ## Exercises
#
# **1. Find the leak.** Given the recording and the fold of each clip, how many recordings sit in more than one fold? Write
# it, and run it on any dataset before you believe its folds. The folded cell after yours holds a solution.


# %%
def in_two_folds(recordings, folds):  # (n,), (n,) → a number
    ...


exercises.check("1.1", in_two_folds)


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# Solution. On UrbanSound8K's own table it finds the five of this chapter.
def solution_1(recordings, folds):
    return int((pd.Series(folds).groupby(recordings).nunique() > 1).sum())


exercises.check("1.1", solution_1)

# %% [markdown]
# **2.** Give urban synth one clip per recording: take every third row. What does the random split score now?
#
# <details><summary>Solution</summary>
#
# `keep = np.arange(0, len(clips), 3)`, then the two `cross_val_score` calls on `described[keep]` and
# `targets[keep]`, with `PredefinedSplit(clips.table["fold"][keep])`. Nothing is left to leak, and the two
# splits agree within their noise, at about the level of the fold split with fewer training clips. A
# random split is no sin in itself; it becomes one where clips come in families.
#
# </details>
#
# **3.** The nearest neighbour loses more to the fold split than the support vectors do. Why?
#
# <details><summary>Hint</summary>
#
# Which of the two lets a single training clip decide? The more flexible a method, the more it gains from a leak,
# and a deep network is more flexible than either.
#
# </details>
#
# **4.** What is the accuracy of a classifier that answers *jackhammer* to every clip of UrbanSound8K? And what
# share of all tags does a classifier get right that never predicts any tag for SONYC-UST?
#
# <details><summary>Solution</summary>
#
# `us8k["clips by class"]["jackhammer"] / us8k["clips"]`, not much more than chance. And
# `1 - truth.mean() / n_clips` on the validation clips, far more than half: for rare tags, accuracy praises
# silence. Hence the area under the precision-recall curve, where silence earns nothing.
#
# </details>
#
# **Next:** [chapter 2](02_three_ways_to_look.py) builds the three pictures of a sound, from the waveform up.
