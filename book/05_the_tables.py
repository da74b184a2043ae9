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

from fusionkd_book import figures
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
# **Predict**, and write it down: which of the paper's three claims will hold here?
#
# 1. The fused classifier beats each of its branches.
# 2. Distillation improves every branch.
# 3. It matters which two representations are paired.
#
# And what would a table have to look like for you to *change* your mind?

# %% [markdown]
# ## Tables I to III
#
# Each row is a classifier. *Ours* is the mean over folds and seeds, in percent; the interval resamples
# whole recordings of the test clips, since clips of one recording stand or fall together. The paper's
# figure stands in a column of its own, with the data that **it** was measured on. Mind the note below
# each table: a figure on synthetic, partial or stand-in clips is not the paper's experiment.

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
# The same as a picture: dots are ours with their intervals, diamonds the paper's, the dotted line is
# blind guessing.

# %% mystnb={"image": {"alt": "The rows of each table with their intervals, chance, and the paper's figures"}}
for table in found:
    ax = figures.table_figure(table)

# %% [markdown]
# ## Did distillation help?
#
# Two overlapping intervals do not answer that: both rows are judged on the same recordings, so that what
# is hard for one is hard for the other. The fair comparison is **paired**: draw recordings, take the
# difference of the two figures on them, and look where the differences lie. Where the interval leaves
# out zero there is a verdict; else the question is open.

# %%
for table in found:
    gains = [
        {
            "Branch": figures.label(gain.head),
            "Gain (points)": f"{gain.gain:+.1f}",
            "95 % interval": f"{gain.low:+.1f} to {gain.high:+.1f}",
            "Paper's gain": None if gain.paper is None else f"{gain.paper:+.1f}",
            "Verdict": gain.verdict,
        }
        for gain in tables.gains(table, runs.values())
    ]
    if gains:
        display(Markdown(f"**{table.title}**\n\n{tables.markdown(gains)}"))

# %% [markdown]
# ## Did fusion help?

# %%
for table in found:
    branches = [row for row in table.rows if row.head != "fused" and row.ours is not None]
    best, fused = max(branches, key=lambda row: row.ours), table.row("fused")
    display(
        Markdown(
            f"- {table.title}: fused **{fused.ours:.1f} %**, best single branch {best.ours:.1f} % ({best.classifier})"
        )
    )

# %% [markdown]
# ## What these tables cannot say
#
# - **More training or more knowledge?** Branches "(KD)" were trained for a second phase that the plain
#   branches did not have. The paper compares them all the same; so do the tables above. Only a control
#   with $\lambda = 0$ and the same second phase separates the two.
# - **One seed is one draw.** The intervals hold the luck of the test recordings, not that of the first
#   weights. The column *Seeds* says how many draws there were. Even the last bits of the arithmetic draw
#   anew: when a faster layer changed ours in rounding alone, single figures on the small sample of real
#   clips moved by more than the paper's gains.
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
