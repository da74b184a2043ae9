"""The page that listens: one HTML file that runs the shipped networks in a browser.

Its sources are in `book/site/listen`. What they load is put inside: styles, scripts, ONNX Runtime,
the networks' files, clips of urban synth, and the gains of the spectrograms that it draws. It then
needs no server and no network, and asks for nothing.
"""

import base64
import gzip
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from fusionkd_book import figures, web
from fusionkd_lib import representations
from fusionkd_lib.catalogue import FUSED, REPRESENTATIONS
from fusionkd_lib.datasets import urban_synth
from fusionkd_lib.errors import InputError
from fusionkd_lib.exported import Exported, Told, open_exported
from fusionkd_lib.filters import constant_q
from fusionkd_lib.representations import ConstantQ, LogMel, Representation
from fusionkd_lib.runs import project_root
from fusionkd_lib.storage import write_text

RUNTIME = "onnxruntime-web@1.30.0"
MOST_BYTES = 20_000_000
# File -> its columns: head, and what the page says of it.
NETWORKS = {
    "logmel": {"logmel": "alone"},
    "fused": {"logmel": "distilled", "gammatone": "distilled", FUSED: "teacher"},
}
# The clips of the page: another city than the one that the networks were trained in.
CLIP_WINDOWS, CLIP_SEED = 3, 2026
# What is drawn: the shipped networks' bands, and twice their frames, so that it moves smoothly.
HOP, VIEW_WINDOWS = 256, 2
SETTINGS = {
    "logmel": {"n_fft": 1024, "n_mels": 64},
    "gammatone": {"n_fft": 1024, "gammatone_bands": 64},
    "cqt": {},
}


def write(path: Path) -> Path:
    """Write the page from the project's sources and weights.

    Raises
    ------
    InputError
        Where a weight or npm is missing, or the page would be larger than MOST_BYTES.
    """
    root = project_root()
    runtime = web.vendor(RUNTIME, path.parent.parent / "vendor")
    text = assemble(root / "book" / "site" / "listen", root / "book" / "weights", runtime)
    if (size := len(text.encode())) > MOST_BYTES:
        fault = f"{size / 1e6:.1f} MB are more than {MOST_BYTES / 1e6:.0f}"
        raise InputError(f"{path}: {fault}: ship smaller networks, or fewer clips")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


def assemble(sources: Path, weights: Path, runtime: list[Path]) -> str:
    """Return the page with all that it needs inside.

    Parameters
    ----------
    sources
        Folder of ``listen.html`` and of the styles and scripts that it names.
    weights
        Folder of the networks' files.
    runtime
        ONNX Runtime's script and its WebAssembly.
    """
    opened = {name: shipped(weights / f"{name}.onnx") for name in NETWORKS}
    script, wasm = (file.read_bytes() for file in runtime)
    window = opened["logmel"].told
    modules = build(window.sample_rate)
    clips = made_clips(window)
    held = {name: (weights / f"{name}.onnx").read_bytes() for name in NETWORKS}
    held |= {"runtime": script, "wasm": gzip.compress(wasm, mtime=0)}
    held |= {f"clip-{label}": as_integers(clip) for label, clip in clips.items()}
    held |= {f"gains-{name}": gains(module) for name, module in modules.items() if summed(module)}
    held["colours"] = colours()
    config = {
        "networks": [columns_of(name, opened[name]) for name in NETWORKS],
        "clips": [{"label": label, "id": f"clip-{label}"} for label in clips],
        "labels": {name: entry.label for name, entry in REPRESENTATIONS.items()} | {FUSED: "Fused"},
        "spectrograms": spectrograms_of(modules, clips, window),
        "unheard": "None of the networks here looks at the CQT.",
    }
    return with_data(inlined(sources), config, held)


def shipped(path: Path) -> Exported:
    """Open a shipped network."""
    if not path.is_file():
        raise InputError(f"{path}: the page that listens needs it: restore it with git")
    return open_exported(path)


def columns_of(name: str, network: Exported) -> dict[str, Any]:
    """Return a file's columns in the table: its heads, and what the page says of them."""
    for head in NETWORKS[name]:
        if head not in network.told.outputs:
            raise InputError(f"{name}.onnx: has no head {head}: export it with --head all")
    columns = [
        {"head": head, "title": title(head), "note": note, "look": f"{head} {note}"}
        for head, note in NETWORKS[name].items()
    ]
    return {"id": name, "columns": columns}


def title(head: str) -> str:
    """Return what the page calls a head."""
    return "Fused" if head == FUSED else REPRESENTATIONS[head].label


def made_clips(told: Told) -> dict[str, np.ndarray]:
    """Return a made sound (N,) of each class by its name."""
    duration = CLIP_WINDOWS * told.window_seconds
    clips = urban_synth.clips(clips_per_class=1, n_folds=3, duration=duration, seed=CLIP_SEED)
    rows = [int(np.flatnonzero(clips.targets == k)[0]) for k in range(len(clips.classes))]
    return {clips.classes[k]: clips.read(row, told.sample_rate) for k, row in enumerate(rows)}


def as_integers(samples: np.ndarray) -> bytes:
    """Return a sound (N,) in [-1, 1) as integers of 16 bits, of which 32,768 would be 1."""
    return np.round(samples * 2**15).astype("<i2").tobytes()


# Spectrograms


def build(rate: int) -> dict[str, Representation]:
    """Return the representations that are drawn, by name."""
    given = {"sample_rate": rate, "hop_length": HOP}
    return {name: representations.build(name, **given, **own) for name, own in SETTINGS.items()}


def summed(module: Representation) -> bool:
    """Tell whether a representation sums the STFT under gains."""
    return not isinstance(module, ConstantQ)


def gains(module: Representation) -> bytes:
    """Return the gains (F, n_fft / 2 + 1) as float32."""
    return module.weights.numpy().astype("<f4").tobytes()


def colours() -> bytes:
    """Return the book's colours of a spectrogram, from soft to loud: 256 times red, green, blue."""
    table = matplotlib.colormaps[figures.PICTURE["cmap"]](np.arange(256), bytes=True)
    return table[:, :3].tobytes()


def spectrograms_of(
    modules: Mapping[str, Representation], clips: Mapping[str, np.ndarray], told: Told
) -> dict[str, Any]:
    """Return what the page needs, beside gains, to compute and to draw the representations."""
    timing = {"rate": told.sample_rate, "hop": HOP, "n_fft": SETTINGS["logmel"]["n_fft"]}
    rows = {}
    for name, module in modules.items():
        levels = representations.compute({name: module}, as_batch(clips))[name]
        ticks = figures.round_rows(module.frequencies)
        ticks = {f: row / module.n_bins for f, row in ticks.items()}  # shares of the height
        rows[name] = {
            "label": REPRESENTATIONS[name].label,
            "n_rows": module.n_bins,
            "loudest": round(levels.max().item(), 1),  # dB
            "ticks": {figures.hertz(f): round(y, 4) for f, y in ticks.items() if 0.05 < y < 0.95},
        }
        if summed(module):
            rows[name]["magnitudes"] = not isinstance(module, LogMel)
        else:
            rows[name]["frequencies"] = module.frequencies.tolist()
            rows[name]["quality"] = constant_q(module.bins_per_octave)
    return {"timing": timing, "seconds": VIEW_WINDOWS * told.window_seconds, "rows": rows}


def as_batch(clips: Mapping[str, np.ndarray]):
    """Return clips of one length as a batch (B, N)."""
    import torch

    return torch.from_numpy(np.stack(list(clips.values())))


# One file


def inlined(sources: Path) -> str:
    """Return the page with its styles and scripts inside."""
    page = (sources / "listen.html").read_text(encoding="utf-8")
    kinds = {
        r'<link rel="stylesheet" href="([\w.]+)">': "<style>\n{}</style>",
        r'<script src="([\w.]+)"></script>': "<script>\n{}</script>",
    }
    for pattern, inside in kinds.items():
        page = re.sub(
            pattern,
            lambda found, inside=inside: inside.format((sources / found[1]).read_text("utf-8")),
            page,
        )
    return page


def with_data(page: str, config: Mapping[str, Any], held: Mapping[str, bytes]) -> str:
    """Put what scripts read before the first of them: a JSON document, and bytes as base64."""
    config_text = json.dumps(config).replace("<", "\\u003c")
    data = [f'<script type="application/json" id="config">{config_text}</script>']
    for name, content in held.items():
        text = base64.b64encode(content).decode()
        data.append(f'<script type="text/plain" id="{name}">{text}</script>')
    before, script, after = page.partition("<script>")
    return before + "\n".join(data) + "\n" + script + after
