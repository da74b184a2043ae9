"""Ours and the peers side by side, alternating: ``make bench``.

A ratio is a median of at least five rounds, each of which times both sides one after the other, so
that what else the machine does falls on both. Times stand beside it with the machine's name. Runs
without librosa, gammatone and nnAudio too, on the GPU where there is one; what lacks its peer is
left out and said so.
"""

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from fusionkd_lib import representations, training
from fusionkd_lib.experiment import build_branch, build_fusion
from fusionkd_lib.features import forget_pages
from fusionkd_lib.models import Normalise
from fusionkd_lib.params import Params, make_params

SAMPLE_RATE, SECONDS = 44100, 4
GOALS = {"representations": {"cpu": 6, "cuda": 100}, "training": {"cpu": 6, "cuda": 5}}


def alternate(sides: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Time each side in turn, after one round that does not count; seconds by side."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for counted in (False, *[True] * rounds):
        for name, work in sides.items():
            began = time.perf_counter()
            work()
            synchronise()
            if counted:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def synchronise() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratio(seconds: dict[str, list[float]], peer: str, ours: str) -> float:
    """Return the median of the rounds' own ratios."""
    return statistics.median(p / o for p, o in zip(seconds[peer], seconds[ours], strict=True))


def bench_representations(device: str, *, rounds: int) -> dict:
    """Log-mel, CQT and gammatone of 4 s clips on one thread: librosa and gammatone, and ours."""
    torch.set_num_threads(1)
    n_clips = 16 if device == "cpu" else 64
    generator = np.random.default_rng(0)
    clips = generator.standard_normal((n_clips, SAMPLE_RATE * SECONDS)).astype(np.float32) * 0.1
    waveforms = torch.from_numpy(clips).to(device)
    modules = {
        name: representations.build(name, sample_rate=SAMPLE_RATE).to(device)
        for name in ("logmel", "cqt", "gammatone")
    }
    # A peer takes one clip at a time, as its users do.
    sides: dict[str, Callable[[], object]] = {
        "ours": lambda: representations.compute(modules, waveforms)
    }
    sides |= _peers_of_representations(clips) | _nnaudio(waveforms)
    seconds = alternate(sides, rounds=rounds)
    per_clip = {
        name: 1000 * statistics.median(values) / (n_clips if name in ("ours", "nnAudio") else 1)
        for name, values in seconds.items()
    }
    result = {"milliseconds_per_clip": per_clip, "clips_at_once": n_clips, "threads": 1}
    if "librosa and gammatone" in per_clip:
        result["ratio"] = per_clip["librosa and gammatone"] / per_clip["ours"]
    return result


def _peers_of_representations(clips: np.ndarray) -> dict[str, Callable[[], object]]:
    peers: dict[str, Callable[[], object]] = {}
    clip = clips[0]
    try:
        import librosa
        from gammatone.fftweight import fft_gtgram

        def librosa_and_gammatone() -> None:
            librosa.feature.melspectrogram(y=clip, sr=SAMPLE_RATE, n_fft=1024, hop_length=512)
            librosa.cqt(y=clip, sr=SAMPLE_RATE, hop_length=512, n_bins=84)
            fft_gtgram(clip, SAMPLE_RATE, 1024 / SAMPLE_RATE, 512 / SAMPLE_RATE, 128, 20)

        peers["librosa and gammatone"] = librosa_and_gammatone
    except ImportError:
        print("librosa or gammatone is not installed: left out")
    return peers


FAST = {"precision": "auto", "channels_last": True, "fused_optimizer": True}


def bench_training(device: str, *, rounds: int, steps: int) -> dict:
    """Training steps of the paper's branch on 128 x 345: the plain loop, and ours."""
    torch.set_num_threads(2)
    batch_size = 32 if device == "cpu" else 64
    n_clips = batch_size * steps
    generator = np.random.default_rng(0)
    spectrograms = generator.standard_normal((n_clips, 128, 345)).astype(np.float32)
    targets = generator.integers(0, 10, n_clips)
    arguments = spectrograms, targets, device, batch_size
    # Each in a process of its own, since ours also sets how the process hands out memory.
    with apart(PlainLoop, *arguments) as plain, apart(OurLoop, *arguments) as ours:
        seconds = alternate({"plain": plain, "ours": ours}, rounds=rounds)
    per_second = {name: n_clips / statistics.median(s) for name, s in seconds.items()}
    return {
        "clips_per_second": per_second,
        "ratio": ratio(seconds, "plain", "ours"),
        "batch_size": batch_size,
        "threads": 2,
        "limit": machine_limit(device, OurLoop(*arguments), batch_size, per_second["ours"]),
    }


@contextmanager
def apart(loop: type, *arguments: object) -> Iterator[Callable[[], object]]:
    """Keep a loop in a process of its own; yield what runs one epoch of it there."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, loop, arguments), daemon=True)
    process.start()

    def epoch() -> object:
        here.send("epoch")
        return here.recv()

    try:
        yield epoch
    finally:
        here.send("end")
        process.join()


def _serve(pipe: Connection, loop: type, arguments: tuple) -> None:
    torch.set_num_threads(2)
    served = loop(*arguments)
    while pipe.recv() == "epoch":
        served.epoch()
        synchronise()
        pipe.send("done")


def _nnaudio(waveforms: torch.Tensor) -> dict[str, Callable[[], object]]:
    """nnAudio's mel and CQT; it has no gammatone of this kind."""
    try:
        from nnAudio.features import CQT2010v2, MelSpectrogram
    except ImportError:
        print("nnAudio is not installed: left out")
        return {}
    common = {"sr": SAMPLE_RATE, "hop_length": 512, "verbose": False}
    modules = [
        MelSpectrogram(n_fft=1024, n_mels=128, **common).to(waveforms.device),
        CQT2010v2(n_bins=84, **common).to(waveforms.device),
    ]
    return {"nnAudio": lambda: [module(waveforms) for module in modules]}


class PlainLoop:
    """The loop that a reader would write."""

    def __init__(
        self, spectrograms: np.ndarray, targets: np.ndarray, device: str, batch_size: int
    ) -> None:
        self.device = device
        self.model = build_branch(Params(), "logmel", 10, Normalise()).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, amsgrad=True)
        clips = torch.from_numpy(spectrograms[:, None]), torch.from_numpy(targets)
        self.loader = DataLoader(TensorDataset(*clips), batch_size=batch_size, shuffle=True)

    def epoch(self) -> None:
        self.model.train()
        running = 0.0
        for inputs, targets in self.loader:
            inputs, targets = inputs.to(self.device), targets.to(self.device)
            self.optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(self.model(inputs).logits, targets)
            loss.backward()
            self.optimizer.step()
            running += loss.item()


class OurLoop:
    """`train_epoch` with every shortcut that the machine has."""

    def __init__(
        self, spectrograms: np.ndarray, targets: np.ndarray, device: str, batch_size: int
    ) -> None:
        self.params = make_params({**FAST, "batch_size": batch_size, "lr": 1e-3})
        training.set_up_machine(self.params)
        self.model = build_branch(self.params, "logmel", 10, Normalise()).to(device)
        self.model.to(memory_format=torch.channels_last)
        self.optimizer = training.make_optimizer(self.model, self.params)
        self.data = training.Data({"logmel": spectrograms}, targets, 10, torch.device(device))
        self.rows = np.arange(len(targets))

    def epoch(self) -> None:
        training.train_epoch(
            self.model,
            self.optimizer,
            self.data,
            self.rows,
            epoch=0,
            weight=0.0,
            params=self.params,
        )


def machine_limit(device: str, loop: OurLoop, batch_size: int, clips_per_second: float) -> dict:
    """How far a step is from what the machine's arithmetic and memory would allow."""
    inputs, _ = loop.data.batch(loop.rows[:batch_size])
    with FlopCounterMode(display=False) as counter:
        loop.model(inputs["logmel"]).logits.sum().backward()
    operations = counter.get_total_flops() / batch_size
    moved = _activation_bytes(loop.model, inputs["logmel"]) / batch_size
    rate, bandwidth = _matrix_rate(device), _bandwidth(device)
    return {
        "operations_per_clip": operations,
        "bytes_moved_per_clip": moved,
        "matrix_operations_per_second": rate,
        "bytes_per_second": bandwidth,
        "clips_per_second_by_arithmetic": rate / operations,
        "clips_per_second_by_memory": bandwidth / moved,
        "share_of_the_nearer_limit": clips_per_second / min(rate / operations, bandwidth / moved),
    }


def _activation_bytes(model: torch.nn.Module, inputs: torch.Tensor) -> float:
    """Count each layer's output once written and read forward, twice each backward, in 2 bytes."""
    sizes: list[int] = []
    leaves = [m for m in model.modules() if not list(m.children())]
    hooks = [
        leaf.register_forward_hook(lambda _, __, output: sizes.append(output.numel()))
        for leaf in leaves
    ]
    with torch.no_grad():
        model(inputs)
    for hook in hooks:
        hook.remove()
    return 2 * 6 * float(sum(sizes))


def _matrix_rate(device: str) -> float:
    size = 2048 if device == "cpu" else 8192
    dtype = torch.bfloat16 if training.resolve_precision("auto") == "bfloat16" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = alternate({"product": lambda: a @ b}, rounds=5)["product"]
    return 2 * size**3 / statistics.median(seconds)


def _bandwidth(device: str) -> float:
    block = torch.empty(2**26, device=device)
    target = torch.empty_like(block)
    seconds = alternate({"copy": lambda: target.copy_(block)}, rounds=5)["copy"]
    return 2 * block.nbytes / statistics.median(seconds)


def bench_growth() -> dict:
    """Time and peak memory of an epoch as clips and branches grow, each in a fresh process."""
    by_clips = {n: _in_fresh_process(_epoch_cost, n, 1) for n in (500, 1000, 2000, 4000)}
    by_branches = {n: _in_fresh_process(_epoch_cost, 500, n) for n in (1, 2, 3)}
    return {"clips": by_clips, "branches": by_branches}


def _in_fresh_process(function: Callable, *arguments: object) -> dict:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(function, arguments)


def _epoch_cost(n_clips: int, n_branches: int) -> dict:
    """Train one epoch of small networks from a store of 128 x 345 on the disk."""
    params = make_params({**FAST, "batch_size": 32, "width": 0.25, "head": [64, 32]})
    training.set_up_machine(params)
    names = ["logmel", "cqt", "gammatone"][:n_branches]
    with tempfile.TemporaryDirectory() as folder:
        stores = {name: _random_store(Path(folder) / f"{name}.npy", n_clips) for name in names}
        data = training.Data(stores, np.zeros(n_clips, np.int64), 10)
        branches = [build_branch(params, name, 10, Normalise()) for name in names]
        model = branches[0] if n_branches == 1 else build_fusion(params, branches, 10)
        optimizer = training.make_optimizer(model, params)
        began = time.perf_counter()
        rows = np.arange(n_clips)
        training.train_epoch(
            model, optimizer, data, rows, epoch=0, weight=params.kd_weight, params=params
        )
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak_mebibytes": peak, "store_mebibytes": n_clips * 0.1685}


def _random_store(path: Path, n_clips: int) -> np.ndarray:
    store = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n_clips, 128, 345))
    generator = np.random.default_rng(0)
    for first in range(0, n_clips, 100):
        store[first : first + 100] = generator.standard_normal((128, 345), dtype=np.float32)
        forget_pages(store)
    store.flush()
    return np.load(path, mmap_mode="r")


def bench_start_up(*, rounds: int) -> dict | None:
    """What papermill, a kernel and the imports cost a run before its first step."""
    try:
        import nbformat

        from fusionkd_lib import chapters
    except ImportError:
        print("papermill or jupytext is not installed: the start-up of a run is left out")
        return None
    source = "from fusionkd_lib import experiment, features, metrics, plots"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source)], metadata={"kernelspec": kernel}
    )
    with tempfile.TemporaryDirectory() as folder:
        work = {"start": lambda: chapters.execute(notebook, Path(folder) / "start.ipynb")}
        seconds = statistics.median(alternate(work, rounds=rounds)["start"])
    return {"seconds": seconds, "share_of_a_run_of_ten_minutes": seconds / 600}


def machine() -> dict:
    """Return what the times were taken on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"processor": _processor(), "gpu": gpu, "torch": torch.__version__}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def report(results: dict) -> None:
    """Print for each goal our ratio and whether it holds."""
    print(f"\n{results['machine']}\n")
    for name, goals in GOALS.items():
        for device, goal in goals.items():
            measured = results.get(name, {}).get(device, {}).get("ratio")
            if measured is None:
                print(f"{name:16s} {device:5s} goal {goal:4d} x   not measured on this machine")
                continue
            verdict = "holds" if measured >= goal else "falls short"
            print(f"{name:16s} {device:5s} goal {goal:4d} x   ours {measured:6.1f} x   {verdict}")


def main() -> None:
    """Measure, print, and keep the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="training steps a round")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"))
    options = parser.parse_args()
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    results: dict = {"machine": machine(), "representations": {}, "training": {}}
    for device in devices:
        results["representations"][device] = bench_representations(device, rounds=options.rounds)
        results["training"][device] = bench_training(
            device, rounds=options.rounds, steps=options.steps
        )
    results["growth"] = bench_growth()
    results["start_up"] = start_up = bench_start_up(rounds=options.rounds)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "bench.json").write_text(json.dumps(results, indent=1) + "\n")
    report(results)
    if start_up:
        share = 100 * start_up["share_of_a_run_of_ten_minutes"]
        print(
            f"start-up of a run {start_up['seconds']:.1f} s, {share:.1f} % of ten minutes (goal: 5)"
        )
    for kind, costs in results["growth"].items():
        for number, cost in costs.items():
            print(
                f"{number:>5} {kind}: {cost['seconds']:6.1f} s an epoch, peak "
                f"{cost['peak_mebibytes']:.0f} MiB"
            )


if __name__ == "__main__":
    main()
