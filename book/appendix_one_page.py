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
# # Appendix · The paper on one page
#
# This page is the whole paper, from waveforms to a table, with nothing behind it but NumPy and torch:
# sounds, two representations, two branches, fusion, distillation. The other chapters call a library; here
# every line is in front of you. A test holds the two together: it loads the library's weights into the
# networks below and compares spectrograms, logits, losses, gradients, and the weights after a step.
#
# **You will learn** which lines of code each section of the paper becomes, and how few they are.
#
# **You need** a quarter of a minute on one processor core; no download, and no chapter before this one.

# %%
import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)

# %% [markdown]
# ## Settings
#
# The paper (section IV) has clips of 4 and 10 s at 44.1 kHz, windows of 1024 samples, a hop of 512, 128 bands,
# the full MobileNetV2, layers of 1280 and 512 neurons, and 100 epochs. Here all of it is small enough to wait for.

# %% tags=["parameters"]
seed = 0
n_recordings = 60  # of each class; the last third is for the test
n_clips = 2  # cut from each recording, a second each
sample_rate, n_fft, hop_length = 8000, 512, 256
n_bands = 32
width = 0.25  # of the trunk
hidden = (320, 128)  # neurons of the two fully connected layers
epochs, joint_epochs = 8, 4
batch_size = 32
lr = 0.01
kd_weight = 0.01  # lambda of Eq. 4

# %% [markdown]
# ## Sounds
#
# In place of the datasets of section IV-A: six classes of our own, three of tones and three of noise, all of them
# repeated a few times per second. A rising siren differs from a falling one, and the stroke of a hammer from
# that of a saw, in the *order* of what happens.

# %%
CLASSES = ("beeps", "rising siren", "falling siren", "bursts", "hammer", "saw")


def source(kind, time, draw):
    beat = (draw.uniform(2, 6) * time + draw.uniform()) % 1  # from 0 to 1, again and again
    octave = {"rising siren": beat, "falling siren": 1 - beat}.get(kind, 0 * beat)
    phase = 2 * np.pi * np.cumsum(draw.uniform(200, 650) * 2**octave) / sample_rate
    tone = sum(draw.uniform() * np.sin(k * phase) for k in (1, 2, 3))
    hiss = draw.standard_normal(len(time))
    carrier = tone if kind in CLASSES[:3] else hiss
    strokes = {"hammer": np.exp(-5 * beat), "saw": np.exp(5 * beat - 5)}.get(kind, beat < 0.5)
    return carrier if "siren" in kind else carrier * strokes


# %% [markdown]
# A **recording** has one source, coloured by one echo, before one background. It is cut into clips.


# %%
def coloured(sound, draw):
    echo = draw.standard_normal(40) * np.exp(-np.arange(40) / 8)  # 5 ms
    sound = np.convolve(sound, echo, mode="same")
    return sound / np.sqrt(np.mean(sound**2))


def recording(kind, draw):
    time = np.arange(n_clips * sample_rate) / sample_rate
    sound = coloured(source(kind, time, draw), draw)
    background = draw.standard_normal(len(time)) * 10 ** (draw.uniform(-18, -6) / 20)  # dB
    return 0.1 * (sound + background).reshape(n_clips, sample_rate)


# %% [markdown]
# The split is by recording. A network that has heard *this* hammer before would be praised for its memory.

# %% tags=["nbval-check-output"]
draw = np.random.default_rng(seed)
recordings = [recording(kind, draw) for _ in range(n_recordings) for kind in CLASSES]
waveforms = torch.from_numpy(np.concatenate(recordings)).float()  # (clips, N)
origin = np.repeat(np.arange(len(recordings)), n_clips)  # the recording of each clip
targets = torch.from_numpy(origin % len(CLASSES))
is_train = origin < len(CLASSES) * (2 * n_recordings // 3)
train, test = np.flatnonzero(is_train), np.flatnonzero(~is_train)
print(f"{len(train)} clips train, {len(test)} test, {len(CLASSES)} classes")
print("recordings on both sides:", len(set(origin[train]) & set(origin[test])))

# %% [markdown]
# ## Two representations (sections III-A and IV-B)
#
# **Log-mel** sums the power of the short-time Fourier transform under triangles. Their corners are equally spaced
# on the mel scale, linear up to 1 kHz and logarithmic above.

# %%
frequencies = np.arange(n_fft // 2 + 1) * sample_rate / n_fft  # of the Fourier transform, in Hz


def mel_weights(n_bands, low=20.0):
    top = 15 + 27 * np.log(sample_rate / 2 / 1000) / np.log(6.4)  # Nyquist, above 1 kHz
    mel = np.linspace(low * 3 / 200, top, n_bands + 2)
    edges = np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
    lower, peak, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequencies - lower) / (peak - lower), (upper - frequencies) / (upper - peak)
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (upper - lower)  # of unit area


# %% [markdown]
# **Gammatone** weights the magnitudes with the gains of a model of the inner ear (Slaney 1993): the same pair of
# poles four times, and four zeros. The centres are equally spaced in widths of the ear's filters (ERB).


# %%
def gammatone_weights(n_bands, low=20.0):
    corner, fraction = 9.26449 * 24.7, np.arange(n_bands)[:, None] / n_bands
    centres = (low + corner) ** (1 - fraction) * (sample_rate / 2 + corner) ** fraction - corner
    angle = 2 * np.pi * centres / sample_rate
    radius = np.exp(-1.019 * 2 * np.pi * (24.7 + centres / 9.26449) / sample_rate)
    pole = radius * np.exp(1j * angle)

    def response(z):
        product = (z / ((z - pole) * (z - pole.conj()))) ** 4
        for slope in np.outer([1, -1], np.sqrt([3 + 2**1.5, 3 - 2**1.5])).flat:
            product = product * (z - radius * (np.cos(angle) + slope * np.sin(angle)))
        return np.abs(product)

    at_frequencies = response(np.exp(2j * np.pi * frequencies / sample_rate))
    return at_frequencies / response(np.exp(1j * angle)) / n_fft  # of gain 1 at the centre


# %% [markdown]
# Both are in absolute dB with a floor at -100, so that a clip looks the same in any company.


# %% tags=["nbval-check-output"]
def represent(waveforms, n_bands):
    window = torch.hann_window(n_fft)
    spectrum = torch.stft(
        waveforms, n_fft, hop_length, window=window, pad_mode="constant", return_complex=True
    )
    power = spectrum.real.square() + spectrum.imag.square()  # (B, n_fft / 2 + 1, T)
    mel = torch.from_numpy(mel_weights(n_bands)).float()
    gammatone = torch.from_numpy(gammatone_weights(n_bands)).float()
    bands = {"logmel": mel @ power, "gammatone": (gammatone @ power.sqrt()).square()}
    return {name: 10 * torch.log10(x.clamp(min=1e-10))[:, None] for name, x in bands.items()}


data = represent(waveforms, n_bands)  # (clips, 1, F, T) by representation
for name, x in data.items():
    print(f"{name:10s} {tuple(waveforms.shape)} → {tuple(x.shape)}")

# %% [markdown]
# ## A branch (sections III-B and IV-C)
#
# The trunk is MobileNetV2, made of blocks that expand the channels, filter each channel alone, and contract them.


# %%
def convolution(n_in, n_out, kernel=3, stride=1, groups=1):
    layer = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(n_out), nn.ReLU6())


class Block(nn.Module):
    def __init__(self, n_in, n_out, expansion, stride):
        super().__init__()
        n_wide = expansion * n_in
        expand = [convolution(n_in, n_wide, kernel=1)] if expansion > 1 else []
        each_alone = convolution(n_wide, n_wide, stride=stride, groups=n_wide)
        contract = nn.Conv2d(n_wide, n_out, 1, bias=False), nn.BatchNorm2d(n_out)
        self.conv = nn.Sequential(*expand, each_alone, *contract)
        self.has_shortcut = stride == 1 and n_in == n_out

    def forward(self, x):
        return x + self.conv(x) if self.has_shortcut else self.conv(x)


# %% [markdown]
# The list of stages is the whole architecture. Its 17 blocks learn more slowly than this page can wait, so we train
# the first block of each stage, 7 in all. The test loads the library's weights into all 17.

# %%
STAGES = (  # expansion, channels, blocks, stride of the first block
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
SHORT_STAGES = [(expansion, n, 1, stride) for expansion, n, _, stride in STAGES]


def scaled(n_channels, width):  # the nearest multiple of 8 that is not 10 % too small
    n = max(8, int(width * n_channels + 4) // 8 * 8)
    return n + 8 if n < 0.9 * width * n_channels else n


def mobilenet_v2(stages, width):
    n_in = scaled(32, width)
    layers = [convolution(3, n_in, stride=2)]
    for expansion, n_channels, n_blocks, stride in stages:
        for block in range(n_blocks):
            n_out = scaled(n_channels, width)
            layers.append(Block(n_in, n_out, expansion, stride if block == 0 else 1))
            n_in = n_out
    trunk = nn.Sequential(*layers, convolution(n_in, 1280, kernel=1))
    for layer in trunk.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    return trunk


# %% [markdown]
# Before the trunk come the normalisation, by mean and deviation of the training clips, and the paper's two 1 x 1
# convolutions from one channel to three. A channel that is 0 at all common levels would never learn: its sign is
# turned.


# %%
class Normalise(nn.Module):
    def __init__(self, mean=0.0, deviation=1.0):
        super().__init__()
        self.register_buffer("mean", torch.tensor(float(mean)))
        self.register_buffer("deviation", torch.tensor(float(deviation)))

    def forward(self, spectrogram):
        return (spectrogram - self.mean) / self.deviation


@torch.no_grad()
def colour_stem():
    first, second = nn.Conv2d(1, 10, 1), nn.Conv2d(10, 3, 1)
    stem = nn.Sequential(nn.BatchNorm2d(1), first, nn.ReLU(), second, nn.ReLU())
    levels = torch.linspace(-1.5, 1.5, 31).view(1, 1, 1, -1)
    dead = (second(first(levels).relu()) <= 0).all(dim=3).flatten()
    second.weight[dead] *= -1
    second.bias[dead] *= -1
    return stem


# %% [markdown]
# After the trunk, its feature map $M_j$ is averaged over frequency and time, and two fully connected layers with
# BatchNorm and ReLU lead to the logits. Every network on this page returns logits by the name of the classifier.


# %%
def classifier(n_features, hidden, n_classes):
    layers = []
    for n in hidden:
        layers += [nn.Linear(n_features, n), nn.BatchNorm1d(n), nn.ReLU()]
        n_features = n
    return nn.Sequential(*layers, nn.Linear(n_features, n_classes))


class Branch(nn.Module):
    def __init__(self, name, n_classes, *, stages=STAGES, width=1.0, hidden=(1280, 512)):
        super().__init__()
        self.name = name
        self.normalise = Normalise()
        self.stem = colour_stem()
        self.trunk = mobilenet_v2(stages, width)
        self.head = classifier(1280, hidden, n_classes)

    def feature_map(self, spectrograms):  # (B, 1, F, T) by name → (B, 1280, f, t)
        return self.trunk(self.stem(self.normalise(spectrograms[self.name])))

    def forward(self, spectrograms):
        return {self.name: self.head(self.feature_map(spectrograms).mean(dim=(2, 3)))}


# %% [markdown]
# ## Fusion (sections III-C and IV-C)
#
# Pool every map to the smallest height and width, stack the channels, average, classify. Log-mel and gammatone have
# equally many bands, here as in the paper's Table I, and maps of one size: the pooling is for other pairs.


# %%
class FusionModule(nn.Module):
    def __init__(self, n_channels, n_classes, *, hidden=(2560, 512)):
        super().__init__()
        self.head = classifier(n_channels, hidden, n_classes)

    def forward(self, maps):
        size = [min(m.shape[axis] for m in maps) for axis in (2, 3)]
        stacked = torch.cat([nn.functional.adaptive_avg_pool2d(m, size) for m in maps], dim=1)
        return self.head(stacked.mean(dim=(2, 3)))


class FusionKD(nn.Module):
    def __init__(self, branches, fusion):
        super().__init__()
        self.branches = nn.ModuleDict({branch.name: branch for branch in branches})
        self.fusion = fusion

    def forward(self, spectrograms):
        logits, maps = {}, []
        for name, branch in self.branches.items():
            maps.append(branch.feature_map(spectrograms))
            logits[name] = branch.head(maps[-1].mean(dim=(2, 3)))
        return logits | {"fused": self.fusion(maps)}


# %% [markdown]
# ## Eq. 1 to 4
#
# $$L_{CE}^{j} = -\frac{1}{N} \sum_i Y_i \log f_j(X_i^j) \quad (1) \qquad L_{KD} = \sum_j \lVert g(x) - f_j(x) \rVert \quad (2)$$
#
# $$L_{CE} = \sum_j L_{CE}^{j} + L_{CE}^{F} \quad (3) \qquad L = L_{CE} + \lambda L_{KD} \quad (4)$$
#
# In Eq. 1, $f_j$ are the probabilities of branch $j$; in Eq. 2, $f_j$ and $g$ are the logits of a branch and of the
# fused classifier. Eq. 2 writes a norm and the text says mean squared error: we follow the text. The teacher's
# gradient is stopped, which the paper leaves open. A branch alone has the one term of Eq. 1.


# %%
def cross_entropy(logits, targets):  # Eq. 1
    return -logits.log_softmax(dim=1)[torch.arange(len(targets)), targets].mean()


def distillation(student, teacher):  # one term of Eq. 2
    return (student - teacher.detach()).square().mean()


def loss_terms(logits, targets):
    terms = {f"ce_{name}": cross_entropy(x, targets) for name, x in logits.items()}
    if "fused" in logits:
        students = [name for name in logits if name != "fused"]
        terms |= {f"kd_{name}": distillation(logits[name], logits["fused"]) for name in students}
    return terms


def total_loss(terms, weight):  # Eq. 3, then Eq. 4
    cross_entropies = sum(x for name, x in terms.items() if name.startswith("ce_"))
    distillations = sum(x for name, x in terms.items() if name.startswith("kd_"))
    return cross_entropies + weight * distillations


# %% [markdown]
# The fused classifier begins untrained. The **ramp** of section IV-D, $e^{-5(1-i)^2}$ with $i$ from 0 to 1, keeps
# $\lambda$ small until it has something to teach.


# %% tags=["nbval-check-output"]
def ramp(epoch, n_epochs):
    i = epoch / (n_epochs - 1) if n_epochs > 1 else 1.0
    return float(np.exp(-5 * (1 - i) ** 2))


print("lambda:", [round(kd_weight * ramp(epoch, joint_epochs), 5) for epoch in range(joint_epochs)])

# %% [markdown]
# ## Training (section IV-D)
#
# One step: logits, named terms, their total, gradients, new weights.


# %%
def step(network, optimizer, spectrograms, targets, weight):
    terms = loss_terms(network(spectrograms), targets)
    total = total_loss(terms, weight)
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
    return total.item()


# %% [markdown]
# A phase is many steps of Adam in its AMSGrad variant. The paper divides the learning rate by ten wherever the
# validation loss has not improved for five epochs. A phase of this page is too short for that: it divides once,
# before its last two epochs, and takes the weights of the last one, so that no clips are held back for validation.


# %%
def train_network(network, n_epochs):
    network.train().to(memory_format=torch.channels_last)  # faster on a processor
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, amsgrad=True, fused=True)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=max(n_epochs - 2, 1))
    shuffle, losses = np.random.default_rng(seed), []
    for epoch in range(n_epochs):
        weight = kd_weight * ramp(epoch, n_epochs)
        batches = torch.from_numpy(shuffle.permutation(train)).split(batch_size)
        for rows in batches:
            batch = {name: x[rows] for name, x in data.items()}
            losses.append(step(network, optimizer, batch, targets[rows], weight))
        schedule.step()
    first, last = np.mean(losses[: len(batches)]), np.mean(losses[-len(batches) :])
    print(f"loss {first:.2f} in the first of {n_epochs} epochs, {last:.2f} in the last")


@torch.inference_mode()
def is_right(network):  # (test clips,) by classifier
    network.eval()
    logits = network({name: x[test] for name, x in data.items()})
    return {name: (x.argmax(dim=1) == targets[test]).numpy() for name, x in logits.items()}


# %% [markdown]
# **Phase 1** trains each branch alone (section III-B). What it gets right is noted before it trains on.

# %%
results, branches = {}, []
for name, x in data.items():
    torch.manual_seed(seed)
    branch = Branch(name, len(CLASSES), stages=SHORT_STAGES, width=width, hidden=hidden)
    branch.normalise = Normalise(x[train].mean(), x[train].std())
    print(name, end=": ")
    train_network(branch, epochs)
    results[name] = is_right(branch)[name]
    branches.append(branch)

# %% [markdown]
# **Phase 2** trains them together with the fusion module (sections III-C and III-D), with a fresh optimiser. Its loss
# is the sum of three cross-entropies and more: do not compare it with the two above.

# %%
torch.manual_seed(seed)
fusion = FusionModule(2 * 1280, len(CLASSES), hidden=(2 * hidden[0], hidden[1]))
network = FusionKD(branches, fusion)
train_network(network, joint_epochs)
right = is_right(network)
results |= {f"{name} (KD)": right[name] for name in data} | {"fused": right["fused"]}

# %% [markdown]
# ## The table
#
# A **baseline** keeps networks honest. Ours describes a clip by the mean and the deviation of each band over time,
# looks for the training clip that is described most alike, and takes its class. The fused classifier's baseline
# sees both representations.

# %%
described = {name: torch.cat([x.mean(3), x.std(3)], dim=2).flatten(1) for name, x in data.items()}
described["fused"] = torch.cat(list(described.values()), dim=1)
baseline = {}
for name, x in described.items():
    nearest = torch.cdist(x[test], x[train]).argmin(dim=1)
    baseline[name] = (targets[train][nearest] == targets[test]).numpy()

# %% [markdown]
# **Predict** before you look: how far above the baseline are the networks? Which of the five rows is the highest,
# and what did phase 2 bring to each branch?


# %%
def estimate(values):  # mean in percent, and half its 95 % interval over other test recordings
    by_recording = 100 * np.reshape(values, (-1, n_clips)).mean(axis=1)
    return by_recording.mean(), 1.96 * by_recording.std(ddof=1) / len(by_recording) ** 0.5


print("accuracy in %         ours     ±  nearest neighbour  chance")
for name, values in results.items():
    ours, margin = estimate(values)
    neighbour = estimate(baseline[name.removesuffix(" (KD)")])[0]
    print(f"{name:18s}  {ours:6.1f} {margin:5.1f}  {neighbour:17.1f}  {100 / len(CLASSES):6.1f}")

# %% [markdown]
# Two rows are compared clip by clip, so that a clip that both get wrong does not blur their difference. Where a
# difference is smaller than its ±, another draw of test recordings could turn its sign.

# %%
pairs = [(f"{name} (KD)", name) for name in data] + [("fused", f"{name} (KD)") for name in data]
for first, second in pairs:
    gain, margin = estimate(1.0 * results[first] - results[second])
    print(f"{first} minus {second}: {gain:+.1f} ± {margin:.1f} points")

# %% [markdown]
# The ± knows nothing of other seeds, which move every row as well. And whatever a branch gained or lost in phase 2
# is not yet owed to *distillation*: it had a second phase of training that the branch alone had not. The paper's
# tables are built like this one.
#
# ## Recap
#
# - Two weighted sums over one Fourier transform are two representations; a list of stages is a trunk.
# - Fusion: pool, stack, average, classify. Distillation: a mean squared error between logits, with a ramp.
# - A step is the same few lines in both phases: a branch alone is a fused network without teacher and company.
# - A table needs chance, a baseline, an interval, and a control, which is the first exercise.
#
# ## Exercises
#
# **1.** Build the control: set `kd_weight = 0.0` and run the page again. How much of each gain stays?
#
# <details><summary>Solution</summary>
#
# The first two rows do not change, because phase 1 has no teacher. In phase 2 the branches now train as long as
# before, and the fused classifier's gradient still flows into their trunks, but nobody teaches. What stays of a
# gain is not owed to Eq. 2. At $\lambda = 0.01$ the distillation term is a small part of the loss: print
# `loss_terms` in `step` and see how small.
#
# </details>
#
# **2.** In `FusionModule`, replace the pooling and the stack by `torch.cat([m.mean(dim=(2, 3)) for m in maps], dim=1)`.
# For which sizes of the maps do the logits change?
#
# <details><summary>Solution</summary>
#
# Only where one size does not divide the other. A mean of means over windows of one size is the mean: four rows
# pooled to two and averaged give what four rows averaged give. Four rows pooled to three overlap, and count the
# inner rows twice. So with section IV-C's global average, the fused classifier sees the branches' averaged
# features side by side, and *where* in the maps something was is lost. Section III-C's convolution after the
# stack would keep it (`fusion: conv` in the library).
#
# </details>
#
# **Next:** [reading the paper closely](appendix_reading_the_paper.py) lists what the paper leaves open, and how
# this page and the library read it.
