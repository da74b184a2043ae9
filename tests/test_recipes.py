"""The recipes of CONTRIBUTING.md, followed to the letter: a new entry is trained like any other.

Nothing but the catalogue's entries, and one line of `Params` per key of one's own, is added.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from torch import Tensor, nn

from fusionkd_lib import catalogue, params
from fusionkd_lib.datasets import Clips, open_clips
from fusionkd_lib.datasets.files import reader
from fusionkd_lib.errors import InputError
from fusionkd_lib.experiment import (
    clips_of,
    load_fusion,
    prepare,
    representations_of,
    train_branch,
    train_fusion,
)
from fusionkd_lib.params import Params, Positive, make_params
from fusionkd_lib.records import Record
from fusionkd_lib.representations.base import Representation
from fusionkd_lib.runs import find_records, run_name, runs_root
from fusionkd_lib.tables import collect
from fusionkd_lib.tagging import load_tagger, tag_file

RATE = 8000
CLASSES = ("low", "high")


# A representation


class ToyEnergy(Representation):
    """The energy of each frame's samples, of their differences, and of the differences of those."""

    def __init__(self, *, sample_rate: int, hop_length: int, n_orders: int = 8) -> None:
        frequencies = np.linspace(0, sample_rate / 2, n_orders)
        super().__init__(sample_rate=sample_rate, hop_length=hop_length, frequencies=frequencies)

    def power(self, waveforms: Tensor) -> Tensor:
        """Return the power (B, F, T) of waveforms (B, N)."""
        hop, rows = self.hop_length, []
        for _ in range(self.n_bins):
            padded = nn.functional.pad(waveforms, (hop // 2, hop))
            rows.append(padded.unfold(1, hop, hop).square().mean(dim=2))
            waveforms = nn.functional.pad(waveforms[:, 1:] - waveforms[:, :-1], (0, 1))
        n_frames = 1 + waveforms.shape[1] // hop
        return torch.stack(rows, dim=1)[..., :n_frames]


# A trunk


def toy_trunk(*, width: float, pretrained: bool) -> tuple[nn.Sequential, int]:
    n_channels = round(16 * width)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, n_channels, 3, stride=2, padding=1),
    )
    return layers, n_channels


# Two datasets: one is made on the spot, one lies in a folder


def tone(index: int, sample_rate: int) -> np.ndarray:
    """Return half a second of a low or a high tone."""
    time = np.arange(sample_rate // 2) / sample_rate
    frequency = (300, 2500)[index % 2] + index
    return 0.5 * np.sin(2 * np.pi * frequency * time).astype(np.float32)


def toy_table(n_tones: int, paths: list[Path] | None = None) -> pd.DataFrame:
    rows = np.arange(n_tones)
    return pd.DataFrame(
        {
            "clip": [f"tone{row:03d}" for row in rows],
            "fold": 1 + rows * 3 // n_tones,
            "group": [f"tone{row:03d}" for row in rows],
            "path": paths,
        }
    )


def toy_tones(*, n_tones: int = 24) -> Clips:
    return Clips(
        dataset="Toy tones",
        classes=CLASSES,
        table=toy_table(n_tones),
        targets=np.arange(n_tones) % 2,
        status="synthetic",
        read=tone,
        note=f"{n_tones} tones",
        recipe=f"toy tones, version 1, {n_tones}",
    )


def toy_recordings(root: str | Path) -> Clips:
    paths = sorted(Path(root).glob("*.wav"))
    return Clips(
        dataset="Toy recordings",
        classes=CLASSES,
        table=toy_table(len(paths), paths),
        targets=np.arange(len(paths)) % 2,
        status="real",
        read=reader(paths),
    )


@pytest.fixture
def toys(monkeypatch) -> Callable[..., Params]:
    """Add the toys as the recipes say; return a function that makes parameters of theirs."""
    monkeypatch.setitem(
        catalogue.REPRESENTATIONS,
        "toy_energy",
        catalogue.Representation(
            "Toy energy", "#123456", f"{__name__}:ToyEnergy", {"toy_orders": "n_orders"}
        ),
    )
    monkeypatch.setitem(
        catalogue.TRUNKS, "toy_trunk", catalogue.Trunk(f"{__name__}:toy_trunk", depth=3)
    )
    monkeypatch.setitem(
        catalogue.DATASETS,
        "toy_tones",
        catalogue.Dataset(
            "Toy tones", f"{__name__}:toy_tones", {"toy_tones": "n_tones"}, n_folds=3
        ),
    )
    monkeypatch.setitem(
        catalogue.DATASETS,
        "toy_recordings",
        catalogue.Dataset(
            "Toy recordings", f"{__name__}:toy_recordings", {}, n_folds=3, folder="Toy"
        ),
    )

    class WithKeys(Params):
        toy_orders: Positive = 8
        toy_tones: Positive = 24

    monkeypatch.setattr(params, "Params", WithKeys)
    settings = {
        "dataset": "toy_tones",
        "representations": ["toy_energy", "logmel"],
        "trunk": "toy_trunk",
        "sample_rate": RATE,
        "duration": 0.5,
        "n_fft": 256,
        "hop_length": 128,
        "n_mels": 16,
        "head": [16, 8],
        "epochs": 2,
        "batch_size": 8,
        "threads": 1,
        "device": "cpu",
    }
    return lambda **changes: make_params(settings | changes)


def silently(history: list, n_epochs: int) -> None:
    """Report nothing."""


def test_a_new_representation_has_the_frames_of_all_others(toys):
    modules = representations_of(toys(toy_orders=5))
    waveforms = torch.rand(2, 3000) - 0.5
    shapes = {name: tuple(module(waveforms).shape) for name, module in modules.items()}
    n_frames = 1 + 3000 // 128
    assert shapes == {"toy_energy": (2, 1, 5, n_frames), "logmel": (2, 1, 16, n_frames)}


def test_a_new_entry_is_trained_tabulated_and_tags_like_any_other(toys, tmp_path):
    branch = train_branch(toys(), "toy_energy", report=silently)
    pair = train_fusion(toys(), report=silently)
    for record in (branch, pair):
        assert record.provenance.data_status == "synthetic"
        assert record.provenance.classes == CLASSES
        assert record.params.trunk == "toy_trunk"
    assert branch.name.startswith("toy_tones-fold1-seed0-toy_energy-")
    assert branch.name in pair.provenance.parents
    assert list(load_fusion(pair).branches) == ["toy_energy", "logmel"]
    records, faults = find_records(runs_root())
    assert (len(records), faults) == (3, [])
    (table,) = collect(records)
    assert table.title.endswith(" · toy_energy + logmel · accuracy in %, Toy tones (synthetic)")
    assert [row.classifier for row in table.rows] == [
        "Toy energy",
        "Log-mel",
        "Toy energy (KD)",
        "Log-mel (KD)",
        "Mean of branches (KD)",
        "Fused classifier",
    ]
    soundfile.write(tmp_path / "tone.wav", tone(0, RATE), RATE)
    result = tag_file(load_tagger(pair.folder, "toy_energy"), tmp_path / "tone.wav")
    assert list(result["scores"]) == list(CLASSES)


def test_a_key_of_its_own_is_one_more_line_of_the_parameters(toys):
    default, changed = toys(), toys(toy_orders=5, toy_tones=30)
    assert representations_of(changed)["toy_energy"].n_bins == 5
    assert len(clips_of(changed)) == 30
    # It names the runs that it decides, and no others.
    assert run_name(default, branch="toy_energy") != run_name(changed, branch="toy_energy")
    orders = toys(toy_orders=5)
    assert run_name(default, branch="logmel") == run_name(orders, branch="logmel")
    elsewhere = {"dataset": "urban_synth", "representations": ["logmel", "cqt"]}
    assert run_name(toys(**elsewhere)) == run_name(toys(**elsewhere, toy_orders=5, toy_tones=30))
    with pytest.raises(InputError, match="unknown key 'toy_order': did you mean 'toy_orders'"):
        toys(toy_order=5)
    with pytest.raises(InputError, match="toy_orders = 0 is not allowed"):
        toys(toy_orders=0)


def test_what_an_entry_says_is_checked(toys):
    with pytest.raises(InputError, match=r"tap = -4 .* toy_trunk has 3 feature layers"):
        toys(tap=-4)
    with pytest.raises(InputError, match=r"fold = 4 .* toy_tones has folds 1 to 3"):
        toys(fold=4)
    with pytest.raises(InputError, match=r"trunk = 'toy_trank' .* did you mean 'toy_trunk'"):
        toys(trunk="toy_trank")


def test_a_new_dataset_in_a_folder_is_found_beside_the_others(toys, tmp_path, monkeypatch):
    (tmp_path / "Toy").mkdir()
    for index in range(12):
        soundfile.write(tmp_path / "Toy" / f"{index:02d}.wav", tone(index, RATE), RATE)
    settings = toys(dataset="toy_recordings", epochs=1)
    with pytest.raises(InputError, match="set data_root, or FUSIONKD_DATA to the folder that "):
        clips_of(settings)
    monkeypatch.setenv("FUSIONKD_DATA", str(tmp_path))
    prepared = prepare(settings)
    assert prepared.clips.status == "real"
    assert [len(rows) for rows in (prepared.split.train, prepared.split.test)] == [4, 4]
    assert len(open_clips("toy_recordings", tmp_path / "Toy")) == 12
    record = train_branch(settings, "toy_energy", report=silently)
    assert isinstance(record, Record)
    assert record.provenance.dataset == "Toy recordings"
