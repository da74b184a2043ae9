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

from fusionkd_lib import plots, tables
from fusionkd_lib.runs import outputs_root, project_root

plots.use_style()
places = [outputs_root() / "runs", project_root() / "outputs" / "reference"]
runs = {run.name: run for place in reversed(places) for run in tables.find_runs(place)}
found = tables.collect(runs.values())

# %%
for table in found:
    display(Markdown(table.to_markdown()))

# %% mystnb={"image": {"alt": "The rows of each table with their intervals, chance, and the paper's figures"}}
for table in found:
    ax = plots.table_figure(table)
