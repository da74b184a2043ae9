"""Urban synth: a dataset with UrbanSound8K's ten classes that needs no download.

Every clip is made when it is read, from the physical models of `urban_sources`, placed in a room,
on a street, at a level. A recording is one draw of a source, a room, a street and a microphone;
several clips come from each, and folds share no recording. A sound depends on the seed and
on its place in the table only: not on what was read before it, nor on the number of other clips.
"""

from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.signal import fftconvolve

from fusionkd_lib.datasets.clips import Clips
from fusionkd_lib.datasets.urban_sources import SOURCES, Take, microphone, power_tool, room, street
from fusionkd_lib.datasets.urbansound8k import CLASSES
from fusionkd_lib.errors import InputError, check_counts

LICENCE = "MIT"
VERSION = "1"  # of the generator: a new one for every change that a listener could hear
CLIPS_PER_RECORDING = 3
SCENES_PER_LOCATION = 4
SNR = (3.0, 26.0)  # dB, the source's loudest 50 ms over the street's
LEVEL = (-30.0, -14.0)  # dB re full scale, root mean square
DISTRACTION = 0.3  # the chance that a recording has a second source
SOFTER = (12.0, 26.0)  # dB by which the second source is softer than the first
SHORTEST = 0.25  # seconds: one honk, one bark
LOWEST_RATE = 8000  # Hz

# SONYC-UST's coarse tags -> (sources, weight of being drawn, shortest and longest event as shares
# of the scene)
TAGS = {
    "engine": ((SOURCES["engine_idling"], SOURCES["air_conditioner"]), 0.30, (0.5, 1.0)),
    "machinery-impact": ((SOURCES["jackhammer"],), 0.13, (0.25, 0.8)),
    "non-machinery-impact": ((SOURCES["gun_shot"],), 0.11, (0.15, 0.3)),
    "powered-saw": ((power_tool,), 0.10, (0.25, 0.7)),
    "alert-signal": ((SOURCES["siren"], SOURCES["car_horn"]), 0.14, (0.2, 0.8)),
    "music": ((SOURCES["street_music"],), 0.08, (0.4, 1.0)),
    "human-voice": ((SOURCES["children_playing"],), 0.20, (0.2, 0.9)),
    "dog": ((SOURCES["dog_bark"],), 0.07, (0.15, 0.6)),
}
N_EVENTS = (0.08, 0.27, 0.33, 0.22, 0.10)  # chances of 0, 1, ... 4 events in a scene

_CLIPS, _SCENES = range(2)
_SOURCE, _DISTRACTOR, _STREET, _ROOM, _LEVEL, _LAYOUT, _EVENTS = range(7)


class _Place(NamedTuple):
    """A clip's place in the table, on which alone its sound depends."""

    seed: int
    kind: int
    fold: int
    label: int
    recording: int
    clip: int

    @property
    def group(self) -> str:
        """The name of the recording, or of the location of a scene."""
        source = CLASSES[self.label] if self.kind == _CLIPS else "scene"
        return f"{source}-f{self.fold}-r{self.recording:02d}"

    def generator(self, part: int, *, of_clip: bool, stream: int = 0) -> np.random.Generator:
        """Return the generator of one part (source, street, ...), per recording or per clip."""
        # Always the same number of integers: a SeedSequence cannot tell (1, 2) from (1, 2, 0).
        clip = self.clip + 1 if of_clip else 0
        return np.random.default_rng(np.random.SeedSequence((*self[:-1], clip, part, stream)))

    def take(self, part: int, **size) -> Take:
        """Prepare this clip's excerpt of one part; `size` is its n_samples, rate, ..."""
        clip, noise = (self.generator(part, of_clip=True, stream=stream) for stream in (0, 1))
        return Take(self.generator(part, of_clip=False), clip, noise, **size)


def clips(
    *, clips_per_class: int = 24, n_folds: int = 5, duration: float = 2.0, seed: int = 0
) -> Clips:
    """Single sources, one of ten classes each, in folds that share no recording.

    Parameters
    ----------
    clips_per_class
        Clips of each class in each fold, at least 1; every third begins a new recording.
    n_folds
        Folds, at least 3: one to train on, one to select on, one to test on.
    duration
        Length of every clip in seconds, at least 0.25.
    seed
        At least 0; another seed is another city.

    Returns
    -------
    Clips
        n_folds * 10 * clips_per_class clips; `read` gives (round(duration * rate),) float32.

    Raises
    ------
    InputError
        If a setting is out of its range.

    Source
    ------
    Classes and their order: Salamon, Jacoby and Bello, "A dataset and taxonomy for urban sound
    research", ACM Multimedia 2014.
    """
    check_counts(clips_per_class=clips_per_class)
    _check(n_folds=n_folds, duration=duration, seed=seed)
    every = product(range(1, n_folds + 1), range(len(CLASSES)), range(clips_per_class))
    places = [
        _Place(seed, _CLIPS, fold, label, *divmod(clip, CLIPS_PER_RECORDING))
        for fold, label, clip in every
    ]
    n_recordings = n_folds * len(CLASSES) * -(-clips_per_class // CLIPS_PER_RECORDING)
    return Clips(
        dataset="urban synth",
        classes=CLASSES,
        table=_table(places),
        targets=np.array([place.label for place in places], dtype=np.int64),
        status="synthetic",
        read=partial(_read, places, _dry_clip, duration),
        note=f"{len(places)} clips of {duration:g} s from {n_recordings} recordings in {n_folds} "
        "folds, all synthesised from physical models; none was recorded.",
        recipe=f"urban_synth {VERSION} clips: clips_per_class={clips_per_class}, "
        f"n_folds={n_folds}, duration={duration:g}, seed={seed}",
    )


def scenes(*, n_scenes: int = 120, n_folds: int = 5, duration: float = 4.0, seed: int = 0) -> Clips:
    """Street scenes of none to four overlapping events with SONYC-UST's eight coarse tags.

    Parameters
    ----------
    n_scenes
        Scenes in each fold, at least 1; every fourth begins a new location, which has a street, a
        room and one recording of each source of its own.
    n_folds, duration, seed
        As in `clips`.

    Returns
    -------
    Clips
        n_folds * n_scenes scenes with targets (n, 8) of 0 and 1, and their events. A source that
        pauses (a dog between barks) is one event from its first sound on.

    Raises
    ------
    InputError
        If a setting is out of its range.

    Source
    ------
    Tags: Cartwright et al., "SONYC Urban Sound Tagging (SONYC-UST): a multilabel dataset from an
    urban acoustic sensor network", DCASE 2019.
    """
    check_counts(n_scenes=n_scenes)
    _check(n_folds=n_folds, duration=duration, seed=seed)
    places = [
        _Place(seed, _SCENES, fold, 0, *divmod(scene, SCENES_PER_LOCATION))
        for fold, scene in product(range(1, n_folds + 1), range(n_scenes))
    ]
    table = _table(places)
    layouts = zip(table["clip"], places, strict=True)
    rows = [(name, *event) for name, place in layouts for event in _layout(place, duration)]
    events = pd.DataFrame(rows, columns=["clip", "label", "onset", "offset"])
    present = pd.crosstab(events["clip"], events["label"])
    targets = present.reindex(index=table["clip"], columns=list(TAGS), fill_value=0)
    return Clips(
        dataset="urban synth scenes",
        classes=tuple(TAGS),
        table=table,
        targets=targets.to_numpy(np.float32),
        status="synthetic",
        read=partial(_read, places, _dry_scene, duration),
        note=f"{len(places)} scenes of {duration:g} s with {len(events)} events in {n_folds} "
        "folds, all synthesised from physical models; none was recorded.",
        recipe=f"urban_synth {VERSION} scenes: n_scenes={n_scenes}, n_folds={n_folds}, "
        f"duration={duration:g}, seed={seed}",
        events=events,
    )


def _table(places: list[_Place]) -> pd.DataFrame:
    rows = [(f"{p.group}-c{p.clip}", p.fold, p.group, None) for p in places]
    return pd.DataFrame(rows, columns=["clip", "fold", "group", "path"])


def _read(places, dry, duration: float, index: int, rate: int) -> np.ndarray:
    """(N,) float32: the dry sources of a place in their room, on their street, at their level."""
    check_counts(sample_rate=rate, lowest=LOWEST_RATE)
    place = places[index]
    around = street(place.take(_STREET, n_samples=round(duration * rate), rate=rate))
    sources = dry(place, loudness(around, rate=rate), duration, rate)
    echoes = room(place.generator(_ROOM, of_clip=False), rate=rate)
    draw = place.generator(_LEVEL, of_clip=False)
    sound = microphone(around + fftconvolve(sources, echoes)[: len(around)], draw, rate=rate)
    level = _amplitude(draw.uniform(*LEVEL) + place.generator(_LEVEL, of_clip=True).uniform(-2, 2))
    sound *= min(level / sound.std(), 0.98 / np.abs(sound).max())
    return sound.astype(np.float32)


def loudness(sound: np.ndarray, *, rate: int) -> float:
    """Root mean square of the loudest 50 ms of a sound (N,): one bark counts as much as a drone."""
    frame = round(0.05 * rate)
    frames = sound[: len(sound) // frame * frame].reshape(-1, frame)
    return float(np.sqrt(np.mean(frames**2, axis=1).max()))


def _at_level(sound: np.ndarray, level: float, *, rate: int) -> np.ndarray:
    """(N,) the sound with its loudness made `level`."""
    return sound * (level / loudness(sound, rate=rate))


def _amplitude(decibels: float) -> float:
    return 10 ** (decibels / 20)


def _dry_clip(place: _Place, street_level: float, duration: float, rate: int) -> np.ndarray:
    """(N,) the clip's source and, in some recordings, a softer one of another class."""
    size = {"n_samples": round(duration * rate), "rate": rate}
    take = place.take(_SOURCE, latest_start=0.4 * duration, **size)
    level = street_level * _amplitude(take.recording.uniform(*SNR))
    sound = _at_level(SOURCES[CLASSES[place.label]](take), level, rate=rate)
    other = place.take(_DISTRACTOR, latest_start=0.4 * duration, **size)
    if other.recording.uniform() < DISTRACTION:
        label = (place.label + other.recording.integers(1, len(CLASSES))) % len(CLASSES)
        softer = level * _amplitude(-other.recording.uniform(*SOFTER))
        sound += _at_level(SOURCES[CLASSES[label]](other), softer, rate=rate)
    return sound


def _layout(place: _Place, duration: float) -> list[tuple[str, float, float]]:
    """Draw the events of a scene: (tag, onset, offset) in seconds, each tag at most once."""
    draw = place.generator(_LAYOUT, of_clip=True)
    weights = np.array([weight for _, weight, _ in TAGS.values()])
    n_events = draw.choice(len(N_EVENTS), p=N_EVENTS)
    layout = []
    for tag in draw.choice(list(TAGS), n_events, replace=False, p=weights / weights.sum()):
        # Hundredths of a second: readable in a table, and lengths whose FFT is fast.
        length = max(int(100 * duration * draw.uniform(*TAGS[tag][2])) / 100, SHORTEST)
        onset = int(100 * draw.uniform(0, duration - length)) / 100
        layout.append((str(tag), onset, round(onset + length, 2)))
    return layout


def _dry_scene(place: _Place, street_level: float, duration: float, rate: int) -> np.ndarray:
    """(N,) the scene's events, each from its onset to its offset."""
    sound = np.zeros(round(duration * rate))
    for tag, onset, offset in _layout(place, duration):
        start, stop = round(onset * rate), round(offset * rate)
        part = _EVENTS + list(TAGS).index(tag)
        take = place.take(part, n_samples=stop - start, rate=rate)
        sources = TAGS[tag][0]
        event = sources[take.recording.integers(len(sources))](take)
        level = street_level * _amplitude(take.clip.uniform(*SNR))
        sound[start:stop] += _fade(_at_level(event, level, rate=rate), rate=rate)
    return sound


def _fade(event: np.ndarray, *, rate: int) -> np.ndarray:
    """(N,) the event with its first 5 ms and its last 50 ms ramped, so that no cut clicks."""
    time = np.arange(len(event)) / rate
    return event * np.minimum(np.minimum(time / 0.005, time[::-1] / 0.05), 1)


def _check(*, n_folds: int, duration: float, seed: int) -> None:
    check_counts(n_folds=n_folds, lowest=3)
    check_counts(seed=seed, lowest=0)
    if not SHORTEST <= duration < float("inf"):
        raise InputError(f"duration={duration}: must be a time in seconds, {SHORTEST} or more")
