"""Ten sound sources of the city, each a physical model a few lines long.

A source makes a `Take` into its dry sound, (N,) float64 of no particular level. Frequencies are in
Hz and times in seconds, so that the sound is the same at every sample rate, up to half that rate.
Two generators draw at random: `recording` the traits that one dog, one siren or one band of
musicians keeps, `clip` the details that differ between its excerpts. The street, the room and the
microphone are at the end.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.fft import irfft, rfftfreq
from scipy.signal import lfilter

from fusionkd_lib.datasets.urbansound8k import CLASSES

NOISE_RATE = 16000  # Hz: white noise and unit impulses have variance and height 1 at this rate
TABLE_SIZE = 8192  # samples of one period: the lookup's noise stays 60 dB below the fundamental
HORN_INTERVALS = (6 / 5, 5 / 4, 4 / 3)  # minor third, major third, fourth
JACKHAMMER_RATE = (9.0, 26.0)  # blows per second
SIREN_PERIODS = {"wail": (2.5, 6.0), "yelp": (0.25, 0.45), "hi-lo": (0.7, 1.4)}
# First, second and third formants of five vowels in Hz.
VOWELS = ((860, 690, 560, 680, 430), (2050, 2600, 2700, 1060, 1170), (2850, 3570, 3300, 3180, 3260))
CHORDS = ((0, 4, 7), (5, 9, 12), (7, 11, 14), (-3, 0, 4), (2, 5, 9))  # I, IV, V, vi, ii: semitones


@dataclass(frozen=True)
class Take:
    """One excerpt of one recording, about to be made.

    Parameters
    ----------
    recording, clip, noise
        Generators for the recording's traits, for this excerpt's details, and for its noises.
    n_samples, rate
        Length in samples, and samples per second.
    latest_start
        How late the first of several separate sounds (a bark, a blast) may come, in seconds.
    """

    recording: np.random.Generator
    clip: np.random.Generator
    noise: np.random.Generator
    n_samples: int
    rate: int
    latest_start: float = 0.0

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.n_samples / self.rate

    def part(self, duration: float) -> "Take":
        """Prepare a shorter sound of this take, its duration in seconds rounded to 20 ms."""
        # A common multiple of 20 ms keeps the length a product of small primes: its FFT is fast.
        return replace(self, n_samples=max(round(duration * 50), 1) * self.rate // 50)

    @property
    def time(self) -> np.ndarray:
        """(N,) seconds from the start."""
        return np.arange(self.n_samples) / self.rate


def coloured_noise(
    generator: np.random.Generator, n_samples: int, rate: int, *, slope: float = 0.0
) -> np.ndarray:
    """(N,) Gaussian noise whose power falls with frequency as ``f ** -slope`` (1 is pink, 2 brown).

    It is drawn bin by bin in the frequency domain, and by a generator of its own: two sample rates
    share every bin that both can represent, and later draws do not depend on the rate.
    """
    (own,) = generator.spawn(1)
    frequency = rfftfreq(n_samples, 1 / rate).astype(np.float32)
    spectrum = own.standard_normal(2 * len(frequency), dtype=np.float32).view(np.complex64)
    if slope:
        spectrum *= (np.maximum(frequency, 30) / 1000) ** np.float32(-slope / 2)
    spectrum[0] = 0
    return irfft(spectrum, n_samples) * np.sqrt(n_samples * rate / (2 * NOISE_RATE))


def harmonics(frequency: np.ndarray, amplitudes: np.ndarray, *, rate: int, phase=0.0) -> np.ndarray:
    """(N,) periodic sound of a fundamental (N,) in Hz and its harmonics' amplitudes (H,).

    Harmonics that would pass half the sample rate are dropped. One period is tabulated and looked
    up, which costs the same for one harmonic and for fifty.
    """
    audible = amplitudes[: int(rate / 2 / frequency.max())]
    spectrum = np.zeros(TABLE_SIZE // 2 + 1, dtype=np.complex64)
    spectrum[1 : len(audible) + 1] = -0.5j * TABLE_SIZE * audible
    table = irfft(spectrum)
    cycles = np.cumsum(frequency) / rate + phase
    return table[(cycles * TABLE_SIZE).astype(np.int64) & (TABLE_SIZE - 1)]


def resonate(
    signal: np.ndarray, frequencies: ArrayLike, bandwidths: ArrayLike, *, rate: int, gains=1.0
) -> np.ndarray:
    """(N,) sum of two-pole resonances, each of peak gain 1 (or its `gains`) and bandwidth in Hz."""
    output = np.zeros(len(signal))
    for frequency, bandwidth, gain in np.broadcast(frequencies, bandwidths, gains):
        if frequency < 0.47 * rate:
            radius = np.exp(-np.pi * bandwidth / rate)
            peak = gain * (1 - radius**2) / 2
            poles = [1, -2 * radius * np.cos(2 * np.pi * frequency / rate), radius**2]
            output += lfilter([peak, 0, -peak], poles, signal)
    return output


def decays(signal: np.ndarray, *, seconds: float, rate: int) -> np.ndarray:
    """(N,) the signal with each sample followed by an exponential decay of that time constant."""
    return lfilter([1.0], [1, -np.exp(-1 / (seconds * rate))], signal)


def low_pass(signal: np.ndarray, *, cutoff: float, rate: int) -> np.ndarray:
    """(N,) the signal through one pole: 6 dB an octave above the cutoff in Hz, gain 1 at 0 Hz."""
    pole = np.exp(-2 * np.pi * cutoff / rate)
    return lfilter([1 - pole], [1, -pole], signal)


def log_uniform(generator: np.random.Generator, low: float, high: float, size=None):
    """Draw with equal chance for each octave between low and high."""
    return np.exp(generator.uniform(np.log(low), np.log(high), size))


def _noise(take: Take, *, slope: float = 0.0) -> np.ndarray:
    return coloured_noise(take.noise, take.n_samples, take.rate, slope=slope)


def _impulses(take: Take, times: np.ndarray, heights=1.0) -> np.ndarray:
    """(N,) zeros with a unit impulse at each time that lies in the clip."""
    signal = np.zeros(take.n_samples)
    positions = np.round(times * take.rate).astype(int)
    inside = (positions >= 0) & (positions < take.n_samples)
    np.add.at(signal, positions[inside], np.broadcast_to(heights, times.shape)[inside])
    return signal


def _pulse_times(take: Take, frequency: float, *, jitter: float) -> np.ndarray:
    """Seconds of a machine's pulses, each early or late by `jitter` of a period."""
    n_pulses = int(take.duration * frequency) + 2
    times = (np.arange(n_pulses) - take.clip.uniform()) / frequency
    return times + jitter / frequency * take.clip.standard_normal(n_pulses)


def _onsets(take: Take, shortest: float, longest: float) -> np.ndarray:
    """Seconds at which separate sounds begin, with pauses drawn between shortest and longest."""
    first = take.clip.uniform(0, take.latest_start)
    pauses = log_uniform(take.clip, shortest, longest, int(take.duration / shortest) + 1)
    onsets = first + np.concatenate([[0.0], np.cumsum(pauses)])
    return onsets[onsets < max(take.duration - 0.05, first + 1e-3)]


def _add(signal: np.ndarray, part: np.ndarray, onset: float, rate: int) -> None:
    """Add a part that begins at the onset, in place, cut where the signal ends."""
    start = round(onset * rate)
    signal[start : start + len(part)] += part[: len(signal) - start]


def _voice(take: Take, frequency, formants, *, breath: float, tilt: float) -> np.ndarray:
    """(N,) a throat: harmonics of a pitch (N,) and breath through formants, swelling and fading."""
    partials = np.arange(1, 40) ** -tilt
    throat = harmonics(frequency, partials, rate=take.rate, phase=take.clip.uniform())
    throat = throat + breath * _noise(take)
    formants = np.asarray(formants)
    gains = (formants[0] / formants) ** 0.7
    mouth = resonate(throat, formants, 60 + 0.1 * formants, gains=gains, rate=take.rate)
    return mouth * np.sin(np.pi * np.linspace(0, 1, take.n_samples) ** 0.6)


def air_conditioner(take: Take) -> np.ndarray:
    """(N,) air rushing through a duct's broad resonances, mains hum, a fan: all stationary."""
    draw, rate = take.recording, take.rate
    air = _noise(take, slope=draw.uniform(0.8, 2.2))
    ducts = log_uniform(draw, 150, 3000, 3)
    air = 0.4 * air + resonate(air, ducts, 0.5 * ducts, gains=draw.uniform(0, 2, 3), rate=rate)
    hum_pitch = np.full(take.n_samples, draw.choice([100.0, 120.0]))
    hum = harmonics(hum_pitch, draw.uniform(0, 1, 12) / np.arange(1, 13), rate=rate)
    depth, turns = draw.uniform(0, 0.25), draw.uniform(8, 28) * take.time + take.clip.uniform()
    fan = 1 + depth * np.sin(2 * np.pi * turns)
    return air / air.std() * fan + log_uniform(draw, 0.05, 1.2) * hum / hum.std()


def car_horn(take: Take) -> np.ndarray:
    """(N,) two steel plates an interval apart behind one flared horn, in one to several blasts."""
    draw, rate = take.recording, take.rate
    pitch = log_uniform(draw, 300, 440)
    flare, brightness = draw.uniform(1800, 3500), draw.uniform(0.5, 1.1)
    longest = log_uniform(draw, 0.12, 1.2)
    gate = np.zeros(take.n_samples)
    for onset in _onsets(take, 1.3 * longest, 2.2 * longest):
        length = round(longest * take.clip.uniform(0.6, 1.0) * rate)
        _add(gate, np.ones(length), onset, rate)
    gate = low_pass(np.minimum(gate, 1), cutoff=15, rate=rate)
    partials = np.arange(1, 31)
    blast = np.zeros(take.n_samples)
    for frequency in (pitch, pitch * draw.choice(HORN_INTERVALS)):
        bell = 1 + 2 * np.exp(-(((partials * frequency - flare) / 600) ** 2))
        track = frequency * (0.97 + 0.03 * gate)
        blast += harmonics(track, bell * partials**-brightness, rate=rate)
    return blast * gate


def children_playing(take: Take) -> np.ndarray:
    """(N,) a few high voices that call across each other, over the babble of the playground."""
    draw, rate = take.recording, take.rate
    pitches = log_uniform(draw, 230, 520, draw.integers(2, 6))
    tract, crowd = draw.uniform(0.95, 1.25), log_uniform(draw, 0.03, 0.5)
    vowels = np.transpose(VOWELS)
    calls = np.zeros(take.n_samples)
    liveliness = log_uniform(draw, 0.2, 0.6)
    for onset in _onsets(take, liveliness / 2, liveliness * 2):
        call = take.part(log_uniform(take.clip, 0.1, 0.6))
        course = np.sin(np.pi * np.linspace(*sorted(take.clip.uniform(0, 1, 2)), call.n_samples))
        frequency = take.clip.choice(pitches) * (1 + take.clip.uniform(0.1, 0.9) * course)
        formants = tract * vowels[take.clip.integers(len(vowels))]
        voice = _voice(call, frequency, formants, breath=0.1, tilt=take.clip.uniform(0.6, 1.4))
        _add(calls, log_uniform(take.clip, 0.15, 1) * voice, onset, rate)
    babble = resonate(_noise(take), [600, 1300, 2600], [400, 600, 900], rate=rate)
    syllables = 1 + 0.6 * np.sin(2 * np.pi * draw.uniform(3, 6) * take.time)
    return calls + crowd * calls.std() / babble.std() * babble * syllables


def dog_bark(take: Take) -> np.ndarray:
    """(N,) a rough voice whose pitch leaps up and falls within each bark."""
    draw, rate = take.recording, take.rate
    pitch, length = log_uniform(draw, 220, 700), log_uniform(draw, 0.07, 0.22)
    # A larger dog has both the lower pitch and the lower formants.
    formants = np.sqrt(pitch) * log_uniform(draw, [25, 50, 90], [40, 80, 150])
    breath, leap, tilt = draw.uniform(0.3, 1.5), draw.uniform(0.3, 0.8), draw.uniform(0.3, 1.0)
    pause = length + log_uniform(draw, 0.06, 0.8)
    barks = np.zeros(take.n_samples)
    for onset in _onsets(take, 0.8 * pause, 1.6 * pause):
        bark = take.part(length * take.clip.uniform(0.8, 1.2))
        course = np.sin(np.pi * np.linspace(0.1, 1, bark.n_samples) ** 0.7)
        frequency = pitch * take.clip.uniform(0.9, 1.1) * (1 + leap * course)
        voice = _voice(bark, frequency, formants, breath=breath, tilt=tilt)
        _add(barks, take.clip.uniform(0.5, 1) * voice, onset, rate)
    return barks


def power_tool(take: Take) -> np.ndarray:
    """(N,) a motor that whines up to its speed and down, and the grinding of the material."""
    draw, rate = take.recording, take.rate
    pitch, inertia = log_uniform(draw, 180, 1500), log_uniform(draw, 0.06, 0.5)
    running = take.clip.uniform() < 0.5
    start = 0 if running else take.clip.uniform(0, take.latest_start)
    stop = take.duration + take.latest_start * take.clip.uniform(-1, 1)
    trigger = (take.time >= start) & (take.time < stop)
    speed = running + low_pass(trigger * 1.0 - running, cutoff=0.16 / inertia, rate=rate)
    load = take.clip.uniform(0, 0.12) * np.sin(2 * np.pi * take.clip.uniform(0.2, 1.5) * take.time)
    frequency = pitch * np.maximum(speed * (1 + load), 0.05)
    strengths = np.arange(1, 41) ** -draw.uniform(0.2, 1.2) * draw.uniform(0.1, 1, 40)
    whine = harmonics(frequency, strengths, rate=rate)
    teeth = log_uniform(draw, [1200, 1500, 2000], [3500, 5500, 7000])
    grind = resonate(_noise(take), teeth, 0.4 * teeth, rate=rate)
    chuck = 1 + draw.uniform(0, 0.6) * np.sin(2 * np.pi * np.cumsum(frequency) / rate / 16)
    tone = log_uniform(draw, 0.2, 2.0)
    return (tone * whine / whine.std() + grind / grind.std()) * chuck * speed**2


def drilling(take: Take) -> np.ndarray:
    """(N,) a power tool; half of the drills hammer too, faster and lighter than a jackhammer."""
    hammers = take.recording.uniform() < 0.5
    blow_rate = log_uniform(take.recording, 28, 60)
    tool = power_tool(take)
    if not hammers:
        return tool
    blows = _impulses(take, _pulse_times(take, blow_rate, jitter=0.02))
    return tool * (0.15 + decays(blows, seconds=0.3 / blow_rate, rate=take.rate))


def engine_idling(take: Take) -> np.ndarray:
    """(N,) cylinders that fire in turn, no two alike, into low resonances; clatter and rush."""
    draw, rate = take.recording, take.rate
    cylinders = draw.uniform(0.5, 1.3, draw.choice([3, 4, 6]))
    times = _pulse_times(take, log_uniform(draw, 14, 40), jitter=draw.uniform(0.01, 0.06))
    fires = _impulses(take, times, np.resize(cylinders, len(times)))
    strokes = decays(fires, seconds=log_uniform(draw, 0.004, 0.02), rate=rate)
    body = np.append(log_uniform(draw, [45, 100], [120, 300]), draw.uniform(250, 700))
    thump = resonate(strokes, body, 0.4 * body, gains=draw.uniform(0.2, 1, 3), rate=rate)
    valves = log_uniform(draw, [700, 1200], [3500, 5000])
    hiss = _noise(take, slope=0.7)
    clatter = resonate(hiss * (0.15 + strokes), valves, 0.6 * valves, rate=rate)
    rush = low_pass(hiss, cutoff=log_uniform(draw, 150, 900), rate=rate)
    clatter_level, rush_level = log_uniform(draw, 0.05, 0.8), log_uniform(draw, 0.1, 1.2)
    parts = ((thump, 1), (clatter, clatter_level), (rush, rush_level))
    return sum(level * part / part.std() for part, level in parts)


def gun_shot(take: Take) -> np.ndarray:
    """(N,) a blast of milliseconds, the muzzle's low thump, and the long roll of its echoes."""
    draw, rate = take.recording, take.rate
    pause = log_uniform(draw, 0.12, 2.5)
    onsets = _onsets(take, 0.9 * pause, 1.3 * pause)[: draw.integers(1, 6)]
    shots = _impulses(take, onsets, take.clip.uniform(0.6, 1, len(onsets)))
    crack = _noise(take) * decays(shots, seconds=log_uniform(draw, 0.002, 0.02), rate=rate)
    roll = _noise(take, slope=draw.uniform(0.3, 1.6))
    roll = roll / roll.std() * decays(shots, seconds=log_uniform(draw, 0.06, 0.5), rate=rate)
    thump = resonate(shots, [draw.uniform(60, 180)], 60.0, rate=rate)
    return 3 * crack + log_uniform(draw, 0.2, 1.5) * roll + 0.5 * thump / np.abs(thump).max()


def jackhammer(take: Take) -> np.ndarray:
    """(N,) a chisel's regular blows, each a burst of noise that rings in steel and stone."""
    draw, rate = take.recording, take.rate
    blow_rate = log_uniform(draw, *JACKHAMMER_RATE)
    times = _pulse_times(take, blow_rate, jitter=0.03)
    blows = _impulses(take, times, take.clip.uniform(0.7, 1, len(times)))
    burst = decays(blows, seconds=log_uniform(draw, 0.1, 0.45) / blow_rate, rate=rate)
    steel = log_uniform(draw, [250, 500, 800, 1200, 2000], [2500, 3500, 4500, 5500, 6500])
    gains = log_uniform(draw, 0.2, 1, 5)
    air = _noise(take, slope=draw.uniform(0, 0.8))
    ring = resonate(burst * air, steel, draw.uniform(0.05, 0.5, 5) * steel, gains=gains, rate=rate)
    exhaust = low_pass(air, cutoff=log_uniform(draw, 300, 3000), rate=rate)
    return ring / ring.std() + log_uniform(draw, 0.05, 0.6) * exhaust / exhaust.std()


def siren(take: Take) -> np.ndarray:
    """(N,) a tone that rises and falls slowly (wail) or fast (yelp), or alternates (hi-lo)."""
    draw, rate = take.recording, take.rate
    kind = draw.choice(list(SIREN_PERIODS))
    low = log_uniform(draw, 420, 850)
    span = draw.uniform(1.25, 1.5) if kind == "hi-lo" else draw.uniform(1.6, 2.6)
    phase = (take.time / log_uniform(draw, *SIREN_PERIODS[kind]) + take.clip.uniform()) % 1
    if kind == "hi-lo":
        height = low_pass((phase < 0.5).astype(float), cutoff=12, rate=rate)
    else:
        rise, fall = np.minimum(phase / 0.6, 1), np.maximum(phase - 0.6, 0) / 0.4
        height = (1 - np.exp(-2.5 * rise)) / (1 - np.exp(-2.5)) * (1 - fall)
    tone = harmonics(low * span**height, np.arange(1, 16) ** -draw.uniform(0.7, 2.0), rate=rate)
    horn = resonate(tone, [draw.uniform(900, 2500)], 800.0, rate=rate)
    turning = 1 + draw.uniform(0, 0.4) * np.sin(2 * np.pi * draw.uniform(0.2, 2) * take.time)
    return (0.4 * tone + horn) * turning


def street_music(take: Take) -> np.ndarray:
    """(N,) chords of one key with a melody above, plucked or bowed, and at times a drum."""
    draw, rate = take.recording, take.rate
    root, beat = log_uniform(draw, 110, 260), log_uniform(draw, 0.2, 0.6)
    ring, timbre = log_uniform(draw, 0.1, 1.5), np.arange(1, 25) ** -draw.uniform(0.8, 2.2)
    vibrato = 1 + draw.uniform(0, 0.012) * np.sin(2 * np.pi * draw.uniform(4, 7) * take.time)
    position = take.time / beat + take.clip.uniform(0, 16)
    beats = position.astype(int)
    count = np.arange(beats[-1] + 1)
    chords = np.asarray(CHORDS)[draw.integers(len(CHORDS), size=5)][count // 4 % 5]  # (beats, 3)
    melody = chords[count, draw.integers(0, 3, 16)[count % 16]] + 12
    music = np.zeros(take.n_samples)
    levels = (*draw.uniform(0.3, 1, 3), draw.uniform(0.5, 2))
    for semitones, level in zip((*chords.T, melody), levels, strict=True):
        pitch = (root * 2 ** (semitones / 12))[beats] * vibrato
        music += level * harmonics(pitch, timbre, rate=rate, phase=draw.uniform())
    since = (position - beats) * beat  # seconds from the last beat
    music *= np.exp(-since / ring) * np.minimum(since / 0.008, 1)
    drum = _noise(take) * np.exp(-(position % 2) * beat / 0.04) * draw.choice([0, 0.3, 1.0])
    return music + drum * music.std()


# The function of each class has its name.
SOURCES: dict[str, Callable[[Take], np.ndarray]] = {name: globals()[name] for name in CLASSES}


def street(take: Take) -> np.ndarray:
    """(N,) the background: distant traffic, a vehicle that passes now and then, mains hum."""
    draw, time = take.recording, take.time
    traffic = _noise(take, slope=draw.uniform(0.6, 2.0))
    closest, width = take.clip.uniform(-3, time[-1] + 3), draw.uniform(0.4, 2)
    passing = 1 + draw.uniform(0, 2) * np.exp(-(((time - closest) / width) ** 2))
    pitch = np.full(take.n_samples, draw.choice([50.0, 60.0]))
    hum = harmonics(pitch, 1 / np.arange(1, 9), rate=take.rate)
    return passing * traffic / traffic.std() + log_uniform(draw, 0.01, 0.4) * hum


def room(draw: np.random.Generator, *, rate: int) -> np.ndarray:
    """(L,) impulse response: the direct sound, a few early reflections, a tail that dies away.

    The tail is noise that decays by 60 dB in the reverberation time, and faster above 2 kHz, where
    air and walls absorb more.
    """
    reverberation = round(log_uniform(draw, 0.15, 1.2), 2)
    n_samples = round(0.7 * reverberation * rate)
    decay = np.arange(n_samples) / rate * np.log(1000) / reverberation
    tail = coloured_noise(draw, n_samples, rate)
    low = low_pass(tail, cutoff=2000, rate=rate)
    damping = draw.uniform(1.2, 3)
    tail = low * np.exp(-decay) + (tail - low) * np.exp(-damping * decay)
    tail[: round(0.005 * rate)] = 0
    response = tail * np.sqrt(10 ** (draw.uniform(-22, -4) / 10) / np.sum(tail**2))
    delays = np.round(log_uniform(draw, 0.004, 0.06, 5) * rate).astype(int)
    np.add.at(response, delays, draw.uniform(-0.5, 0.5, 5))
    response[0] += 1
    return response


def microphone(sound: np.ndarray, draw: np.random.Generator, *, rate: int) -> np.ndarray:
    """(N,) the sound without the ends of the range, which a cheap microphone does not pick up."""
    sound = low_pass(sound, cutoff=log_uniform(draw, 3000, 20000), rate=rate)
    return sound - low_pass(sound, cutoff=log_uniform(draw, 20, 200), rate=rate)
