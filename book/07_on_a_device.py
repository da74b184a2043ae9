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
# # 7 · On a device
#
# The microphone on the lamp post has a small box beside it: one slow core, little memory, a battery. No committee of
# networks fits into that box. This is the reason for everything that the paper does: train a committee where there is
# power, and send *one* of its members out. This chapter sends it.
#
# **You will learn** what a classifier costs in bytes, multiply-adds and milliseconds, and how to measure each; what
# distillation buys where the price is fixed; how a layer is computed in whole numbers of 8 bits, and what that costs, class by
# class; how to tag a recording with nothing but an ONNX file; and what the classifiers say about **a sound of your own**.
#
# **You need** half a minute, no download and no training; from [chapter 4](04_fusion_and_distillation.py), what a distilled
# branch is. Two files of **trained weights** come with the book, and are used as they are. They were trained on
# *synthetic* sounds, with the parameters in `params/weights`; `python -m fusionkd_book weights` makes them again.

# %%
import json
import os
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import soundfile
import soxr
import torch
from IPython.display import Markdown, display
from onnx import helper, numpy_helper
from torch.utils.flop_counter import FlopCounterMode

from fusionkd_book import exercises, figures, weights
from fusionkd_lib import experiment, metrics, representations, tables
from fusionkd_lib.audio import load_mono
from fusionkd_lib.errors import InputError
from fusionkd_lib.export.frontend import FrontEnd
from fusionkd_lib.export.quantise import quantise
from fusionkd_lib.runs import outputs_root
from fusionkd_lib.tagging import load_tagger, tag_file

figures.use_style()
plt = figures.plt
home = outputs_root().resolve() / "chapter_07"
home.mkdir(parents=True, exist_ok=True)
torch.set_num_threads(1)
one_core = onnxruntime.SessionOptions()
one_core.intra_op_num_threads = 1
one_core.log_severity_level = 3

# %% [markdown]
# ## Two files, four classifiers
#
# A trained network leaves this project as one file in the format ONNX, which runs on phones, in browsers and on small boards. Ours take
# a waveform and give scores: what makes the spectrogram is inside the file. `fusionkd export RUN --out FILE.onnx` writes such a file,
# with a *model card* beside it that says what it was trained on.


# %% tags=["nbval-check-output"]
def opened(path):
    return onnxruntime.InferenceSession(path, one_core, providers=["CPUExecutionProvider"])


files = {name: weights.path_of(name) for name in ("logmel", "fused")}
sessions = {name: opened(path) for name, path in files.items()}
for name, session in sessions.items():
    print(f"{name}.onnx: waveform → {', '.join(x.name for x in session.get_outputs())}")

# %% [markdown]
# The first file holds a log-mel branch that was trained **alone**. The second holds a whole committee: the **fused** classifier, and the
# two **distilled** branches that learned from it. All four were trained on the same clips. The branch alone has had as many passes over
# them as a distilled one in both of its phases, so that more training cannot be what tells them apart.
#
# A branch does not need the committee any more. Whatever leads from the waveform to its own scores is kept, and the rest
# stays at home:

# %%
files["distilled"] = home / "distilled.onnx"
onnx.utils.extract_model(
    files["fused"], files["distilled"], ["waveform"], ["scores_logmel"], check_model=False
)
sessions["distilled"] = opened(files["distilled"])
NAMES = {"logmel": "Log-mel alone", "distilled": "Log-mel (KD)", "fused": "Fused classifier"}
OUTPUTS = {"logmel": "scores", "distilled": "scores_logmel", "fused": "scores"}


def scores_of(name, waveforms):  # (B, N) → (B, K)
    return sessions[name].run([OUTPUTS[name]], {"waveform": waveforms})[0]


# %% [markdown]
# ## Three prices
#
# - **Bytes** must fit into flash memory, and travel over the air when the network is renewed.
# - **Multiply-adds** are what a network does almost exclusively. Their number depends on no machine, so that papers report it.
# - **Milliseconds** are what a user waits and what the battery pays for. They depend on the machine, and not on the multiply-adds alone.
#
# **Predict:** the fused network has two trunks and a module on top. How many times as dear as a branch is it, in each of the three? And
# in a branch, where does the time go: into making the picture of the sound, or into looking at it?

# %%
recipe = weights.recipes()["fused"]
clips = experiment.clips_of(recipe)
front = FrontEnd(experiment.representations_of(recipe), experiment.clip_format(recipe))
branches = [experiment.build_branch(recipe, x, 10).eval() for x in recipe.representations]
window = torch.from_numpy(clips.read(0, recipe.sample_rate)[None])  # (1, N)


def multiply_adds(network, given):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(given)
    return counter.get_total_flops() / 2  # it counts a multiplication and an addition as two


pictures = front(window)  # (1, 1, F, T) by name
fused = experiment.build_fusion(recipe, branches, 10).eval()
effort = {"logmel": multiply_adds(branches[0], pictures), "fused": multiply_adds(fused, pictures)}
effort["distilled"] = effort["logmel"]


def milliseconds(session, output, times=300):
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        session.run([output], {"waveform": window.numpy()})
        taken.append(1000 * (time.perf_counter() - start))
    return min(taken)  # whatever else the machine does can only add to it


waits = {name: milliseconds(sessions[name], OUTPUTS[name]) for name in NAMES}

# %% [markdown]
# To see where the time goes, the file is cut once more: up to the tensors that flow from the front end into the network. The names of
# its nodes say which part they belong to.

# %%
graph = onnx.load(files["distilled"]).graph
made = {x for node in graph.node if node.name.startswith("/front") for x in node.output}
taken = {x for node in graph.node if node.name.startswith("/network") for x in node.input}
(picture,) = made & taken
onnx.utils.extract_model(
    files["distilled"], home / "front.onnx", ["waveform"], [picture], check_model=False
)
wait_for_picture = milliseconds(opened(home / "front.onnx"), picture)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
megabytes = {name: path.stat().st_size / 1e6 for name, path in files.items()}
rows = [
    {
        "Classifier": label,
        "MB": f"{megabytes[name]:.2f}",
        "Million multiply-adds a window": f"{effort[name] / 1e6:.1f}",
        "Milliseconds a window": f"{waits[name]:.1f}",
    }
    for name, label in NAMES.items()
]
display(Markdown(tables.markdown(rows)))
share = 100 * wait_for_picture / waits["distilled"]
times = [x["fused"] / x["distilled"] for x in (megabytes, effort, waits)]
display(
    Markdown(
        f"A window is {recipe.duration:g} s of sound. On this machine, with one thread, the fused network is **{times[0]:.1f} times** as large as a branch, "
        f"takes **{times[1]:.1f} times** the multiply-adds and **{times[2]:.1f} times** the time. In a branch, **{share:.0f} %** of the time goes into the "
        f"log-mel picture, which no count of a network's multiply-adds mentions. The branch keeps this core busy for "
        f"{waits['distilled'] / 10 / recipe.duration:.1f} % of the time."
    )
)

# %% [markdown]
# The milliseconds are this machine's, and a small board is many times slower. What carries over, roughly, are the ratios: what a committee costs more
# than its member, it costs day and night. The weights are stored in 16 bits each, half of what training used.
#
# ## What distillation buys
#
# Alone and distilled are the same network at the same price. If the distilled one is better, the difference is free of charge on the
# device. So: is it?
#
# **Predict** the order of the rows, and the sign of *distilled less alone*. [Chapter 6](06_what_distillation_brings.py) may have made you
# careful.
#
# The test clips are those of fold 1, which no network has seen. Their scores are in the committed records of the runs behind the
# files; the next cell also asks the files themselves, on a few clips, whether they still say the same.

# %%
records = weights.kept()
alone, committee, machines = (records[name] for name in ("alone", "committee", "machines"))
test = committee.test
scores = {"svm": machines.scores["svm"], "logmel": alone.scores["logmel"]}
scores |= {"distilled": committee.scores["logmel"], "fused": committee.scores["fused"]}
draws = {
    name: 100 * metrics.bootstrap(metrics.accuracy, test.targets, x, test.groups)
    for name, x in scores.items()
}
held_out = np.flatnonzero(clips.table["fold"] == recipe.fold)  # in the order of the records
some = np.arange(0, len(held_out), 3)  # one clip of each recording
heard = np.stack([clips.read(int(held_out[k]), recipe.sample_rate) for k in some])  # (n, N)
found = {name: scores_of(name, heard) for name in NAMES}

# %% tags=["hide-input"] jupyter={"source_hidden": true}
assert list(test.clips) == list(clips.table["clip"].iloc[held_out])
LABELS = NAMES | {"svm": "Support vector machine"}


def interval(drawn, form):
    return " to ".join(f"{x:{form}}" for x in np.quantile(drawn, [0.025, 0.975]))


def accuracy(name):
    return 100 * metrics.accuracy(test.targets, scores[name])


display(
    Markdown(
        tables.markdown(
            [
                {
                    "Classifier": LABELS[name],
                    "Accuracy (%)": f"{accuracy(name):.1f}",
                    "95 % interval": interval(draws[name], ".1f"),
                }
                for name in scores
            ]
        )
    )
)


def verdict(one, other):
    gain, drawn = accuracy(one) - accuracy(other), draws[one] - draws[other]
    low, high = np.quantile(drawn, [0.025, 0.975])
    word = "higher" if low > 0 else "lower" if high < 0 else "not settled"
    return f"**{gain:+.1f} points** ({interval(drawn, '+.1f')}): {word}"


moved = max(np.abs(found[name] - scores[name][some]).max() for name in NAMES)
same = np.mean([found[name].argmax(1) == scores[name][some].argmax(1) for name in NAMES])
display(
    Markdown(
        f"{len(test.clips)} clips of {len(set(test.groups))} recordings, {clips.status}, one fold, one seed. Distilled less alone: {verdict('distilled', 'logmel')}. "
        f"Fused less distilled: {verdict('fused', 'distilled')}. "
        f"Support vector machine less fused: {verdict('svm', 'fused')}. On {len(some)} of the clips the files name the same class as the records in "
        f"{100 * same:.1f} % of all answers; no score is further away than {moved:.3f}, which is what 16 bits and another way of computing do."
    )
)

# %% [markdown]
# Read the second sentence as it is written: *not settled* means that with so many recordings, neither sign can be ruled out. One seed is one draw of the
# weights, too, and a pair of networks that were started with other weights may well change places.
# What does not change places is the price, which is the same for both.
#
# And do not skip the first row. It needs no network: a machine on three statistics of each band, of both pictures. Made sounds are easy prey for such a
# machine, and small networks that begin from nothing with so few clips are not at their best. On real sounds the order may be
# another: [chapter 5](05_the_tables.py) has it.
#
# ## A layer in eight bits
#
# Bytes can be had more cheaply. Weights and signals of a network need not be known to seven digits. If a number is stored as a whole number between 0 and 255, with a
# common **scale** $s$ and a common **zero point** $z$,
#
# $$x \approx s\,(q - z), \qquad q = \mathrm{clip}\big(\mathrm{round}(x / s) + z,\; 0,\; 255\big),$$
#
# it takes a quarter of the room, and a processor multiplies many of them in one instruction. To see how well that goes we take the last
# convolution of the distilled branch. It is 1 x 1, which makes it a matrix product at every place of the map: one *dot product* for each
# channel that comes out. Its weights are in the file; what flows into it, for thirty-two training clips, comes from cutting the file there.

# %%
stored = {x.name: numpy_helper.to_array(x) for x in graph.initializer}
for node in graph.node:
    if node.op_type == "Cast" and node.input[0] in stored:  # from 16 bits, as they lie in the file
        stored[node.output[0]] = stored[node.input[0]].astype(np.float32)
layer = [node for node in graph.node if node.op_type == "Conv"][-1]
W, b = stored[layer.input[1]][:, :, 0, 0], stored[layer.input[2]]  # (channels out, channels in)

trained_on = np.flatnonzero(clips.table["fold"] != recipe.fold)
drawn_rows = np.random.default_rng(0).permutation(trained_on)[:64]
lessons = [clips.read(int(row), recipe.sample_rate) for row in drawn_rows]
ends = [layer.input[0], layer.output[0]]
onnx.utils.extract_model(
    files["distilled"], home / "cut.onnx", ["waveform"], ends, check_model=False
)
X, Y = opened(home / "cut.onnx").run(ends, {"waveform": np.stack(lessons[:32])})
X = X.transpose(0, 2, 3, 1).reshape(-1, W.shape[1])  # (places, channels in)
Y = Y.transpose(0, 2, 3, 1).reshape(-1, W.shape[0])  # (places, channels out)
print(
    f"X {X.shape}, W {W.shape}: the same as in the file: {np.allclose(X @ W.T + b, Y, atol=1e-3)}"
)

# %% [markdown]
# **The signal.** Its lowest and its highest value are given the numbers 0 and 255. Zero must be one of the steps, since maps are padded
# with zeros and many values are cut off at zero: this is what the zero point is for.

# %%
low, high = min(X.min(), 0), max(X.max(), 0)
scale = np.float32((high - low) / 255)
zero = int(np.round(-low / scale))
Q = np.clip(np.round(X / scale) + zero, 0, 255).astype(np.uint8)
print(f"from {low:.2f} to {high:.2f}: scale {scale:.5f}, zero point {zero}")

# %% [markdown]
# **The weights** lie on both sides of zero, so that they take -127 to 127 and no zero point. One scale could serve them all. But each channel that comes
# out has its own row of weights, and some rows are small.
#
# **Predict:** what becomes of a row whose largest weight is a tenth of the layer's, if all rows share one scale?

# %%
largest = np.abs(W).max(axis=1)  # of each channel that comes out
step = {"one scale": np.full(len(W), largest.max() / 127), "per channel": largest / 127}
rounded = {name: np.round(W / s[:, None]).astype(np.int8) for name, s in step.items()}
error = {
    name: np.linalg.norm(rounded[name] * s[:, None] - W, axis=1) / np.linalg.norm(W, axis=1)
    for name, s in step.items()
}

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, ax = plt.subplots(figsize=(6, 3))
for (name, values), mark, colour in zip(error.items(), "os", ("#D55E00", "#0072B2"), strict=True):
    ax.plot(largest, 100 * values, mark, ms=3, alpha=0.4, color=colour, label=name)
ax.set(xlabel="largest weight of a channel", ylabel="error of its weights (%)", ylim=(0, None))
ax.legend(frameon=False)
figures.sns.despine()
figures.show(
    figure,
    alt="Error of the weights of each channel over its largest weight, with one scale and with a scale per channel",
    caption="**Figure 7.1.** One dot a channel and way. With one scale for all, the smaller a channel's weights, the worse they are "
    "met; with a scale of its own, a small channel is met no worse than a large one.",
)
display(
    Markdown(
        f"The layer's smallest channel has a largest weight of {largest.min():.3f}, its largest one {largest.max():.3f}. Rounding with one scale moves a channel's weights by "
        f"{100 * np.median(error['one scale']):.1f} % (the median), at worst by {100 * error['one scale'].max():.1f} %; with a scale per channel by {100 * np.median(error['per channel']):.1f} % and "
        f"{100 * error['per channel'].max():.1f} %."
    )
)

# %% [markdown]
# **One dot product.** Now the device's own work, for one place and one channel: subtract, multiply, add up, all in whole
# numbers. The two scales come in once, at the end, and with them the bias.

# %%
place, channel = 0, int(np.argmax(Y[0]))
whole = int((Q[place].astype(np.int32) - zero) @ rounded["per channel"][channel].astype(np.int32))
by_hand = whole * scale * step["per channel"][channel] + b[channel]

# %% tags=["hide-input"] jupyter={"source_hidden": true}
Y_8 = (Q.astype(np.int32) - zero) @ rounded["per channel"].astype(np.int32).T
Y_8 = Y_8 * scale * step["per channel"] + b
off = np.linalg.norm(Y_8 - Y) / np.linalg.norm(Y)
display(
    Markdown(
        f"{W.shape[1]} products of whole numbers add up to **{whole:,d}**. Times {scale:.5f} times {step['per channel'][channel]:.6f}, plus {b[channel]:.3f}, that is "
        f"**{by_hand:.3f}**; in single precision it is {Y[place, channel]:.3f}. Over all places and channels the layer's output is off by {100 * off:.1f} % of its size."
    )
)

# %% [markdown]
# ONNX has two operators for this, `QuantizeLinear` and `DequantizeLinear`. If our formula is theirs, a round trip through them must give what
# $s\,(q - z)$ gives, to the last digit.


# %% tags=["nbval-check-output"]
def round_trip(values, scales, zeros, axis):
    given = {"s": np.asarray(scales, np.float32), "z": zeros}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=axis),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=axis),
    ]
    ends = [helper.make_tensor_value_info(x, onnx.TensorProto.FLOAT, values.shape) for x in "xy"]
    tensors = [numpy_helper.from_array(x, name) for name, x in given.items()]
    graph = helper.make_graph(nodes, "round trip", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return opened(model.SerializeToString()).run(None, {"x": values})[0]


s_w = step["per channel"].astype(np.float32)
signal = round_trip(X, scale, np.uint8(zero), axis=0)
rows_8 = round_trip(W, s_w, np.zeros(len(W), np.int8), axis=0)
print("signal:", np.array_equal(signal, scale * (Q.astype(np.float32) - zero)))
print("weights:", np.array_equal(rows_8, s_w[:, None] * np.round(W / s_w[:, None])))

# %% [markdown]
# ## What it costs, class by class
#
# `fusionkd export RUN --int8` does this to every layer but the first two of the trunk, in which eight bits cost one of our networks
# more than in all the others together, and save next to nothing. One thing comes on top: the ranges of all signals are *measured* on training
# clips, since on the device they are not known beforehand. And it leaves one bit of the weights unused, from -64 to 64: a processor without the newest
# instructions adds two products in 16 bits, and cuts off, without a word, what does not fit. The front end stays as it is. Its powers span ten decades,
# which 255 steps cannot.
#
# **Predict:** does every class lose alike?

# %%
files["int8"] = home / "int8.onnx"
widen = onnxruntime.SessionOptions()  # weights back to 32 bits, before they are rounded to 8
widen.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
widen.optimized_model_filepath = str(files["int8"])
onnxruntime.InferenceSession(files["distilled"], widen)
quantise(files["int8"], lessons)
sessions["int8"], OUTPUTS["int8"] = opened(files["int8"]), "scores_logmel"
NAMES["int8"] = "Log-mel (KD), 8 bits"
found["int8"] = scores_of("int8", heard)
waits["int8"] = milliseconds(sessions["int8"], OUTPUTS["int8"])
megabytes["int8"] = files["int8"].stat().st_size / 1e6

# %% tags=["hide-input"] jupyter={"source_hidden": true}
truth, groups = test.targets[some], test.groups[some]
recall = {name: metrics.per_class_recall(truth, found[name]) for name in ("distilled", "int8")}
ax = figures.class_scores(
    {NAMES[name]: values for name, values in recall.items()}, clips.classes, ylabel="recall"
)
figures.show(
    ax,
    alt="Recall of each class of the distilled log-mel branch, with weights in 16 bits and with all in 8",
    caption="**Figure 7.2.** The same branch in 16 and in 8 bits, on one clip of each held-out recording. Eight bits need not cost "
    "every class the same: look where the marks part.",
)
hits = {name: metrics.accuracy(truth, found[name]) for name in NAMES}
drawn = [
    100 * metrics.bootstrap(metrics.accuracy, truth, found[name], groups)
    for name in ("int8", "distilled")
]
drops = np.subtract(recall["int8"], recall["distilled"])
worst = clips.classes[int(drops.argmin())].replace("_", " ")
agree = np.mean(found["int8"].argmax(1) == found["distilled"].argmax(1))
display(
    Markdown(
        f"8 bits less 16, on {len(some)} clips: **{100 * (hits['int8'] - hits['distilled']):+.1f} points** ({interval(drawn[0] - drawn[1], '+.1f')}); they name the same class "
        f"in {100 * agree:.1f} %. "
        + (
            f"The class that loses most is *{worst}*, {100 * drops.min():+.0f} points of recall, on {int((truth == drops.argmin()).sum())} clips."
            if drops.min() < 0
            else "No class loses any recall."
        )
        + f" The file has {megabytes['int8']:.2f} MB instead of {megabytes['distilled']:.2f}."
    )
)

# %% [markdown]
# An accuracy that hardly moves may hide a class that does, and on a lamp post one class may be why the box is there. So look at the classes before
# you ship; and look again after each renewal.
#
# ## The picture to decide by

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, ax = plt.subplots(figsize=(6, 3.4))
looks = {
    "logmel": ("o", "#0072B2"),
    "distilled": ("s", "#0072B2"),
    "fused": ("D", "#000000"),
    "int8": ("^", "#56B4E9"),
}
for name, (mark, colour) in looks.items():
    bounds = np.quantile(
        metrics.bootstrap(metrics.accuracy, truth, found[name], groups), [0.025, 0.975]
    )
    ax.plot([waits[name]] * 2, 100 * bounds, color=colour, alpha=0.4)
    ax.scatter(
        waits[name], 100 * hits[name], 150 * megabytes[name], color=colour, marker=mark, alpha=0.8
    )
    label = f"{NAMES[name]}, {megabytes[name]:.1f} MB"
    ax.plot([], [], mark, color=colour, label=label)
ax.set(
    xlabel="milliseconds a window, one thread of this machine",
    ylabel="accuracy (%)",
    xlim=(0, 1.2 * max(waits.values())),
)
ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2)
figures.sns.despine()
figures.show(
    figure,
    alt="Accuracy over latency of four classifiers, the area of each mark as large as its file",
    caption="**Figure 7.3.** Left is fast, high is good, a small mark is a small file; the lines are intervals over recordings. "
    "Drawn on one clip of each recording, a third of the table's clips: this is why the dots are not quite where the table has them.",
)
cheaper = "faster" if waits["int8"] < waits["distilled"] else "not faster"
display(
    Markdown(
        f"Here, 8 bits are **{cheaper}** than 16 ({waits['int8']:.1f} against {waits['distilled']:.1f} ms). Whether they are depends on the processor's "
        f"instructions, and on how many layers are too small to be worth the rounding between them."
    )
)

# %% [markdown]
# ## Tag with ten lines
#
# The device knows nothing of this book. These lines stand, with a few more for a command line, in the card of every exported file. They
# need the file and four packages. Its metadata tell the labels, the rate and the window.


# %%
def tag(file, sound):
    session = onnxruntime.InferenceSession(file)
    stored = session.get_modelmeta().custom_metadata_map
    told = {key: json.loads(text) for key, text in stored.items()}
    samples, rate = soundfile.read(sound, dtype="float32", always_2d=True)
    waveform = soxr.resample(samples.mean(axis=1), rate, told["sample_rate"])
    size = round(told["window_seconds"] * told["sample_rate"])
    starts = [*range(0, len(waveform) - size, size), max(len(waveform) - size, 0)]
    windows = np.stack([waveform[start : start + size] for start in starts])
    scores = session.run(["scores"], {"waveform": windows})[0].mean(axis=0)  # of all windows
    return dict(zip(told["labels"], scores.tolist(), strict=True))


# %% [markdown]
# We try it on eight seconds of a street that no network has heard: a dog, then a siren, a jackhammer, and an engine.

# %%
STREET = ("dog_bark", "siren", "jackhammer", "engine_idling")
parts = [heard[int(np.flatnonzero(truth == clips.classes.index(name))[1])] for name in STREET]
street = np.concatenate([0.3 * part / np.abs(part).max() for part in parts])
soundfile.write(home / "street.wav", street, recipe.sample_rate)
by_ten_lines = tag(files["fused"], home / "street.wav")
by_library = tag_file(load_tagger(files["fused"]), home / "street.wav")["scores"]

# %% tags=["hide-input"] jupyter={"source_hidden": true}
apart = max(abs(by_ten_lines[label] - by_library[label]) for label in by_library)
best = sorted(by_ten_lines, key=by_ten_lines.get, reverse=True)[:4]
told = ", ".join(f"{label.replace('_', ' ')} {100 * by_ten_lines[label]:.0f} %" for label in best)
display(Markdown(f"Highest: {told}. `fusionkd tag` says the same, to within {apart:.0e}."))

# %% [markdown]
# ## Try it: a sound of your own
#
# One function shows what a branch sees and what three classifiers say. The window moves on by half a second. What each picture shows is the
# whole sound; what a score tells is its window, and stands in the middle of it.


# %%
def listen(path, status="your own", seconds=30):
    rate, size = recipe.sample_rate, round(recipe.duration * recipe.sample_rate)
    sound = load_mono(path, sample_rate=rate)[: seconds * rate]
    sound = np.pad(sound, (0, max(0, size - len(sound))))
    starts = np.arange(0, len(sound) - size + 1, rate // 2)
    windows = np.stack([sound[start : start + size] for start in starts])
    opinions = {NAMES[x]: scores_of(x, windows) for x in ("logmel", "distilled", "fused")}
    views = {
        name: representations.build(name, sample_rate=rate, hop_length=256)
        for name in ("logmel", "cqt", "gammatone")
    }
    seen = representations.compute(views, torch.from_numpy(sound)[None])
    figures.players({"the sound": sound}, sample_rate=rate, status=status)
    draw(sound, starts / rate + recipe.duration / 2, opinions, views, seen)


# %% tags=["hide-input"] jupyter={"source_hidden": true}
MARKS = dict(zip(clips.classes, "osD^v<>pP*", strict=True))
TONES = dict(zip(clips.classes, plt.get_cmap("tab10").colors, strict=True))


def draw(sound, middles, opinions, views, seen):
    seconds = len(sound) / recipe.sample_rate
    figure, axes = plt.subplots(3, 2, figsize=(6, 5.6), sharex=True)
    for ax, (name, picture) in zip(axes[:, 0], seen.items(), strict=True):
        given = {"frequencies": views[name].frequencies, "seconds": seconds, "ax": ax}
        figures.show_spectrogram(picture[0, 0].numpy(), title=figures.label(name), **given)
        ax.set(ylabel="Hz", xlabel="time (s)" if ax is axes[-1, 0] else "")
    highest = np.max([scores.max(axis=0) for scores in opinions.values()], axis=0)
    named = [k for k in np.argsort(-highest)[:5] if highest[k] > 0.2]
    for ax, (name, scores) in zip(axes[:, 1], opinions.items(), strict=True):
        for k in named:
            label = clips.classes[k]
            look = {"marker": MARKS[label], "ms": 3, "lw": 1, "color": TONES[label]}
            ax.plot(middles, scores[:, k], label=label.replace("_", " "), **look)
        ax.set(title=name, ylim=(-0.03, 1.03), xlim=(0, seconds), ylabel="score")
    axes[-1, 1].set(xlabel="time (s)")
    figures.decibel_scale(axes[:, 0])
    handles, labels = axes[0, 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figures.sns.despine()
    figures.show(
        figure,
        alt="Log-mel, CQT and gammatone spectrogram of a sound, and the scores of three classifiers over time",
        caption="**Figure 7.4.** Left: three pictures of one sound. Right: what the branch alone, the distilled branch and the fused "
        "classifier say from moment to moment, for the classes that any of them names.",
    )


# %%
listen(home / "street.wav", status=clips.status)

# %% [markdown]
# In JupyterLab the next cell shows a button. Press it, or drop a file on it: a bark from your phone, a siren from the window, your own voice. The
# picture above then appears below it. On a page, where no kernel runs, the street must do; `listen.html`, which `make site` builds, hears your
# microphone in a browser. And if you have no sound at hand, ten free recordings of real streets, each with its author's name, are one command away:
#
# ```
# python -m fusionkd_book street
# fusionkd tag book/weights/fused.onnx outputs/street --format csv
# ```


# %%
def on_upload(change):
    for file in change["new"]:
        path = home / f"yours{Path(file['name']).suffix}"
        path.write_bytes(file["content"])
        below.clear_output(wait=True)
        with below:
            try:
                listen(path)
            except InputError as error:  # no sound, or of a format that cannot be read
                print(error)


if "JPY_SESSION_NAME" in os.environ:  # somebody sits before this notebook
    import ipywidgets

    below = ipywidgets.Output()
    button = ipywidgets.FileUpload(accept="audio/*", description="your sound")
    button.observe(on_upload, names="value")
    display(button, below)

# %% [markdown]
# Do not expect too much, and look closely where it fails. These networks have heard nothing but physical models of ten sounds, for some minutes, and never a
# real street. They must name one of ten classes, whatever you play, and have no word for your kettle. A score of
# nearly one is no sign of knowledge: ask it about silence. For networks that know real sounds, train on them ([chapter 8](08_your_own_data.py));
# those cannot come with the book, since UrbanSound8K's licence allows no commercial use.
#
# ## Recap
#
# - A device asks three prices: bytes, multiply-adds, milliseconds. The front end belongs into all of them.
# - Alone and distilled cost the same. Any gain of distillation is free on the device; whether there is one, an interval says, not the title of a paper.
# - Eight bits: $x \approx s\,(q - z)$; signals with one scale and a zero point, weights with a scale per channel; a layer is a sum of products of whole
#   numbers, scaled once.
# - What compression costs is a question to every class.
# - An exported file needs no project: ten lines tag a recording.
#
# ## Exercises
#
# Write in the first cell of each, and run it; the folded cell after it holds a solution.
#
# **1. Quantise.** Write the function from numbers to whole numbers of 8 bits, for a given scale and zero point.


# %%
def quantised(x, s, z):  # (n,) → (n,) whole numbers, 0 to 255
    ...


exercises.check("7.1", quantised)


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# Solution. Round first, shift, and clip what lies beyond the range.
def solution_1(x, s, z):
    return np.clip(np.round(x / s) + z, 0, 255)


exercises.check("7.1", solution_1)

# %% [markdown]
# **2. A range.** A signal lies between -1 and 4. Which scale and which zero point does it get?

# %%
scale_and_zero = ...  # two numbers

exercises.check("7.2", scale_and_zero)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
# Solution. 255 steps for a width of 5; and -1 is 51 steps below zero.
exercises.check("7.2", [5 / 255, 1 / (5 / 255)])

# %% [markdown]
# **3. The battery.** A core takes `watts` while it computes and nothing while it sleeps. It wakes once for each window of
# `window` seconds and computes for `milliseconds`. How many days does a battery of `watt_hours` last?


# %%
def days(watt_hours, watts, milliseconds, window): ...


exercises.check("7.3", days)


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# Solution. The core works for this share of the time, and its mean power is that share of its power.
def solution_3(watt_hours, watts, milliseconds, window):
    return watt_hours / (watts * milliseconds / 1000 / window) / 24


exercises.check("7.3", solution_3)

# %% [markdown]
# **4.** A few extreme values stretch the range. Take `np.quantile(X, [0.001, 0.999])` for `low` and `high`, and compute the layer's error
# again. Does it fall?
#
# <details><summary>Hint</summary>
#
# Steps become finer for almost all values, and a few are cut off. Which of the two weighs more depends on the layer: look at
# the error of the largest outputs as well.
#
# </details>
#
# **5.** Why is the bias not stored in 8 bits?
#
# <details><summary>Solution</summary>
#
# It is added to a sum of products, whose step is $s_x s_w$, thousands of times finer than that of the signal. There is one for each channel,
# against a whole row of weights, so that nothing is saved by rounding it, either.
#
# </details>
#
# **Next:** [chapter 8](08_your_own_data.py) takes a folder of your own sounds through all of this.
