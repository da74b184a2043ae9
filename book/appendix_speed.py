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
# networks many million times. Whether anyone repeats it depends on what one step costs.
#
# `make bench` times ours beside what a reader would otherwise use: librosa and the gammatone package
# for spectrograms, a plain PyTorch loop for training. The two sides take turns, so that whatever else
# the machine does falls on both; the **ratio** is the claim, the times belong to one machine. This page
# shows the figures of the committed record, `outputs/reference/bench.json`.

# %%
import json

from IPython.display import Markdown, display

from fusionkd_lib import plots, tables
from fusionkd_lib.runs import project_root

plots.use_style()
record = json.loads((project_root() / "outputs" / "reference" / "bench.json").read_text())
machine = record["machine"]
display(
    Markdown(
        f"Measured on **{machine['processor']}**, GPU: **{machine['gpu'] or 'none'}**, torch {machine['torch']}."
    )
)

# %% [markdown]
# ## Spectrograms
#
# Log-mel, CQT and gammatone of a clip of 4 s at 44.1 kHz, on one thread. Ours computes them for a
# batch, shares one STFT between log-mel and gammatone, and reads every bin of the CQT off a single
# Fourier transform of the clip.

# %%
spectrograms = record["representations"]["cpu"]
frame = tables.pd.DataFrame(
    [
        {"side": side, "ms per clip": round(value, 2)}
        for side, value in spectrograms["milliseconds_per_clip"].items()
    ]
)
display(Markdown(tables.markdown(frame)))
if "ratio" in spectrograms:
    display(
        Markdown(
            f"Ours is **{spectrograms['ratio']:.1f} times** as fast as librosa and gammatone (goal: 6)."
        )
    )

# %% [markdown]
# ## A training step
#
# The plain loop is what a reader would write: float32, default memory format, a DataLoader, an optimiser
# without fusion, the loss read in every step. Ours differs in five switches, each of them a parameter of
# the run and recorded with it:
#
# | switch | what it changes | figures |
# |---|---|---|
# | `channels_last` | channels next to each other in memory: convolutions read in one go | last bits |
# | `precision: auto` | bfloat16 products where the processor has them, float32 weights and losses | rounding |
# | `fused_optimizer` | one pass over all weights | last bits |
# | `reuse_memory` | freed tensors are used again, rather than given back to the system and faulted in anew | none |
# | batches cut from the store | no DataLoader, no loss read before the epoch ends | none |

# %%
training = record["training"]["cpu"]
speeds = training["clips_per_second"]
display(
    Markdown(
        f"Plain **{speeds['plain']:.1f}** clips/s, ours **{speeds['ours']:.1f}** clips/s, on {training['threads']} threads, "
        f"batches of {training['batch_size']}: **{training['ratio']:.1f} times** (goal: 6)."
    )
)

# %% [markdown]
# How far is that from what the machine could do? Its measured rate for large matrix products, divided by
# the network's operations, bounds the step from one side; its measured bandwidth, divided by the bytes
# that activations move, bounds it from the other.

# %%
limit = training["limit"]
display(
    Markdown(
        f"A clip takes {limit['operations_per_clip'] / 1e9:.2f} billion operations and moves about "
        f"{limit['bytes_moved_per_clip'] / 1e6:.0f} MB. At {limit['matrix_operations_per_second'] / 1e9:.0f} billion operations a second "
        f"arithmetic alone would allow {limit['clips_per_second_by_arithmetic']:.0f} clips/s; at "
        f"{limit['bytes_per_second'] / 1e9:.1f} GB/s memory alone would allow {limit['clips_per_second_by_memory']:.0f}. "
        f"Ours reaches **{100 * limit['share_of_the_nearer_limit']:.0f} %** of the nearer of the two."
    )
)

# %% [markdown]
# A MobileNet is made of thin layers: depthwise convolutions, BatchNorm and ReLU6 do little with each
# number that they read. That is why the step is bound by memory, and why half-size numbers, a memory
# format and an allocator matter more than arithmetic.
#
# ## As the work grows
#
# An epoch's time should grow with the clips and with the branches, its memory with the branches alone:
# the store stays on the disk, and a batch is all that is read of it at a time. (Small networks, each
# measured in a fresh process.)

# %% mystnb={"image": {"alt": "Seconds and peak memory of an epoch by number of clips and of branches"}}
figure, axes = plots.plt.subplots(2, 2, figsize=(8, 5), sharex="col")
for column, (kind, costs) in zip(axes.T, record["growth"].items(), strict=True):
    numbers = [int(number) for number in costs]
    column[0].plot(numbers, [cost["seconds"] for cost in costs.values()], "o-", color="#0072B2")
    column[1].plot(
        numbers,
        [cost["peak_mebibytes"] for cost in costs.values()],
        "o-",
        color="#0072B2",
        label="peak of the process",
    )
    column[1].plot(
        numbers,
        [cost["store_mebibytes"] for cost in costs.values()],
        "s--",
        color="0.6",
        label="one store",
    )
    column[1].set(xlabel=kind)
    for ax in column:
        ax.set_ylim(0, None)
axes[0, 0].set_ylabel("seconds an epoch")
axes[1, 0].set_ylabel("MiB")
axes[1, 0].legend(frameon=False)
plots.sns.despine()

# %%
if record["start_up"]:
    start = record["start_up"]
    display(
        Markdown(
            f"papermill, a kernel and the imports take **{start['seconds']:.1f} s** of each run: {100 * start['share_of_a_run_of_ten_minutes']:.1f} % of ten minutes (goal: 5)."
        )
    )

# %% [markdown]
# ## What did not pay
#
# `torch.compile` took a hundred seconds to start on the processor and gained nothing there; it is not
# used. GPU figures are shown where the record has them.

# %%
for device, results in record["training"].items():
    if device != "cpu":
        display(
            Markdown(
                f"**{machine['gpu']}**: {results['ratio']:.1f} times the plain loop; spectrograms {record['representations'][device]}"
            )
        )
if "cuda" not in record["training"]:
    display(
        Markdown(
            "*No GPU was at hand for this record: the GPU figures are still to be measured (`make bench` there).*"
        )
    )
