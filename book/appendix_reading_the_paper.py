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
# # Appendix · Reading the paper closely
#
# A paper of five pages cannot say everything, and anyone who implements it has to decide what it leaves
# open. This appendix lists every such decision: the **gap**, **our reading**, and the **switch** that
# gives you another reading. Then it compares the paper's own tables with its text.
#
# None of this is a reproach. Five pages have gaps; what costs a reader dearly is a decision that stays hidden.
#
# **You will learn** to read a methods section like somebody who has to run it, and a results section
# like somebody who has to believe it.
#
# **You need** a few seconds; nothing is trained, and nothing is downloaded. Wherever a claim can be checked by
# a few lines of code, those lines follow it.

# %%
import json

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from fusionkd_book import figures
from fusionkd_lib import losses, tables
from fusionkd_lib.errors import InputError
from fusionkd_lib.models import Branch, FusionModule, dead_channels, n_parameters, tap_channels
from fusionkd_lib.representations import build
from fusionkd_lib.runs import project_root
from fusionkd_lib.trunks import build_trunk

plt = figures.plt
figures.use_style()
record = json.loads((project_root() / "outputs" / "reference" / "datasets.json").read_text())

# %% [markdown]
# ## The networks
#
# | What the paper leaves open | Our reading | Switch |
# |---|---|---|
# | Which feature map is $M_j$? | the trunk's last convolution | `tap` |
# | Fusion: a convolution and pooling after the stack (III-C), or global average pooling alone (IV-C)? | IV-C | `fusion: gap / conv` |
# | "Adaptive pooling" to one size | two-dimensional average, to the smallest height and the smallest width of all maps | |
# | Fully connected layers "of 1280 and 512" (branch), "2560 and 512" (fusion) | mean of the map → 1280 → 512 → classes, BatchNorm and ReLU after the first two; 2560 for fusion | `head` |
# | From one channel to three "as in [2]" | the stem of that reference: BatchNorm on the input, 1 → 10 and 10 → 3 channels, each with ReLU; a channel that is born dead is turned over | |
# | Other trunks, more than two branches | the same widths; 1280 for each branch in fusion | `head` |
# | ShuffleNet: the reference is to its first version | torchvision has the second, and we say so where it is shown | `trunk` |
# | Weights of the trunks | drawn at random; ImageNet's, which [2] began with, are available too | `weights` |
#
# **Why the last convolution?** MobileNetV2 ends in a map of so many channels; the fusion head's first layer
# is exactly twice as wide.

# %% tags=["nbval-check-output"]
branch = Branch("logmel", 10).eval()
channels = tap_channels(branch)
print(f"channels of the last map: {channels}; two of them stacked: {2 * channels}")
print("one layer earlier:", tap_channels(Branch("logmel", 10, tap=-2)))

# %% [markdown]
# The number fits only the last map: a strong hint but no proof, since a layer may be as wide as it likes.
#
# **What sizes have to be matched?** A CQT has fewer rows than the others, and trunks shrink their input by
# different factors. Four seconds at 44.1 kHz, hop 512:

# %% tags=["nbval-check-output"]
n_frames = 1 + 4 * 44100 // 512
for name in ("mobilenet_v2", "shufflenet_v2", "squeezenet1_1"):
    trunk = build_trunk(name)[0].eval()
    with torch.inference_mode():
        maps = [tuple(trunk(torch.zeros(1, 3, n_rows, n_frames)).shape[1:]) for n_rows in (128, 84)]
    smallest = tuple(min(m[axis] for m in maps) for axis in (1, 2))
    print(
        f"{name:14s} {n_frames} frames: 128 rows → {maps[0]}, 84 rows → {maps[1]}, pooled to {smallest}"
    )

# %% [markdown]
# **What does the fused classifier see?** Section IV-C averages the stacked maps over all positions before
# anything looks at two of them together. An average does not know in which order its values came.
#
# **Predict:** we shuffle the positions of both maps, each in an order of its own, so that nothing in one map stands
# where it stood beside the other. What do the fused logits do, with section IV-C's average (`gap`) and with section
# III-C's convolution (`conv`)? Does it matter that the map of a CQT has one row fewer?


# %% tags=["nbval-check-output"]
def shuffled(feature_map):  # (B, C, f, t): the same new order of positions for all channels
    positions = feature_map.flatten(2)
    return positions[:, :, torch.randperm(positions.shape[2])].view_as(feature_map)


def frames_shuffled(feature_map):  # every row in the same new order
    return feature_map[..., torch.randperm(feature_map.shape[3])]


torch.manual_seed(0)
for kind in ("gap", "conv"):
    module = FusionModule([channels] * 2, 10, fusion=kind).eval()
    for heights in ((4, 4), (4, 3)):
        maps = [torch.rand(4, channels, n_rows, 11) for n_rows in heights]
        with torch.inference_mode():
            before = module(maps).logits
            same = [
                torch.allclose(module([mix(m) for m in maps]).logits, before, atol=1e-5)
                for mix in (shuffled, frames_shuffled)
            ]
        print(
            f"{kind:4s} heights {heights}: same logits with positions shuffled: {same[0]!s:5s} with frames shuffled: {same[1]}"
        )

# %% [markdown]
# With `gap` and maps of one size, the logits stay: *where* and *when* something was in a map plays no part.
# (Pooling four rows to three counts the inner rows twice, so that a row's place has a weight; the frames can still
# be shuffled.) With maps of one size the whole fusion is therefore two vectors of means, side by side, under a
# classifier:

# %% tags=["nbval-check-output"]
module = FusionModule([channels] * 2, 10).eval()
maps = [torch.rand(4, channels, 4, 11) for _ in range(2)]
with torch.inference_mode():
    embeddings = torch.cat([feature_map.mean(dim=(2, 3)) for feature_map in maps], dim=1)
    same = torch.allclose(module.head(embeddings), module(maps).logits, atol=1e-5)
print("a classifier on pooled embeddings", tuple(embeddings.shape), "gives the same logits:", same)

# %% [markdown]
# This is the most useful thing that a close reading finds. The paper sets itself apart from late fusion, and from
# a work ([28]) that concatenates activations of fully connected layers: what it fuses, it says, are
# *convolutional feature maps*. But as section IV-C describes the fusion, it concatenates what enters the first fully
# connected layer, one layer earlier than [28] and with no more knowledge of time and frequency. Nothing is fused
# frame by frame. What is left of the difference is that the fused classifier's gradient reaches the trunks without
# passing through the branches' heads. Section III-C's convolution, before any average, could see which patterns
# of the two maps coincide; `fusion: conv` is that reading.
#
# **What does a convolution cost?** **Predict:** how many weights would a plain 3 x 3 convolution over the stack
# have: fewer than a whole MobileNetV2 trunk, as many, ten times as many?

# %% tags=["hide-input"] jupyter={"source_hidden": true}
sizes = {
    kind: n_parameters(FusionModule([channels] * 2, 10, fusion=kind)) for kind in ("gap", "conv")
}
display(
    Markdown(
        f"A plain one: **{9 * (2 * channels) ** 2 / 1e6:.0f} million**. Our `conv` reading therefore splits it into depthwise and "
        f"pointwise, as the trunks themselves do: the fusion module then has {sizes['conv'] / 1e6:.1f} million parameters, with "
        f"`gap` {sizes['gap'] / 1e6:.1f} million. A trunk has {n_parameters(branch.trunk) / 1e6:.1f} million, a whole branch "
        f"{n_parameters(branch) / 1e6:.1f}."
    )
)

# %% [markdown]
# **Born dead?** The stem ends in three channels and a ReLU. A channel whose ten weights and bias happen to give a
# negative sum for every input shows the trunk nothing; and since no gradient comes back through the ReLU either, it
# never learns. **Predict:** of a thousand draws, how many have such a channel?

# %% tags=["hide-input"] jupyter={"source_hidden": true}
deaths = []
for seed in range(1000):
    torch.manual_seed(seed)
    first, second = torch.nn.Conv2d(1, 10, 1), torch.nn.Conv2d(10, 3, 1)
    drawn = torch.nn.Sequential(torch.nn.BatchNorm2d(1), first, torch.nn.ReLU(), second)
    deaths.append(int(dead_channels(drawn).sum()))
share = [100 * deaths.count(n) / len(deaths) for n in range(4)]
display(
    Markdown(
        f"**{100 - share[0]:.0f} %** have at least one dead channel, {share[2] + share[3]:.0f} % two or three, and in {share[3]:.1f} % all "
        "three are dead: those branches would learn nothing at all."
    )
)

# %% [markdown]
# Seeds that differ by luck of this kind tell nothing about the method. The library turns the sign of a dead
# channel's weights, which brings it to life, and leaves every other draw as it is.

# %% [markdown]
# ## The losses
#
# | What the paper leaves open | Our reading | Switch |
# |---|---|---|
# | Eq. 2 is written as a norm; the text says mean squared error, twice | mean squared error over clips and classes, summed over branches | `kd_loss: mse / l2 / kl` |
# | Does the teacher learn from its pupils too? | no: its gradient stops | `detach_teacher` |
# | The ramp's $i \in [0, 1]$ | from 0 in the first epoch of the joint phase to 1 in its last | `ramp_epochs`, `kd_weight` |
# | The logits are called "final layer activations" | logits, before softmax or sigmoid | |
#
# **Does it matter whether Eq. 2 is a norm or a mean square?** Both are zero where pupil and teacher agree.
# Away from there, one grows in a straight line and the other as a parabola, and the mean over ten classes
# makes the second one small.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
torch.manual_seed(0)
teacher, direction = 3 * torch.randn(64, 10), torch.randn(64, 10)
distances = np.linspace(0.02, 4, 40)
curves = {kind: [] for kind in ("mse", "l2", "kl")}
for distance in distances:
    for kind, values in curves.items():
        student = (teacher + distance * direction).requires_grad_()
        loss = losses.distillation_loss(student, teacher, kind=kind)
        (gradient,) = torch.autograd.grad(loss, student)
        values.append((loss.item(), gradient.norm(dim=1).sum().item()))
figure, axes = plt.subplots(1, 2, figsize=(figures.WIDTH, 3))
for (kind, values), stroke in zip(curves.items(), ("-", "--", ":"), strict=True):
    for ax, column in zip(axes, np.array(values).T, strict=True):
        ax.plot(distances, column, stroke, label=kind)
for ax, title in zip(axes, ("loss", "gradient, norm a clip"), strict=True):
    ax.set(title=title, ylim=(0, None))
figure.supxlabel("root mean square distance of the logits", fontsize="medium")
axes[0].legend(frameon=False)
figures.sns.despine()
figures.show(
    axes,
    alt="Value and gradient of three distillation losses against the distance of the "
    "pupil's logits from the teacher's",
    caption="**Figure P.1.** Near the teacher the mean square (solid) hardly pulls; the norm "
    "(dashed) pulls alike at every distance.",
)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
ratio = (
    curves["l2"][np.searchsorted(distances, 1)][1] / curves["mse"][np.searchsorted(distances, 1)][1]
)
display(
    Markdown(
        f"At a distance of 1 the norm pulls **{ratio:.1f} times** as hard as the mean square with the same $\\lambda$. A switch from one "
        "to the other is also a switch of $\\lambda$: never compare them at a single value of it."
    )
)

# %% [markdown]
# **Does it matter whether the teacher's gradient stops?** A few lines show what the difference is.

# %% tags=["nbval-check-output"]
for stopped in (True, False):
    g = teacher.clone().requires_grad_()
    f = (teacher + direction).requires_grad_()
    losses.distillation_loss(f, g.detach() if stopped else g).backward()
    print(
        f"teacher detached: {stopped!s:5s}  pupil is moved: {f.grad is not None}  teacher is moved: {g.grad is not None}"
    )

# %% [markdown]
# If it does not stop, Eq. 2 pulls the teacher towards each of its pupils exactly as hard as the pupil towards the
# teacher. By default we let the teacher keep its opinion.
#
# **What does the ramp amount to?** "Sigmoid-shaped", says the paper of $e^{-5(1-i)^2}$.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
epochs = np.arange(100)
weights = np.array([0.01 * losses.ramp(losses.ramp_progress(int(epoch), 100)) for epoch in epochs])
figure, ax = plt.subplots(figsize=(figures.WIDTH, 2.6))
ax.plot(epochs + 1, weights, color="0.3")
ax.set(xlabel="epoch of the joint phase", ylabel="ramped lambda", ylim=(0, None))
figures.sns.despine()
figures.show(
    ax,
    alt="The ramped lambda over a hundred epochs: low for the first third, then rising to 0.01",
    caption="**Figure P.2.** The ramp keeps the teacher quiet for the first third of the "
    "phase. It is half a bell rather than a sigmoid.",
)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
display(
    Markdown(
        f"It begins at {weights[0]:.5f}, passes a tenth of its end value in epoch {1 + int((weights > 0.001).argmax())} and one half in epoch "
        f"{1 + int((weights > 0.005).argmax())}; its mean over the phase is {weights.mean():.4f}. The schedule may long have cut "
        "the learning rate by then: distillation would arrive when there is little motion left to steer."
    )
)

# %% [markdown]
# ## The training and the evaluation
#
# | What the paper leaves open | Our reading | Switch |
# |---|---|---|
# | Epochs and optimiser of each phase | 100 each; fresh AMSGrad Adam, learning rate 0.01, a tenth after five epochs without progress | `epochs`, `joint_epochs`, `lr`, `lr_factor`, `patience` |
# | Which validation loss drives the joint phase? The total *rises* with the ramp | Eq. 3 on the validation clips, without the distillation term; one checkpoint for all heads | `select: joint / per_head` |
# | Batch size, weight decay, augmentation | 64, none, none | `batch_size`, `weight_decay`, `augmentation` |
# | Validation inside the ten folds | the next fold, wrapping around; the best validation loss is kept | `validation: next_fold / grouped / none` |
# | SONYC-UST: level, labels, split | coarse; at least one volunteer; trained on *train*, reported on *validate* | `level`, `labels` |
# | SONYC-UST: validation during training | a part of *train* with sensors of its own, so that the reported clips are read once | `val_fraction` |
# | The coarse column that holds two categories (chapter 1) | as the challenge shipped it | `coarse_labels` |
#
# The second row deserves a thought. If the total loss of Eq. 4 drove the schedule, the growing $\lambda$ would
# look like a network that no longer improves.
#
# ## The sounds and pictures
#
# | What the paper leaves open | Our reading | Switch |
# |---|---|---|
# | "Each clip is 4 seconds at 44.1 kHz" | not so: resample, mix to mono, pad with silence | `sample_rate`, `duration` |
# | Short clips: the *spectrograms* are padded with zeros | the waveform is padded (chapter 1 shows why) | `pad` |
# | CQT: hop and number of bins | hop 512, 84 bins, twelve to the octave, from C1 | `cqt_bins`, `bins_per_octave`, `cqt_fmin` |
# | Gammatone: how? | gammatone-weighted STFT magnitudes, 128 bands from 20 Hz; [chapter 2](02_three_ways_to_look.py) holds them to the filter bank in time | |
# | Range of the mel bands, window, scaling | 20 Hz to Nyquist; Hann; mean and deviation of the training clips alone | `fmin`, `fmax` |

# %% tags=["hide-input"] jupyter={"source_hidden": true}
us8k = record["urbansound8k"]
display(
    Markdown(
        f"**{us8k['shorter than 4 s']:,d}** of UrbanSound8K's {us8k['clips']:,d} clips, {100 * us8k['shorter than 4 s'] / us8k['clips']:.0f} %, are "
        f"shorter than four seconds, and {us8k['shorter than 1 s']} shorter than one."
    )
)

# %% [markdown]
# "128 frequency bins were used", says the paper of log-mel and gammatone; of the CQT it gives no number.
# It cannot have been 128 with twelve to the octave from C1:

# %% tags=["nbval-check-output"]
try:
    build("cqt", sample_rate=44100, cqt_bins=128)
except InputError as error:
    print(error)

# %% [markdown]
# ## The tables against the text
#
# The paper's numbers are constants in our library, so that what follows is computed from them.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
rows = []
for metric, pairs in tables.PAPER.items():
    for pair, (a, b, a_taught, b_taught, fused) in pairs.items():
        for name, alone, taught in ((pair[0], a, a_taught), (pair[1], b, b_taught)):
            rows.append(
                (
                    tables.NUMERALS[pair],
                    tables.PAPER_DATA[metric].split(",")[0],
                    name,
                    alone,
                    taught,
                    fused,
                )
            )
paper = pd.DataFrame(rows, columns=["Table", "Data", "Branch", "Alone", "KD", "Fused"])
paper["Gain"] = (paper["KD"] - paper["Alone"]).round(2)
display(Markdown(tables.markdown(paper.to_dict("records"))))

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(2, 1, figsize=(figures.WIDTH, 5.6), sharex=True)
for ax, (data, part) in zip(axes, paper.groupby("Data", sort=False), strict=True):
    for y, row in enumerate(part.itertuples()):
        arrow = {"arrowstyle": "->", "color": figures.COLOURS[row.Branch], "lw": 2}
        ax.annotate(
            "", (row.KD, y), (row.Alone, y), arrowprops=arrow | {"shrinkA": 0, "shrinkB": 0}
        )
        ax.plot(row.Fused, y, "k|", ms=12, mew=2)
    names = [f"{r.Table} · {figures.label(r.Branch)}" for r in part.itertuples()]
    ax.set_yticks(range(len(part)), names)
    ax.set(xlim=(paper["Alone"].min() - 1, 85), title=data, ylim=(5.5, -0.5))
    figures.sns.despine(ax=ax)
axes[1].set_xlabel("%")
figures.show(
    axes,
    alt="The paper's numbers for each branch alone and after distillation, and for the "
    "fused classifier, on both datasets",
    caption="**Figure P.3.** The paper's own numbers: each arrow leads from a branch alone to "
    f"the same after distillation, the bar is its teacher. {(paper['Gain'] < 0).sum()} "
    f"of {len(paper)} arrows point to the left.",
)

# %% [markdown]
# **"The performance of the individual branches is better when using knowledge distillation."**

# %% tags=["hide-input"] jupyter={"source_hidden": true}
lost = paper[paper["Gain"] < 0]
told = ", ".join(
    f"{figures.label(r.Branch)} in Table {r.Table} ({r.Alone} → {r.KD} on {r.Data})"
    for r in lost.itertuples()
)
display(
    Markdown(
        f"{(paper['Gain'] > 0).sum()} of {len(paper)} pairs of numbers say so. **{len(lost)} say the opposite**: {told}. They are not "
        f"the smallest changes either: the largest gain in the tables is {paper['Gain'].max():+.1f} points, the largest loss {paper['Gain'].min():+.1f}."
    )
)

# %% [markdown]
# **"Transferring knowledge from the fused classifier": is the teacher better than its pupils?**

# %% tags=["hide-input"] jupyter={"source_hidden": true}
above = paper[paper["KD"] > paper["Fused"]]
below = paper[paper["Fused"] < paper["Alone"]]
told = "; ".join(
    f"{figures.label(r.Branch)} {r.KD} over {r.Fused} (Table {r.Table}, {r.Data})"
    for r in above.itertuples()
)
display(
    Markdown(
        f"In {len(above)} of {len(paper)} cases the pupil ends above its teacher: {told}. Cases in which the fused classifier ends "
        f"below a branch that was never taught: {len(below)}. That can happen, but a story of knowledge that flows downhill does not predict it."
    )
)

# %% [markdown]
# **The introduction's two improvements.** Section I, in its list of contributions, names two improvements of the
# log-mel MobileNetV2 branch.

# %% tags=["nbval-check-output"]
introduction = {"DCASE 2019 Task 5": (75.7, 77.3), "UrbanSound8K": (78.3, 80.6)}
for data, pair in introduction.items():
    ours = paper[(paper["Data"] == data) & (paper["Branch"] == "logmel")]
    found = [r.Table for r in ours.itertuples() if (r.Alone, r.KD) == pair]
    print(
        f"{data}: {pair[0]} → {pair[1]}: in table {' and '.join(found) or 'none'}; the tables have {list(zip(ours.Alone, ours.KD, strict=True))}"
    )

# %% [markdown]
# The DCASE pair, given as micro AUPRC, stands in no table. It may come from an earlier version; the text
# does not say.
#
# **The same row in two tables.** The baselines are shared between tables, up to rounding. One *taught* branch is
# too, though it had another partner and another teacher:

# %% tags=["hide-input"] jupyter={"source_hidden": true}
taught = paper.groupby(["Data", "Branch"])["KD"].agg(list).reset_index()
same = taught[[len(set(values)) == 1 for values in taught["KD"]]]
told = ", ".join(
    f"{figures.label(r.Branch)} (KD) on {r.Data}: {' and '.join(map(str, r.KD))}"
    for r in same.itertuples()
)
display(
    Markdown(
        f"{told}. Taught branches whose two values agree to the digit: {len(same)} of {len(taught)}. A coincidence, a copy, or a fact; we cannot tell."
    )
)

# %% [markdown]
# **How large must a gain be to be believed?** The paper gives no intervals, no seeds and no variance. An
# estimate takes one line: if $n$ answers are independent, an accuracy $p$ has a standard error of
# $\sqrt{p (1 - p) / n}$. Clips are not independent, recordings come closer to it (chapter 1), and the truth
# is likely to lie between the two.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
half = {unit: 196 * np.sqrt(0.8 * 0.2 / us8k[unit]) for unit in ("clips", "recordings")}
display(
    Markdown(
        f"At 80 % on UrbanSound8K a 95 % interval reaches ±{half['clips']:.1f} points if all {us8k['clips']:,d} clips are independent, and "
        f"±{half['recordings']:.1f} if only the {us8k['recordings']:,d} recordings are. The gains in that column: "
        f"{', '.join(f'{x:+.1f}' for x in paper[paper['Data'] == 'UrbanSound8K']['Gain'])}. For DCASE there are "
        f"{record['sonyc_ust']['clips']['validate']} clips from {record['sonyc_ust']['sensors']['validate']} sensors."
    )
)

# %% [markdown]
# Two classifiers on the *same* clips can be compared more sharply than that, since they share the luck of
# the clips; but seeds add a spread of their own, which no number of clips takes away.
#
# **What is not in the tables.**
#
# - ShuffleNet and SqueezeNet are named among the contributions; no result of theirs is given.
# - "No additional computational cost" holds for using a branch. Training costs both branches a second phase, and
#   the fusion module on top; no cost is given.
# - A taught branch has had **two** training phases, a baseline one. There is no control that trains as long
#   without a teacher ($\lambda = 0$), none that averages the two branches' votes, and none with a single
#   representation seen by two branches. Chapter 6 (to come) runs these.
# - Every pair is reported, and no claim is made about *which* pair is best; nor is a pair compared with two
#   networks on one representation, so that "complementary information" is not tested
#   ([chapter 2](02_three_ways_to_look.py) has a first control).
#
# ## Where the idea comes from
#
# The nearest relative is the paper's reference 14, *Feature Fusion for Online Mutual Knowledge Distillation*
# (Kim, Hyun, Chung and Kwak): parallel networks on images, a fusion module over their last feature maps,
# and distillation from it while all of them learn. This paper changes four things. Each branch has an *input* of
# its own, a representation of sound; in the earlier work all see the same image. The branches are *pretrained*.
# Knowledge flows one way; in the earlier work the networks' ensemble teaches the fused classifier in turn. And the
# loss is a mean square of logits; in the earlier work it is the temperature-softened divergence of Hinton and his
# colleagues (`kd_loss: kl`). The first change is the paper's idea; whether the others help is a question for an
# ablation.
#
# ## Recap
#
# - Where paper and code could differ, there is a row in a table above, and usually a switch.
# - With section IV-C's average, the fused classifier works on two pooled embeddings, side by side.
# - The numbers support "most branches gain", not "every branch gains".
# - The rows after distillation had a second phase of training. Until that is controlled for, the tables show at
#   most that *something* in the joint phase helps most branches.
#
# ## Exercises
#
# **1.** Take your favourite paper. Write down its gaps in three columns: the gap, your reading, your switch.
#
# <details><summary>Hint</summary>
#
# Go through it with the code you would have to write in front of you, argument by argument: every argument that
# the paper does not fix is a row.
#
# </details>
#
# **2.** At which `kd_weight` does `l2` pull as hard as `mse` does at 0.01, at a distance of 1?
#
# <details><summary>Solution</summary>
#
# At `0.01 / ratio`, and at that distance only: the mean square's pull grows with the distance, the norm's does
# not. No single value makes them the same loss.
#
# </details>
#
# **3.** Table III says that a gammatone branch alone reaches 74.98 %, Table I says 74.9 %. Is one of them a typing error?
#
# <details><summary>Solution</summary>
#
# 74.98 rounds to 75.0, not to 74.9: either Table I has cut off its digits instead of rounding, or these are two runs.
# A tenth of a point decides nothing here; the point is that a reader cannot tell which it was.
#
# </details>
#
# **Next:** back to [the whole game](00_the_whole_game.py), with another reading switched on; or to
# [the tables](05_the_tables.py), to see what became of ours.
