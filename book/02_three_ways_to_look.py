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
# # 2 · Three ways to look at a sound
#
# The paper feeds its networks pictures of sound: log-mel, CQT, gammatone. Its hope is that they show
# different things. In this chapter we build all three from the waveform, in a few lines each, check them
# against the library, and then measure what each of them can see and what it cannot.
#
# **You will learn** what a spectrogram is made of, why no picture can be sharp in time and in frequency
# at once, how the three divide that trade-off differently, and what "absolute dB" is good for.
#
# **You need** about half a minute, no download, and a little Fourier: that any stretch of sound is a sum of
# sines, and that the FFT finds them.

# %% tags=["parameters"]
dataset = "urban_synth"
representations = ["logmel", "cqt", "gammatone"]
clips_per_class = 9  # in each of the five folds
sample_rate = 16000
duration = 2.0  # seconds

# %%
from fusionkd_lib.params import notebook_params

params = notebook_params(globals())

# %%
import numpy as np
import torch
from IPython.display import Markdown, display

from fusionkd_book import exercises, figures
from fusionkd_lib import experiment, tables
from fusionkd_lib.representations import build

plt = figures.plt
figures.use_style()
torch.set_num_threads(params.threads)
modules = experiment.representations_of(params)
rate, hop_length, n_fft = params.sample_rate, params.hop_length, params.n_fft

# %%
prepared = experiment.prepare(params)
clips, targets = prepared.clips, prepared.clips.targets
siren = clips.read(int((targets == clips.classes.index("siren")).argmax()), rate)
figures.players({"a siren": siren}, sample_rate=rate, status=clips.status)

# %% [markdown]
# ## The short-time Fourier transform
#
# Cut the sound into frames, fade each frame in and out with a window, and ask the FFT how much of each
# frequency is in it. Frame $t$ is centred on sample $t \cdot$ `hop_length`; the sound is continued with
# zeros at both ends. That is all.


# %% tags=["nbval-check-output"]
def stft_power(sound, n_fft=n_fft, hop_length=hop_length):
    padded = np.pad(sound, n_fft // 2)
    starts = np.arange(0, len(sound) + 1, hop_length)
    frames = np.stack([padded[start : start + n_fft] for start in starts], axis=1)  # (n_fft, T)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)  # Hann
    return np.abs(np.fft.rfft(frames * window[:, None], axis=0)) ** 2  # (F, T)


def decibels(power):
    return 10 * np.log10(np.maximum(power, 1e-10))


def agrees(ours, name):
    """Compare with the library's module, to 0.05 dB."""
    theirs = (modules.get(name) or build(name, sample_rate=rate))(torch.from_numpy(siren)[None])[
        0, 0
    ].numpy()
    print(f"{name:10s} {theirs.shape} equal: {np.allclose(ours, theirs, atol=0.05)}")


agrees(decibels(stft_power(siren)), "stft")

# %% [markdown]
# How long should a frame be? Here is a test sound with two questions in it: two steady tones 40 Hz apart,
# and two clicks 25 ms apart. **Predict:** which window answers the first question, which the second, and
# is there one that answers both?

# %%
time = np.arange(rate) / rate
test = 0.1 * np.sin(2 * np.pi * 1000 * time) + 0.1 * np.sin(2 * np.pi * 1040 * time)
test[[rate // 2, rate // 2 + rate // 40]] += 8
windowed = {size: decibels(stft_power(test, size, hop_length=64)) for size in (256, 1024, 4096)}

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(1, 3, figsize=(figures.WIDTH, 3), sharey=True)
span = {"vmin": -40, "vmax": max(picture.max() for picture in windowed.values())}
for ax, (size, picture) in zip(axes, windowed.items(), strict=True):
    ax.imshow(picture, extent=(0, 1, 0, rate / 2), **span, **figures.PICTURE)
    ax.set(xlim=(0.35, 0.65), ylim=(700, 1400), xticks=(0.4, 0.5, 0.6), xlabel="time (s)")
    ax.set(title=f"{1000 * size / rate:.0f} ms", yticks=range(800, 1401, 200))
axes[0].set_ylabel("frequency (Hz)")
figures.decibel_scale(axes, label="dB")
figures.show(
    axes,
    alt="The same test sound under windows of 16, 64 and 256 ms: the short one separates "
    "the clicks, the long one separates the tones",
    caption="**Figure 2.1.** One synthetic test sound under three windows: the short one "
    "separates the clicks, the long one the tones, and none does both.",
)

# %% [markdown]
# The short window (Figure 2.1) hears two clicks, and one tone that beats. The long one hears two tones, and one long
# click with ripples in it. None answers both well, and none can: a window of $\Delta t$ seconds cannot tell two
# frequencies apart that differ by less than about $1 / \Delta t$. An STFT makes one choice for all frequencies: the
# paper's window has 1,024 samples whatever the pitch. The three representations differ in how they share out
# this one budget over frequency.
#
# ## Log-mel
#
# Equal steps in Hz do not sound equal: 100 Hz more is a leap at 200 Hz and hardly heard at 8 kHz. The **mel
# scale** bends frequency until steps sound equal to most listeners: straight up to 1 kHz, logarithmic above. Put
# triangles at equal steps of mel, each of unit area, and add up the STFT's power under each.


# %% tags=["nbval-check-output"]
def to_mel(hertz):
    return np.where(
        hertz < 1000, hertz * 3 / 200, 15 + 27 * np.log(np.maximum(hertz, 1) / 1000) / np.log(6.4)
    )


def to_hertz(mel):
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


bins = np.fft.rfftfreq(n_fft, 1 / rate)  # (F,) Hz
edges = to_hertz(np.linspace(to_mel(params.fmin), to_mel(rate / 2), params.n_mels + 2))
low, peak, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
triangles = np.maximum(0, np.minimum((bins - low) / (peak - low), (high - bins) / (high - peak)))
triangles *= 2 / (high - low)  # unit area
agrees(decibels(triangles @ stft_power(siren)), "logmel")

# %% tags=["hide-input"] jupyter={"source_hidden": true}
octaves = {hertz: float(to_mel(2 * hertz) - to_mel(hertz)) for hertz in (100, 2000)}
told = " and ".join(f"{x:.1f} mel from {f:,d} to {2 * f:,d} Hz" for f, x in octaves.items())
display(
    Markdown(
        f"An octave is not the same step everywhere: it is {told}, so that the upper one gets "
        f"{octaves[2000] / octaves[100]:.1f} times as many bands. Above 1 kHz every octave gets the same number."
    )
)

# %% [markdown]
# ## Gammatone
#
# A place in the inner ear, tapped once, rings: the sound swells, then dies, $t^3 e^{-bt} \cos(2 \pi f t)$.
# The higher its pitch $f$, the wider its band and the faster it dies: $b = 2 \pi \cdot 1.019 \cdot (24.7 +
# f / 9.26)$. Slaney built a digital filter that rings like this from one pair of poles, used four times,
# and four zeros.


# %% tags=["gammatone"]
def decay(centre):
    return 2 * np.pi * 1.019 * (24.7 + centre / 9.26449)


def gammatone_gain(frequency, centre):
    point, angle, radius = (
        np.exp(2j * np.pi * frequency / rate),
        2 * np.pi * centre / rate,
        np.exp(-decay(centre) / rate),
    )
    gain = (
        point / ((point - radius * np.exp(1j * angle)) * (point - radius * np.exp(-1j * angle)))
    ) ** 4
    for slope in np.sqrt([3 + 8**0.5, 3 - 8**0.5]):
        gain = gain * (point - radius * (np.cos(angle) + slope * np.sin(angle)))
        gain = gain * (point - radius * (np.cos(angle) - slope * np.sin(angle)))
    return np.abs(gain)


# %% tags=["nbval-check-output"]
centres = modules["gammatone"].frequencies[
    :, None
]  # 128, equally spaced in ear filters, from 20 Hz
gains = gammatone_gain(bins, centres) / gammatone_gain(centres, centres)  # 1 at the centre
agrees(decibels((gains / n_fft @ np.sqrt(stft_power(siren))) ** 2), "gammatone")

# %% [markdown]
# We did not filter anything: the gains *weight the STFT's magnitudes*. That is quick and near enough, but it
# has a price that we shall measure: the window of the STFT comes with it. To filter is to run the four
# sections over the sound, sample by sample, and to average the power of what comes out over each frame:


# %% tags=["gammatone"]
from scipy.signal import sosfilt


def filterbank_power(sound, centres):
    rows = []
    for centre in centres:
        angle, radius = 2 * np.pi * centre / rate, np.exp(-decay(centre) / rate)
        sections = []  # of second order: a zero each, the same pair of poles for all
        for slope in np.sqrt([3 + 8**0.5, 3 - 8**0.5]):
            for sign in (1, -1):
                zero = radius * (np.cos(angle) + sign * slope * np.sin(angle))
                sections.append([1, -zero, 0, 1, -2 * radius * np.cos(angle), radius**2])
        heard = sosfilt(sections, np.pad(sound, n_fft // 2)) / gammatone_gain(centre, centre)
        frames = np.lib.stride_tricks.sliding_window_view(heard**2, n_fft)[::hop_length]
        rows.append(frames.mean(axis=1))
    return np.stack(rows)  # (F, T)


# %% tags=["nbval-check-output"]
pitch = modules["gammatone"].frequencies[80]
steady = 0.5 * np.sin(2 * np.pi * pitch * np.arange(rate) / rate)
weighted = modules["gammatone"](torch.from_numpy(steady).float()[None])[0, 0, 80, 16]
filtered = decibels(filterbank_power(steady, [pitch]))[0, 16]
print(f"a tone of {pitch:,.0f} Hz: weighted {weighted:.1f} dB, filtered {filtered:.1f} dB")

# %% [markdown]
# The filter passes a tone at its centre whole: its level is that of half the squared amplitude. The weighted sum
# comes to about half of that, because half of the tone's *amplitude* lies at negative frequencies, which the FFT
# of a real sound leaves out. The library takes the quick way for every clip, and its tests compare it with these
# lines.
#
# ## CQT
#
# The constant-Q transform takes music seriously: twelve bins per octave, and a window of its own for each bin,
# as long as it takes to hear the same number $Q$ of cycles. Low notes get long windows, high notes short ones.
# No FFT is needed to write it down, only a correlation with one faded wave per bin:


# %% tags=["nbval-check-output"]
def cqt_power(sound, frequencies, cycles):
    rows = []
    for frequency in frequencies:
        half = cycles / frequency * rate / 2  # half a window, in samples
        n = np.arange(-int(half), int(half) + 1)
        wave = (0.5 + 0.5 * np.cos(np.pi * n / half)) * np.exp(-2j * np.pi * frequency * n / rate)
        frames = np.lib.stride_tricks.sliding_window_view(np.pad(sound, len(n) // 2), len(n))[
            ::hop_length
        ]
        rows.append(np.abs(frames @ wave) ** 2 * 4 / (2 * half))
    return np.stack(rows)


cycles = 1 / np.tanh(np.log(2) / params.bins_per_octave)
frequencies = params.cqt_fmin * 2 ** (np.arange(params.cqt_bins) / params.bins_per_octave)
agrees(decibels(cqt_power(siren, frequencies, cycles)), "cqt")

# %% tags=["hide-input"] jupyter={"source_hidden": true}
windows = 1000 * cycles / frequencies[[0, -1]]
display(
    Markdown(
        f"Each bin hears {cycles:.1f} cycles: {windows[0]:.0f} ms at {frequencies[0]:.0f} Hz, {windows[1]:.1f} ms at "
        f"{frequencies[-1]:,.0f} Hz. The STFT's window is {1000 * n_fft / rate:.0f} ms at every frequency here, "
        f"{1000 * n_fft / 44100:.0f} ms at the paper's 44.1 kHz."
    )
)

# %% [markdown]
# Here are three pictures of the siren, and you have seen every line of code behind them. The frequency axes
# differ: each representation spends its rows in its own way.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
panels = {
    figures.label(name): (module(torch.from_numpy(siren)[None])[0, 0].numpy(), module.frequencies)
    for name, module in modules.items()
}
axes = figures.spectrogram_grid(panels, n_columns=3, seconds=params.duration)
figures.show(
    axes,
    alt="Log-mel, CQT and gammatone spectrograms of the synthesised siren",
    caption="**Figure 2.2.** One siren, three pictures: the rows of each are spent on other "
    "frequencies, as the ticks show.",
)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
ends = ", ".join(
    f"{figures.label(name)} at {module.frequencies[-1]:,.0f} Hz" for name, module in modules.items()
)
display(
    Markdown(
        f"The top rows: {ends}. What lies above the last of its {params.cqt_bins} bins, the CQT does not show."
    )
)

# %% [markdown]
# ## What each of them resolves
#
# Formulas promise; we measure. To see how wide a row is in **frequency**, play it hundreds of pure tones
# and note how loudly each comes out. To see how wide it is in **time**, play it one click and note how long
# it answers. Width is area divided by height: the width of a rectangle with the same area.
#
# **Predict:** which of the three is narrowest at 100 Hz, and which at 3 kHz? Where is the gammatone wider
# than its own formula?


# %%
def widths(name):
    """Return frequencies (F,), bandwidths in Hz and durations in s, measured with tones and a click."""
    settings = {"sample_rate": rate, "hop_length": rate // 2}
    tones = np.geomspace(25, 7900, 900)
    sound = torch.from_numpy(np.sin(2 * np.pi * tones[:, None] * np.arange(rate) / rate)).float()
    heard = (
        build(name, **settings).power(sound)[:, :, 1].numpy()
    )  # (tones, F) in the middle of a second
    click = torch.zeros(1, rate)
    click[0, rate // 2] = 1
    echo = build(name, **settings | {"hop_length": 16}).power(click)[0].numpy()  # (F, 1 ms apart)
    return (
        modules[name].frequencies,
        np.trapezoid(heard, tones, axis=0) / heard.max(0),
        echo.sum(1) / echo.max(1) * 16 / rate,
    )


# %% tags=["hide-input"] jupyter={"source_hidden": true}
measured = {name: widths(name) for name in modules}
thick = {"logmel": 4}  # gammatone lies on top of it in places
figure, axes = plt.subplots(2, 1, figsize=(figures.WIDTH, 6), sharex=True)
for name, (centre, bandwidth, duration) in measured.items():
    inside = (centre > 40) & (centre < 6000)
    drawn = {"color": figures.COLOURS[name], "ls": figures.STROKES[name], "lw": thick.get(name)}
    axes[0].loglog(centre[inside], bandwidth[inside], label=figures.label(name), **drawn)
    axes[1].loglog(centre[inside], 1000 * duration[inside], **drawn)
ear = np.geomspace(40, 6000)
axes[0].loglog(ear, 24.7 + ear / 9.26, "-.", color="0.5", label="the ear (ERB)")
axes[0].set(ylabel="bandwidth (Hz)", title="how wide a row is in frequency")
axes[1].set(xlabel="frequency (Hz)", ylabel="duration (ms)", title="how long a row hears a click")
figures.round_ticks(axes[1].xaxis, axes[0].yaxis, axes[1].yaxis)
axes[0].legend(frameon=False)
figures.sns.despine()
figures.show(
    axes,
    alt="Measured bandwidth and duration of the rows of each representation against "
    "frequency, with the ear's equivalent rectangular bandwidth",
    caption="**Figure 2.3.** What a row gains in frequency (above) it pays for in time (below). "
    "The CQT moves along this bargain; the other two keep to one window.",
)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
at = {
    (name, hertz): (np.interp(hertz, centre, bandwidth), 1000 * np.interp(hertz, centre, duration))
    for name, (centre, bandwidth, duration) in measured.items()
    for hertz in (100, 3000)
}
told = [
    f"{figures.label(n)} {at[n, f][0]:.0f} Hz and {at[n, f][1]:.0f} ms"
    for f in (100, 3000)
    for n in modules
]
display(Markdown(f"At 100 Hz: {'; '.join(told[:3])}. At 3 kHz: {'; '.join(told[3:])}."))

# %% [markdown]
# The upper panel of Figure 2.3 shows the choice of bands, the lower one what it costs. At the bottom the CQT separates what
# the others blur, and pays for it by smearing time. At the top it is the quickest. Log-mel and gammatone share a
# horizontal line in time: the window on which both are built. That window also keeps them from
# getting narrower at the bottom than its own width in frequency.
#
# So two of the three representations, as we build them, are **weighted sums of one STFT**. They differ in how
# they add up, not in what they have heard. Keep that in mind when chapter 5 compares pairs.
#
# ## A blind spot
#
# The top CQT windows are shorter than the hop from one frame to the next. What falls between two of them
# is not heard at all. We move a click through one hop and look at the loudest answer above 2 kHz.

# %%
offsets = np.linspace(0, hop_length, 33).astype(int)
click = torch.zeros(len(offsets), rate)
click[
    torch.arange(len(offsets)), torch.from_numpy(rate // 2 // hop_length * hop_length + offsets)
] = 1
levels = {}
for name, module in modules.items():
    high = torch.from_numpy(module.frequencies > 2000)
    levels[name] = module(click)[:, 0, high].amax(dim=(1, 2)).numpy()
depth = {name: level.max() - level.min() for name, level in levels.items()}

# %% tags=["hide-input"] jupyter={"source_hidden": true}
figure, ax = plt.subplots(figsize=(figures.WIDTH, 2.8))
for name, level in levels.items():
    drawn = {"color": figures.COLOURS[name], "ls": figures.STROKES[name], "lw": thick.get(name)}
    ax.plot(1000 * offsets / rate, level - level.max(), label=figures.label(name), **drawn)
ax.set(xlabel="position of the click after a frame's centre (ms)", ylabel="dB", ylim=(-80, 5))
ax.legend(frameon=False)
figures.sns.despine()
figures.show(
    ax,
    alt="Level of a click above 2 kHz against its position between two frames, for the "
    "three representations: it falls a little for log-mel and gammatone and into a deep "
    "hole for the CQT",
    caption="**Figure 2.4.** A click halfway between two frames falls into a hole of the CQT's "
    "short windows. The longer window of the other two bridges it.",
)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
display(
    Markdown(
        "The click loses "
        + ", ".join(f"{x:.0f} dB in the {figures.label(n)}" for n, x in depth.items())
        + "."
    )
)

# %% [markdown]
# A gun shot has an echo, which fills the hole; a single dry tick may vanish. The paper does not give the
# CQT's hop. At 44.1 kHz our 512 samples are a shorter time, and the top windows are still shorter.
#
# ## Listen, see, predict, reveal
#
# Here are four clips of urban synth. **Listen** to A to D and name them; then look at the three pictures of
# each, and decide which representation best shows what you heard.

# %%
mystery = [
    int(np.flatnonzero(targets == clips.classes.index(name))[5])
    for name in ("drilling", "car_horn", "engine_idling", "children_playing")
]
figures.players(
    {letter: clips.read(i, rate) for letter, i in zip("ABCD", mystery, strict=True)},
    sample_rate=rate,
    status=clips.status,
)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
panels = {
    f"{letter} · {figures.label(name)}": (prepared.data.spectrograms[name][i], module.frequencies)
    for letter, i in zip("ABCD", mystery, strict=True)
    for name, module in modules.items()
}
axes = figures.spectrogram_grid(panels, n_columns=3, seconds=params.duration)
figures.show(
    axes,
    alt="Four unnamed clips, each in log-mel, CQT and gammatone",
    caption="**Figure 2.5.** Clips A to D, a row each. Which picture would you have named it from?",
)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
names = "; ".join(
    f"{letter} is *{clips.classes[targets[i]].replace('_', ' ')}*"
    for letter, i in zip("ABCD", mystery, strict=True)
)
display(Markdown(f"<details><summary>Reveal</summary>\n\n{names}.\n\n</details>"))

# %% [markdown]
# ## Class by class
#
# Your eyes are one judge. Here is a duller one: chapter 1's support vector machine on the mean, the deviation
# and the mean change of every row, in the dataset's own folds. **Predict:** for which classes will the CQT do
# better than log-mel, and for which worse?

# %%
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

folds = PredefinedSplit(clips.table["fold"])


def judged(spectrograms):  # (clips, F, T) → the class that each clip is given, (clips,)
    change = np.abs(np.diff(spectrograms, axis=2)).mean(axis=2)
    described = [spectrograms.mean(axis=2), spectrograms.std(axis=2), change]
    judge = make_pipeline(StandardScaler(), SVC(C=10))
    return cross_val_predict(judge, np.concatenate(described, axis=1), targets, cv=folds)


answers = {name: judged(values) for name, values in prepared.data.spectrograms.items()}
right = {name: answer == targets for name, answer in answers.items()}

# %% tags=["hide-input"] jupyter={"source_hidden": true}
recall = {
    name: [hits[targets == k].mean() for k in range(len(clips.classes))]
    for name, hits in right.items()
}
ax = figures.class_scores(recall, clips.classes, ylabel="recall")
figures.show(
    ax,
    alt="Recall of each class with each of the three representations",
    caption="**Figure 2.6.** Which representation is best depends on the class. Whether that "
    "makes them complementary needs the control below.",
)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
share = {name: 100 * hits.mean() for name, hits in right.items()}
some = 100 * np.any(list(right.values()), axis=0).mean()
display(
    Markdown(
        "Right: "
        + ", ".join(f"{figures.label(name)} {x:.0f} %" for name, x in share.items())
        + f". At least one of the three: **{some:.0f} %**, which a committee would reach if it always knew whom to believe."
    )
)

# %% [markdown]
# The gap between the best one and *at least one* looks like what the paper calls complementary information.
# But any classifiers that make mistakes, and not all the same ones, leave such a gap. To learn whether the
# *representations* have anything to do with it, we need a **control**: three judges that share a single
# representation. We deal the rows of log-mel at random into three thirds and give one to each judge, five times
# over, so that no single deal decides.
#
# **Predict:** the thirds are pieces of one and the same picture. How much less often will they disagree than
# the three representations do?


# %%
def committee(members):
    """Return what three answers (clips,) are worth, each value in percent of the clips."""
    members = np.stack(members)
    hits = members == targets
    vote = [np.bincount(given, minlength=len(clips.classes)).argmax() for given in members.T]
    return {
        "A member alone": hits.mean(),
        "Two disagree": np.mean([members[i] != members[i - 1] for i in range(3)]),
        "At least one right": hits.any(axis=0).mean(),
        "Gap to the best": hits.any(axis=0).mean() - hits.mean(axis=1).max(),
        "Majority right": np.mean(vote == targets),
    }


logmel = prepared.data.spectrograms["logmel"]
deals = [np.random.default_rng(seed).permutation(logmel.shape[1]) for seed in range(5)]
worth = {"the three representations": committee(list(answers.values()))}
for number, deal in enumerate(deals, 1):
    thirds = [judged(logmel[:, deal[k::3]]) for k in range(3)]
    worth[f"thirds of log-mel, deal {number}"] = committee(thirds)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
rows = [
    {"% of the clips": name} | {key: f"{100 * x:.0f}" for key, x in values.items()}
    for name, values in worth.items()
]
display(Markdown(tables.markdown(rows)))
three, *others = worth.values()
for key, what in (("Two disagree", "disagreement"), ("Gap to the best", "gap")):
    low, high = (100 * bound(other[key] for other in others) for bound in (min, max))
    value = 100 * three[key]
    if value > high:
        told = "larger than in all five deals: the representations add to it"
    elif value < low:
        told = "smaller than in all five deals: the representations add nothing to it"
    else:
        told = "no more than pieces of one picture bring about"
    display(
        Markdown(
            f"- The {what}: {value:.1f} % with three representations, {low:.1f} to {high:.1f} % with thirds of one; {told}."
        )
    )
gain = 100 * (three["Majority right"] - max(hits.mean() for hits in right.values()))
whole = [100 * (other["Majority right"] - right["logmel"].mean()) for other in others]
display(
    Markdown(
        f"- A plain majority vote: {gain:+.1f} points for the three representations, against the best of them; "
        f"{min(whole):+.1f} to {max(whole):+.1f} for the thirds, against the whole of log-mel."
    )
)

# %% [markdown]
# Disagreement is cheap, then: it takes no second representation to get it, and that two networks disagree is no
# evidence that they complement each other. Nor is the gap to be had for the asking: nobody tells the committee
# which member is right. Whether a fusion of two representations beats a fusion of two networks
# on *one* is the question to ask, and the paper does not ask it; chapter 6 (to come) will.
#
# ## Absolute decibels
#
# Power spans many powers of ten, so we take logarithms: `10 log10`, floored at -100 dB. And that is *all* we
# do. Many recipes measure decibels from the loudest point and cut off what is far below it. Then a quiet clip
# and a loud one look alike, and if "the loudest point" is that of a batch, a clip depends on its neighbours.

# %% tags=["nbval-check-output"]
module, sound = modules["logmel"], torch.from_numpy(siren)
alone, halved = module(sound[None])[0], module(0.5 * sound[None])[0]
loud = alone > -80
print(
    "half the amplitude, in dB:",
    f"{(halved - alone)[loud].mean():.2f}",
    "everywhere:",
    torch.allclose(halved[loud], alone[loud] - 6.0206, atol=1e-3),
)
print(
    "the same beside a loud clip:",
    torch.allclose(module(torch.stack([sound, 9 * sound]))[0], alone, atol=1e-3),
)

# %% [markdown]
# Loudness is information: engines are near, air conditioners hum from far away. A network that is better
# off without it can learn to ignore it; a network that never gets it cannot ask for it back.
#
# ## Recap
#
# - Frames, window, FFT: the STFT. Its window is one choice of time against frequency, for all frequencies.
# - Log-mel and gammatone add up one STFT under triangles and under the ear's filters; the CQT has a window
#   for each bin, long at the bottom, short at the top.
# - All three come on one time axis, (B, 1, F, T): a frame is the same moment in each. (The fusion of the paper's
#   section IV-C makes no use of that, since it averages over time; a fusion that convolves first would.)
# - Classifiers that look at different pictures make different mistakes. So do classifiers that look at pieces
#   of one: a committee needs a control before its members may be called complementary.
#
# ## Exercises
#
# **1. Louder.** Somebody turns a microphone up, so that all amplitudes grow by `factor`. What becomes of a spectrogram in
# absolute dB? The folded cell after yours holds a solution.


# %%
def louder(spectrogram, factor):  # (F, T) in dB → (F, T) in dB
    ...


exercises.check("2.1", louder)


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# Solution. The whole picture moves by one number, except where the floor was.
def solution_1(spectrogram, factor):
    return spectrogram + 20 * np.log10(factor)


exercises.check("2.1", solution_1)

# %% [markdown]
# **2.** Set `n_mels = 512` and look at the lowest rows of log-mel. What do you see, and why?
#
# <details><summary>Solution</summary>
#
# Dark lines: some triangles have become narrower than the distance between two FFT bins, fall between them
# and catch nothing; `(triangles.sum(axis=1) == 0).sum()` counts them. At 44.1 kHz, where the FFT bins are farther
# apart, fewer mel bands are enough for the same effect. More rows are not more resolution: the window has
# already decided that.
#
# </details>
#
# **3.** How small must the hop be for no click to be lost in the top bins of the CQT?
#
# <details><summary>Hint</summary>
#
# Windows must overlap. A Hann window falls to a half at a quarter of its length from the centre, so that a hop
# of half the shortest window, `cycles / frequencies[-1] * rate / 2` samples, loses no more than the other two
# lose above. What does that do to T, and to the cost of the network behind it?
#
# </details>
#
# **4.** Give a second of noise to the library's gammatone and to `filterbank_power`. In which rows do the
# two pictures differ most, and in what?
#
# <details><summary>Solution</summary>
#
# In the top ones, and in their level. A filter there spans dozens of FFT bins. The quick way adds their
# *magnitudes* and squares the sum; energy adds as *squares*. So the quick picture of noise is brighter at the
# top; subtract the two to see by how much. A network that is trained on it will not mind; anyone who compares
# levels between rows should.
#
# </details>
#
# **Next:** [chapter 3](03_branch_pretraining.py) shows one of these pictures to a network.
