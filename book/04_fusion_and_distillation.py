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
# **You will learn** how maps of different heights are fused, and what the fused classifier can and cannot know
# of them; what knowledge there is in an answer beyond its highest value; what Eq. 2 to 4 ask of the network, and
# what the ramp is for; and how to tell a gain from luck.
#
# **You need** about two minutes on a laptop and no download; chapter 3, for branches, cross-entropy and the
# training step. Branches that it trained with the same parameters are picked up; missing ones are trained first.

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

import numpy as np
import torch
from IPython.display import Markdown, display
from torch.nn import functional as F

from fusionkd_book import exercises, figures
from fusionkd_book.weights import kept as weights_of_the_book
from fusionkd_lib import experiment, losses, metrics, tables, training
from fusionkd_lib.models import Normalise, n_parameters
from fusionkd_lib.params import Params

figures.use_style()
torch.set_num_threads(params.threads)

# %% [markdown]
# ## Where this leads
#
# The networks of this chapter learn for a minute, from weights that have seen photographs. Those that **come with the book**
# are much smaller, began with nothing and had a quarter of an hour. Their results are read from their records, so that you
# see at once what is at stake; [chapter 7](07_on_a_device.py) compares them pair by pair.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
book = weights_of_the_book()
test, taught = book["committee"].test, book["committee"].scores
heads = {"Log-mel alone": book["alone"].scores["logmel"]}
heads |= {f"{figures.label(x)} (KD)": taught[x] for x in book["committee"].params.representations}
heads |= {
    "Fused classifier": taught["fused"],
    "Support vector machine": book["machines"].scores["svm"],
}
rows_shown = []
for x, y in heads.items():
    drawn = 100 * metrics.bootstrap(metrics.accuracy, test.targets, y, test.groups)
    low, high = np.quantile(drawn, [0.025, 0.975])
    value = f"{100 * metrics.accuracy(test.targets, y):.1f}"
    told = {"Accuracy (%)": value, "95 % interval": f"{low:.1f} to {high:.1f}"}
    rows_shown.append({"Classifier": x} | told)
display(Markdown(tables.markdown(rows_shown)))
display(
    Markdown(
        f"Urban synth, {len(test.clips)} clips of {len(set(test.groups))} held-out recordings, one seed."
    )
)

# %% [markdown]
# ## The branches
#
# Each comes from its own finished run: the same clips, the same split, another representation.

# %%
parents = {name: experiment.train_branch(params, name) for name in params.representations}
branches = [experiment.load_branch(run).eval() for run in parents.values()]
prepared = experiment.prepare(params.replace(device="cpu"))
data, split, classes = prepared.data, prepared.split, prepared.clips.classes
some = split.train[:: max(1, len(split.train) // 16)][:16]  # from all over the table
inputs, targets = data.batch(some)

# %% [markdown]
# ## Maps of different height
#
# A feature map has a row for every few bands of its spectrogram and a column for every few frames. Two
# representations agree in time, but not always in frequency: in the paper's Table II, log-mel with 128 bands meets
# a CQT, whose number of bins the paper does not give; we take 84, seven octaves of semitones. To see this we
# take the paper's sizes for a moment: a clip at 44.1 kHz, seen by two trunks that know photographs only.
#
# **Predict:** these trunks halve their input five times. How many rows does each map have, and how would you make
# the two fit?

# %% tags=["nbval-check-output"]
sizes = Params(representations=["logmel", "cqt"], trunk="efficientnet_lite0", weights="imagenet")
sound = prepared.clips.read(int(some[0]), sizes.sample_rate)[: 4 * sizes.sample_rate]
unequal = []
for name, view in experiment.representations_of(sizes).items():
    picture = view(torch.from_numpy(sound)[None])  # (1, 1, F, T)
    normalise = Normalise(picture.mean(), picture.std())
    untrained = experiment.build_branch(sizes, name, 10, normalise).eval()
    with torch.inference_mode():
        unequal.append(untrained({name: picture}).feature_map)
    print(f"{name:7s} spectrogram {tuple(picture.shape)} → map {tuple(unequal[-1].shape)}")

# %% [markdown]
# The paper's answer (III-C): **average-pool** each map to the smallest height and the smallest width among them.
# Then **stack** the channels.


# %% tags=["nbval-check-output"]
def pool_and_stack(maps):  # (B, C_j, f_j, t_j) each → (B, sum of C_j, f, t)
    size = [min(m.shape[axis] for m in maps) for axis in (2, 3)]
    return torch.cat([F.adaptive_avg_pool2d(m, size) for m in maps], dim=1)


stacked = pool_and_stack(unequal)
print("pooled and stacked:", tuple(stacked.shape))

# %% tags=["hide-input"] jupyter={"source_hidden": true}
n_first = unequal[0].shape[1]
parts = unequal[0], stacked[:, :n_first], unequal[1], stacked[:, n_first:]
titles = "Log-mel", "Log-mel, pooled", "CQT", "CQT, pooled"
axes = figures.feature_maps(
    {
        f"{title}: {m.shape[2]} rows": m[0].mean(0).numpy()
        for title, m in zip(titles, parts, strict=True)
    }
)
figures.show(
    axes,
    alt="Feature maps averaged over channels: log-mel with four rows, the same pooled to "
    "three, and CQT with three rows",
    caption="**Figure 4.1.** Maps of one clip, averaged over channels, low frequencies at the "
    "bottom, each on a scale of its own. Pooling makes the taller map as high as the "
    "other.",
)

# %% [markdown]
# Where the heights do not divide each other (Figure 4.1), a pooled row is a mixture of two neighbours, and rows in the
# middle are used twice (exercise 2).
#
# ## The fused classifier, written out
#
# After the stack, the paper is of two minds. Section III-C has convolutions and pooling; section IV-C, with the
# experiments, has a **global average** over the map and two fully connected layers. We follow IV-C
# (`fusion = "gap"`); the other reading is `fusion = "conv"`. Back to this page's own pair, on sixteen training clips:

# %% tags=["nbval-check-output"]
with torch.inference_mode():
    maps = [branch(inputs).feature_map for branch in branches]
    fusion_module = experiment.build_fusion(
        params.replace(fusion="gap"), branches, data.n_classes
    ).fusion.eval()
    embedding = pool_and_stack(maps).mean(dim=(2, 3))  # (B, sum of C_j)
    logits = fusion_module.head(embedding)  # (B, K)
    same = torch.allclose(logits, fusion_module(maps).logits, atol=1e-5)
print("maps", *(tuple(m.shape) for m in maps), "→ embedding", tuple(embedding.shape))
print(f"the same logits as the library's: {same}; {n_parameters(fusion_module):,d} parameters")

# %% [markdown]
# ## What it really is: two embeddings, side by side
#
# **Predict:** we deal out the positions of each map anew, each map in an order of its own. What stood beside what, and
# when, is lost. What happens to the fused logits?


# %%
def shuffled(feature_map):  # (B, C, f, t): one new order of positions for all clips and channels
    positions = feature_map.flatten(2)
    return positions[..., torch.randperm(positions.shape[2])].view_as(feature_map)


def side_by_side(maps):  # as pool_and_stack and its average, without the pooling
    return torch.cat([m.mean(dim=(2, 3)) for m in maps], dim=1)


with torch.inference_mode():
    mixed_up = fusion_module([shuffled(m) for m in maps]).logits
    plain = fusion_module.head(side_by_side(maps))

# %% tags=["hide-input"] jupyter={"source_hidden": true}
stay = torch.allclose(mixed_up, logits, atol=1e-4)
is_plain = torch.allclose(plain, logits, atol=1e-4)
whole = side_by_side(unequal)
apart = ((stacked.mean(dim=(2, 3)) - whole).norm() / whole.norm()).item()
display(
    Markdown(
        f"With the positions shuffled, the logits **{'stay as they were' if stay else 'change'}**. A head on each branch's own mean, side "
        f"by side, gives {'**the same logits**' if is_plain else 'other logits'}. For the unequal maps above, pooling moves "
        f"the embedding by {100 * apart:.0f} % of its length, and that is all the pooling does."
    )
)

# %% [markdown]
# This is the most useful thing that a close reading finds. An average does not know in which order its values came.
# With maps of one size, and section IV-C's average, **the fused classifier is a classifier on two pooled
# embeddings**, side by side: no place and no moment of one picture ever meets the same moment of the
# other. The paper sets itself apart (section I) from work [28] that joins the activations of fully connected layers;
# what it does is one layer away from that. Even the first layer only adds up: a matrix times two vectors side
# by side is a sum of two matrices, each times its own. Only after that layer's ReLU can log-mel and gammatone
# begin to qualify each other.
#
# What remains of *intermediate* fusion is that the fused classifier sees more than the branches' answers, and that its
# gradient reaches both trunks. Whether that is worth more than the mean of two answers is a question for the
# table below. ([The appendix](appendix_reading_the_paper.py) takes both readings apart.)
#
# ## What a soft answer knows
#
# A label says *siren*, and nothing else. A trained network says how far it is from every other class, too: this is what
# distillation hands on. It is easily overlooked, because a softmax pushes all but the highest value towards 0.
# Divide the logits by a **temperature** first, and the rest comes to light (Hinton et al. 2015).
#
# **Predict:** two networks were trained apart, on different pictures, with labels that name one class. On clips that
# both get right, how often do they agree on the *second* class?


# %%
def soften(logits, degrees):  # (B, K) → probabilities (B, K)
    soft = logits / degrees
    return torch.sigmoid(soft) if data.multi_label else torch.softmax(soft, dim=1)


rows = split.validation if len(split.validation) else split.train
rows = rows[:: max(1, len(rows) // 240)]
heard, truth = data.batch(rows)
with torch.inference_mode():
    opinions = [branch(heard).logits for branch in branches]
tags = truth if data.multi_label else F.one_hot(truth, data.n_classes).float()  # (B, K)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
right = [tags.gather(1, x.argmax(1, keepdim=True))[:, 0] > 0.5 for x in opinions]
sure = soften(opinions[0], 1).amax(dim=1)
usual = torch.nonzero(right[0] if right[0].any() else sure > 0)[:, 0]
clip = int(usual[sure[usual].argsort()[len(usual) // 2]])  # of middling confidence
bars = {"label": tags[clip].nan_to_num()}
bars |= {f"T = {degrees}": soften(opinions[0], degrees)[clip] for degrees in (1, 4)}
ax = figures.opinions(bars, classes, title=f"{figures.label(branches[0].name)}, one clip")
figures.show(
    ax,
    alt="The label of one clip, and a branch's probabilities for every class at "
    "temperatures 1 and 4",
    caption="**Figure 4.2.** A label names one class. The same network, softened (dotted), says "
    "what else the clip could be.",
)

# %%
figures.players(
    {"the clip": prepared.clips.read(int(rows[clip]), params.sample_rate)},
    sample_rate=params.sample_rate,
    status=prepared.clips.status,
)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
first, second, third = opinions[0][clip].argsort(descending=True)[:3].tolist()
names = [name.replace("_", " ") for name in classes]
share = [100 * soften(opinions[0], degrees)[clip][second].item() for degrees in (1, 4)]
both = right[0] & right[1]
runners_up = [x[both].argsort(dim=1, descending=True)[:, 1] for x in opinions[:2]]
agree = 100 * (runners_up[0] == runners_up[1]).float().mean().item()
often = [torch.bincount(x, minlength=len(classes)) / max(len(x), 1) for x in runners_up]
luck = 100 * (often[0] * often[1]).sum().item()
told = (
    f" Of the {int(both.sum())} clips that {' and '.join(figures.label(x.name) for x in branches[:2])} both get right, they name the "
    f"same second class in **{agree:.0f} %**; in pairs of unrelated clips it would be {luck:.0f} %."
)
display(
    Markdown(
        f"It hears *{names[first]}*; if not that, *{names[second]}*, then *{names[third]}*. For the second it has {share[0]:.1f} % "
        f"at temperature 1 and {share[1]:.1f} % at 4."
        + (told if both.any() and not data.multi_label else "")
    )
)

# %% [markdown]
# No label says that one class sounds like another. Where two networks that were trained apart agree more often than such
# pairs do, the second place is no noise: it is in the sounds, or in what both learned from photographs. This is the
# *knowledge* in knowledge distillation.
#
# ## Who teaches whom: Eq. 2 to 4
#
# Every classifier learns from the labels (Eq. 3), and every branch also from the fused logits (Eq. 2):
#
# $$L_{CE} = \sum_j L_{CE}^{j} + L_{CE}^{F} \qquad L_{KD} = \sum_j \lVert g(x) - f_j(x) \rVert \qquad L = L_{CE} + \lambda L_{KD}$$
#
# The paper writes a norm and says mean squared error, twice (III-D, IV-D): we follow the words. The teacher is
# not pulled towards its pupils: its gradient stops (`detach_teacher`), which is our choice where the paper is silent.

# %%
model = experiment.build_fusion(params, branches, data.n_classes)
output = copy.deepcopy(model).train()(inputs)
fused, by_branch = output.logits, {name: branch.logits for name, branch in output.branches.items()}


def cross_entropy(logits):  # chapter 3's, on these sixteen clips
    return losses.classification_loss(logits, targets, multi_label=data.multi_label)


terms = {f"ce_{name}": cross_entropy(logits) for name, logits in by_branch.items()}  # Eq. 3
terms["ce_fused"] = cross_entropy(fused)
for name, logits in by_branch.items():
    terms[f"kd_{name}"] = ((fused.detach() - logits) ** 2).mean()  # Eq. 2
print("  ".join(f"{term} {value.item():.3f}" for term, value in terms.items()))

# %% [markdown]
# These are training clips, which the branches know by heart and the new fused classifier does not know at all. Eq. 4 adds
# the terms up, the second kind weighed with $\lambda$; the gradient of that sum moves every weight at once. The
# library's step of chapter 3 does the same:

# %% tags=["nbval-check-output"]
total = sum(term for name, term in terms.items() if name.startswith("ce_"))
total = total + 0.01 * sum(term for name, term in terms.items() if name.startswith("kd_"))  # Eq. 4

twin = copy.deepcopy(model).train()
adam = torch.optim.Adam(twin.parameters(), lr=params.lr, amsgrad=True)
batch = [(inputs, targets, training.WHOLE)]
step = training.train_step(twin, adam, batch, multi_label=data.multi_label, kd_weight=0.01)
print("the same terms:", all(torch.allclose(step[name], term) for name, term in terms.items()))
print("the same total:", torch.allclose(step["loss"], total))

# %% [markdown]
# Where is the temperature? Hinton et al. compare softened probabilities with the Kullback-Leibler divergence, times $T^2$
# so that the gradient keeps its size. **Predict:** what becomes of that as $T$ grows?

# %% tags=["nbval-check-output"]
student, master = torch.tensor([[3.0, 1.0, -2.0, 0.5]]), torch.tensor([[5.0, 0.0, -1.0, 2.0]])
gap = student - master
for degrees in (1, 4, 16, 64):
    kl = losses.distillation_loss(student, master, kind="kl", temperature=degrees)
    print(f"T = {degrees:2d}: {kl:.4f}")
print(f"half the mean square of the difference, about its mean: {gap.var(correction=0) / 2:.4f}")

# %% [markdown]
# In the limit it is half the mean squared error, except for a shift of all logits together, which a softmax does not
# notice. So the paper's choice is Hinton's distillation at infinite temperature: the teacher's opinion of every
# class counts the same, however unlikely the class. At $T = 1$ the likely ones decide.
#
# ## The ramp
#
# In the first epochs the fused classifier is a poor teacher: its layers are new. So $\lambda$ begins
# near nothing and rises to 0.01 along $e^{-5(1-i)^2}$ (IV-D). What $i$ counts is not said; ours runs from 0 in the first
# epoch of the joint phase to 1 in its last.
#
# **Predict:** halfway through, how much of $\lambda$ is in force?


# %% tags=["nbval-check-output"]
def ramped(epoch, n_epochs):
    i = epoch / (n_epochs - 1)
    return 0.01 * np.exp(-5 * (1 - i) ** 2)


whole_phase = [ramped(epoch, 101) for epoch in range(101)]
library = [losses.Distillation().weight_at(epoch, n_epochs=101) for epoch in range(101)]
print("at the quarters:", [f"{whole_phase[epoch]:.4f}" for epoch in (0, 25, 50, 75, 100)])
print("the library's:", np.allclose(whole_phase, library))

# %% [markdown]
# ## Train together
#
# **Predict:** the branches are drawn towards their teacher. Will their distance from it fall, epoch by epoch?

# %%
run = experiment.train_fusion(params)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
history = run.history
axes = figures.loss_terms(history)
figures.show(
    axes,
    alt="Cross-entropy terms, distillation terms and the ramped lambda by epoch",
    caption="**Figure 4.3.** The terms of Eq. 4 in the joint phase: what the labels ask, what "
    "the teacher asks, and how much the teacher is listened to.",
)

# %% tags=["nbval-check-output"]
print("loss fell:", bool(history["ce_fused"].iloc[-1] < history["ce_fused"].iloc[0]))
print("lambda reached", history["kd_weight"].iloc[-1], "of", params.kd_weight)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
ends = {name: history[f"kd_{name}"].iloc[[0, -1]].tolist() for name in parents}
told = ", ".join(f"{figures.label(name)} {a:.2f} → {b:.2f}" for name, (a, b) in ends.items())
rose = [figures.label(name) for name, (a, b) in ends.items() if b > a]
grew = f" It rose for {' and '.join(rose)}: logits grow as networks become sure of themselves, and with them their distance."
pull = history["kd_weight"] * history[[f"kd_{name}" for name in parents]].sum(axis=1)
weight = 100 * (pull / history["loss"]).max()
display(
    Markdown(
        f"Distillation terms, from the first joint epoch to the last: {told}.{grew if rose else ''} Weighed with $\\lambda$, "
        f"they never made up more than **{weight:.1f} %** of the loss."
    )
)

# %% [markdown]
# A small loss may still pull hard: what moves a branch is the gradient. So we ask how long it is at the branches' logits,
# once for the labels and once for the teacher, with the trained weights and on the sixteen clips.
#
# **Predict:** how hard does the teacher pull, compared with the labels: a tenth, a hundredth, a thousandth?

# %%
with torch.inference_mode():
    final = experiment.load_fusion(run).eval()(inputs)
settings = {"kind": params.kd_loss, "temperature": params.temperature}
forces = {}
for name, branch in final.branches.items():
    z, master = branch.logits.clone().requires_grad_(), final.logits.clone()
    kd = losses.distillation_loss(z, master, multi_label=data.multi_label, **settings)
    pulls = cross_entropy(z), params.kd_weight * kd
    labels_pull, teacher_pull = (torch.autograd.grad(pull, z)[0].norm() for pull in pulls)
    forces[name] = (teacher_pull / labels_pull).item()

# %% tags=["hide-input"] jupyter={"source_hidden": true}
told = " and ".join(f"{100 * x:.1f} % for {figures.label(name)}" for name, x in forces.items())
display(
    Markdown(
        f"At its full $\\lambda$ the teacher pulls with this share of the labels' force: **{told}**."
    )
)

# %% [markdown]
# Keep these numbers in mind: they are what the word *distillation* in the title comes to, with this $\lambda$.
#
# ## What each branch gained
#
# All rows are of the same test clips, which no network has seen. The paper has the branches alone, the branches after
# distillation, and the fused classifier. Ours are the rows that need no network, and the **mean of the two branches'
# scores**, the cheapest committee there is.
#
# **Predict:** which row is the highest? And how large must a gain be to be believed, with this many recordings?

# %%
metric = run.provenance.metric
measure, test = getattr(metrics, metric), run.test
scores = {f"{figures.label(x)} alone": parents[x].scores[x] for x in parents}
scores |= {f"{figures.label(x)} (KD)": run.scores[x] for x in parents}
scores["Mean of branches (KD)"] = np.mean([run.scores[x] for x in parents], axis=0)
scores["Fused classifier"] = run.scores["fused"]
if params.judged_on == "test":  # else the test clips stay unread, also by baselines
    baselines = experiment.score_baselines(params)
    scores |= {figures.label(x): baselines.scores[x] for x in baselines.metrics}
# The same recordings are drawn for every classifier.
draws = {x: metrics.bootstrap(measure, test.targets, y, test.groups) for x, y in scores.items()}

# %% tags=["hide-input"] jupyter={"source_hidden": true}


def ends_of(drawn, form):
    return " to ".join(f"{100 * x:{form}}" for x in np.quantile(drawn, [0.025, 0.975]))


rows_shown = [
    {
        "Classifier": x,
        f"{metric.replace('_auprc', ' AUPRC')} (%)": f"{100 * measure(test.targets, y):.1f}",
        "95 % interval": ends_of(draws[x], ".1f"),
    }
    for x, y in scores.items()
]
display(Markdown(tables.markdown(rows_shown)))

# %% [markdown]
# The intervals overlap, and that settles nothing: what is a hard recording for one network is a hard one for the other. So we
# take the **difference** in every draw, on the same recordings, and look where the differences lie.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
compared = [(f"{figures.label(x)} (KD)", f"{figures.label(x)} alone") for x in parents]
compared += [("Fused classifier", "Mean of branches (KD)")]
rows_shown = []
for one, other in compared:
    low, high = np.quantile(draws[one] - draws[other], [0.025, 0.975])
    points = 100 * (measure(test.targets, scores[one]) - measure(test.targets, scores[other]))
    verdict = "higher" if low > 0 else "lower" if high < 0 else "open"
    told = ends_of(draws[one] - draws[other], "+.1f")
    rows_shown.append(
        {
            "Difference": f"{one} less {other}",
            "Points": f"{points:+.1f}",
            "95 % interval": told,
            "Verdict": verdict,
        }
    )
display(Markdown(tables.markdown(rows_shown)))
n_open = sum(row["Verdict"] == "open" for row in rows_shown)
display(
    Markdown(
        f"On {prepared.clips.dataset} ({prepared.clips.status}), one fold, one seed, {len(set(test.groups))} test recordings: "
        f"**{n_open} of {len(rows_shown)}** questions stay open."
    )
)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
key = "per_class_auprc" if data.multi_label else "per_class_recall"
first = params.representations[0]
ax = figures.class_scores(
    {
        f"{figures.label(first)} alone": parents[first].metrics[first][key],
        f"{figures.label(first)} (KD)": run.metrics[first][key],
        "fused": run.metrics["fused"][key],
    },
    classes,
    ylabel=key.split("_")[-1],
)
figures.show(
    ax,
    alt="Score of each class, of one branch before and after distillation, and of the fused "
    "classifier",
    caption="**Figure 4.4.** What the joint phase changed, class by class. A single class rests "
    "on few recordings: do not read much into one dot.",
)

# %% [markdown]
# ## What a gain is made of
#
# Before you thank the teacher: three things are new in this phase. There is a teacher; there is the fused
# classifier's own loss, whose gradient reaches both trunks; and there is longer training, with a fresh
# optimiser and a fresh learning rate. The paper compares the branches all the same, in each of its three
# tables. $\lambda = 0$ (exercise 4) takes away the first of the three only. And a seed may turn the sign:
# [chapter 0](00_the_whole_game.py) shows this table five times over.
#
# ## Recap
#
# - Pool to the smallest map, stack the channels, average, classify: with IV-C's average and maps of one size, the fused
#   classifier is a classifier on two embeddings, side by side.
# - A soft answer tells what else a sound could have been. Mean squared error between logits hands on all of it, likely
#   or not.
# - $L = L_{CE} + \lambda L_{KD}$; the ramp keeps an untrained teacher from teaching.
# - A gain is a paired difference with an interval, and belongs to distillation only once a control has been run.
#
# ## Exercises
#
# Write in the first cell of each, and run it; the folded cell after it holds a solution.
#
# **1. Where Eq. 2 pulls.** Write the gradient of one of its terms, the mean squared error over clips and classes, with
# respect to the student's logits. (That of the cross-entropy is $f - Y$ over the number of clips.) Which classes does each pull at?


# %%
def gradient(student, teacher):  # (B, K) both → (B, K)
    ...


exercises.check("4.1", gradient)


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# Solution. At every class where the two differ, right or wrong; and with K classes, K times less at each.
def solution_1(student, teacher):
    return 2 * (student - teacher) / student.numel()


exercises.check("4.1", solution_1)

# %% [markdown]
# **2. Which rows count twice?** A map with four rows is pooled to three and then averaged. With which weight does each
# of the four rows enter?

# %%
weights_of_rows = ...  # four numbers

exercises.check("4.2", weights_of_rows)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
# Solution. Pool four maps, each of which is 1 in a row of its own and 0 elsewhere.
one_row_each = torch.eye(4)[:, None, :, None]  # (4, 1, 4, 1)
exercises.check("4.2", F.adaptive_avg_pool2d(one_row_each, (3, 1)).mean(dim=(1, 2, 3)))

# %% [markdown]
# **3. Hinton's loss.** Write $T^2$ times the Kullback-Leibler divergence of the student's softened probabilities from the
# teacher's, averaged over clips.


# %%
def hinton(student, teacher, degrees):  # (B, K) both → a number
    ...


exercises.check("4.3", hinton)


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# Solution.
def solution_3(student, teacher, degrees):
    ours, theirs = ((x / degrees).log_softmax(dim=1) for x in (student, teacher))
    return degrees**2 * (theirs.exp() * (theirs - ours)).sum(dim=1).mean()


exercises.check("4.3", solution_3)

# %% [markdown]
# **4. The control:** set `kd_weight = 0.0` and run this chapter again. How much of each difference is left?
#
# <details><summary>Hint</summary>
#
# The branches still share a training phase with the fused classifier, whose gradient flows into their
# trunks. What is left is owed to more training and to that gradient, not to Eq. 2.
#
# </details>
#
# **5. The other reading:** set `fusion = "conv"`. Which of the claims of this page about shuffled positions still hold?
#
# <details><summary>Solution</summary>
#
# None: a 3 x 3 filter sees which patterns of the two maps stand beside each other, before anything is averaged.
# [The appendix](appendix_reading_the_paper.py) shows it. The module is larger, too.
#
# </details>
#
# **Next:** [chapter 5](05_the_tables.py) sets every pair beside the paper's tables.
