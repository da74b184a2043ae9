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
# # 4 · Fusion and distillation
#
# Two branches have looked at the same clips in two ways. Here their feature maps are **fused** into a
# classifier that sees both, and while everything trains on together, the fused classifier's logits are
# **distilled** back into each branch. Afterwards the branches part again: each is a tagger of its own,
# as light as before, and, the paper claims, better.
#
# **You will learn** how maps of different sizes are fused, what Eq. 2 to 4 ask of the network, what the
# ramp is for, and how to tell a real gain from a lucky one.
#
# **You need** about two minutes on a laptop; no download. Branches that chapter 3 trained with the same
# parameters are picked up; missing ones are trained first.

# %% tags=["parameters"]
dataset = "urban_synth"
representations = ["logmel", "gammatone"]
fold = 1  # the test fold
seed = 0
clips_per_class = 24  # in each of the five folds
n_scenes = 120  # urban_synth_scenes: in each fold
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
joint_epochs = 3  # of this chapter's phase; None: as many as epochs
batch_size = 32
optimizer = "adamw"
lr = 0.001
weight_decay = 0.01
schedule = "one_cycle"
augmentation = ["shift", "mixup"]
kd_weight = 0.01  # lambda
kd_loss = "mse"
shortcuts = ["channels_last", "fused_optimizer", "reuse_memory"]  # faster on a processor
threads = 1  # other runs may want the other cores

# %%
from fusionkd_lib.params import notebook_params

params = notebook_params(globals())

# %%
import copy

import torch
from IPython.display import Markdown, display

from fusionkd_book import figures
from fusionkd_lib import experiment, losses, metrics, training
from fusionkd_lib.models import n_parameters

figures.use_style()
torch.set_num_threads(params.threads)

# %% [markdown]
# ## The branches
#
# Each comes from its own finished run: the same clips, the same split, another representation.

# %%
parents = {name: experiment.train_branch(params, name) for name in params.representations}
branches = [experiment.load_branch(run) for run in parents.values()]

# %% [markdown]
# ## Fusing feature maps
#
# The maps of two representations agree in time but not in frequency: a CQT has 84 bins where log-mel
# has 128. Each map is average-pooled to the smallest height and the smallest width among them, then
# the channels are stacked, averaged over the map, and classified. There is no weight before the stack:
# what the fused classifier knows of a clip is what the branches' maps tell it.
#
# With this average, section IV-C's, the fused classifier does not see the maps frame by frame: where the
# maps have one size, shuffle their positions and its logits stay
# ([the appendix](appendix_reading_the_paper.py) does so). It is a classifier on the branches' pooled
# embeddings, side by side; `fusion = "conv"` is the reading in which the place counts.
#
# **Predict:** which of the three shapes below has the most channels?

# %% tags=["nbval-check-output"]
prepared = experiment.prepare(params.replace(device="cpu"))
some = prepared.split.train[:: max(1, len(prepared.split.train) // 16)][:16]
inputs, targets = prepared.data.batch(some)
with torch.inference_mode():
    maps = {branch.name: branch.eval()(inputs).feature_map for branch in branches}
for name, feature_map in maps.items():
    print(f"{name:10s} spectrogram {tuple(inputs[name].shape)} → map {tuple(feature_map.shape)}")
fusion_module = experiment.build_fusion(params, branches, prepared.data.n_classes).fusion
print(
    f"{'fused':10s} {'':31s} → map {tuple(fusion_module.eval()(list(maps.values())).feature_map.shape)}, {n_parameters(fusion_module):,d} parameters"
)

# %% [markdown]
# ## Who teaches whom: Eq. 2 to 4
#
# Every classifier learns from the labels (Eq. 3), and every branch also from the fused logits (Eq. 2):
#
# $$L_{CE} = \sum_j L_{CE}^{j} + L_{CE}^{F} \qquad L_{KD} = \sum_j \lVert g(x) - f_j(x) \rVert \qquad L = L_{CE} + \lambda L_{KD}$$
#
# The paper writes a norm and says mean squared error; we take the text at its word. The teacher is not
# pulled towards its pupils: its gradient stops (`detach_teacher`), which the paper leaves open.

# %%
data = prepared.data
model = experiment.build_fusion(params, branches, data.n_classes)

output = copy.deepcopy(model).train()(inputs)
fused, by_branch = output.logits, {name: branch.logits for name, branch in output.branches.items()}


def cross_entropy(logits: torch.Tensor) -> torch.Tensor:
    return losses.classification_loss(logits, targets, multi_label=data.multi_label)


terms = {f"ce_{name}": cross_entropy(logits) for name, logits in by_branch.items()}  # Eq. 3
terms["ce_fused"] = cross_entropy(fused)
for name, logits in by_branch.items():
    terms[f"kd_{name}"] = ((fused.detach() - logits) ** 2).mean()  # Eq. 2
for term, value in terms.items():
    print(f"{term:14s} {value.item():.3f}")

# %% [markdown]
# Sixteen training clips, from all over the table. Eq. 4 adds the terms up, the second kind weighed with
# $\lambda$; the gradient of that sum moves every weight at once. The library's step of chapter 3 does the
# same:

# %% tags=["nbval-check-output"]
total = sum(term for name, term in terms.items() if name.startswith("ce_"))
total = total + 0.01 * sum(term for name, term in terms.items() if name.startswith("kd_"))  # Eq. 4

twin = copy.deepcopy(model).train()
adam = torch.optim.Adam(twin.parameters(), lr=params.lr, amsgrad=True)
step = training.train_step(
    twin, adam, [(inputs, targets, training.WHOLE)], multi_label=data.multi_label, kd_weight=0.01
)
print("the same terms:", all(torch.allclose(step[name], term) for name, term in terms.items()))
print("the same total:", torch.allclose(step["loss"], total))

# %% [markdown]
# ## The ramp
#
# In the first epochs the fused classifier is a poor teacher: its layers are new. So $\lambda$ begins
# near nothing and rises to 0.01 along $e^{-5(1-i)^2}$, where $i$ runs from 0 to 1 over the phase.

# %% tags=["nbval-check-output"]
print([round(losses.ramp(i / 4), 3) for i in range(5)])

# %% [markdown]
# ## Train together

# %%
run = experiment.train_fusion(params)

# %% [markdown]
# Every term is in the run's `history.csv`. Watch the distillation terms: they need not fall while the
# branches learn. The logits of all classifiers grow as they become sure of themselves, and with them
# the distance between any two.

# %% mystnb={"image": {"alt": "Cross-entropy terms, distillation terms and the ramped lambda by epoch"}}
ax = figures.loss_terms(run.history)
# %% tags=["nbval-check-output"]
print("loss fell:", bool(run.history["ce_fused"].iloc[-1] < run.history["ce_fused"].iloc[0]))
print("lambda reached", run.history["kd_weight"].iloc[-1], "of", params.kd_weight)

# %%
history = run.history
moved = {name: (history[f"kd_{name}"].iloc[0], history[f"kd_{name}"].iloc[-1]) for name in parents}
told = ", ".join(f"{figures.label(name)} {a:.2f} → {b:.2f}" for name, (a, b) in moved.items())
rose = [
    figures.label(name)
    for name, (a, b) in moved.items()
    if b > a and history[f"ce_{name}"].iloc[-1] < history[f"ce_{name}"].iloc[0]
]
grew = f" Of {' and '.join(rose)} it rose, although the branch learned." if rose else ""
display(Markdown(f"Distillation terms, from the first joint epoch to the last: {told}.{grew}"))

# %% [markdown]
# ## What each branch gained
#
# The figures of the branches alone come from their own runs, those after distillation from this one;
# all on the same test clips, which none of them has seen.

# %%
metric = run.provenance.metric
rows = [(figures.label(name), name, parent) for name, parent in parents.items()]
rows += [(f"{figures.label(name)} (KD)", name, run) for name in parents]
rows += [("Fused classifier", "fused", run)]
if params.judged_on == "test":  # else the test clips stay unread, also by baselines
    baselines = experiment.score_baselines(params)
    rows += [(figures.label(head), head, baselines) for head in baselines.metrics]
for row, name, source in rows:
    low, high = metrics.bootstrap_interval(
        getattr(metrics, metric), source.test.targets, source.scores[name], source.test.groups
    )
    print(
        f"{row:18s} {100 * source.metrics[name][metric]:5.1f} %   ({100 * low:.1f} to {100 * high:.1f})"
    )

# %%
gains = {name: run.metrics[name][metric] - parents[name].metrics[name][metric] for name in parents}
told = ", ".join(f"{figures.label(name)} {100 * gain:+.1f} points" for name, gain in gains.items())
display(
    Markdown(
        f"On {prepared.clips.dataset} ({prepared.clips.status}), one fold, one seed: {told}. The intervals above resample "
        f"{len(set(run.test.groups))} test recordings; a gain smaller than they are wide is not yet a finding."
    )
)

# %% mystnb={"image": {"alt": "Figure of each class before and after distillation"}}
key = "per_class_auprc" if prepared.data.multi_label else "per_class_recall"
first = params.representations[0]
ax = figures.class_scores(
    {
        f"{figures.label(first)} alone": parents[first].metrics[first][key],
        first: run.metrics[first][key],
        "fused": run.metrics["fused"][key],
    },
    prepared.clips.classes,
    ylabel=key.split("_")[-1],
)

# %% [markdown]
# ## What the gain is made of
#
# Before you thank the teacher: three things are new in this phase. There is a teacher; there is the fused
# classifier's own loss, whose gradient reaches both trunks; and there is longer training, with a fresh
# optimiser and a fresh learning rate. The paper compares the branches all the same. $\lambda = 0$, the first
# exercise, takes away the first of the three only.
#
# ## Recap
#
# - Pool to the smallest map, stack the channels, average, classify: fusion adds one small classifier.
# - $L = L_{CE} + \lambda L_{KD}$; the ramp keeps an untrained teacher from teaching.
# - In the paper's recipe one validation loss, Eq. 3 without the distillation term, drives the learning
#   rate and picks the weights of all classifiers; on this page the rate follows its own course, and the last
#   epoch is kept.
#
# ## Exercises
#
# **1.** Set `kd_weight = 0.0` and run this chapter again. How much of the gain is left?
#
# <details><summary>Hint</summary>
#
# The branches still share a training phase with the fusion module, whose gradient flows into their
# trunks. What is left is owed to more training and to that gradient, not to distillation.
#
# </details>
#
# **2.** The ramped $\lambda$ reaches 0.01. Compare `0.01 * kd_...` with `ce_...` in `history.csv`. Which one
# moves the branches?
#
# <details><summary>Solution</summary>
#
# `run.history.filter(like="kd_").mean() * 0.01` beside `run.history.filter(like="ce_").mean()`: the
# distillation term is a small share of the whole. Chapter 5's tables say what it buys nevertheless.
#
# </details>
#
# **Next:** [chapter 5](05_the_tables.py) sets every pair beside the paper's tables.
