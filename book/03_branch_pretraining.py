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
# such network, a **branch**, for every representation, each on its own. This chapter trains one
# branch, looks at how it learned and where it errs, and writes its records to a folder that the next
# chapter picks up.
#
# **You will learn** how a network made for photographs is made to look at a spectrogram, which loss and
# which recipe the paper trains it with and which one we do, and how to read a learning curve and a
# confusion matrix without being fooled by either.
#
# **You need** about a minute on a laptop; no download. The clips are *urban synth*, made on the spot
# from physical models. The same notebook, with other parameters, runs UrbanSound8K or SONYC-UST.

# %% [markdown]
# ## Parameters
#
# Every run of this book is a parameter file. papermill writes its values below this cell; by hand,
# change them here. A key that is left out has the default of the paper.

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
import torch
from IPython.display import Audio, Markdown, display

from fusionkd_book import figures
from fusionkd_lib import experiment, metrics
from fusionkd_lib.models import Normalise, n_parameters

figures.use_style()
torch.set_num_threads(params.threads)
name = params.branch or params.representations[0]

# %% [markdown]
# ## The clips and their three sides
#
# A fold is tested, another one validates, the rest trains. No recording stands on two sides: a
# network that has heard *this* dog before would be praised for its memory.

# %% tags=["nbval-check-output"]
prepared = experiment.prepare(params.replace(representations=[name], branch=None, device="cpu"))
clips, split, data = prepared.clips, prepared.split, prepared.data
for side in ("train", "validation", "test"):
    rows = getattr(split, side)
    print(
        f"{side:10s} {len(rows):5d} clips of {clips.table['group'].iloc[rows].nunique():4d} recordings"
    )
print("spectrograms", data.spectrograms[name].shape, "(clips, F, T)")

# %%
display(Markdown(f"*Data: {clips.status}. {clips.note}*"))
example = split.train[0]
Audio(clips.read(int(example), params.sample_rate), rate=params.sample_rate)

# %% mystnb={"image": {"alt": "Spectrogram of the clip that is played above"}}
representation = experiment.representations_of(params)[name]
ax = figures.show_spectrogram(
    data.spectrograms[name][example],
    frequencies=representation.frequencies,
    seconds=params.duration,
    title=f"{figures.label(name)} of {clips.table['clip'].iloc[example]}",
)
# %% [markdown]
# ## The network
#
# The paper's trunk is MobileNetV2, whose blocks widen a map with 1 x 1 convolutions, look around in each
# channel alone, and narrow it again: much sight for few weights. This page takes a younger relative with
# the same blocks, EfficientNet-Lite0, and begins with the weights that it has learned from the photographs
# of ImageNet. Edges and textures are edges and textures, and a few hundred clips would not teach them. (The
# paper's [2], from which it has its three-channel input, did so too; exercise 3 starts from nothing.)
#
# A trunk made for photographs wants three channels; a spectrogram has one. Following the paper, two
# 1 x 1 convolutions colour it: 1 → 10 → 3 channels. With ImageNet's weights they begin as grey, the same
# picture three times. The trunk's last feature map, $M_j$, is averaged over frequency and time, and two
# fully connected layers with BatchNorm and ReLU lead to the logits:
#
# spectrogram (B, 1, F, T) → colour (B, 3, F, T) → trunk (B, C, f, t) → mean (B, C) → hidden → logits (B, K)
#
# **Predict** before you run the next cell: with the paper's width, where do most of the 4.5 million
# parameters sit: in the trunk, or in the three fully connected layers?

# %% tags=["nbval-check-output"]
normalise = experiment.training_statistics(data.spectrograms[name], split.train)
model = experiment.build_branch(params, name, data.n_classes, normalise)
for part in ("stem", "trunk", "head"):
    print(f"{part:6s} {n_parameters(getattr(model, part)):10,d} parameters")
paper = experiment.build_branch(type(params)(), name, 10, Normalise())
print(
    f"the paper's branch: {n_parameters(paper.trunk):,d} in the trunk, {n_parameters(paper.head):,d} in the head"
)

some = split.train[:: max(1, len(split.train) // 16)][:16]
inputs, targets = data.batch(some)
output = model.eval()(inputs)
print(
    "in",
    tuple(inputs[name].shape),
    "→ map",
    tuple(output.feature_map.shape),
    "→ logits",
    tuple(output.logits.shape),
)

# %% [markdown]
# ## The loss: Eq. 1
#
# $$L_{CE} = -\frac{1}{N} \sum_{i=1}^{N} Y_i \log f(X_i)$$
#
# Cross-entropy: the mean surprise of the network at the right answer. Before training its head knows
# nothing, so that the loss should be about $\log K$, the surprise of a fair die with $K$ faces. If
# yours starts elsewhere, something is wrong before anything was learned. We ask sixteen training clips
# from all over the table: neighbours would be of one class, mostly one recording, and say nothing about
# $\log K$.

# %% tags=["nbval-check-output"]
from fusionkd_lib.losses import classification_loss

first = classification_loss(output.logits, targets, multi_label=data.multi_label).item()
print(
    f"loss of the untrained network: {first:.1f}, log K = {torch.log(torch.tensor(data.n_classes)).item():.1f}"
)

# %% [markdown]
# ## One step, written out
#
# All of training is one step, taken again and again: the network answers, Eq. 1 says how wrong it was,
# the gradient says in which direction each weight would have made it less wrong, and the optimiser moves
# the weights a little that way. Here it is, with Eq. 1 spelled out.

# %%
import copy

student = copy.deepcopy(model).train()
adam = torch.optim.Adam(student.parameters(), lr=params.lr, amsgrad=True)

logits = student(inputs).logits  # (B, K)
if data.multi_label:  # each tag is a question of its own, yes or no
    yes, no = torch.sigmoid(logits).log(), torch.sigmoid(-logits).log()
    known = ~targets.isnan()  # what nobody annotated teaches nothing
    truth = targets.nan_to_num()
    loss = -(truth * yes + (1 - truth) * no)[known].mean()
else:
    log_probabilities = logits.log_softmax(dim=1)
    loss = -log_probabilities[range(len(targets)), targets].mean()  # Eq. 1

adam.zero_grad()
loss.backward()
adam.step()

# %% [markdown]
# The library's own step is no longer. It takes the same one for a branch and for the fused network of
# chapter 4, whose further terms have nothing to say here; a batch that is too large for the memory comes
# in several parts.

# %%
import inspect

from fusionkd_lib import training

display(Markdown(f"```python\n{inspect.getsource(training.train_step)}```"))

# %% [markdown]
# Do the two agree? Both begin with the same weights and see the same sixteen clips.

# %% tags=["nbval-check-output"]
twin = copy.deepcopy(model).train()
adam = torch.optim.Adam(twin.parameters(), lr=params.lr, amsgrad=True)
step = training.train_step(
    twin, adam, [(inputs, targets, training.WHOLE)], multi_label=data.multi_label
)
print("the same loss:", torch.allclose(step["loss"], loss, atol=1e-5))
apart = max(
    (a - b).abs().max().item() for a, b in zip(student.parameters(), twin.parameters(), strict=True)
)
print(
    "the same weights after the step, within its length of", params.lr, ":", apart < params.lr / 10
)

# %% [markdown]
# ## The recipe
#
# **The paper's:** cross-entropy (binary for tags), AMSGrad Adam, learning rate 0.01, a tenth of it after
# five epochs without a better validation loss, 100 epochs, MobileNetV2, two 1 x 1 convolutions, layers of
# 1280 and 512 with BatchNorm and ReLU. A parameter file that names nothing else runs it.
#
# **Ours, where it is silent:** batches of 64, the next fold validates, the weights of the best validation
# epoch are kept, the input is normalised by the training clips, the first weights are drawn at random, the
# feature map is the trunk's last convolution.
#
# **Why this page does otherwise.** On the thousand real clips of our first sample the validation loss was so
# noisy that a rate which waited for it fell to a millionth within fifteen epochs, before anything was
# learned. Here the rate rises for a tenth of the steps and
# falls along a cosine, whatever happens (`schedule`); clips are shifted around in time and mixed in pairs,
# labels and all, so that none is seen twice alike (`augmentation`); AdamW keeps the weights small; and the
# last epoch is kept, since nothing needs to be chosen. How such a recipe is chosen without looking at test
# clips is told in `params/tuning/README.md`; rate and epochs of this page were found by a few tries on its
# validation clips. The test clips are read once, at the end.
#
# The next cell does all of this and writes the run's folder. Stop it in the middle and run it again:
# it goes on from its last epoch. Where the run is finished already, it is only opened.

# %%
run = experiment.train_branch(params, name)

# %% [markdown]
# ## How it learned
#
# Look for three things: does training loss fall from $\log K$; does validation loss follow; and where
# do the two part? Where validation loss rises while training loss keeps falling, the network is learning
# its training recordings rather than the classes. Mind that the two are not of a kind: training clips were
# mixed, and a mixture of a siren and a drill can never be named without surprise.

# %% mystnb={"image": {"alt": "Training and validation loss by epoch"}}
selected = next(iter(run.provenance.selected_epoch.values()))
ax = figures.learning_curve(run.history, selected=selected)
# %% tags=["nbval-check-output"]
print("loss fell:", bool(run.history["loss"].iloc[-1] < run.history["loss"].iloc[0]))

# %%
if "val_loss" in run.history:
    loss, val = run.history["loss"], run.history["val_loss"]
    best, n = int(val.argmin()) + 1, len(val)
    place = (
        "the last epoch, so that more might have helped" if best == n else f"epoch {best} of {n}"
    )
    display(
        Markdown(
            f"Training loss went from {loss.iloc[0]:.2f} to {loss.iloc[-1]:.2f}. Validation loss was lowest, at "
            f"{val.min():.2f}, in {place}; it moved by up to {val.diff().abs().max():.2f} from one epoch "
            "to the next: a single epoch's value is a noisy number."
        )
    )

# %% [markdown]
# ## What it has to beat
#
# A figure means little until you know what nothing would have. A **support vector machine** that sees three
# numbers per band, mean, deviation and maximum over time, takes seconds to train and knows nothing of
# order. What the network has above it, it has found in the picture.

# %%
is_test = params.judged_on == "test"  # else the test clips stay unread, also by baselines
baselines = experiment.score_baselines(params).metrics if is_test else {}

# %% [markdown]
# ## What it gets wrong

# %%
results = run.metrics[name]
metric = run.provenance.metric
low, high = metrics.bootstrap_interval(
    getattr(metrics, metric), run.test.targets, run.scores[name], run.test.groups
)
display(
    Markdown(
        f"On the {len(run.test.clips)} test clips of {clips.dataset} ({clips.status}) the {figures.label(name)} branch "
        f"reaches **{100 * results[metric]:.1f} %** {metric.replace('_', ' ')} (95 % interval over recordings: "
        f"{100 * low:.1f} to {100 * high:.1f}). Without a network, on the same clips: "
        + ", ".join(f"{figures.label(x)} {100 * y[metric]:.1f} %" for x, y in baselines.items())
    )
)

# %% mystnb={"image": {"alt": "Errors by class on the test clips"}}
if data.multi_label:
    ax = figures.class_scores({name: results["per_class_auprc"]}, clips.classes, ylabel="AUPRC")
else:
    ax = figures.confusion(metrics.confusion(run.test.targets, run.scores[name]), clips.classes)

# %% [markdown]
# Which two classes does it mix up most? Say why you would, too, before you look at their spectrograms
# in chapter 2.
#
# ## Recap
#
# - A branch is a whole tagger: normalisation, colour stem, trunk, head; its weights file needs nothing
#   but plain dB spectrograms.
# - What it was trained, selected and judged on never mixes.
# - Its folder under `outputs/runs/` is all that chapter 4 needs.
#
# ## Exercises
#
# **1.** Train the CQT branch: set `branch = "cqt"` and add it to `representations`. Which classes gain,
# which lose?
#
# <details><summary>Hint</summary>
#
# A constant-Q transform spends its bins on octaves: tonal classes (horn, siren, music) get fine
# frequency resolution at the bottom, and broadband noises get little that is new.
#
# </details>
#
# **2.** Set `validation = "none"`. What changes, and why is the figure you get not to be trusted more?
#
# <details><summary>Solution</summary>
#
# The network trains on a third more clips, which helps. Nothing shows any longer whether it learns too
# much by heart, and whether four epochs were too many you could only tell on the test clips, which
# would then no longer be a test.
#
# </details>
#
# **3.** Begin with nothing: `trunk = "mobilenet_v2"`, `weights = "scratch"`, `width = 0.25`, `lr = 0.003`,
# `epochs = 30`. Is the support vector machine beaten now?
#
# <details><summary>Hint</summary>
#
# It takes about twice as long as the pretrained network. What ImageNet's photographs were worth
# is the difference; and if you also set `schedule = "plateau"`, `optimizer = "amsgrad"`, `lr = 0.01` and
# `augmentation = []`, you see what the recipe was worth.
#
# </details>
#
# **Next:** [chapter 4](04_fusion_and_distillation.py) lets two branches look at the same clip, and the
# better-informed whole teach its parts.
