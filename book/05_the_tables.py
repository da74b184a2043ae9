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
# # 5 · The tables
#
# The paper's evidence is three tables of five rows. Here they are again, from runs whose records you
# can open: each figure with its interval, the paper's beside it, and what data it stands on. At the end
# stands a ledger: each claim of the paper, its numbers, ours, and a verdict.
#
# **You will learn** to read a table with suspicion: how many folds, how many clips, how many seeds,
# whose data, and against what; and why two overlapping intervals settle nothing.
#
# **You need** a few seconds: the runs are read, not trained. Runs of your own under `outputs/runs/` are
# shown where there are any, beside the committed records of `outputs/reference/`.

# %%
import numpy as np
from IPython.display import Markdown, display

from fusionkd_book import exercises, figures, study, verdicts
from fusionkd_lib import metrics, tables
from fusionkd_lib.runs import find_records, outputs_root, project_root

figures.use_style()
places = [project_root() / "outputs" / "reference", outputs_root() / "runs"]
found_in = [find_records(place) for place in places]
runs = {run.name: run for records, _ in found_in for run in records}
found = tables.collect(runs.values())
found.sort(key=lambda table: (table.status != "partial", table.params.weights, table.numeral))
display(Markdown(f"{len(runs)} finished runs, {len(found)} tables."))

# %% tags=["nbval-check-output"]
for table in tables.collect(found_in[0][0]):
    print(f"committed: {table.title}, {table.params.weights}")

# %% [markdown]
# ## Before you look
#
# **Predict**, and write it down: which of these claims will hold here?
#
# 1. The fused classifier beats each of its branches.
# 2. Distillation improves every branch.
# 3. A network beats a support vector machine that looks at averages. (This one is ours: the paper has
#    no baseline.)
#
# And what would a table have to look like for you to *change* your mind?

# %% [markdown]
# ## Tables I to III
#
# Each row is a classifier. *Ours* is the mean over folds and seeds, in percent; the interval resamples
# whole recordings of the test clips, since clips of one recording stand or fall together. The paper's
# figure stands in a column of its own, with the data that **it** was measured on. Mind the note below
# each table: a figure on synthetic, partial or stand-in clips is not the paper's experiment.
#
# - *UrbanSound8K (partial)*: real clips of folds 1, 2 and a part of 3, at half the bandwidth. There are
#   two tables for each pair: EfficientNet-Lite0 that began with ImageNet's weights, and a MobileNetV2 of
#   half the width that began with none. Each has a recipe of its own, chosen on validation clips; one recipe
#   serves all folds, so that each fold's clips were among those while another fold was the test, and folds 1
#   and 2 had been looked at before (`params/tuning/README.md` tells how it was chosen).
# - *SONYC-UST (stand-in)*: the real annotations of DCASE 2019 Task 5 over scenes that were mixed from
#   UrbanSound8K, since the recordings cannot be had here. The training scenes reuse recordings of its folds 1
#   and 3, so that they share sounds with one another; the scenes for the test come from fold 2 alone. It
#   shows that the whole path works, and nothing about the challenge.

# %%
for table in found:
    display(Markdown(table.to_markdown()))

# %% tags=["hide-input"] jupyter={"source_hidden": true}
spent: dict[str, float] = {}
for run in runs.values():
    dataset = f"{run.provenance.dataset} ({run.provenance.data_status})"
    spent[dataset] = spent.get(dataset, 0) + run.provenance.training_seconds
told = ", ".join(f"{dataset} {seconds / 60:.0f} minutes" for dataset, seconds in spent.items())
processors = " and ".join(sorted({run.provenance.processor for run in runs.values()}))
display(
    Markdown(
        f"All of these runs together trained for: {told}; runs may have shared a machine. "
        f"Processors: {processors}."
    )
)

# %% [markdown]
# The same as pictures. What stands to the left of the dotted line need not be trained: a support vector
# machine has as much.

# %%
for number, table in enumerate(found, start=1):
    told = f"Table {table.numeral}, {table.params.trunk}, {table.dataset} ({table.status})"
    figures.show(
        figures.table_figure(table),
        alt=f"{told}: each classifier with its interval, the best machine, the paper's numbers",
        caption=f"**Figure 5.1.** Part {number}: {told}. {verdicts.message(table)} Dots are networks, "
        "squares baselines, open diamonds the paper's numbers.",
    )

# %% [markdown]
# ## Two intervals that overlap settle nothing
#
# Two rows are judged on the same recordings. What is hard for one is hard for the other: a faint dog in
# traffic brings both down at once. So the fair comparison is **paired**. Draw recordings with replacement, take
# *both* figures on the same draw, and look at the differences. If the two were drawn apart, as two
# separate intervals pretend, the luck of the draw would count twice.
#
# **Predict:** by which factor is the paired interval narrower?


# %%
def on_resamples(run, head, *, seed):  # accuracy on 500 draws of whole recordings
    clips = run.test.targets, run.scores[head], run.test.groups
    return 100 * metrics.bootstrap(metrics.accuracy, *clips, seed=seed)


def accuracies(row, *, apart=0):  # the mean over the row's folds
    some = [runs[name] for name in row.runs]
    return np.mean([on_resamples(run, row.head, seed=run.params.fold + apart) for run in some], 0)


table = found[0]
fused, alone = table.row("fused"), table.row(table.params.representations[0], alone=True)
paired = accuracies(fused) - accuracies(alone)
apart = accuracies(fused) - accuracies(alone, apart=100)

ax = figures.plt.subplots(figsize=(6, 2.6))[1]
bins = np.linspace(min(apart.min(), paired.min()), max(apart.max(), paired.max()), 40)
ax.hist(apart, bins, color="0.75", label="drawn apart")
ax.hist(paired, bins, histtype="step", color="black", lw=2, label="drawn together")
ax.axvline(0, color="0.4", ls=":")
ax.set(xlabel=f"{fused.classifier} less {alone.classifier}, points", ylabel="draws")
ax.legend(frameon=False)
figures.sns.despine(ax=ax)
figures.show(
    ax,
    alt="Two histograms of one difference: narrow where both rows were drawn together, wide where apart",
    caption="**Figure 5.2.** The same difference on 500 draws of recordings. Drawn together, much of the "
    "luck cancels.",
)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
ends = [np.quantile(x, [0.025, 0.975]) for x in (apart, paired)]
factor = np.diff(ends[0])[0] / np.diff(ends[1])[0]
overlap = "overlap" if alone.high > fused.low else "do not overlap"
display(
    Markdown(
        f"Apart {ends[0][0]:+.1f} to {ends[0][1]:+.1f}, together **{ends[1][0]:+.1f} to {ends[1][1]:+.1f}**: "
        f"{factor:.1f} times as narrow. The two rows' own intervals, {tables.interval(fused.low, fused.high)} and "
        f"{tables.interval(alone.low, alone.high)}, {overlap}."
    )
)

# %% [markdown]
# Where a paired interval leaves out zero there is a verdict, *gain* or *loss*; else the question is *open*, which
# is not the same as "no difference".
#
# ## Have the networks learned at all?
#
# The first rows of each table cost seconds. **Chance** calls everything by the commonest name, or gives each tag its
# share of the training clips. The others look at three numbers per band, its mean, deviation and maximum
# over time, so that they know nothing of order: the **nearest neighbour** copies the answer of the training
# clip that looks most alike, and a **support vector machine** draws smooth borders between the classes. A
# network that does not beat them has found nothing in a spectrogram that an average would lose, and then a
# difference between two such networks says nothing about distillation. So this question comes first. All seeds of
# a branch count here, also those that no pair has used.


# %%
def show(title, rows):
    if rows:
        display(Markdown(f"**{title}**\n\n{tables.markdown(rows)}"))


settings = {}
for table in found:  # pairs of one setting share their branches
    settings.setdefault((table.measured, table.params.trunk, table.note), []).append(table)
for (measured, trunk, _), group in settings.items():
    show(f"{measured} · {trunk}", verdicts.baselines(group, runs.values()))

# %% [markdown]
# In one table: what log-mel has alone, what all three representations have more than the machines on the same three,
# and what the fused classifier has more than the mean of its branches' scores.

# %%
urban = [table for table in found if table.params.dataset == "urbansound8k"]
in_one_table = verdicts.in_one_table(urban, runs.values())
show("accuracy in %, UrbanSound8K (partial)", in_one_table)

# %% [markdown]
# Each kind of branch alone, over all of its seeds; half the hop is twice the frames, and twice the cost:

# %%
branches = verdicts.branches(r for r in runs.values() if r.params.dataset == "urbansound8k")
show("accuracy in %, UrbanSound8K (partial)", branches)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
goals = {("imagenet", 1024): 60, ("imagenet", 512): 62}
told = []
for row in branches:
    goal = goals.get((row["Weights"], row["Hop"]))
    if goal and row["Branch"] == "Log-mel":
        missed = goal - float(row["Alone"])
        verdict = f"missed by {missed:.1f}" if missed > 0 else "reached"
        told.append(f"log-mel at hop {row['Hop']} at least {goal} %: {row['Alone']}, {verdict}")
for row in in_one_table:
    goal = 8 if "ImageNet" in row["Networks"] else 0
    told.append(
        f"three branches at least {goal} points above their machines ({row['Networks']}): "
        f"{row['Three branches less their SVMs']}"
    )
display(Markdown("Goals that were set before these runs: " + "; ".join(told) + "."))

# %% [markdown]
# Three folds of clips with some hundred recordings each are little to learn to hear from. A network that begins with
# ImageNet's weights has already seen edges, stripes and textures, which is what a spectrogram is made of; one that
# begins with none has to learn these from a few hundred recordings, while the support vector machine is
# given three numbers per band and needs to learn no feature at all. Where a row above says *loss* or *open*, read
# that setting's distillation with this in mind.
#
# ## Did distillation help?

# %%
for table in found:
    show(f"{table.title} · {table.params.trunk}", verdicts.distillation(table, runs.values()))

# %% [markdown]
# ## Did fusion help?
#
# That a committee beats its members is no wonder. The question is whether fusing *maps* beats the cheapest
# committee there is, the mean of the two branches' scores, which costs no weight and no training.

# %%
for table in found:
    show(f"{table.title} · {table.params.trunk}", verdicts.fusion(table, runs.values()))

# %% [markdown]
# ## The ledger
#
# Each claim of the paper that a number could decide, where it stands, what the paper's own numbers say (the mean
# over the rows that the claim is about), and what ours say. *Held* and *contradicted* mean that the paired
# interval leaves out zero; *open* means that these clips and seeds cannot tell. Rows of the study take the verdict
# of its [protocol](appendix_protocol.md): *no gain worth having* says that the interval ends below 1.5 points.

# %%
# The same pairs with lambda 0, from scratch. With ImageNet's weights the study's own rows say it, over all seeds.
arms = study.read_records().values()
untaught = {run.name: run for run in arms if run.params.weights == "scratch"}
controls = [table for table in tables.collect(untaught.values()) if table.params.kd_weight == 0]
blocks = [study.blocks_of(trunk) for trunk in study.ARMS_OF]
answers = study.endpoint(blocks[0]) + study.secondary(*blocks)
rows = verdicts.ledger(found, controls, (untaught | runs).values(), study=answers)
display(Markdown(tables.markdown(rows)))

# %% tags=["hide-input"] jupyter={"source_hidden": true}
gains = [
    (b - a, d - c)  # of the first and the second branch
    for a, c, b, d, _ in tables.PAPER["accuracy"].values()
]
flat = [gain for pair in gains for gain in pair]
display(
    Markdown(
        f"The paper's own six differences on UrbanSound8K have a mean of **{np.mean(flat):+.1f}** points: "
        f"{sum(gain > 0 for gain in flat)} gains, {sum(gain < 0 for gain in flat)} losses. Its tables do not say what its abstract says."
    )
)

# %% [markdown]
# A branch after distillation was also trained for a second phase. So where "better after distillation" is *held*,
# it says "distillation **and** more training". Where the same joint phase was also run without distillation,
# a row of the ledger says what is left; there the paper has no number, since it has no such control. What the teacher
# alone brings is what [chapter 6](06_what_distillation_brings.py) asks, by a [protocol](appendix_protocol.md) that was
# written before its runs.
#
# ## What these tables cannot say
#
# - **More training or more knowledge?** Branches "(KD)" were trained for a second phase that the plain
#   branches did not have. The paper compares them all the same; so do the tables above. Only a control
#   with $\lambda = 0$ and the same second phase separates the two.
# - **One seed is one draw.** The intervals hold the luck of the test recordings, not that of the first
#   weights. The column *Seeds* says how many draws there were. The same parameters give the same numbers on one kind of
#   processor; another kind rounds differently, and after thousands of steps that is another draw.
# - **Three folds are not ten.** UrbanSound8K's folds differ a good deal; three of them say little about
#   the mean of ten.
#
# ## Recap
#
# - A table without its data, folds, clips, seeds, intervals and baselines is a picture of one afternoon.
# - Paired comparisons decide what overlapping intervals leave open.
# - *Open* is a result, too: it says what these clips cannot tell.
# - `fusionkd trace "Table I" "Log-mel (KD)"` walks from each figure back to its notebook.
#
# ## Exercises
#
# **1. A paired difference.** Two classifiers were right or wrong on each clip. Some recordings are drawn, one of
# them perhaps twice. Return the difference of the two accuracies, in points, on the clips of the draw.


# %%
def paired_difference(one_right, other_right, recording, drawn):
    """(n,) bool, (n,) bool, (n,) recording of each clip, list of recordings → a number."""
    ...


exercises.check("5.1", paired_difference)


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# Solution.
def solution_1(one_right, other_right, recording, drawn):
    rows = np.concatenate([np.flatnonzero(recording == name) for name in drawn])
    return 100 * (one_right[rows].mean() - other_right[rows].mean())


exercises.check("5.1", solution_1)

# %% [markdown]
# **2. How many recordings?** A paired interval on 400 recordings reaches 3 points to either side. How many
# recordings would bring it down to 1.5?

# %%
recordings_needed = ...

exercises.check("5.2", recordings_needed)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
# Solution. The width falls with the root of the number of recordings.
exercises.check("5.2", 400 * (3 / 1.5) ** 2)

# %% [markdown]
# **3.** Run the control: `kd_weight: 0.0` in a parameter file of `params/quick/`, then open this chapter
# again. How much of the gain was training?
#
# <details><summary>Hint</summary>
#
# The new pair appears as a table of its own, since its parameters differ. Compare its "(KD)" rows, which
# then have no distillation in them, with those of the first.
#
# </details>
#
# **4.** Put `seed: [0, 1, 2]` under `grid:`. Do the verdicts survive?
#
# <details><summary>Hint</summary>
#
# Runs that differ in fold and seed alone are gathered in one table; the *Seeds* column counts them.
#
# </details>
#
# **Next:** [chapter 6](06_what_distillation_brings.py) asks what a teacher adds to training.
