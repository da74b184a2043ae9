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
# can open: each figure with its interval, the paper's beside it, and what data it stands on.
#
# **You will learn** to read a table with suspicion: how many folds, how many clips, how many seeds, and
# whose data.
#
# **You need** a few seconds: the runs are read, not trained. Runs of your own under `outputs/runs/` are
# shown where there are any; else the committed records of `outputs/reference/`.

# %%
from IPython.display import Markdown, display

from fusionkd_book import figures, verdicts
from fusionkd_lib import tables
from fusionkd_lib.runs import find_records, outputs_root, project_root

figures.use_style()
places = [project_root() / "outputs" / "reference", outputs_root() / "runs"]
found_in = [find_records(place) for place in places]
runs = {run.name: run for records, _ in found_in for run in records}
found = tables.collect(runs.values())
display(Markdown(f"{len(runs)} finished runs, {len(found)} tables."))

# %% tags=["nbval-check-output"]
for table in tables.collect(found_in[0][0]):
    print("committed:", table.title)

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
# - *UrbanSound8K (partial)*: real clips of folds 1, 2 and a part of 3, at half the bandwidth. One recipe
#   serves all folds; it was chosen on validation clips, but each fold's clips were among these while another
#   fold was the test, and folds 1 and 2 had been looked at before
#   (`params/tuning/README.md` tells how the recipe was chosen).
# - *SONYC-UST (stand-in)*: the real annotations of DCASE 2019 Task 5 over scenes that were mixed from
#   UrbanSound8K, since the recordings cannot be had here. The training scenes reuse recordings of its folds 1
#   and 3, so that they share sounds with one another; the scenes for the test come from fold 2 alone. It
#   shows that the whole path works, and nothing about the challenge.

# %%
for table in found:
    display(Markdown(table.to_markdown()))

# %%
spent: dict[str, float] = {}
for run in runs.values():
    dataset = f"{run.provenance.dataset} ({run.provenance.data_status})"
    spent[dataset] = spent.get(dataset, 0) + run.provenance.training_seconds
told = ", ".join(f"{dataset} {seconds / 60:.0f} minutes" for dataset, seconds in spent.items())
display(
    Markdown(f"All of these runs together trained for: {told}; runs may have shared a machine.")
)

# %% [markdown]
# The same as a picture: dots are networks and squares the baselines, each with its interval; diamonds are
# the paper's. The dotted line is the best support vector machine: what stands to the left of it need not be
# trained.

# %% mystnb={"image": {"alt": "The rows of each table with their intervals, the best support vector machine, and the paper's figures"}}
for table in found:
    ax = figures.table_figure(table)

# %% [markdown]
# ## Have the networks learned at all?
#
# The first five rows cost seconds. **Chance** calls everything by the commonest name, or gives each tag its
# share of the training clips. The others look at three numbers per band, its mean, deviation and maximum
# over time, so that they know nothing of order: the **nearest neighbour** copies the answer of the training
# clip that looks most alike, and a **support vector machine** draws smooth borders between the classes. A
# network that does not beat them has found nothing in a spectrogram that an average would lose, and then a
# difference between two such networks says nothing about distillation. So this question comes first.
#
# Two overlapping intervals do not answer it: both rows are judged on the same recordings, so that what is
# hard for one is hard for the other. The fair comparison is **paired**: draw recordings, take the
# difference of the two figures on them, and look where the differences lie. Where the interval leaves
# out zero there is a verdict; else the question is open.


# %%
def show(title, rows):
    if rows:
        display(Markdown(f"**{title}**\n\n{tables.markdown(rows)}"))


settings = {}
for table in found:  # pairs of one setting share their branches
    settings.setdefault((table.measured, table.note), []).append(table)
for (measured, _), group in settings.items():
    show(measured, verdicts.baselines(group, runs.values()))

# %% [markdown]
# ## Did distillation help?

# %%
for table in found:
    show(table.title, verdicts.distillation(table, runs.values()))

# %% [markdown]
# ## Did fusion help?
#
# That a committee beats its members is no wonder. The question is whether fusing *maps* beats the cheapest
# committee there is, the mean of the two branches' scores, which costs no weight and no training.

# %%
for table in found:
    show(table.title, verdicts.fusion(table, runs.values()))

# %% [markdown]
# ## What these tables cannot say
#
# - **More training or more knowledge?** Branches "(KD)" were trained for a second phase that the plain
#   branches did not have. The paper compares them all the same; so do the tables above. Only a control
#   with $\lambda = 0$ and the same second phase separates the two.
# - **One seed is one draw.** The intervals hold the luck of the test recordings, not that of the first
#   weights. The column *Seeds* says how many draws there were.
# - **One fold is not ten.** UrbanSound8K's folds differ by ten points and more; a fold's figure says
#   little about the mean of ten.
#
# ## Recap
#
# - A table without its data, folds, clips, seeds and intervals is a picture of one afternoon.
# - Paired comparisons decide what overlapping intervals leave open.
# - `fusionkd trace "Table I" "Log-mel (KD)"` walks from each figure back to its notebook.
#
# ## Exercises
#
# **1.** Run the control: `kd_weight: 0.0` in a parameter file of `params/quick/`, then open this chapter
# again. How much of the gain was training?
#
# <details><summary>Hint</summary>
#
# The new pair appears as a table of its own, since its parameters differ. Compare its "(KD)" rows, which
# then have no distillation in them, with those of the first.
#
# </details>
#
# **2.** Put `seed: [0, 1, 2]` under `grid:`. Do the verdicts survive?
#
# <details><summary>Hint</summary>
#
# Runs that differ in fold and seed alone are gathered in one table; the *Seeds* column counts them.
#
# </details>
#
# **Next:** the [appendix](appendix_reading_the_paper.py) reads the paper closely: every gap, our
# reading of it, and the switch.
