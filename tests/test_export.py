"""Export: one ONNX file gives the scores of its run, here and without this project."""

import contextlib
import copy
import itertools
import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch
from click.testing import CliRunner
from handmade import write_run
from hostile import check, refused, sentence_of
from onnx import numpy_helper
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fusionkd_lib import features, representations
from fusionkd_lib.catalogue import FUSED, TRUNKS
from fusionkd_lib.cli import main
from fusionkd_lib.datasets import urban_synth
from fusionkd_lib.experiment import (
    build_branch,
    build_fusion,
    clips_of,
    data_fingerprint,
    representations_of,
)
from fusionkd_lib.export.frontend import FrontEnd
from fusionkd_lib.export.onnx_file import export
from fusionkd_lib.export.quantise import quantise
from fusionkd_lib.exported import Told, fields, open_exported
from fusionkd_lib.features import ClipFormat
from fusionkd_lib.models import Normalise
from fusionkd_lib.params import make_params
from fusionkd_lib.speed.fast_layers import use_fast_layers
from fusionkd_lib.tagging import Tagger, load_tagger, tag_file

RATE, WINDOW = 8000, 4000
SMALL = {
    "dataset": "urban_synth",
    "sample_rate": RATE,
    "duration": WINDOW / RATE,
    "n_fft": 256,
    "hop_length": 128,
    "n_mels": 96,  # three rows of a feature map; gammatone has two
    "gammatone_bands": 64,
    "width": 0.25,
    "head": [16, 8],
    "epochs": 2,
}
CLASSES = tuple("abcde")
TOLD = Told(
    run="a-run",
    digest="0" * 64,
    commit="unknown",
    head="logmel",
    labels=CLASSES,
    thresholds=(0.5,) * len(CLASSES),
    multi_label=True,
    sample_rate=RATE,
    window_seconds=WINDOW / RATE,
    dataset="urban synth",
    data_status="synthetic",
    data_note="5 clips.",
    licence="MIT",
    metric="micro_auprc",
    score=0.5,
)


@cache
def sounds(n: int, seconds: float = WINDOW / RATE) -> np.ndarray:
    """Return made sounds (n, N) of several classes, from loud to as soft as recordings are."""
    clips = urban_synth.clips(clips_per_class=3, n_folds=3, duration=max(seconds, 0.25))
    rows = np.linspace(0, len(clips) - 1, n).astype(int)
    size = round(seconds * RATE)
    return np.stack([np.resize(clips.read(int(row), RATE), size) for row in rows]).astype("float32")


@torch.no_grad()
def settled(tagger: Tagger, seed: int = 0) -> Tagger:
    """Give an untrained network statistics and biases of which none is neutral.

    The statistics are those of sounds, or a signal would not survive the layers, and all clips
    would have one score, which any file could give.
    """
    torch.manual_seed(seed)
    network = tagger.network
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0
            module.weight.uniform_(0.7, 1.3)
            module.bias.uniform_(-0.2, 0.2)
    spectrograms = features.compute(tagger.representations, sounds(16), tagger.clip_format)
    network.train()({name: torch.from_numpy(x[:, None]) for name, x in spectrograms.items()})
    network.eval()
    return tagger


@cache
def tagger_of(*names: str, multi_label: bool = True, **changes) -> Tagger:
    """Return an untrained tagger: of one name a branch, of two the fused classifier."""
    params = make_params(SMALL | {"representations": list(names)} | changes)
    normalise = Normalise(-50.0, 20.0)
    branches = [build_branch(params, name, len(CLASSES), normalise) for name in names]
    network = branches[0] if len(names) == 1 else build_fusion(params, branches, len(CLASSES))
    told = TOLD.model_copy(
        update={"multi_label": multi_label, "head": network.name if len(names) == 1 else FUSED}
    )
    clip_format = ClipFormat(RATE, WINDOW / RATE, params.hop_length, params.pad)
    return settled(Tagger(told, clip_format, network, representations_of(params), None))


def written(tagger: Tagger, path: Path):
    export(tagger, path)
    return open_exported(path)


@pytest.fixture(scope="module")
def logmel(tmp_path_factory) -> Path:
    """Return an exported file with its card, for tests that change neither."""
    path = tmp_path_factory.mktemp("exported") / "a.onnx"
    export(tagger_of("logmel"), path)
    return path


def assert_same(tagger: Tagger, exported, waveforms: np.ndarray) -> None:
    expected = tagger.scores(list(waveforms))
    assert expected.std(axis=0).max() > 0.02  # else any clip would do
    np.testing.assert_allclose(exported.scores(waveforms), expected, rtol=0, atol=1e-4)


# Scores


@pytest.mark.parametrize("name", ["stft", "logmel", "gammatone"])
@pytest.mark.parametrize("pad", ["waveform", "spectrogram"])
def test_every_representation_gives_the_scores_of_pytorch(tmp_path, name, pad):
    tagger = tagger_of(name, pad=pad)
    exported = written(tagger, tmp_path / "a.onnx")
    assert_same(tagger, exported, sounds(6))
    assert_same(tagger, exported, sounds(6, 0.2))  # padded as the run pads


@pytest.mark.parametrize("trunk", TRUNKS)
def test_every_trunk_gives_the_scores_of_pytorch_for_any_batch(tmp_path, trunk):
    width = (TRUNKS[trunk].widths or (0.25,))[0]
    tagger = tagger_of("logmel", trunk=trunk, width=width, multi_label=False)
    exported = written(tagger, tmp_path / "a.onnx")
    assert_same(tagger, exported, sounds(5))
    alone = exported.scores(sounds(5)[:1])
    np.testing.assert_allclose(alone, tagger.scores(sounds(5)[:1]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("fusion", ["gap", "conv"])
@pytest.mark.parametrize("trunk", ["mobilenet_v2", "shufflenet_v2"])
def test_the_fused_network_gives_the_scores_of_pytorch(tmp_path, fusion, trunk):
    tagger = tagger_of("logmel", "gammatone", fusion=fusion, trunk=trunk, width=0.5)
    assert_same(tagger, written(tagger, tmp_path / "a.onnx"), sounds(6))


def test_longer_recordings_pool_over_more_frames(logmel):
    tagger, exported = tagger_of("logmel"), open_exported(logmel)
    waveforms = sounds(4, 1.3)
    spectrograms = tagger.representations["logmel"](torch.from_numpy(waveforms))
    with torch.no_grad():
        expected = torch.sigmoid(tagger.network({"logmel": spectrograms}).logits).numpy()
    np.testing.assert_allclose(exported.scores(waveforms), expected, rtol=0, atol=1e-4)
    assert np.abs(expected - exported.scores(waveforms[:, :WINDOW])).max() > 0.01


@pytest.mark.parametrize(
    ("n_fft", "hop_length"), [(1024, 512), (2048, 441), (1000, 100), (514, 64)]
)
def test_the_two_stages_are_the_stft_whatever_the_size(n_fft, hop_length):
    settings = {"sample_rate": RATE, "hop_length": hop_length, "n_fft": n_fft}
    stft = representations.build("stft", **settings)
    front = FrontEnd({"stft": stft}, ClipFormat(RATE, 0.5, hop_length))
    waveforms = torch.from_numpy(sounds(3, 0.7))
    frames = np.pad(waveforms.numpy().astype(float), ((0, 0), (n_fft // 2, n_fft // 2)))
    frames = np.lib.stride_tricks.sliding_window_view(frames, n_fft, axis=1)[:, ::hop_length]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    power = np.abs(np.fft.rfft(frames * hann)) ** 2  # (B, T, F)
    expected = 10 * np.log10(np.maximum(power, 1e-10)).transpose(0, 2, 1)
    np.testing.assert_allclose(front(waveforms)["stft"][:, 0], expected, atol=0.02)  # dB


def test_a_network_with_fast_layers_exports_as_it_is(tmp_path):
    tagger = tagger_of("logmel", trunk="efficientnet_lite0", width=1.0)
    use_fast_layers(tagger.network)
    assert_same(tagger, written(tagger, tmp_path / "a.onnx"), sounds(3))


def test_the_graph_is_small_products_without_operators_for_transforms(logmel):
    tagger, model = tagger_of("logmel"), onnx.load(logmel)
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"STFT", "DFT"}
    # All that the front end holds, and the nodes with their names, are less than a quarter of one
    # dense matrix of 256 x 256.
    size = logmel.stat().st_size
    assert size < 4 * sum(x.numel() for x in tagger.network.state_dict().values()) + 256**2
    assert sum(node.op_type == "BatchNormalization" for node in model.graph.node) <= 3


# int8


def test_int8_has_weights_of_a_byte_and_scores_like_those_of_pytorch(tmp_path):
    tagger = tagger_of("logmel", width=1.0, head=(160, 64))
    exported = written(tagger, tmp_path / "a.onnx")
    small = tmp_path / "small.onnx"
    small.write_bytes((tmp_path / "a.onnx").read_bytes())
    quantise(small, sounds(16))
    assert small.stat().st_size < (tmp_path / "a.onnx").stat().st_size / 3
    model = onnx.load(small)
    wide = [x for x in model.graph.initializer if list(x.dims) == [1280, 320, 1, 1]]
    assert [x.data_type for x in wide] == [onnx.TensorProto.INT8]
    session = onnxruntime.InferenceSession(small)
    waveforms = sounds(12)
    (scores,) = session.run(["scores"], {"waveform": waveforms})
    expected = exported.scores(waveforms)
    # Untrained layers lose far more to rounding than trained ones; other scores have no relation.
    assert np.corrcoef(scores.ravel(), expected.ravel())[0, 1] > 0.4


def test_two_products_of_an_int8_file_fit_in_16_bits_on_every_processor(tmp_path):
    written(tagger_of("logmel"), tmp_path / "a.onnx")
    quantise(tmp_path / "a.onnx", sounds(3))
    stored = [numpy_helper.to_array(x) for x in onnx.load(tmp_path / "a.onnx").graph.initializer]
    weights = [x for x in stored if x.dtype == np.int8 and x.ndim > 1]
    assert weights
    # Of an activation of a byte each; without VNNI, a larger sum is cut off.
    assert max(2 * 255 * np.abs(x.astype(int)).max() for x in weights) < 2**15


def test_int8_weights_are_the_nearest_multiples_of_their_channels_step(tmp_path):
    tagger = tagger_of("logmel", trunk="squeezenet1_1", width=1.0)
    exported = written(tagger, tmp_path / "a.onnx")
    (tmp_path / "small.onnx").write_bytes((tmp_path / "a.onnx").read_bytes())
    quantise(tmp_path / "small.onnx", sounds(16))
    before, after = (
        {x.name: numpy_helper.to_array(x) for x in onnx.load(tmp_path / name).graph.initializer}
        for name in ("a.onnx", "small.onnx")
    )
    names = [name for name in before if f"{name}_quantized" in after]
    # 8 modules of 3 less a layer of the first, which stays as it is with the one before it.
    assert sum(before[name].ndim == 4 for name in names) == 23
    for name in names:
        step = after[f"{name}_scale"].reshape(-1, *[1] * (before[name].ndim - 1))
        error = np.abs(after[f"{name}_quantized"] * step - before[name])
        assert (error <= step * 0.5001).all(), name
    # This trunk has half as many layers, so that less is lost to rounding.
    (scores,) = onnxruntime.InferenceSession(tmp_path / "small.onnx").run(
        ["scores"], {"waveform": sounds(12)}
    )
    assert np.corrcoef(scores.ravel(), exported.scores(sounds(12)).ravel())[0, 1] > 0.8


# float16


def folded(network: nn.Module) -> nn.Module:
    """Return a copy whose BatchNorm layers are part of the convolutions that they follow."""
    network = copy.deepcopy(network)
    for module in network.modules():
        for (name, layer), (after, norm) in itertools.pairwise([*module.named_children()]):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(layer, norm))
                setattr(module, after, nn.Identity())
    return network


@torch.no_grad()
def test_float16_gives_the_scores_of_pytorch_with_weights_rounded_to_16_bits(tmp_path):
    tagger = tagger_of("logmel", width=1.0, head=(160, 64))
    written(tagger, tmp_path / "a.onnx")
    export(tagger, tmp_path / "half.onnx", precision="float16")
    exported = open_exported(tmp_path / "half.onnx")
    network = folded(tagger.network)
    for weights in network.parameters():
        if weights.ndim > 1:
            weights.copy_(weights.half().float())
    assert_same(replace(tagger, network=network), exported, sounds(6))
    full, half = ((tmp_path / name).stat().st_size for name in ("a.onnx", "half.onnx"))
    assert half < 0.55 * full
    card = (tmp_path / "half.md").read_text()
    assert exported.told.precision == "float16"
    assert "| precision | float16; in single precision: front end, biases" in card


def test_a_weight_beyond_the_range_of_16_bits_stays_as_it_is(tmp_path):
    tagger = copy.deepcopy(tagger_of("logmel"))
    with torch.no_grad():
        tagger.network.head[0].weight[0, 0] = 1e5
    export(tagger, tmp_path / "a.onnx", precision="float16")
    stored = [numpy_helper.to_array(x) for x in onnx.load(tmp_path / "a.onnx").graph.initializer]
    assert [x.dtype for x in stored if x.shape == (16, 1280)] == [np.float32]
    assert {x.dtype for x in stored if x.shape == (8, 16)} == {np.dtype("float16")}


def test_a_file_has_one_precision(tmp_path):
    sentence = refused("export", "a-run", "--int8", "--float16", "--out", tmp_path / "a.onnx")
    check(sentence, "--int8 and --float16", "leave one of them out")


# A run, its file and its card


def finished(root: Path, *, data: str = "0123456789abcdef", **changes) -> str:
    """Write a finished branch run, whose network `settled` made, and return its folder."""
    params = make_params(SMALL | {"representations": ["logmel"]} | changes)
    scores = np.eye(len(CLASSES))[:, ::-1] * 0.5 + 0.1
    network = {key: changes[key] for key in ("trunk", "width") if key in changes}
    state = {"logmel": tagger_of("logmel", **network).network.state_dict()}
    run = write_run(root, params, {"logmel": scores}, branch="logmel", weights=state, data=data)
    return str(run.folder)


def finished_pair(root: Path, **changes) -> str:
    """Write a finished fusion run, and return its folder."""
    names = ("logmel", "gammatone")
    params = make_params(SMALL | {"representations": list(names)} | changes)
    fused = tagger_of(*names).network
    networks = {**fused.branches, "fused": fused}
    state = {
        name: {key: x.clone() for key, x in network.state_dict().items()}
        for name, network in networks.items()
    }
    scores = {
        head: np.roll(np.eye(len(CLASSES)), k + 1, axis=1) * 0.5 + 0.1
        for k, head in enumerate(networks)
    }
    alone = [write_run(root, params, {name: scores[name]}, branch=name) for name in names]
    parents = {run.name: run.record.digest for run in alone}
    return str(write_run(root, params, scores, weights=state, parents=parents).folder)


def write_sound(path: Path, seconds: float = 1.2, rate: int = 11025) -> Path:
    mono = np.resize(sounds(1, 2.0)[0], round(seconds * rate))
    soundfile.write(path, np.stack([mono, 0.5 * mono], axis=1), rate, subtype="FLOAT")
    return path


def command(*arguments) -> tuple[int, str, str]:
    answer = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return answer.exit_code, answer.stdout, answer.stderr


def test_a_file_tags_as_its_run_does_and_tells_where_it_comes_from(tmp_path):
    run, out, sound = (
        finished(tmp_path / "runs"),
        tmp_path / "a.onnx",
        write_sound(tmp_path / "a.wav"),
    )
    assert command("export", run, "--out", out) == (0, "", "")
    status, text, errors = command("tag", out, sound, "--windows")
    assert (status, errors) == (0, "")
    found, expected = json.loads(text), json.loads(command("tag", run, sound, "--windows")[1])
    assert found.keys() == expected.keys()
    assert found["run"] == Path(run).name
    assert found["tags"] == expected["tags"]
    for label, score in expected["scores"].items():
        assert found["scores"][label] == pytest.approx(score, abs=1e-4)
    told, record = open_exported(out).told, load_tagger(run).record
    assert told == load_tagger(run).told
    assert (told.digest, told.commit) == (record.digest, record.provenance.commit)
    assert told.thresholds == tuple(record.metrics["logmel"]["thresholds"])
    assert (told.labels, told.licence) == (CLASSES, "MIT")


def test_a_trunk_that_is_not_torchvisions_is_exported_in_a_process_of_its_own(tmp_path):
    run = finished(tmp_path / "runs", trunk="efficientnet_lite0", width=1.0)
    code = "from fusionkd_lib.cli import main; main()"  # no other trunk was there before
    given = [sys.executable, "-c", code, "export", run, "--out", tmp_path / "a.onnx"]
    subprocess.run(given, check=True)
    assert_same(load_tagger(run), open_exported(tmp_path / "a.onnx"), sounds(3))


def test_int8_is_calibrated_on_the_training_clips_of_the_run(tmp_path):
    few = {"clips_per_class": 3, "n_folds": 3}
    data = data_fingerprint(clips_of(make_params(SMALL | few | {"representations": ["logmel"]})))
    run, out = finished(tmp_path / "runs", data=data, **few), tmp_path / "a.onnx"
    assert command("export", run, "--int8", "--out", out)[0] == 0
    told = open_exported(out).told
    assert told.precision == "int8"
    for layers in ("front end", "colour stem", "first two convolutions of each trunk"):
        assert layers in told.in_float32
        assert layers in out.with_suffix(".md").read_text()
    other = finished(tmp_path / "others", **few)
    sentence = refused("export", other, "--int8", "--out", tmp_path / "b.onnx")
    check(sentence, "others than the run's", "leave out --int8")
    assert not (tmp_path / "b.onnx").exists()


def test_one_file_with_all_heads_is_the_three_of_one_head_each(tmp_path):
    run, sound = finished_pair(tmp_path / "runs"), write_sound(tmp_path / "a.wav")
    out = tmp_path / "all.onnx"
    assert command("export", run, "--head", "all", "--out", out) == (0, "", "")
    assert [x.name for x in onnx.load(out).graph.output] == [
        "scores",
        "scores_logmel",
        "scores_gammatone",
    ]
    told = open_exported(out).told
    assert (told.head, told.heads) == ("fused", ("logmel", "gammatone"))
    found = {}
    for head in ("fused", "logmel", "gammatone"):
        alone = tmp_path / f"{head}.onnx"
        assert command("export", run, "--head", head, "--out", alone)[0] == 0
        one, other = load_tagger(out, head), load_tagger(alone)
        if head != "fused":
            assert one.told == other.told == load_tagger(run, head).told
        found[head] = one.scores(sounds(5))
        np.testing.assert_allclose(found[head], other.scores(sounds(5)), rtol=0, atol=1e-5)
        status, text, errors = command("tag", out, sound, "--head", head)
        assert (status, errors, json.loads(text)["head"]) == (0, "", head)
    assert (load_tagger(out).scores(sounds(5)) == found["fused"]).all()
    assert min(np.abs(found["fused"] - x).max() for x in list(found.values())[1:]) > 0.01
    assert out.stat().st_size < sum(x.stat().st_size for x in tmp_path.glob("[flg]*.onnx")) * 0.75
    assert "| further outputs | `scores_logmel` (" in out.with_suffix(".md").read_text()
    sentence = sentence_of(load_tagger, out, "cqt")
    check(sentence, "head = 'cqt' is not allowed", "'fused', 'logmel', 'gammatone'")


def test_all_heads_are_of_a_fusion_run_whose_network_has_them(tmp_path):
    alone = finished(tmp_path / "runs")
    out = tmp_path / "a.onnx"
    apart = finished_pair(tmp_path / "runs", select="per_head")
    for run in (alone, apart):
        sentence = refused("export", run, "--head", "all", "--out", out)
        check(sentence, "no network of this run has all heads", "export one of them")
    assert not out.exists()


def test_a_file_written_before_there_were_further_heads_still_opens(tmp_path, logmel):
    model = onnx.load(logmel)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    for key in ("heads", "thresholds_of", "score_of"):
        del facts[key]
    onnx.helper.set_model_props(model, facts)
    onnx.save(model, tmp_path / "old.onnx")
    assert open_exported(tmp_path / "old.onnx").told == TOLD


def test_the_metadata_are_json_that_anyone_reads(logmel):
    model = onnx.load(logmel)
    found = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert found == TOLD.model_dump(mode="json")
    assert [entry.version for entry in model.opset_import] == [found["opset"]]


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] in {"torch", "fusionkd_lib", "onnx", "scipy", "pandas"}:
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
"""


@pytest.mark.parametrize("multi_label", [True, False])
@pytest.mark.parametrize("seconds", [0.3, 0.5, 1.7])
def test_the_cards_code_tags_alone_as_the_project_does(tmp_path, multi_label, seconds):
    tagger = tagger_of("logmel", multi_label=multi_label)
    export(tagger, tmp_path / "a.onnx")
    sound = write_sound(tmp_path / "a.wav", seconds)
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "a.md").read_text(), re.DOTALL)
    given = [sys.executable, "-c", BLOCKED + code, sound.name]
    told = subprocess.run(given, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    scores, tags = (json.loads(line) for line in told.replace("'", '"').splitlines())
    expected = tag_file(tagger, sound)
    assert tags == expected["tags"]
    assert scores == pytest.approx(expected["scores"], abs=1e-4)


def test_a_file_from_non_commercial_data_says_so_once(tmp_path):
    run = finished(tmp_path / "runs", dataset="urbansound8k")
    out, sound = tmp_path / "a.onnx", write_sound(tmp_path / "a.wav")
    assert command("export", run, "--out", out)[0] == 0
    status, text, errors = command("tag", out, sound, sound)
    assert (status, len(text.splitlines())) == (0, 2)
    assert errors.count("non-commercial") == 1
    assert "CC BY-NC 3.0" in (tmp_path / "a.md").read_text()


# What can be wrong


def foreign(path: Path, good: Path) -> None:
    """Write an ONNX file of another project."""
    numbers = [onnx.helper.make_tensor_value_info(x, onnx.TensorProto.FLOAT, [1]) for x in "xy"]
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", numbers[:1], numbers[1:])
    opset = onnx.helper.make_opsetid("", 18)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), path)


def with_fact(key: str, text: str):
    def make(path: Path, good: Path) -> None:
        model = onnx.load(good)
        facts = {entry.key: entry.value for entry in model.metadata_props} | {key: text}
        onnx.helper.set_model_props(model, facts)
        onnx.save(model, path)

    return make


def with_graph(change):
    """Write a good file whose model was changed."""

    def make(path: Path, good: Path) -> None:
        model = onnx.load(good)
        change(model)
        path.write_bytes(model.SerializeToString())

    return make


def reading_beside(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret")


def looping(model: onnx.ModelProto) -> None:
    node = onnx.helper.make_node("Loop", [], ["never"], body=onnx.GraphProto(name="body"))
    model.graph.node.append(node)


def with_function(model: onnx.ModelProto) -> None:
    model.functions.add(name="f", domain="x")


def of_a_library(model: onnx.ModelProto) -> None:
    model.graph.node[-1].domain = "com.microsoft"


def greedy(model: onnx.ModelProto) -> None:
    """Let the scores be a mean of 2^40 of each."""
    (scores,) = (node for node in model.graph.node if "scores" in node.output)
    scores.output[0] = "few"
    shape = onnx.helper.make_tensor("many", onnx.TensorProto.INT64, [3], [2**40, 1, 1])
    model.graph.initializer.append(shape)
    model.graph.node.append(onnx.helper.make_node("Expand", ["few", "many"], ["all"]))
    mean = onnx.helper.make_node("ReduceMean", ["all"], ["scores"], keepdims=0)
    model.graph.initializer.append(
        onnx.helper.make_tensor("axis", onnx.TensorProto.INT64, [1], [0])
    )
    mean.input.append("axis")
    model.graph.node.append(mean)


def scoring(kind: str):
    """Let the scores be what another operator makes of them."""

    def change(model: onnx.ModelProto) -> None:
        (scores,) = (node for node in model.graph.node if "scores" in node.output)
        scores.output[0] = "others"
        model.graph.node.append(onnx.helper.make_node(kind, ["others"], ["scores"]))

    return change


def cut(path: Path, good: Path) -> None:
    path.write_bytes(good.read_bytes()[: good.stat().st_size * 2 // 3])


BAD = {
    "of another project": foreign,
    "truncated": cut,
    "empty": lambda path, good: path.write_bytes(b""),
    "no ONNX": lambda path, good: path.write_text("no ONNX"),
    "of another version": with_fact("fusionkd", "2"),
    "with metadata that are no JSON": with_fact("labels", "[a"),
    "with a rate that is none": with_fact("sample_rate", "-1"),
    "with a label too few": with_fact("labels", '["a", "b"]'),
    "with a head that it has not": with_fact("heads", '["gammatone"]'),
    "with weights in another file": with_graph(reading_beside),
    "with a loop": with_graph(looping),
    "with a function": with_graph(with_function),
    "with operators of a library": with_graph(of_a_library),
    "that takes all memory": with_graph(greedy),
    "with scores below 0": with_graph(scoring("Neg")),
    "of another format": lambda path, good: path.write_bytes(b"\x08\x00\x00\x00ORTM" + b"\0" * 99),
}
# What is seen before ONNX Runtime sees the file.
SEEN = {"with weights in another file", "with a loop", "with a function"}
SEEN |= {"with operators of a library"}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_is_not_ours_and_whole_is_refused_in_a_sentence(tmp_path, logmel, kind):
    BAD[kind](tmp_path / "x.onnx", logmel)
    sentence = refused("tag", tmp_path / "x.onnx", write_sound(tmp_path / "a.wav"))
    check(
        sentence, "x.onnx", "export it again", "more than one plain graph" if kind in SEEN else ""
    )


def test_the_fields_of_a_file_are_those_that_protobuf_reads(logmel):
    content, model = logmel.read_bytes(), onnx.load(logmel)
    (graph,) = (value for number, value in fields(memoryview(content)) if number == 7)
    found = [(number, bytes(value)) for number, value in fields(graph) if number in (1, 5)]
    assert len(list(fields(memoryview(b"\x0d" + b"1234" + b"\x09" + b"12345678")))) == 2
    nodes = [(1, x.SerializeToString()) for x in model.graph.node]
    tensors = [(5, x.SerializeToString()) for x in model.graph.initializer]
    assert sorted(found) == sorted(nodes + tensors)
    for end in range(1, 200):  # of a message that is cut, no field is made up
        whole = list(fields(graph))
        with contextlib.suppress(ValueError):
            for field, expected in zip(fields(graph[:end]), whole, strict=False):
                assert field == expected


def test_a_missing_file_is_told():
    assert "none.onnx: does not exist" in refused("tag", "none.onnx", "a.wav")


def test_a_file_has_its_one_head(logmel):
    sentence = sentence_of(load_tagger, logmel, "fused")
    check(sentence, "head = 'fused' is not allowed: use 'logmel'")


@pytest.mark.parametrize(
    ("run", "out", "says"),
    [("no-such-run", "a.onnx", "there is no such run"), (None, "a.pt", "ends in .onnx")],
)
def test_what_cannot_be_exported_is_told_and_nothing_is_written(tmp_path, run, out, says):
    run = run or finished(tmp_path / "runs")
    folder = tmp_path / "out"
    folder.mkdir()
    assert says in refused("export", run, "--out", folder / out)
    assert not list(folder.iterdir())


def test_the_constant_q_transform_is_refused_in_a_sentence(tmp_path):
    check(sentence_of(export, tagger_of("cqt", cqt_bins=48), tmp_path / "a.onnx"), "cqt", "STFT")
    assert not list(tmp_path.glob("*.onnx"))


def test_without_its_tools_export_says_how_to_install_them(tmp_path, monkeypatch):
    monkeypatch.setattr("fusionkd_lib.exported.find_spec", lambda name: None)
    sentence = refused("export", "a-run", "--out", tmp_path / "a.onnx")
    check(sentence, "need onnx and onnxruntime", "pip install 'fusionkd[export]'")


def test_the_library_needs_no_onnx_to_be_imported():
    code = BLOCKED.replace(
        '"torch", "fusionkd_lib", "onnx", "scipy", "pandas"', '"onnx", "onnxruntime"'
    )
    code += "import fusionkd_lib.cli, fusionkd_lib.tagging, fusionkd_lib.exported"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_reading_a_file_needs_no_torch():
    code = BLOCKED.replace('"torch", "fusionkd_lib", "onnx", "scipy", "pandas"', '"torch", "onnx"')
    subprocess.run([sys.executable, "-c", code + "import fusionkd_lib.exported"], check=True)
