"""Small trees in the datasets' real layouts, with tones for clips."""

from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

URBANSOUND8K_ROWS = (
    # recording, occurrence, fold, class
    (1001, 0, 1, 3, "dog_bark"),
    (1001, 1, 1, 3, "dog_bark"),
    (1002, 0, 2, 8, "siren"),
    (1003, 0, 10, 0, "air_conditioner"),
)
COARSE = {1: "engine", 2: "machinery-impact", 3: "non-machinery-impact"}
FINE = {
    1: {"1": "small-sounding-engine", "X": "engine-of-uncertain-size"},
    2: {"1": "rock-drill", "2": "jackhammer", "X": "other-unknown-impact-machinery"},
    3: {"1": "non-machinery-impact"},
}
FINE_TAGS = [f"{c}-{f}_{name}" for c, fine in FINE.items() for f, name in fine.items()]
COARSE_TAGS = [f"{c}_{name}" for c, name in COARSE.items()]
SONYC_ROWS = (
    # split, sensor, clip, annotator, 1-1, 1-X, 2-1, 2-2, 2-X, 3-1
    ("train", 1, "01_000001.wav", 7, 1, 0, 0, 0, 0, 0),
    ("train", 1, "01_000001.wav", 8, 1, 0, 0, 1, 0, 0),
    ("train", 1, "01_000001.wav", 9, 0, 0, 0, 0, 0, 1),
    ("train", 2, "02_000001.wav", 7, 0, 1, 0, 0, 0, 0),
    ("train", 2, "02_000001.wav", 8, 0, 0, -1, -1, -1, 0),
    ("train", 2, "02_000001.wav", 9, 0, 0, -1, -1, -1, 0),
    ("validate", 0, "00_000001.wav", 7, 1, 1, 1, 1, 1, 1),
    ("validate", 0, "00_000001.wav", -1, 1, 0, -1, -1, -1, -1),
    ("validate", 0, "00_000001.wav", 0, 1, 0, 0, 0, 0, 1),
    ("validate", 3, "03_000001.wav", 0, 0, 0, 0, 0, 1, -1),
)


def write_tone(path: Path, *, seconds: float = 0.1, sample_rate: int = 16000, **options) -> None:
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 440 * time), sample_rate, **options)


def make_urbansound8k(root: Path, *, suffix: str = ".wav") -> Path:
    rows = [
        {
            "slice_file_name": f"{recording}-{class_id}-0-{occurrence}.wav",
            "fsID": recording,
            "start": 0.0,
            "end": 0.1,
            "salience": 1,
            "fold": fold,
            "classID": class_id,
            "class": name,
        }
        for recording, occurrence, fold, class_id, name in URBANSOUND8K_ROWS
    ]
    for row in rows:
        stem = row["slice_file_name"].removesuffix(".wav")
        write_tone(root / "audio" / f"fold{row['fold']}" / (stem + suffix))
    (root / "metadata").mkdir(parents=True)
    pd.DataFrame(rows).to_csv(root / "metadata" / "UrbanSound8K.csv", index=False)
    return root


def make_sonyc_ust(root: Path, *, audio: bool = True) -> Path:
    root.mkdir(parents=True)
    rows = pd.DataFrame(
        SONYC_ROWS,
        columns=["split", "sensor_id", "audio_filename", "annotator_id"]
        + [f"{tag}_presence" for tag in FINE_TAGS],
    )
    for category, coarse in zip(COARSE, COARSE_TAGS, strict=True):
        # As shipped: the second category takes in 3-1.
        tags = [
            tag for tag in FINE_TAGS if tag[0] == str(category) or (category == 2 and tag[0] == "3")
        ]
        rows[f"{coarse}_presence"] = rows[[f"{tag}_presence" for tag in tags]].max(axis=1)
    rows[f"{FINE_TAGS[0]}_proximity"] = ["near", -1] * (len(rows) // 2)
    rows.to_csv(root / "annotations.csv", index=False)
    lines = ["fine:"]
    for category, fine in FINE.items():
        lines += [f"    {category}:", *(f"        {f}: {name}" for f, name in fine.items())]
    lines += ["coarse:", *(f"    {category}: {name}" for category, name in COARSE.items())]
    (root / "dcase-ust-taxonomy.yaml").write_text("\n".join(lines) + "\n")
    if audio:
        for split, name in {(row[0], row[2]) for row in SONYC_ROWS}:
            write_tone(root / "audio" / split / name)
    return root
