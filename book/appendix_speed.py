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
# # Appendix · What it costs, and what made it cheaper
#
# The paper's grid (two datasets, three pairs, ten folds, two phases of a hundred epochs) shows clips to
# networks many millions of times. Whether anyone repeats it depends on what one step costs.
#
# `make bench` times ours beside what a reader would otherwise use: librosa, the gammatone package and
# nnAudio for spectrograms, a plain PyTorch loop for training. The two sides take turns, so that whatever
# else the machine does falls on both; the **ratio** is the claim, while the times belong to one machine. Each
# machine leaves a record in `outputs/bench/`, and this page shows those that are there.
#
# **You will learn** where a training step spends its time, which shortcuts pay, and how little three seeds can
# tell about whether a shortcut changes what is learned.
#
# **You need** a few seconds: the records are read, and nothing is timed.

# %%
import json
from itertools import cycle

import numpy as np
import torch
from IPython.display import Markdown, display
from scipy import stats

from fusionkd_book import figures
from fusionkd_lib import tables
from fusionkd_lib.runs import project_root

figures.use_style()
paths = sorted((project_root() / "outputs" / "bench").glob("*.json"))
records = {path.stem: json.loads(path.read_text()) for path in paths}


def show(rows: list[dict]) -> None:
    display(Markdown(tables.markdown(rows)))


show(
    [
        {
            "Record": name,
            "Processor": r["machine"]["processor"],
            "GPU": r["machine"]["gpu"] or "none",
            "torch": r["machine"]["torch"],
        }
        for name, r in records.items()
    ]
)

# %% [markdown]
# ## Spectrograms
#
# Log-mel, CQT and gammatone of a clip of 4 s at 44.1 kHz, on one thread. Ours computes them for a
# batch, shares one STFT between log-mel and gammatone, and reads every bin of the CQT off a single
# Fourier transform of the clip. nnAudio has no gammatone of this kind: its time is for two of the three.

# %%
show(
    [
        {
            "Record": name,
            "Device": device,
            **{f"{side}, ms": round(x, 2) for side, x in r["milliseconds_per_clip"].items()},
            "Times as fast": round(r["ratio"], 1) if "ratio" in r else None,
            "Goal": {"cpu": 6, "cuda": 100}[device],
        }
        for name, record in records.items()
        for device, r in record["representations"].items()
    ]
)

# %% [markdown]
# ## A training step
#
# The plain loop is what a reader would write: float32, the default memory format, a DataLoader, an optimiser
# without fusion, the loss read in every step. Ours takes shortcuts, which a run asks for by name
# (`shortcuts: [bfloat16, channels_last]`, or `all` for those that pay on this machine) and records:
#
# | shortcut | what it changes | results |
# |---|---|---|
# | `channels_last` | channels next to each other in memory: convolutions read in one go | last bits |
# | `bfloat16` | bfloat16 products where the processor has them, float32 weights and losses | rounding |
# | `fast_layers` | fewer passes over memory: BatchNorm joined with ReLU6, and more below | rounding |
# | `fused_optimizer` | one pass over all weights | last bits |
# | `reuse_memory` | freed tensors are used again, rather than given back to the system and faulted in anew, in pages of 2 MiB | none |
# | `store_on_device` | on a GPU, batches are cut where they are used | none |
#
# There is no DataLoader, and no loss is read before the epoch ends.

# %%
show(
    [
        {
            "Record": name,
            "Device": device,
            "Plain, clips/s": round(r["clips_per_second"]["plain"], 1),
            "Ours, clips/s": round(r["clips_per_second"]["ours"], 1),
            "Times as fast": round(r["ratio"], 1),
            "Goal": {"cpu": 6, "cuda": 5}[device],
        }
        for name, record in records.items()
        for device, r in record["training"].items()
    ]
)

# %% [markdown]
# How far is that from what the machine could do? There are two limits: its measured rate for large matrix
# products, divided by the network's operations, and its measured bandwidth, divided by the bytes that activations
# move.

# %% tags=["nbval-check-output"]
limits = {
    (name, device): r["limit"]
    for name, record in records.items()
    for device, r in record["training"].items()
}
first = next(iter(limits.values()))
print(
    f"a clip of 128 x 345, forward and back: {first['operations_per_clip'] / 1e9:.1f} billion operations"
)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
for (name, device), limit in limits.items():
    display(
        Markdown(
            f"- *{name}, {device}*: at {limit['matrix_operations_per_second'] / 1e9:,.0f} billion operations per second "
            f"arithmetic alone would allow {limit['clips_per_second_by_arithmetic']:,.0f} clips/s; at "
            f"{limit['bytes_per_second'] / 1e9:.0f} GB/s and {limit['bytes_moved_per_clip'] / 1e6:.0f} MB per clip, memory alone would "
            f"allow {limit['clips_per_second_by_memory']:,.0f}. Ours reaches **{100 * limit['share_of_the_nearer_limit']:.0f} %** of the lower of the two."
        )
    )

# %% [markdown]
# A MobileNet is made of thin layers: depthwise convolutions, BatchNorm and ReLU6 do little with each
# number that they read. Where memory is the lower limit, this is why, and why numbers of half the size, a memory
# format, an allocator and joined layers matter more than arithmetic.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
for name, record in records.items():
    for device, r in record["training"].items():
        shares = r["shares_of_a_step"]
        told = ", ".join(f"{what} {100 * share:.0f} %" for what, share in shares.items())
        display(Markdown(f"- *{name}, {device}*, what a step of ours is spent on: {told}."))
        if device == "cpu" and r["ratio"] < 6:
            display(
                Markdown(
                    "  The goal of six is **not reached** here. The convolutions that are left are "
                    "oneDNN's, a layer at a time, and the passes of the fast layers wait for memory. What "
                    "would go further is a kernel that convolves and normalises in one pass, backward too."
                )
            )

# %% [markdown]
# ## Fast layers
#
# A profile of the step said what to change: three kinds of layers moved most of the bytes, and each has a
# form that moves fewer. They keep the weights and their names, so that a trained branch can be read anywhere.
#
# - **BatchNorm and ReLU6** read or write a feature map some fifteen times in a step; as one layer, eight times:
#   forward, one pass for the sums and one for the output, and backward the same. ReLU6's gate is not kept but
#   computed again from the input, which is there anyway.
# - **A strided depthwise convolution** is slow to differentiate in bfloat16. The gradient of its input is
#   a convolution without a stride, over the gradient spread out with zeros and with the kernel turned:

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
layer = torch.nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4, bias=False)
x = torch.randn(1, 4, 9, 12, requires_grad=True)
y = layer(x)
gradient = torch.randn_like(y)
y.backward(gradient)

spread = torch.zeros_like(x)
spread[:, :, ::2, ::2] = gradient
by_hand = torch.nn.functional.conv2d(spread, layer.weight.flip(2, 3), padding=1, groups=4)
print("the same gradient:", torch.allclose(by_hand, x.grad, atol=1e-6))

# %% [markdown]
# - **The colour stem** makes ten channels of the whole spectrogram and three of those. Pixel by pixel, the
#   ten never leave the processor's registers.
#
# `torch.compile` turns the formulas in `fusionkd_lib/speed/fast_layers.py` into loops, which takes it some
# seconds when a run starts, and needs a C++ compiler. Forward and backward together, at the sizes of the
# first layers, where the maps are largest:

# %%
show(
    [
        {
            "Record": name,
            "Layer": layer,
            "PyTorch's, ms": round(cost["milliseconds"]["PyTorch's"], 1),
            "Ours, ms": round(cost["milliseconds"]["ours"], 1),
            "Times as fast": round(cost["ratio"], 1),
        }
        for name, record in records.items()
        for layer, cost in record["fast_layers"].items()
    ]
)

# %% [markdown]
# ## Do the shortcuts change what is learned?
#
# We train a small branch on urban synth by the same recipe, with every shortcut off and with all of them on, and
# note the best validation loss of three seeds each. A single pair of runs would prove nothing: rounding sends two
# runs of one seed along different ways, as other first weights would. So we compare the means, and give a 95 %
# interval for their difference (Welch's), whose width comes from the spread of the seeds.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
show(
    [
        {
            "Record": name,
            "Shortcuts": side,
            **{f"Seed {seed}": round(x, 3) for seed, x in enumerate(values)},
            "Mean": round(sum(values) / len(values), 3),
        }
        for name, record in records.items()
        for side, values in record["equal_results"]["best_validation_loss"].items()
    ]
)
for name, record in records.items():
    off, on = map(np.array, record["equal_results"]["best_validation_loss"].values())
    low, high = stats.ttest_ind(on, off, equal_var=False).confidence_interval(0.95)
    verdict = (
        f"No change is seen, but one smaller than about {(high - low) / 2:.1f} could not be"
        if low < 0 < high
        else "The interval leaves out zero: **the shortcuts change what is learned**"
    )
    display(
        Markdown(
            f"*{name}*: on minus off {on.mean() - off.mean():+.3f}, interval {low:+.2f} to {high:+.2f}. {verdict}. Two runs of one seed, "
            f"on and off, differ by up to {abs(on - off).max():.2f}; two seeds, all shortcuts off, by up to {np.ptp(off):.2f}."
        )
    )

# %% [markdown]
# Three seeds can show that a shortcut ruins training, but not that it costs nothing: a cost that is small beside
# the spread of the seeds takes many more of them to see. The fast layers themselves are tested one by one against
# PyTorch's own in double precision (`tests/test_fast_layers.py`).

# %% [markdown]
# ## As the work grows
#
# An epoch's time should grow with the clips and with the branches, its memory with the branches alone:
# the store stays on the disk, and a batch is all that is read of it at a time. (Small networks, each
# measured in a fresh process.)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, axes = figures.plt.subplots(2, 2, figsize=(figures.WIDTH, 5), sharex="col")
for (name, record), mark in zip(records.items(), cycle(figures.MARKS), strict=False):
    for column, (kind, costs) in zip(axes.T, record["growth"].items(), strict=True):
        numbers = [int(number) for number in costs]
        for ax, key in zip(column, ("seconds", "peak_mebibytes"), strict=True):
            ax.plot(numbers, [cost[key] for cost in costs.values()], f"{mark}-", label=name)
            ax.set_ylim(0, None)
        column[1].set(xlabel=kind)
        column[1].xaxis.get_major_locator().set_params(integer=True)
for ax in axes[1]:
    costs = next(iter(records.values()))["growth"][ax.get_xlabel()]
    stored = [cost["store_mebibytes"] for cost in costs.values()]
    ax.plot([int(n) for n in costs], stored, "x--", color="0.6", label="the stores")
axes[0, 0].set_ylabel("seconds per epoch")
axes[1, 0].set_ylabel("peak MiB")
axes[1, 0].legend(frameon=False)
figures.sns.despine()
figures.show(
    axes,
    alt="Seconds and peak memory of an epoch by number of clips and of branches",
    caption="**Figure S.1.** Time grows with clips and with branches, memory with branches "
    "alone: the stores (dashed) stay on the disk.",
)

# %% [markdown]
# Ten seconds at 44.1 kHz make large pictures, and the paper's batch of 64 of them, for two branches, more
# activations than most machines hold. `micro_batch` takes a step in parts, and adds up their gradients.
# BatchNorm then sees the parts: that is a change to the method, and we say so where it is set.

# %%
show(
    [
        {"Record": name, "Micro-batch": size, "Peak, GiB": round(cost["peak_mebibytes"] / 1024, 1)}
        for name, record in records.items()
        for size, cost in record["long_clips"].items()
    ]
)

# %% [markdown]
# ## Starting a run
#
# Each run is a notebook, with a kernel and imports of its own; and the first run on a machine compiles the
# fast layers, which later ones find in a cache.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
for name, record in records.items():
    if start := record["start_up"]:
        display(
            Markdown(
                f"- *{name}*: **{start['seconds']:.1f} s** to start, and {start['compile_seconds']['first']:.0f} s to compile "
                f"({start['compile_seconds']['later']:.0f} s from the cache): at most {100 * start['share_of_a_run_of_ten_minutes']:.1f} % of a run of ten minutes (goal: 5)."
            )
        )

# %% [markdown]
# ## The paper's grid
#
# UrbanSound8K has ten folds and three pairs: thirty branches, each trained once though two pairs need
# it, and thirty pairs of two branches. SONYC-UST has three of each. Either phase has a hundred epochs.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
urbansound8k = 8732 * 0.8 * 100 * (30 + 30 * 2)  # clips shown to a branch
sonyc = 2351 * 0.9 * 100 * (3 + 3 * 2) * 862 / 345  # of 10 s, counted as clips of 4 s
passes = urbansound8k + sonyc
for name, record in records.items():
    for device, r in record["training"].items():
        hours = passes / r["clips_per_second"]["ours"] / 3600
        display(
            Markdown(
                f"- *{name}, {device}*: {passes / 1e6:.0f} million passes of a clip of 4 s, about **{hours:,.0f} hours** of training steps, extrapolated from the clips per second above."
            )
        )
if not any("cuda" in record["training"] for record in records.values()):
    display(
        Markdown(
            "*No GPU was at hand for these records. `make bench` measures one on a machine that has it.*"
        )
    )

# %% [markdown]
# ## What did not pay
#
# - `torch.compile` of a whole branch took minutes to start on the processor, and its steps were no faster.
#   BatchNorm and ReLU6 alone, with the backward pass left to it, came out slower than PyTorch's own: it
#   stores the gate in single precision between its passes. Hence the formulas by hand, a pass each.
# - Joining every BatchNorm, also those without a ReLU6 behind them, won next to nothing: their maps are narrow.
# - Computing the stride-1 depthwise gradients as convolutions too won nothing.
# - CUDA graphs are not tried: no GPU was at hand.
#
# ## Recap
#
# - Look at the machine's limits before you look for a faster trick: this network waits for memory.
# - A shortcut is a switch with a name, recorded with its run, and compared with runs without it.
# - A comparison that sees no change has to say how small a change it could have seen.
# - A ratio, both sides taking turns, travels from machine to machine better than a time.
