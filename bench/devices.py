"""What a tagger costs where it runs: ``python -m bench.devices``.

Exported files beside eager PyTorch at batch 1 on one thread, the network alone and from the
waveform, alternating as `benchmark.alternate` has it. Networks are untrained: their speed and size
are those of trained ones. A processor without instructions for 8 bits (VNNI) is said to be one, and
is held to no goal of speed.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from bench.benchmark import (
    alternate,
    in_fresh_process,
    judge,
    peak_mebibytes,
    ratio,
    work_of_a_step,
)
from bench.record import Record, place_of
from fusionkd_lib.catalogue import FUSED, TRUNKS
from fusionkd_lib.datasets import urban_synth
from fusionkd_lib.experiment import build_branch, build_fusion, clip_format, representations_of
from fusionkd_lib.export.onnx_file import Classifier, add_metadata, write_graph
from fusionkd_lib.export.quantise import halve, quantise
from fusionkd_lib.exported import Told
from fusionkd_lib.models import Normalise, n_parameters
from fusionkd_lib.params import make_params
from fusionkd_lib.tagging import Tagger

SETTINGS = {"sample_rate": 22050, "duration": 4.0, "n_fft": 2048, "hop_length": 1024}
LABELS = tuple("abcdefghij")
PRECISIONS = ("float32", "float16", "int8")
# At most so many megabytes, and so many times as fast as eager PyTorch: network, whole file.
MEGABYTES, NETWORK, WHOLE = 5, 4, 2.5
ORIGIN = {"run": "untrained", "digest": "0" * 64, "commit": "unknown", "dataset": "none"}
ORIGIN |= {"data_status": "none", "data_note": "", "licence": "none", "metric": "accuracy"}


def tagger_of(*names: str, trunk: str = "mobilenet_v2", width: float = 1.0) -> Tagger:
    """Return an untrained tagger: of one name a branch, of two the fused classifier."""
    params = make_params(
        SETTINGS | {"representations": list(names), "trunk": trunk, "width": width}
    )
    branches = [build_branch(params, name, len(LABELS), Normalise(-50.0, 20.0)) for name in names]
    network = branches[0] if len(names) == 1 else build_fusion(params, branches, len(LABELS))
    told = Told(
        **ORIGIN,
        head=names[0] if len(names) == 1 else FUSED,
        labels=LABELS,
        thresholds=(0.5,) * len(LABELS),
        multi_label=False,
        sample_rate=params.sample_rate,
        window_seconds=params.duration,
        score=0.0,
    )
    given = clip_format(params), network.eval(), representations_of(params)
    return Tagger(told, *given, None)


def clips_of(tagger: Tagger, n: int) -> np.ndarray:
    """Return made sounds (n, N), each one window."""
    rate, seconds = tagger.told.sample_rate, tagger.told.window_seconds
    clips = urban_synth.clips(clips_per_class=3, n_folds=3, duration=seconds)
    sounds = [clips.read(row % len(clips), rate) for row in range(n)]
    return np.stack([np.resize(x, tagger.told.n_samples) for x in sounds]).astype(np.float32)


def files_of(tagger: Tagger, folder: Path, precisions: tuple[str, ...]) -> dict[str, Path]:
    """Write a tagger's files, by precision."""
    paths = {precision: folder / f"{precision}.onnx" for precision in precisions}
    for precision, path in paths.items():
        write_graph(Classifier(tagger, tagger.told).eval(), path)
        if precision == "int8":
            quantise(path, clips_of(tagger, 8))
        if precision == "float16":
            halve(path)
        add_metadata(path, tagger.told.model_copy(update={"precision": precision}))
    return paths


def network_of(path: Path) -> onnx.ModelProto:
    """Return a branch's file without its front end: spectrogram to scores."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    made = {out for node in model.graph.node if "/front/" in node.name for out in node.output}
    network = [node for node in model.graph.node if "/network/" in node.name]
    (name,) = {name for node in network for name in node.input} & made
    return onnx.utils.Extractor(model).extract_model([name], ["scores"])


def session_of(model: bytes | str) -> onnxruntime.InferenceSession:
    """Open a file on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def runner(model: bytes | str, x: np.ndarray) -> Callable[[], object]:
    """Return what runs a file once on an input."""
    session = session_of(model)
    given = {session.get_inputs()[0].name: x}
    return lambda: session.run(["scores"], given)


def costs(seconds: Mapping[str, list[float]], *, peer: str, window: float) -> dict[str, dict]:
    """Return latency, speed, and how many times as fast as the peer each side is."""
    return {
        side: {
            "milliseconds_median": 1000 * statistics.median(values),
            "milliseconds_95th_percentile": 1000 * float(np.percentile(values, 95)),
            "audio_seconds_per_second": window / statistics.median(values),
            "times_as_fast": ratio(seconds, peer, side),
        }
        for side, values in seconds.items()
    }


def bench_precisions(tagger: Tagger, paths: Mapping[str, Path], *, rounds: int) -> dict:
    """Time each file of a branch and eager PyTorch, the network alone and whole."""
    (clip,), window = clips_of(tagger, 1), tagger.told.window_seconds
    (name, module), *_ = tagger.representations.items()
    with torch.inference_mode():
        spectrogram = module(torch.from_numpy(clip[None]))  # (1, 1, F, T)
    x = spectrogram.numpy()

    @torch.inference_mode()
    def eager() -> object:
        return tagger.network({name: spectrogram})

    networks = {key: network_of(path).SerializeToString() for key, path in paths.items()}
    alone = {"PyTorch": eager} | {key: runner(model, x) for key, model in networks.items()}
    whole = {"PyTorch": lambda: tagger.scores([clip])}
    whole |= {key: runner(str(path), clip[None]) for key, path in paths.items()}
    return {
        "network": costs(alternate(alone, rounds=rounds), peer="PyTorch", window=window),
        "whole": costs(alternate(whole, rounds=rounds), peer="PyTorch", window=window),
        "parameters": n_parameters(tagger.network),
        "multiply_adds": work_of_a_step(tagger.network, {name: spectrogram})[0] / 6,
        "megabytes": megabytes(paths),
        "peak_mebibytes": {
            "PyTorch": in_fresh_process(_peak_of_pytorch),
            **{key: in_fresh_process(_peak_of_file, str(path)) for key, path in paths.items()},
        },
    }


def megabytes(paths: Mapping[str, Path]) -> dict[str, float]:
    """Return the size of each file."""
    return {key: path.stat().st_size / 1e6 for key, path in paths.items()}


def _peak_of_pytorch() -> float:
    """Peak memory that a branch in PyTorch adds to a process, over one window."""
    torch.set_num_threads(1)
    before = peak_mebibytes()
    tagger = tagger_of("logmel")
    tagger.scores([np.zeros(tagger.told.n_samples, np.float32)])
    return peak_mebibytes() - before


def _peak_of_file(path: str) -> float:
    """Peak memory that a file adds to a process, over one window."""
    n_samples = round(SETTINGS["sample_rate"] * SETTINGS["duration"])
    before = peak_mebibytes()
    runner(path, np.zeros((1, n_samples), np.float32))()
    return peak_mebibytes() - before


def bench_trunks(folder: Path, *, rounds: int) -> dict:
    """Time the whole file of each trunk and width, in single precision and in 8 bits."""
    found = {}
    for trunk, entry in TRUNKS.items():
        for width in entry.widths or (0.25, 0.5, 1.0):
            tagger = tagger_of("logmel", trunk=trunk, width=width)
            paths = files_of(tagger, folder, ("float32", "int8"))
            clip = clips_of(tagger, 1)
            sides = {key: runner(str(path), clip) for key, path in paths.items()}
            seconds = alternate(sides, rounds=rounds)
            found[f"{trunk} {width:g}"] = {
                "megabytes": megabytes(paths),
                "whole": costs(seconds, peer="float32", window=SETTINGS["duration"]),
            }
    return found


def bench_fusion(folder: Path, *, rounds: int) -> dict:
    """Time one branch, the fused network, and two branches whose scores are averaged."""
    paths = {}
    for names in (("logmel",), ("gammatone",), ("logmel", "gammatone")):
        place = folder / "-".join(names)
        place.mkdir()
        paths |= {names: files_of(tagger_of(*names), place, ("float32",))["float32"]}
    clip = clips_of(tagger_of("logmel"), 1)
    one, other, fused = (runner(str(path), clip) for path in paths.values())
    sides = {
        "one branch": one,
        "fused": fused,
        "two branches averaged": lambda: (one()[0] + other()[0]) / 2,
    }
    return costs(alternate(sides, rounds=rounds), peer="one branch", window=SETTINGS["duration"])


def has_int8_instructions() -> bool | None:
    """Whether the processor multiplies and adds bytes in one instruction; None where not told."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return None
    return bool({"avx512_vnni", "avx_vnni", "asimddp"} & set(flags))


def report(found: Mapping) -> None:
    """Print each goal, what was measured, and whether it holds."""
    branch, quick = found["branch"], found["int8_instructions"]
    for part in ("network", "whole"):
        for side, cost in branch[part].items():
            print(
                f"{part:8s} {side:8s} {cost['milliseconds_median']:7.2f} ms, "
                f"95 %: {cost['milliseconds_95th_percentile']:7.2f} ms, "
                f"{cost['times_as_fast']:5.2f} times as fast as PyTorch"
            )
    judge(
        f"MB of the int8 file: at most {MEGABYTES}", branch["megabytes"]["int8"], at_most=MEGABYTES
    )
    for part, goal in (("network", NETWORK), ("whole", WHOLE)):
        measured = branch[part]["int8"]["times_as_fast"] if quick else None
        judge(f"int8, {part}: at least {goal} times as fast", measured, at_least=goal)
    if not quick:
        print("This processor has no instructions for 8 bits (VNNI): no goal of speed is claimed")


def main() -> None:
    """Measure, print, and keep the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    record = Record(place_of("devices"))
    versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
    record.tell(
        versions=versions,
        int8_instructions=has_int8_instructions(),
        busy_before=os.getloadavg()[0],  # processes that wanted the processor, a minute's mean
        settings=SETTINGS | {"threads": 1, "batch": 1, "rounds": rounds},
    )
    with tempfile.TemporaryDirectory() as folder:
        tagger, place = tagger_of("logmel"), Path(folder)
        paths = files_of(tagger, place, PRECISIONS)
        record.tell(now=True, branch=bench_precisions(tagger, paths, rounds=rounds))
        record.tell(now=True, fusion=bench_fusion(place, rounds=rounds))
        record.tell(now=True, trunks=bench_trunks(place, rounds=rounds))
    report(record.tell(now=True, busy_after=os.getloadavg()[0]))


if __name__ == "__main__":
    main()
