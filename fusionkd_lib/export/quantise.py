"""A file's network in whole numbers of 8 bits, calibrated on training clips, or stored in 16 bits.

8 bits: static quantisation with a scale per channel of the weights (signed) and per tensor of the
activations (unsigned, which is what fast instructions take). The front end stays in single
precision, since its powers span ten decades, and so does the colour stem, whose few channels cost
little and carry the whole range of levels. So do the first two convolutions of a trunk: in 8 bits
they changed six of a hundred answers of an EfficientNet-Lite0 to training clips, the others one.

Weights use 7 of their 8 bits. A processor without VNNI adds two products of bytes in 16 bits, where
two of 255 * 127 do not fit and are cut off, without a word; two of 255 * 64 do. So the file has the
same scores on every processor, at the cost of steps twice as wide.

16 bits: the weights are stored so, and a Cast in the graph brings each back, which ONNX Runtime
does once, when it opens the file. Half the size, on every device, at the speed of single precision.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_static

from fusionkd_lib.errors import InputError
from fusionkd_lib.experiment import data_fingerprint, prepare
from fusionkd_lib.tagging import Tagger

# For the ranges, and the names of nodes.
N_CLIPS, QUANTISED = 128, re.compile("/network/(?!.*(/stem|BatchNorm))")
TRUNK, N_FIRST = re.compile("(/network/.*?)trunk"), 2


def quantise(path: Path, waveforms: Iterable[np.ndarray]) -> tuple[str, ...]:
    """Quantise the network of an exported file, in place; return what stays in single precision.

    Parameters
    ----------
    path
        From `onnx_file.write_graph`.
    waveforms
        Clips (N,) that show the range of every activation.
    """
    model = onnx.load(path)
    kept = [node.name for node in model.graph.node if not QUANTISED.match(node.name)]
    trunks: dict[str, list[str]] = {}
    for node in model.graph.node:
        if node.op_type == "Conv" and (trunk := TRUNK.match(node.name)):
            trunks.setdefault(trunk[1], []).append(node.name)
    kept += [name for names in trunks.values() for name in names[:N_FIRST]]
    inputs = ({"waveform": waveform[None]} for waveform in waveforms)
    reader = SimpleNamespace(get_next=lambda: next(inputs, None))
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    kinds |= {"per_channel": True, "reduce_range": True, "extra_options": {"QuantizeBias": False}}
    quantize_static(model, path, reader, **kinds, nodes_to_exclude=kept)
    first = "first two convolutions of each trunk"
    return "front end", "colour stem", first, "BatchNorm of the head", "scores"


def halve(path: Path) -> tuple[str, ...]:
    """Store the weights of an exported file's network in 16 bits, in place; return what is in 32.

    A tensor with a value beyond the range of 16 bits stays as it is.
    """
    model = onnx.load(path)
    names = {node.input[1] for node in model.graph.node if node.op_type in ("Conv", "Gemm")}
    for stored in [x for x in model.graph.initializer if x.name in names]:
        weights, name, half = numpy_helper.to_array(stored), stored.name, f"{stored.name}_float16"
        if np.abs(weights).max() <= np.finfo(np.float16).max:
            model.graph.node.insert(
                0, helper.make_node("Cast", [half], [name], to=stored.data_type)
            )
            stored.CopyFrom(numpy_helper.from_array(weights.astype(np.float16), half))
    onnx.save(model, path)
    return "front end", "biases and BatchNorm", "every computation"


def training_clips(tagger: Tagger) -> list[np.ndarray]:
    """Return waveforms (N,) of training clips, drawn at random.

    Raises
    ------
    InputError
        Where the clips are not here, or not those that the run was trained on.
    """
    prepared, told = prepare(tagger.record.params), tagger.told
    if data_fingerprint(prepared.clips) != tagger.record.provenance.data:
        fault = "int8 is calibrated on the training clips, and these are others than the run's"
        raise InputError(f"{told.run}: {fault}: fetch those, or leave out --int8")
    rows = np.random.default_rng(0).permutation(prepared.split.train)[:N_CLIPS]
    return [prepared.clips.read(int(row), told.sample_rate)[: told.n_samples] for row in rows]
