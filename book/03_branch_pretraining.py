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
# # 3 · One representation, one network
#
# The paper starts where most audio taggers end: with one spectrogram and one network. It trains one
# such network, a **branch**, for every representation, each on its own (section III-B). This chapter takes a
# branch apart, trains it, and asks what it has learned. Its records go to a folder that the next chapter
# picks up.
#
# **You will learn** how a network made for photographs is made to look at a spectrogram; what cross-entropy
# asks of it, with one label and with many; what one training step does; how the two metrics of the paper are
# computed; and how to read a learning curve and a confusion matrix without being fooled by either.
#
# **You need** about two minutes on a laptop and no download; from chapter 2, what a spectrogram is; of PyTorch,
# what a tensor is and that it keeps track of gradients. The clips are *urban synth*, made on the spot
# from physical models. The same notebook, with other parameters, runs UrbanSound8K or SONYC-UST.

# %% [markdown]
# ## Parameters
#
# Every run of this book is a parameter file. papermill writes its values below this cell; by hand,
# change them here. A key that is left out has the default: the paper's value, or our reading of it.

# %% tags=["parameters"]
dataset = "urban_synth"
representations = ["logmel", "gammatone"]
branch = None  # which of them to train; None: the first
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
joint_epochs = None  # of chapter 4's phase; not used here
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

# %% [markdown]
# That line checked every value: a typo in a key, a wrong type or an impossible value stops here, with
# a sentence that says what is allowed.

# %%
import copy
from functools import partial

import numpy as np
import torch
from IPython.display import Markdown, display
from torch import nn

from fusionkd_book import exercises, figures, play
from fusionkd_lib import experiment, metrics, tables, training
from fusionkd_lib.losses import classification_loss
from fusionkd_lib.models import n_parameters
from fusionkd_lib.trunks import build_trunk

figures.use_style()
torch.set_num_threads(params.threads)
name = params.branch or params.representations[0]

# %% [markdown]
# ## The clips and their three sides
#
# One fold is for the test, another one validates, the rest trains. No recording stands on two sides: a
# network that has heard *this* dog before would be praised for its memory.

# %% tags=["nbval-check-output"]
prepared = experiment.prepare(params.replace(representations=[name], branch=None, device="cpu"))
clips, split, data = prepared.clips, prepared.split, prepared.data
for side in ("train", "validation", "test"):
    rows = getattr(split, side)
    recordings = clips.table["group"].iloc[rows].nunique()
    print(f"{side:10s} {len(rows):5d} clips of {recordings:4d} recordings")
print("spectrograms", data.spectrograms[name].shape, "(clips, F, T)")

# %% tags=["hide-input"] jupyter={"source_hidden": true}
display(Markdown(f"*Data: {clips.status}. {clips.note}* The first training clip:"))

# %%
example = int(split.train[0])
figures.players(
    {clips.table["clip"].iloc[example]: clips.read(example, params.sample_rate)},
    sample_rate=params.sample_rate,
    status=clips.status,
)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
ax = figures.show_spectrogram(
    data.spectrograms[name][example],
    frequencies=experiment.representations_of(params)[name].frequencies,
    seconds=params.duration,
)
figures.decibel_scale(ax)
figures.show(
    ax,
    alt="Spectrogram of the clip that is played above",
    caption=f"**Figure 3.1.** The {figures.label(name)} spectrogram of the clip above: all that "
    "the branch will see of it.",
)

# %% [markdown]
# ## The block that a mobile network repeats
#
# The paper's networks are MobileNetV2s (section IV-C), built for telephones. A plain convolution does two things
# at once: it looks around in the picture, and it mixes all channels. That costs a weight for each place of its
# window, *times* each channel in, *times* each channel out. MobileNetV2's block does the two one after the
# other. It **widens** the map with a 1 x 1 convolution, **looks** around with a 3 x 3 filter in each channel
# alone, and **narrows** the map again with another 1 x 1. What it has found is added to its input, so that a
# block only has to learn what to change.
#
# **Predict:** the block below takes 24 channels to 144 and back. A plain 3 x 3 convolution over the 144 would look
# around just as well. What share of its weights does the whole block need: a half, a tenth, a twentieth?

# %% tags=["nbval-check-output"]
n, wide, convolution = 24, 6 * 24, partial(nn.Conv2d, bias=False)
widen = convolution(n, wide, 1), nn.BatchNorm2d(wide), nn.ReLU6()
look = convolution(wide, wide, 3, padding=1, groups=wide), nn.BatchNorm2d(wide), nn.ReLU6()
narrow = convolution(wide, n, 1), nn.BatchNorm2d(n)
block = nn.Sequential(nn.Sequential(*widen), nn.Sequential(*look), *narrow).eval()

theirs = build_trunk("mobilenet_v2")[0][3].eval()  # torchvision's fourth layer
block.load_state_dict(theirs.conv.state_dict())
x = torch.randn(2, n, 16, 16)
with torch.inference_mode():
    same = torch.allclose(x + block(x), theirs(x), atol=1e-5)
print("the same map as torchvision's block:", same)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
ours = sum(x.weight.numel() for x in block.modules() if isinstance(x, nn.Conv2d))
plain = n_parameters(nn.Conv2d(wide, wide, 3, bias=False))
display(
    Markdown(
        f"The block's three convolutions have {ours:,d} weights, the plain one {plain:,d}: **{100 * ours / plain:.0f} %**."
    )
)

# %% [markdown]
# A trunk is a stack of such blocks. Now and then one takes two steps at a time, which halves the map, and leaves
# out the sum. This page takes a younger relative with the same blocks, EfficientNet-Lite0, and begins with the
# weights that it has learned from the photographs of ImageNet: edges and textures are edges and textures, and a
# few hundred clips would not teach them. (The paper does not say how its trunks begin. Its [2], from
# which it has its three-channel input, used ImageNet's weights; the last exercise starts from nothing.)
#
# ## From a spectrogram to logits
#
# A trunk made for photographs wants three channels; a spectrogram has one. As in the paper, two
# 1 x 1 convolutions colour it, 1 → 10 → 3 channels. The trunk's last feature map, $M_j$, is averaged over
# frequency and time, and fully connected layers with BatchNorm and ReLU lead to one number per class, its
# **logit**. Here is the whole way, written out for sixteen training clips. They come from all over the table:
# neighbours would be of one class, and mostly of one recording.

# %% tags=["nbval-check-output"]
normalise = experiment.training_statistics(data.spectrograms[name], split.train)
model = experiment.build_branch(params, name, data.n_classes, normalise).eval()
some = split.train[:: max(1, len(split.train) // 16)][:16]
inputs, targets = data.batch(some)
with torch.inference_mode():
    x = (inputs[name] - normalise.mean) / normalise.deviation  # (B, 1, F, T)
    colour = model.stem(x)  # (B, 3, F, T)
    feature_map = model.trunk(colour)  # (B, C, f, t)
    embedding = feature_map.mean(dim=(2, 3))  # (B, C)
    logits = model.head(embedding)  # (B, K)
    same = torch.allclose(logits, model(inputs).logits, atol=1e-5)
steps = inputs[name], colour, feature_map, embedding, logits
print(" → ".join(str(tuple(step.shape)) for step in steps))
print("the same logits as the library's branch:", same)

# %% [markdown]
# **Predict:** where do most parameters of the paper's branch sit: in the trunk, with all its
# blocks, or in the three fully connected layers after it?

# %% tags=["nbval-check-output"]
paper = experiment.build_branch(type(params)(), name, 10)  # every key at its default
for what, network in (("this page's", model), ("the paper's", paper)):
    parts = {part: n_parameters(getattr(network, part)) for part in ("stem", "trunk", "head")}
    print(what, ", ".join(f"{part} {number:,d}" for part, number in parts.items()))

# %% [markdown]
# ## The loss: Eq. 1
#
# $$L_{CE} = -\frac{1}{N} \sum_{i=1}^{N} Y_i \log f(X_i)$$
#
# Logits may be any numbers. The **softmax** makes them probabilities $f(X_i)$: positive, and 1 together. The
# cross-entropy is then the mean *surprise* $-\log p$ at the right class: nothing where the network was sure
# of it, and without limit where it was sure of another.
#
# Where a clip carries several tags (SONYC-UST), a softmax makes no sense: a siren does not make a drill less
# likely. Each tag becomes a question of its own, yes or no. The **sigmoid** answers it with a probability, and
# the *binary* cross-entropy is the mean surprise over all the questions. The paper names it in words (III-B) and
# writes no formula; a tag that nobody annotated is left out, which is our reading.

# %% tags=["nbval-check-output"]


def cross_entropy(logits, targets):  # (B, K) and the right classes (B,) → a number: Eq. 1
    exponentials = (logits - logits.amax(dim=1, keepdim=True)).exp()
    probabilities = exponentials / exponentials.sum(dim=1, keepdim=True)  # softmax
    return -probabilities[range(len(targets)), targets].log().mean()


def binary_cross_entropy(logits, tags):  # (B, K) twice, NaN where not annotated → a number
    known = ~tags.isnan()
    yes, truth = torch.sigmoid(logits)[known], tags[known]
    return -(truth * yes.log() + (1 - truth) * (1 - yes).log()).mean()


answers = torch.tensor([[4.0, 0.0, 0.0], [4.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
for row, what in enumerate(("sure, and right", "sure, but wrong", "undecided")):
    print(f"{what:16s} {cross_entropy(answers[row, None], torch.tensor([row])):.3f}")
one, many = torch.tensor([0, 1, 2]), torch.tensor([[1, 0, torch.nan], [0, 1, 1], [0, 0, 1]])
for ours, right, multi_label in ((cross_entropy, one, False), (binary_cross_entropy, many, True)):
    library = classification_loss(answers, right, multi_label=multi_label)
    print(f"{ours.__name__:20s} as the library's:", torch.allclose(ours(answers, right), library))

# %% [markdown]
# The undecided one is worth remembering. A network that knows nothing spreads its bets, and its surprise is
# $\log K$, that of a fair die with $K$ faces ($\log 2$ for a tag, that of a coin). A loss that starts anywhere else
# tells of a mistake before anything was learned.

# %% tags=["nbval-check-output"]
loss_of = binary_cross_entropy if data.multi_label else cross_entropy
guessing = np.log(2 if data.multi_label else data.n_classes)
print(f"loss of the untrained network {loss_of(logits, targets):.1f}, of guessing {guessing:.1f}")

# %% [markdown]
# ## One step, written out
#
# All of training is one step, taken again and again: the network answers, the loss says how wrong it was,
# the gradient says in which direction each weight would have made it less wrong, and the optimiser moves
# the weights a little that way.
#
# **Predict:** some gradients are far larger than others. Adam, the paper's optimiser, divides each by a
# running estimate of its own size. How far does a weight move in the very first step?

# %% tags=["nbval-check-output"]
student = copy.deepcopy(model).train()
adam = torch.optim.Adam(student.parameters(), lr=params.lr, amsgrad=True)
last = student.head[-1].weight  # of the last layer: (K, hidden)
before = last.detach().clone()

loss = loss_of(student(inputs).logits, targets)
adam.zero_grad()
loss.backward()
adam.step()

moved = (last - before).abs().median()
print(f"a typical weight of the last layer moved by {moved / params.lr:.2f} x the learning rate")
against = ((last - before).sign() == -last.grad.sign()).float().mean()
print("against its gradient:", bool(against > 0.99))

# %% [markdown]
# By one learning rate, all of them: after one step the estimate of the size *is* the size, and only the sign is left.
# This is why the learning rate of Adam is a length, and why a rate ten times too large spoils a pretrained
# network within a few steps.
#
# The library's step, `training.train_step`, does the same for a branch and for the fused network of chapter 4.
# Do the two agree, from the same weights and on the same sixteen clips? We compare loss and gradients rather than the
# weights after the step: where a gradient is nothing but rounding noise, Adam makes a whole step of it all the same.

# %% tags=["nbval-check-output"]
twin = copy.deepcopy(model).train()
adam = torch.optim.Adam(twin.parameters(), lr=params.lr, amsgrad=True)
batch = [(inputs, targets, training.WHOLE)]  # in one part
taken = training.train_step(twin, adam, batch, multi_label=data.multi_label)
print("the same loss:", torch.allclose(taken["loss"], loss, atol=1e-5))
pairs = list(zip(student.parameters(), twin.parameters(), strict=True))
largest = max(a.grad.abs().max() for a, _ in pairs)
apart = max((a.grad - b.grad).abs().max() for a, b in pairs)
print("the same gradients, to rounding:", bool(apart < 1e-4 * largest))

# %% [markdown]
# ## How a tagger is judged
#
# With one label per clip the paper counts the clips whose highest score is the right one: **accuracy**, chance
# being $1 / K$. With tags that is no use, since a tagger that never says anything is right about most of them.
# So one moves a threshold from high to low and asks at each stop: how much of what it says is true
# (**precision**), and how much of what is true does it say (**recall**)? The area under that curve is the
# **AUPRC** (section IV-A). *Micro* AUPRC throws the scores of all tags into one pot first.
#
# Six clips, three of them with a siren. **Predict:** one false alarm has a higher score than the quietest siren.
# How much of the area, which is 1 for a perfect order, does that cost?

# %% tags=["nbval-check-output"]
siren = np.array([1, 1, 0, 1, 0, 0])
scores = np.array([1.0, 0.8, 0.7, 0.4, 0.3, 0.2])

curve = [(0.0, 1.0, None)]  # recall, precision, threshold; the metric's own first point
for threshold in np.unique(np.append(scores, 1.0))[::-1]:
    said = scores >= threshold
    true = (said & (siren == 1)).sum()
    curve.append((true / siren.sum(), true / max(said.sum(), 1), threshold))
curve.append((1.0, 0.0, None))  # and its last

recall, precision, _ = zip(*curve, strict=True)
area = np.trapezoid(precision, recall)
library = metrics.per_class_auprc(siren[:, None], scores[:, None])[0]
print(f"area {area:.3f}, as the library's:", np.isclose(area, library))

# %% tags=["hide-input"] jupyter={"source_hidden": true}
ax = figures.precision_recall(curve)
figures.show(
    ax,
    alt="Precision against recall for six scores, each point with its threshold; the curve "
    "dips where the false alarm is said",
    caption="**Figure 3.2.** Precision against recall, a threshold beside each point. One false "
    "alarm, at 0.7, bites into the area.",
)

# %% [markdown]
# The curve (Figure 3.2) falls where the threshold passes the false alarm, and recovers when the third siren is found. Only the
# *order* of the scores matters, except at the two ends, which are conventions of the challenge's code: where no score
# is exactly 1, its curve begins with a threshold at which nothing is said. Exercise 2 shows what that can cost; over
# thousands of scores it costs next to nothing.
#
# ## The recipe
#
# What the paper says, what it leaves open and we had to choose, and what this run does:

# %% tags=["hide-input"] jupyter={"source_hidden": true}
said_in = dict.fromkeys(("optimizer", "lr", "schedule", "patience", "epochs"), "the paper, IV-D")
said_in |= dict.fromkeys(("trunk", "head"), "the paper, IV-C")
open_keys = ("weights", "batch_size", "weight_decay", "augmentation", "validation", "select")
default, rows = type(params)(), []
for key in (*said_in, *open_keys):
    values = [getattr(which, key) for which in (default, params)]
    told = [", ".join(map(str, x)) or "none" if isinstance(x, list | tuple) else x for x in values]
    origin = said_in.get(key, "our choice: the paper is silent")
    rows.append({"Key": f"`{key}`", "Default": told[0], "Default from": origin, "Here": told[1]})
display(Markdown(tables.markdown(rows)))

# %% [markdown]
# Why does this page depart from the paper? A schedule that waits for the validation loss (`plateau`) needs one that
# can be trusted. On our first sample of real clips it was so noisy that the rate had fallen to next to nothing before
# much was learned. Here the rate rises for a tenth of the steps and
# falls along a cosine, whatever happens (`one_cycle`). Clips are shifted around in time and mixed in pairs,
# labels and all, so that none is seen twice alike (`augmentation`; exercise 1 asks what Eq. 1 makes of a mixed
# label). AdamW keeps the weights small. The last epoch is kept, so that nothing needs to be chosen. How such a recipe
# is found without looking at test clips is told in `params/tuning/README.md`; rate and epochs of this page were found
# by a few tries on its validation clips. The test clips are read once, at the end.
#
# **Predict:** will the validation loss lie above the training loss, as usual, or below it?
#
# The next cell trains, and writes the run's folder. Stop it in the middle and run it again:
# it goes on from its last epoch. Where the run is finished already, it is only opened.

# %%
run = experiment.train_branch(params, name)

# %% [markdown]
# ## How it learned
#
# Look for three things: does the training loss fall from that of guessing; does the validation loss follow; and where
# do the two part? Where the validation loss rises while the training loss keeps falling, the network is learning
# its training recordings rather than the classes.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
selected = next(iter(run.provenance.selected_epoch.values()))
ax = figures.learning_curve(run.history, selected=selected)
figures.show(
    ax,
    alt="Training and validation loss by epoch",
    caption="**Figure 3.3.** The loss, epoch by epoch, on clips that are trained on and on "
    "clips that are not. The sentence below reads it.",
)

# %% tags=["nbval-check-output"]
print("loss fell:", bool(run.history["loss"].iloc[-1] < run.history["loss"].iloc[0]))

# %% tags=["hide-input"] jupyter={"source_hidden": true}
if "val_loss" in run.history:
    fell, val = run.history["loss"], run.history["val_loss"]
    best, n_run = int(val.argmin()) + 1, len(val)
    place = (
        "the last epoch: more might have helped" if best == n_run else f"epoch {best} of {n_run}"
    )
    below = val.iloc[-1] < fell.iloc[-1]
    mixed = "mixup" in params.augmentation
    why = (
        " That is no miracle: training clips are mixed, and a mixture of a siren and a drill is never named "
        "without surprise, while validation clips are whole."
    )
    display(
        Markdown(
            f"Training loss went from {fell.iloc[0]:.2f} to {fell.iloc[-1]:.2f}; guessing would have {guessing:.2f}. Validation "
            f"loss was lowest, at {val.min():.2f}, in {place}. It ended **{'below' if below else 'above'}** the training loss."
            + (why if below and mixed else "")
        )
    )

# %% [markdown]
# ## What it has to beat
#
# A result means little until you know what you would have had without a network. A **support vector machine** that
# sees three numbers per band, mean, deviation and maximum over time, takes seconds to train and knows nothing of
# order. What the network has above it, it has found in the picture. (The paper has no such row.)

# %%
is_test = params.judged_on == "test"  # else the test clips stay unread, also by baselines
baselines = experiment.score_baselines(params).metrics if is_test else {}

# %% tags=["hide-input"] jupyter={"source_hidden": true}
results, metric = run.metrics[name], run.provenance.metric
low, high = metrics.bootstrap_interval(
    getattr(metrics, metric), run.test.targets, run.scores[name], run.test.groups
)
beaten = [x for x, y in baselines.items() if y[metric] < low]
others = ", ".join(f"{figures.label(x)} {100 * y[metric]:.1f} %" for x, y in baselines.items())
told = f" Without a network: {others}. The interval lies above {len(beaten)} of these {len(baselines)}."
display(
    Markdown(
        f"On the {len(run.test.clips)} test clips of {clips.dataset} ({clips.status}) the {figures.label(name)} branch "
        f"reaches **{100 * results[metric]:.1f} %** {metric.replace('_auprc', ' AUPRC')} (95 % interval over recordings: "
        f"{100 * low:.1f} to {100 * high:.1f})." + (told if baselines else "")
    )
)

# %% [markdown]
# ## What it gets wrong, and what you do
#
# You first: ten clips of ten test recordings, drawn without a look at what they are, so that one class may come twice
# and another not at all. **Predict:** who names more of them, you or the network?

# %% tags=["hide-input"] jupyter={"source_hidden": true}
if clips.status == "synthetic" and not data.multi_label:
    drawn = play.draw_clips(run.test.groups)
    display(
        play.listening(
            [clips.read(int(split.test[i]), params.sample_rate) for i in drawn],
            run.test.targets[drawn],
            run.scores[name][drawn].argmax(axis=1),
            clips.classes,
            sample_rate=params.sample_rate,
        )
    )

# %% [markdown]
# Now all of its test clips. **Predict:** which two classes does it mix up most?

# %% tags=["hide-input"] jupyter={"source_hidden": true}
if data.multi_label:
    ax = figures.class_scores({name: results["per_class_auprc"]}, clips.classes, ylabel="AUPRC")
else:
    ax = figures.confusion(metrics.confusion(run.test.targets, run.scores[name]), clips.classes)
what = (
    "Clips of each class (row) by the class they were given (column): errors lie off the diagonal"
)
if data.multi_label:
    what = "AUPRC of each tag: the easy ones and the hard ones"
figures.show(ax, alt=f"{what}, counted on the test clips", caption=f"**Figure 3.4.** {what}.")

# %% tags=["hide-input"] jupyter={"source_hidden": true}
if not data.multi_label:
    errors = metrics.confusion(run.test.targets, run.scores[name]) * (
        1 - np.eye(data.n_classes, dtype=int)
    )
    worst, taken_for = np.unravel_index(errors.argmax(), errors.shape)
    names = [label.replace("_", " ") for label in clips.classes]
    wrong = np.flatnonzero(
        (run.test.targets == worst) & (run.scores[name].argmax(axis=1) == taken_for)
    )
    n_wrong = len(set(run.test.groups[wrong]))
    display(
        Markdown(
            f"Most often *{names[worst]}* is called *{names[taken_for]}*: {errors.max()} times, "
            f"by {n_wrong} recording{'s' if n_wrong > 1 else ''}. All errors together: {errors.sum()}."
            if errors.any()
            else "It makes no errors here."
        )
    )

# %% [markdown]
# Count recordings, not clips: when the clips of one recording fail together, one odd dog looks like a weakness of the
# method. This is why the interval above draws whole recordings.
#
# ## Where would you put the threshold?
#
# The highest score names a class, and no threshold is needed. On a lamp post one is: how many false alarms is a siren
# worth? Take one class as a tag of its own, the one whose curve has the smallest area, and move the threshold.
# **Predict:** when it rises, recall can only fall. Can precision fall as well?

# %% tags=["hide-input"] jupyter={"source_hidden": true}
all_tags = run.test.targets if data.multi_label else np.eye(data.n_classes)[run.test.targets]
hardest = int(np.nanargmin(metrics.per_class_auprc(all_tags, run.scores[name])))
known = ~np.isnan(all_tags[:, hardest])
has_it, its_scores = all_tags[known, hardest], run.scores[name][known, hardest]

# %%
play.threshold(has_it, its_scores, tag=clips.classes[hardest])

# %% tags=["hide-input"] jupyter={"source_hidden": true}
ax = play.draw_thresholds(has_it, its_scores)
figures.show(
    ax,
    alt="Precision against recall of one tag on the test clips, three thresholds marked",
    caption=f"**Figure 3.5.** Three thresholds on the curve of *{clips.classes[hardest].replace('_', ' ')}*: a strict one "
    "misses more, a lax one has more false alarms.",
)
display(Markdown(tables.markdown(play.at_marked(has_it, its_scores))))

# %% tags=["hide-input"] jupyter={"source_hidden": true}
_, n_said, n_hits = np.array(play.cuts(has_it, its_scores)).T
drops = int((np.diff((n_hits / n_said)[::-1]) < 0).sum())
display(
    Markdown(
        f"With each score as a threshold, from the lowest up, precision falls at **{drops}** of {len(n_said) - 1} steps: "
        "where the step leaves out a clip that has the tag, the share of right ones among the rest is smaller."
    )
)

# %% [markdown]
# No place on the curve is right for everyone. Whoever wakes people by night wants precision; whoever must hear every
# gun shot pays for recall with false alarms. The area judges the order alone, and leaves the choice to you.
#
# ## Recap
#
# - A block widens, looks, narrows, and adds; a branch is normalisation, colour, a stack of blocks, a mean, and a head.
#   Its weights file takes plain dB spectrograms.
# - Cross-entropy is surprise: $\log K$ before anything is learned, and one yes-or-no question per tag where there
#   are many.
# - A step of Adam has the length of the learning rate, whatever the gradient's.
# - The AUPRC judges an order, and has conventions at its two ends.
# - What a branch was trained, selected and judged on never mixes.
#
# ## Exercises
#
# Write in the first cell of each, and run it; the folded cell after it holds a solution.
#
# **1. A mixed label.** Mixing makes a clip of seven parts siren and three parts drill. Write Eq. 1 for such labels:
# `shares` is (B, K), and each row sums to 1. What is the lowest value that it can have?


# %%
def soft_cross_entropy(logits, shares):  # (B, K) both → a number
    ...


exercises.check("3.1", soft_cross_entropy)


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# Solution. It is lowest where the probabilities equal the shares, and is then their entropy, not 0.
def solution_1(logits, shares):
    return -(shares * logits.log_softmax(dim=1)).sum(dim=1).mean()


exercises.check("3.1", solution_1)

# %% [markdown]
# **2. A tagger without an opinion** gives every clip the score one half. A quarter of the clips have the tag. What is
# its AUPRC? Write down the points of the curve first.

# %%
area_without_opinion = ...

exercises.check("3.2", area_without_opinion)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
# Solution. Half of the share of clips that have the tag: at the threshold 1 nothing is said, the metric
# takes the precision of that as 0, and the trapezoid rises from there.
exercises.check(
    "3.2", metrics.per_class_auprc(np.array([[1], [0], [0], [0]]), np.full((4, 1), 0.5))[0]
)

# %% [markdown]
# **3. What a block weighs.** How many weights do the three convolutions of a block have that takes `n_in` channels to
# `expansion * n_in` and then to `n_out`? Which of the three is the cheapest?


# %%
def n_weights(n_in, n_out, expansion):  # → a number
    ...


exercises.check("3.3", n_weights)


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# Solution. The one in the middle, which does all the looking around.
def solution_3(n_in, n_out, expansion):
    n_wide = expansion * n_in
    return n_in * n_wide + 9 * n_wide + n_wide * n_out


exercises.check("3.3", solution_3)

# %% [markdown]
# **4. Begin with nothing** (a run of about two minutes): `trunk = "mobilenet_v2"`, `weights = "scratch"`, `width = 0.25`,
# `lr = 0.003`, `epochs = 30`. Is the support vector machine beaten now?
#
# <details><summary>Hint</summary>
#
# The difference is what ImageNet's photographs were worth. If you also set `schedule = "plateau"`,
# `optimizer = "amsgrad"`, `lr = 0.01` and `augmentation = []`, you see what the recipe was worth.
#
# </details>
#
# **5. Train without validation:** `validation = "none"`. What changes, and why is the result not to be trusted more?
#
# <details><summary>Solution</summary>
#
# The network trains on more clips, which helps. But nothing shows any longer whether it learns too
# much by heart, and whether the epochs were too many you could only tell on the test clips, which
# would then no longer be a test.
#
# </details>
#
# **Next:** [chapter 4](04_fusion_and_distillation.py) lets two branches look at the same clip, and the
# better-informed whole teach its parts.
