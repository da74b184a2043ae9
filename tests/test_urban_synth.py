import pickle
import subprocess
import sys

import numpy as np
import pytest
import soxr
from scipy.signal import find_peaks, spectrogram

from fusionkd_lib.datasets import urban_sources, urban_synth
from fusionkd_lib.errors import InputError

RATE = 16000


@pytest.fixture(scope="module")
def small():
    return urban_synth.clips(clips_per_class=4, n_folds=3, duration=1.0, seed=3)


@pytest.fixture(scope="module")
def streets():
    return urban_synth.scenes(n_scenes=40, n_folds=3, duration=3.0, seed=3)


def dry(name, seed, *, duration=2.0, sample_rate=RATE):
    """One source without street or room."""
    recording, clip, noise = (np.random.default_rng([seed, part]) for part in range(3))
    take = urban_sources.Take(recording, clip, noise, round(duration * sample_rate), sample_rate)
    return urban_sources.SOURCES[name](take)


def dominant_frequencies(sound, *, above=200.0):
    """Hz of the strongest bin of each frame of 64 ms, above a frequency."""
    frequency, _, power = spectrogram(sound, RATE, nperseg=1024, noverlap=512)
    audible = frequency > above
    return frequency[audible][power[audible].argmax(axis=0)]


def frame_energies(sound, seconds=0.05):
    frame = round(seconds * RATE)
    return np.mean(sound[: len(sound) // frame * frame].reshape(-1, frame) ** 2, axis=1)


# The table


def test_every_fold_has_as_many_clips_of_each_class_as_asked_for(small):
    counts = np.zeros((3, 10), dtype=int)
    np.add.at(counts, (small.table["fold"] - 1, small.targets), 1)
    assert (counts == 4).all()
    assert len(small) == 120
    assert small.table["clip"].is_unique


def test_classes_are_those_of_urbansound8k_in_its_order(small):
    assert " ".join(small.classes) == (
        "air_conditioner car_horn children_playing dog_bark drilling engine_idling gun_shot "
        "jackhammer siren street_music"
    )
    assert all(
        name.startswith(small.classes[target])
        for name, target in zip(small.table["clip"], small.targets, strict=True)
    )


@pytest.mark.parametrize("name", ["small", "streets"])
def test_folds_share_no_recording(name, request):
    table = request.getfixturevalue(name).table
    assert (table.groupby("group")["fold"].nunique() == 1).all()
    assert table["group"].nunique() < len(table)


def test_recipe_tells_settings_apart():
    recipes = {
        urban_synth.clips(clips_per_class=n, duration=duration, seed=seed).recipe
        for n in (1, 2)
        for duration in (1.0, 2.0)
        for seed in (0, 1)
    }
    assert len(recipes) == 8
    assert all(urban_synth.VERSION in recipe for recipe in recipes)


# One clip, always the same


def test_clip_depends_on_neither_order_nor_number_nor_folds(small):
    other = urban_synth.clips(clips_per_class=7, n_folds=4, duration=1.0, seed=3)
    position = {name: index for index, name in enumerate(other.table["clip"])}
    for index in range(len(small) - 1, 0, -17):
        first, second = small.read(index, RATE), small.read(index, RATE)
        np.testing.assert_array_equal(first, second)
        again = other.read(position[small.table["clip"][index]], RATE)
        np.testing.assert_array_equal(first, again)


def test_clip_is_the_same_in_another_process(small):
    program = (
        "import sys, pickle; read = pickle.load(sys.stdin.buffer);"
        f"sys.stdout.buffer.write(read(55, {RATE}).tobytes())"
    )
    command = [sys.executable, "-c", program]
    answer = subprocess.run(command, input=pickle.dumps(small.read), stdout=-1, check=True)
    assert answer.stdout == small.read(55, RATE).tobytes()


def test_no_two_clips_and_no_two_seeds_sound_the_same(small):
    other = urban_synth.clips(clips_per_class=4, n_folds=3, duration=1.0, seed=4)
    sounds = [read(index, RATE) for read in (small.read, other.read) for index in range(0, 120, 7)]
    sounds += [small.read(index, RATE) for index in (1, 2, 3)]
    alike = np.corrcoef(sounds) - np.eye(len(sounds))
    assert np.abs(alike).max() < 0.9


def test_clips_of_one_recording_sound_more_alike_than_two_recordings():
    city = urban_synth.clips(clips_per_class=6, n_folds=3, duration=1.0, seed=0)
    spectra = [
        np.log(spectrogram(city.read(index, RATE), RATE, nperseg=512)[2].mean(axis=1) + 1e-12)
        for index in range(60)
    ]
    spectra = np.reshape(spectra, (10, 2, 3, -1))
    within = np.std(spectra, axis=2).mean()
    assert within < 0.5 * np.std(spectra[:, :, 0], axis=1).mean()


@pytest.mark.parametrize("sample_rate", [16000, 22050, 44100])
def test_sound_is_finite_audible_and_within_full_scale(small, sample_rate):
    for index in range(0, len(small), 4):
        sound = small.read(index, sample_rate)
        assert sound.shape == (sample_rate,)
        assert sound.dtype == np.float32
        assert np.isfinite(sound).all()
        assert sound.std() > 0.002
        assert np.abs(sound).max() < 1


def test_length_is_the_rounded_product_even_where_it_is_not_whole():
    odd = urban_synth.clips(clips_per_class=1, n_folds=3, duration=0.2577)
    assert [len(odd.read(index, 22050)) for index in range(30)] == [5682] * 30


@pytest.mark.parametrize("name", urban_synth.CLASSES)
def test_one_clip_is_the_same_sound_at_two_rates(small, name):
    index = 4 * small.classes.index(name)
    low, high = small.read(index, RATE), small.read(index, 2 * RATE)
    lowered = soxr.resample(high, 2 * RATE, RATE, quality="VHQ")
    octave = [np.sqrt(spectrogram(sound, RATE, nperseg=512)[2])[4:90] for sound in (low, lowered)]
    assert np.corrcoef(octave[0].ravel(), octave[1].ravel())[0, 1] > 0.9


# The physics of the sources


def test_siren_sweeps_where_a_horn_keeps_its_pitch():
    spans = []
    for seed in range(12):
        ridge = dominant_frequencies(dry("siren", seed, duration=4.0), above=350)
        spans.append(np.log2(np.quantile(ridge, 0.95) / np.quantile(ridge, 0.05)))
    assert np.median(spans) > 0.5
    assert min(spans) > 0.25
    horn = dominant_frequencies(dry("car_horn", 0, duration=0.3), above=350)
    assert np.log2(horn.max() / horn.min()) < min(spans)


def test_jackhammer_strikes_regularly_at_the_rate_of_a_jackhammer():
    slowest, fastest = urban_sources.JACKHAMMER_RATE
    for seed in range(8):
        envelope = frame_energies(dry("jackhammer", seed, duration=4.0), 0.002)
        envelope = envelope - envelope.mean()
        correlation = np.correlate(envelope, envelope, "full")[len(envelope) - 1 :]
        peaks, _ = find_peaks(correlation, height=0.6 * correlation[10:250].max())
        period = peaks[0]  # in frames
        assert 0.9 * slowest < 1 / (0.002 * period) < 1.1 * fastest
        assert np.abs(peaks - 2 * period).min() < 0.1 * period
        assert correlation[round(period / 2)] < 0.5 * correlation[period]


def test_horn_sounds_one_of_the_stated_intervals():
    for seed in range(10):
        sound = dry("car_horn", seed, duration=1.0)
        voiced = sound[: RATE // 10] * np.hanning(RATE // 10)
        power = np.abs(np.fft.rfft(voiced, 8 * RATE)) ** 2
        frequency = np.fft.rfftfreq(8 * RATE, 1 / RATE)
        fundamentals = (frequency > 285) & (frequency < 600)
        power, frequency = power[fundamentals], frequency[fundamentals]
        peaks, _ = find_peaks(power)
        low, high = sorted(frequency[peaks[np.argsort(power[peaks])[-2:]]])
        assert np.abs(high / low - np.array(urban_sources.HORN_INTERVALS)).min() < 0.03


def test_air_conditioner_is_stationary_and_a_dog_is_not():
    spread = {
        name: [frame_energies(dry(name, seed)).std() / frame_energies(dry(name, seed)).mean()
               for seed in range(10)]
        for name in ("air_conditioner", "dog_bark")
    }  # fmt: skip
    assert max(spread["air_conditioner"]) < min(spread["dog_bark"])


def test_shot_begins_at_its_loudest_and_dies_away():
    for seed in range(10):
        energy = frame_energies(dry("gun_shot", seed, duration=0.1), 0.01)
        assert energy.argmax() <= 1
        assert energy[-3:].mean() < 0.3 * energy[0]


def test_engine_has_most_of_its_power_below_a_kilohertz():
    for seed in range(8):
        sound = dry("engine_idling", seed)
        power = np.abs(np.fft.rfft(sound)) ** 2
        frequency = np.fft.rfftfreq(len(sound), 1 / RATE)
        assert power[frequency < 1000].sum() > 0.5 * power.sum()


@pytest.mark.parametrize("name", urban_synth.CLASSES)
def test_source_sounds_even_at_the_lowest_rate_and_shortest_length(name):
    for seed in range(20):
        sound = dry(name, seed, duration=urban_synth.SHORTEST, sample_rate=urban_synth.LOWEST_RATE)
        assert np.isfinite(sound).all()
        assert sound.std() > 0


def test_coloured_noise_falls_as_its_slope_says_and_keeps_its_density():
    generator = np.random.default_rng(0)
    for slope in (0.0, 1.0, 2.0):
        noise = urban_sources.coloured_noise(generator, 20 * RATE, RATE, slope=slope)
        power = np.abs(np.fft.rfft(noise)) ** 2
        frequency = np.fft.rfftfreq(len(noise), 1 / RATE)
        bands = [power[(frequency > low) & (frequency < 2 * low)].mean() for low in (200, 1600)]
        assert 10 * np.log10(bands[0] / bands[1]) == pytest.approx(9.03 * slope, abs=0.5)
    white = urban_sources.coloured_noise(generator, 4 * RATE, 2 * RATE)
    assert white.var() == pytest.approx(2, rel=0.02)


def test_harmonics_stand_at_multiples_and_stop_below_half_the_rate():
    tone = urban_sources.harmonics(np.full(RATE, 1000.0), np.arange(1.0, 13), rate=RATE)
    amplitudes = 2 * np.abs(np.fft.rfft(tone)) / RATE
    assert amplitudes[1000:7001:1000] == pytest.approx(np.arange(1.0, 8), rel=0.01)
    assert np.delete(amplitudes, np.arange(0, 8001, 1000)).max() < 0.02


def test_resonance_has_its_gain_at_its_frequency_and_half_power_at_its_bandwidth():
    impulse = np.eye(1, RATE)[0]
    ring = urban_sources.resonate(impulse, [1000.0], [100.0], gains=[2.0], rate=RATE)
    response = np.abs(np.fft.rfft(ring))
    assert response.argmax() == pytest.approx(1000, abs=3)
    assert response[1000] == pytest.approx(2, rel=0.01)
    assert response[[950, 1050]] == pytest.approx(2 / np.sqrt(2), rel=0.05)


# Rooms and levels


def test_a_room_dies_away_evenly_and_a_longer_response_more_slowly():
    lengths, reverberations = [], []
    for seed in range(20):
        response = urban_sources.room(np.random.default_rng(seed), rate=RATE)
        tail = urban_sources.low_pass(response, cutoff=300, rate=RATE)[round(0.07 * RATE) :]
        remaining = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1])  # Schroeder's curve
        half = len(tail) // 2
        lengths.append(len(response) / RATE)
        reverberations.append(-60 * half / RATE / (remaining[half] - remaining[0]))
    assert np.corrcoef(lengths, reverberations)[0, 1] > 0.99
    assert min(reverberations) > 0.1
    assert max(reverberations) < 1.5


def test_levels_spread_over_their_range():
    city = urban_synth.clips(clips_per_class=4, n_folds=3, duration=0.5, seed=1)
    levels = [20 * np.log10(city.read(index, RATE).std()) for index in range(len(city))]
    assert max(levels) <= urban_synth.LEVEL[1] + 2.01
    assert np.ptp(levels) > 15


# Scenes


def test_tags_are_those_of_the_events(streets):
    tagged = {
        (name, streets.classes[label])
        for name, row in zip(streets.table["clip"], streets.targets, strict=True)
        for label in np.flatnonzero(row)
    }
    assert tagged == set(zip(streets.events["clip"], streets.events["label"], strict=True))
    assert streets.targets.shape == (120, 8)
    assert streets.targets.dtype == np.float32
    assert streets.multi_label


def test_events_lie_within_their_scene(streets):
    events = streets.events
    assert (events["onset"] >= 0).all()
    assert (events["offset"] <= 3.0).all()
    assert (events["offset"] - events["onset"] >= urban_synth.SHORTEST - 1e-9).all()


def test_scenes_hold_none_to_four_tags_and_engines_outnumber_dogs(streets):
    per_scene = streets.targets.sum(axis=1)
    assert set(per_scene) == {0, 1, 2, 3, 4}
    per_tag = dict(zip(streets.classes, streets.targets.sum(axis=0), strict=True))
    assert per_tag["engine"] > 2 * per_tag["dog"] > 0


def test_energy_rises_at_the_onset_of_an_event_that_comes_alone(streets):
    alone = streets.targets.sum(axis=1) == 1
    events = streets.events.set_index("clip")
    rises, loudest_inside = [], []
    for index in np.flatnonzero(alone):
        event = events.loc[streets.table["clip"][index]]
        sound = streets.read(int(index), RATE)
        start, stop = round(event["onset"] * RATE), round(event["offset"] * RATE)
        if start > 0.3 * RATE:
            within = frame_energies(sound[start:stop]).max()
            rises.append(10 * np.log10(within / frame_energies(sound[:start]).mean()))
        loudest = 0.05 * frame_energies(sound).argmax()
        loudest_inside.append(event["onset"] - 0.05 <= loudest <= event["offset"] + 0.05)
    assert len(rises) > 8
    assert np.median(rises) > 6
    assert np.mean(loudest_inside) > 0.75


def test_scene_without_events_is_its_street_alone(streets):
    quiet = np.flatnonzero(streets.targets.sum(axis=1) == 0)
    busy = np.flatnonzero(streets.targets.sum(axis=1) >= 3)
    swing = [
        np.median([np.log(frame_energies(streets.read(int(index), RATE))).std() for index in some])
        for some in (quiet, busy[: len(quiet)])
    ]
    assert swing[0] < swing[1]


def test_a_scene_is_the_same_whatever_else_there_is(streets):
    more = urban_synth.scenes(n_scenes=5, n_folds=4, duration=3.0, seed=3)
    np.testing.assert_array_equal(more.read(6, RATE), streets.read(41, RATE))
    assert more.table["clip"][6] == streets.table["clip"][41]


# What cannot be


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clips_per_class": 0}, "clips_per_class=0: must be a whole number, 1 or more"),
        ({"clips_per_class": 2.5}, "clips_per_class=2.5: must be a whole number"),
        ({"n_folds": 2}, "n_folds=2: must be a whole number, 3 or more"),
        ({"duration": 0.2}, r"duration=0.2: must be a time in seconds, 0.25 or more"),
        ({"duration": float("nan")}, "duration=nan: must be"),
        ({"seed": -1}, "seed=-1: must be a whole number, 0 or more"),
    ],
)
def test_impossible_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        urban_synth.clips(**settings)


def test_impossible_scenes_and_rates_are_named(streets):
    with pytest.raises(InputError, match=r"n_scenes=0: must be a whole number, 1 or more"):
        urban_synth.scenes(n_scenes=0)
    with pytest.raises(InputError, match=r"sample_rate=4000: must be a whole number, 8000 or more"):
        streets.read(0, 4000)
