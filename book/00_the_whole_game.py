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
# # 0 · The whole game
#
# A microphone hangs on a lamp post. What does it hear: a siren, a drill, children? Naming the sounds
# in a recording is called **tagging**, and a good tagger is often several networks in a committee. A
# microphone on a lamp post has room for one.
#
# The paper that this book is about, *Intermediate Feature Fusion Based Knowledge Distillation for
# Urban Sound Tagging* by Maneesh Sistla and Sahil Jain, has an answer that fits in a sentence. Let
# several networks look at the same sound in different ways, let a committee form in the middle of
# them, have the committee teach its members, and then send the members out alone.
#
# This chapter plays that whole game once, small and fast, before any detail. Do not try to understand
# every line. Watch what goes in, what comes out, and which questions stay with you: the rest of the
# book answers them one at a time.
#
# **You will learn** the paper's idea, its five steps, the shape of its evidence, and where in this
# book each piece is taken apart.
#
# **You need** about two minutes on a laptop, no download and no GPU. The clips are *urban synth*:
# UrbanSound8K's ten classes, made on the spot from small physical models.

# %% [markdown]
# ## Parameters
#
# Everything that decides a run stands in one place. The values below make it a small run: half the
# paper's frequency bins, and a handful of epochs where the paper has a hundred. That suffices because the
# networks do not begin with nothing: their weights have learned from photographs before.

# %% tags=["parameters"]
dataset = "urban_synth"
representations = ["logmel", "gammatone"]  # the pair of the paper's Table I
fold = 1  # the test fold
seed = 0
clips_per_class = 24  # in each of the five folds
sample_rate = 16000
duration = 2.0  # seconds
n_mels = 64  # the paper's is 128, of the gammatone too
gammatone_bands = 64
validation = "next_fold"
select = "last"  # which epoch's weights are kept
trunk = "efficientnet_lite0"  # the paper's is mobilenet_v2
weights = "imagenet"
width = 1.0  # of the trunk
head = [320, 128]  # the paper's is [1280, 512]
epochs = 4
joint_epochs = 3
batch_size = 32
optimizer = "adamw"
lr = 0.001
weight_decay = 0.01
schedule = "one_cycle"
augmentation = ["shift", "mixup"]
shortcuts = ["channels_last", "fused_optimizer", "reuse_memory"]  # faster on a processor
threads = 1  # other runs may want the other cores

# %%
from fusionkd_lib.params import notebook_params

params = notebook_params(globals())

# %%
import numpy as np
import torch
from IPython.display import Markdown, display

from fusionkd_book import exercises, figures
from fusionkd_book.weights import path_of
from fusionkd_lib import experiment, tables
from fusionkd_lib.models import n_parameters
from fusionkd_lib.representations import compute
from fusionkd_lib.runs import find_records, project_root
from fusionkd_lib.tagging import load_tagger

figures.use_style()
torch.set_num_threads(params.threads)

# %% [markdown]
# ## Step 1: clips
#
# A clip is a waveform and a label. The clips are divided into **folds**, and no recording is in two
# of them: one fold is the test, one validates, the others train.

# %% tags=["nbval-check-output"]
prepared = experiment.prepare(params)
clips, split, data = prepared.clips, prepared.split, prepared.data
print(
    len(clips),
    "clips,",
    clips.table["group"].nunique(),
    "recordings,",
    len(clips.classes),
    "classes",
)
print(len(split.train), "train,", len(split.validation), "validate,", len(split.test), "test")

# %% [markdown]
# Three of the training clips. **Listen**, and name each before you look at the picture further down,
# which gives the answer away.

# %%
shown = [
    clips.table.index[data.targets == clips.classes.index(c)][4]
    for c in ("siren", "street_music", "dog_bark")
]
waveforms = {i: clips.read(int(i), params.sample_rate) for i in shown}
figures.players(
    {f"clip {n}": x for n, x in enumerate(waveforms.values(), 1)},
    sample_rate=params.sample_rate,
    status=clips.status,
)

# %% [markdown]
# ## Step 2: several ways to look at a sound
#
# A network made for images needs an image. A **spectrogram** is one: time to the right, frequency
# upwards, loudness as brightness. But there is more than one way to divide up frequency. The paper
# uses three:
#
# - **log-mel** spaces its bands as the ear judges pitch;
# - **CQT** (constant-Q transform) gives each semitone a band of its own;
# - **gammatone** imitates the filters of the inner ear.

# %% tags=["nbval-check-output"]
three = experiment.representations_of(
    params.replace(representations=["logmel", "cqt", "gammatone"])
)
batch = torch.stack([torch.from_numpy(x) for x in waveforms.values()])
spectrograms = compute(three, batch)
for name, values in spectrograms.items():
    print(f"{name:10s} {tuple(batch.shape)} → {tuple(values.shape)}   (B, N) → (B, 1, F, T)")

# %% tags=["hide-input"] jupyter={"source_hidden": true}
panels = {
    f"{clips.classes[data.targets[i]].replace('_', ' ')}\n{figures.label(name)}": (
        spectrograms[name][row, 0].numpy(),
        module.frequencies,
    )
    for row, i in enumerate(shown)
    for name, module in three.items()
}
axes = figures.spectrogram_grid(panels, n_columns=3, seconds=params.duration)
figures.show(
    axes,
    alt="Log-mel, CQT and gammatone spectrograms of a siren, street music and a dog bark",
    caption="**Figure 0.1.** Each row is a sound, each column a way to look at it: the same "
    "moments, with frequency divided up in another way.",
)

# %% [markdown]
# The same three sounds, nine pictures (Figure 0.1). What is a thin line in one is a broad smear in another. If the
# pictures show different things, networks that look at different pictures should make different
# mistakes, and a committee of them should make fewer. That is the hope the paper rests on.
#
# ## Steps 3 to 5: the framework
#
# Figure 0.2 is the whole machine, drawn around one of the clips above.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
ax = figures.framework(
    waveforms[shown[0]], {name: spectrograms[name][0, 0].numpy() for name in params.representations}
)
figures.show(
    ax,
    alt="The framework: a clip becomes two spectrograms; each goes through its own trunk to "
    "a feature map and a head with logits; the two maps are pooled, stacked and "
    "classified by a third head, whose logits are distilled into the other two",
    caption="**Figure 0.2.** Two branches, in colour, look at one clip. Their maps meet in the "
    "middle, and what the fused classifier concludes is handed back to both (dashed). "
    f"The two spectrograms span {figures.FLOOR} dB.",
    vector=True,
)

# %% [markdown]
# **Step 3, pretrain.** Each column in colour is a **branch**: one spectrogram, one network, one answer.
# Each branch is first trained alone, from the labels.
#
# **Step 4, fuse.** Inside each branch, just before its head, is a **feature map** $M_j$: what the
# network has seen, and not yet what it concludes. The maps are pooled to one size, stacked, averaged over
# frequency and time, and given to a third head. This *fused classifier* knows what all the branches have
# seen. The committee is formed from half-finished thoughts rather than from finished votes: hence
# *intermediate* feature fusion. (Chapter 4 asks how much of that word the average leaves.)
#
# **Step 5, distil.** All parts go on training together. Each branch still learns from the labels, and now it
# also tries to reproduce the fused classifier's logits: its opinion of every class, before that is turned into
# probabilities. That is **knowledge distillation**. Afterwards the drawing can be cut along the dashed arrows,
# and each branch used alone.
#
# ## Run it
#
# **Predict**, and write it down. In the table there will be five networks: each branch alone, each
# branch after distillation, the fused one. Which will be best? By how much will distillation help?
# Which of the five would you put on the lamp post?

# %%
branches = {name: experiment.train_branch(params, name) for name in params.representations}

# %%
run = experiment.train_fusion(params)

# %% [markdown]
# What would *no* network have? Chance, the answer of the clip that looks most alike, and support vector
# machines on three numbers per band: these **baselines** cost seconds.

# %%
baselines = experiment.score_baselines(params)

# %% [markdown]
# ## The rows
#
# The paper's whole evidence is three tables of five rows, one for each pair of representations. Here
# is ours for its first pair, with the paper's numbers beside it; the baselines above, and the plain mean of
# the two branches' answers below, are not in the paper's.

# %%
table = tables.collect([run, *branches.values(), baselines])[0]
display(Markdown(table.to_markdown()))

# %% tags=["hide-input"] jupyter={"source_hidden": true}
ax = figures.table_figure(table)
figures.show(
    ax,
    alt="Accuracy of baselines and classifiers with 95 percent intervals, and the paper's numbers",
    caption="**Figure 0.3.** The same rows as a picture: dots are networks, squares need none, "
    "and lines are intervals. The paper's diamonds belong to other sounds.",
)

# %% [markdown]
# Do not compare the two columns: ours has other sounds, another network, which begins with weights from
# photographs, and a fraction of the epochs. Compare the rows with each other, and their differences with the width of the intervals.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
ours = {row.classifier: row.ours for row in table.rows}
labels = [figures.label(name) for name in params.representations]
machine = max(row.ours for row in table.rows if row.head.startswith("svm"))
gains = ", ".join(f"{x} {ours[x + ' (KD)'] - ours[x]:+.1f} points" for x in labels)
best = [name for name, value in ours.items() if value == max(ours.values())]
fused = table.row("fused")
display(
    Markdown(
        f"Highest: **{' and '.join(best)}**. After the joint phase: {gains}. The test fold has "
        f"{len(run.test.clips)} clips of {len(set(run.test.groups))} recordings, so that the fused classifier's "
        f"interval is {fused.high - fused.low:.0f} points wide; the best support vector machine has {machine:.1f} %."
    )
)

# %% [markdown]
# And if the dice had fallen otherwise? The seed draws the first weights of the heads, the order of the clips,
# and how each is shifted and mixed. Here is the same table five times over, from runs that were made beforehand; each dot is a seed.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
records, _ = find_records(project_root() / "outputs" / "reference" / "seeds")
ax = figures.seed_dots(records)
figures.show(
    ax,
    alt="Accuracy of each classifier for five seeds, one dot per seed",
    caption="**Figure 0.4.** Each dot is a seed. Where the dots of two rows mingle, a single "
    "seed cannot tell which of the two is better.",
)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
told = figures.seed_gains(records)
display(
    Markdown(f"What the joint phase brought, from the unluckiest seed to the luckiest: {told}.")
)

# %% [markdown]
# Whichever way your branches went, be suspicious. Three things were different for a branch in the joint
# phase: it had a teacher, the fused classifier's own loss reached into its trunk, *and it trained longer*. This
# table cannot tell you which of them made the difference. Neither can the paper's, which have the same rows
# for it. [Chapter 6](06_what_distillation_brings.py) takes the three apart.
#
# ## What goes on the lamp post
#
# The committee is the teacher, not the product. What is deployed is a branch, and a branch after
# distillation is no bigger than before: only its weights have changed.

# %% tags=["nbval-check-output"]
alone, taught, fused = (
    experiment.load_branch(branches[params.representations[0]]),
    experiment.load_branch(run, params.representations[0]),
    experiment.load_fusion(run),
)
for what, network in (("branch alone", alone), ("branch (KD)", taught), ("fused", fused)):
    print(f"{what:13s} {n_parameters(network):9,d} parameters")

# %% [markdown]
# One test clip, three opinions. **Listen** first (the player is below), then look.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
first = params.representations[0]
own, truth = branches[first].scores[first], run.test.targets
alone_right, fused_right = own.argmax(1) == truth, run.scores["fused"].argmax(1) == truth
example = int((fused_right & ~alone_right).argmax())
answers = {
    f"{figures.label(first)} alone": own[example],
    f"{figures.label(first)} (KD)": run.scores[first][example],
    "fused": run.scores["fused"][example],
}
title = f"a test clip: {clips.classes[truth[example]].replace('_', ' ')}"
ax = figures.opinions(answers, clips.classes, title=title)
figures.show(
    ax,
    alt="Probabilities of the ten classes for one test clip, from the branch alone, the "
    "branch after distillation and the fused classifier",
    caption="**Figure 0.5.** Three opinions about one clip. The lower bars are opinions, too: "
    "distillation hands them on.",
)

# %%
figures.players(
    {"the clip": clips.read(int(split.test[example]), params.sample_rate)},
    sample_rate=params.sample_rate,
    status=clips.status,
)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
kinds = (fused_right & ~alone_right).sum(), (alone_right & ~fused_right).sum()
display(
    Markdown(
        f"The fused classifier gets {kinds[0]} test clips right that the branch alone gets wrong (shown is the first "
        f"{'of them' if kinds[0] else 'test clip'}); there are {kinds[1]} of the opposite kind."
    )
)

# %% [markdown]
# Your branches began with weights from photographs, which make them large. Much smaller networks, which have learned from
# sounds of this kind alone, **come with the book**: one file holds a committee and the branches that it taught. Here the
# log-mel branch of that file names this chapter's test clips; nothing is trained for it, and the fold was its test fold, too.

# %%
shipped = load_tagger(path_of("fused"), "logmel")
heard = [clips.read(int(row), shipped.told.sample_rate) for row in split.test]
named = [shipped.told.labels[k] for k in shipped.scores(heard).argmax(axis=1)]
right = np.mean([clips.classes[k] == name for k, name in zip(truth, named, strict=True)])
print(f"{100 * right:.1f} % of {len(heard)} clips; your distilled branch {run.score(first):.1%}")

# %% [markdown]
# [Chapter 7](07_on_a_device.py) takes that file apart, and lets you play your own sounds to it.
#
# What travels in distillation is not only which bar is the highest, but the heights of all the others: what
# else the sound could have been.
#
# ## A guide through the book
#
# | Chapter | The question it answers |
# |---|---|
# | [1 · Sounds and labels](01_sounds_and_labels.py) | What is in the two datasets, what does it sound like, and where are the traps? |
# | [2 · Three ways to look](02_three_ways_to_look.py) | How does a waveform become a log-mel, CQT or gammatone picture, and what does each show and hide? |
# | [3 · One representation, one network](03_branch_pretraining.py) | What is a branch, and how is it trained? |
# | [4 · Fusion and distillation](04_fusion_and_distillation.py) | How are maps fused, what do Eq. 2 to 4 ask for, and what did each branch gain? |
# | [5 · The tables](05_the_tables.py) | How do the paper's three tables look when they are run again? |
# | [6 · What distillation brings](06_what_distillation_brings.py) | Is it the teacher, the longer training, or the company? |
# | [7 · On a device](07_on_a_device.py) | How small, how fast, and how do you tag a recording of your own? |
# | [8 · Your own data](08_your_own_data.py) | How do you get from a folder of sounds to a table? |
# | [Appendix · Reading the paper closely](appendix_reading_the_paper.py) | What does the paper leave open, how do we read it, and do its tables say what its text says? |
#
# Chapters 0 to 4 run in one or two minutes each on a laptop. Read them in order the first time. If you
# know spectrograms, chapter 2 can wait; if you came to check a claim, begin with chapter 5 and the
# appendix.
#
# ## Recap
#
# - A clip is shown as several spectrograms; each has a branch, a network of its own.
# - The branches' feature maps, not their votes, are fused into one classifier.
# - The fused classifier's logits are distilled into the branches while all of them go on training.
# - What is used in the end is a single branch: as small as before and, that is the claim, better.
# - Five rows make a table; an interval and a fair control make it evidence.
#
# ## Exercises
#
# **1. The measure.** Every result above is an accuracy. Write it, for the classes `targets` (n,) and the probabilities
# `scores` (n, K) of n clips; the folded cell after yours holds a solution.


# %%
def accuracy(targets, scores):  # (n,), (n, K) → a number
    ...


exercises.check("0.1", accuracy)


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# Solution. `accuracy(run.test.targets, run.scores["fused"])` is the last row of the table, as a share.
def solution_1(targets, scores):
    return (scores.argmax(axis=1) == targets).mean()


exercises.check("0.1", solution_1)

# %% [markdown]
# **2.** Set `seed = 1` and run the chapter again. Does the order of the rows stay? Do the gains?
#
# <details><summary>Solution</summary>
#
# The seed draws the networks' first weights and the order of the training clips, and nothing else: the
# sounds and the folds are the same. At this size a gain may well change its sign from seed to seed. A
# method whose effect is smaller than that of the seed needs several seeds before it can be judged; the
# paper reports one number per row and does not mention seeds.
#
# </details>
#
# **3.** Change the pair to `["logmel", "cqt"]`. Which of the paper's tables do you see beside your own
# now, and which branch is the weaker one there?
#
# <details><summary>Solution</summary>
#
# Table II. In the paper's UrbanSound8K column the CQT branch is the stronger one alone and the weaker
# one after distillation: it *loses*. The text says that every branch improves; the appendix counts.
#
# </details>
#
# **4.** Without code: why would you fuse the maps in the middle of the networks, and not simply
# average the two branches' probabilities at the end?
#
# <details><summary>Hint</summary>
#
# A probability has already forgotten *why*. A head over both maps can learn that a certain texture in one
# picture means something else when there are certain lines in the other. (When, and not *where*: each map is
# averaged over frequency and time before anything sees both, as
# [the appendix](appendix_reading_the_paper.py) shows.) Whether it does learn this is a question for an
# experiment: averaging the probabilities costs nothing, and chapter 6 will have it as a control.
#
# </details>
#
# **Next:** [chapter 1](01_sounds_and_labels.py) opens the datasets, and finds the traps in them.
