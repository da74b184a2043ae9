"""A file's network in whole numbers of 8 bits, calibrated on training clips.

Static quantisation with a scale per channel of the weights (signed) and per tensor of the
activations (unsigned, which is what fast instructions take). The front end stays in single
precision, since its powers span ten decades, and so does the colour stem, whose few channels cost
little and carry the whole range of levels.
"""

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_static

from fusionkd_lib.errors import InputError
from fusionkd_lib.experiment import data_fingerprint, prepare
from fusionkd_lib.features import ClipFormat
from fusionkd_lib.records import Record

N_CLIPS = 128
IN_FLOAT32 = ("front end", "colour stem", "scores")


def quantise(path: Path, waveforms: Iterable[np.ndarray]) -> None:
    """Quantise the network of an exported file, in place.

    Parameters
    ----------
    path
        From `onnx_file.write_graph`.
    waveforms
        Clips (N,) that show the range of every activation.
    """
    names = [node.name for node in onnx.load(path).graph.node]
    kept = [name for name in names if not name.startswith("/network/") or "/stem" in name]
    inputs = ({"waveform": waveform[None]} for waveform in waveforms)
    reader = SimpleNamespace(get_next=lambda: next(inputs, None))
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(path, path, reader, **kinds, per_channel=True, nodes_to_exclude=kept)


def training_clips(run: Record, clip_format: ClipFormat) -> list[np.ndarray]:
    """Return waveforms (N,) of training clips, evenly spaced over all of them.

    Raises
    ------
    InputError
        Where the clips are not here, or not those that the run was trained on.
    """
    prepared = prepare(run.params)
    if data_fingerprint(prepared.clips) != run.provenance.data:
        fault = "int8 is calibrated on the training clips, and these are others than the run's"
        raise InputError(f"{run.name}: {fault}: fetch those, or leave out --int8")
    rows = prepared.split.train
    rows = rows[np.linspace(0, len(rows) - 1, min(N_CLIPS, len(rows))).astype(int)]
    read = (prepared.clips.read(int(row), clip_format.sample_rate) for row in rows)
    return [waveform[: clip_format.n_samples] for waveform in read]
