"""Ours and the peers side by side, alternating: ``make bench``.

A ratio is a median of at least five rounds, each of which times both sides one after the other, so
that what else the machine does falls on both. Times stand beside it with the machine's name. Runs
without librosa, gammatone and nnAudio too, on the GPU where there is one; what lacks its peer is
left out and said so.
"""

import argparse
import json
import multiprocessing
import os
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, TensorDataset

from fusionkd_lib import representations, speed, training
from fusionkd_lib.batches import Data
from fusionkd_lib.experiment import build_branch, build_fusion, recipe_of, train_branch
from fusionkd_lib.features import forget_pages
from fusionkd_lib.models import Normalise
from fusionkd_lib.params import Params, make_params
from fusionkd_lib.runs import settle
from fusionkd_lib.speed.fast_layers import use_fast_layers

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


FAST = {"shortcuts": "all"}  # that pay on this machine


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
    loop = OurLoop(*arguments)
    return {
        "clips_per_second": per_second,
        "ratio": ratio(seconds, "plain", "ours"),
        "batch_size": batch_size,
        "threads": 2,
        "limit": machine_limit(device, loop, batch_size, per_second["ours"]),
        "shares_of_a_step": shares_of_a_step(loop, device),
    }


def bench_fast_layers(rounds: int) -> dict:
    """Forward and backward of layers as PyTorch has them and as ours, at the first maps' sizes."""
    if not speed.can_compile():
        print("torch.compile does not work here: the fast layers are left out")
        return {}
    shortcuts = settle(make_params(FAST)).shortcuts
    speed.set_up_process(threads=2, shortcuts=shortcuts)
    results = {}
    for name, (layer, fast, shape) in _exchanged_layers().items():
        layers = {"PyTorch's": layer, "ours": fast}
        for module in layers.values():
            module.to(memory_format=torch.channels_last)
        x = torch.randn(shape).contiguous(memory_format=torch.channels_last)
        if shape[1] > 1:  # a feature map
            x = x.to(_precision("cpu")).requires_grad_()
        steps = {side: _layer_step(module, x, shortcuts) for side, module in layers.items()}
        seconds = alternate(steps, rounds=rounds)
        milliseconds = {side: 1000 * statistics.median(s) for side, s in seconds.items()}
        results[name] = {
            "milliseconds": milliseconds,
            "ratio": ratio(seconds, "PyTorch's", "ours"),
            "input": list(shape),
        }
    return results


def _exchanged_layers() -> dict[str, tuple[torch.nn.Module, torch.nn.Module, tuple[int, ...]]]:
    """Name -> PyTorch's layer, ours, and the shape of the input."""
    branch = build_branch(Params(), "logmel", 10, Normalise())
    fast = build_branch(Params(), "logmel", 10, Normalise())
    use_fast_layers(fast)
    expansion, fast_expansion = (network.trunk[2].conv[0] for network in (branch, fast))
    strided, fast_strided = (network.trunk[2].conv[1][0] for network in (branch, fast))
    joined, fast_joined = map(_after_convolution, (expansion, fast_expansion))
    shape = 32, 96, 64, 173
    return {
        "BatchNorm and ReLU6": (joined, fast_joined, shape),
        "strided depthwise convolution": (strided, fast_strided, shape),
        "colour stem": (branch.stem, fast.stem, (32, 1, 128, 345)),
    }


def _after_convolution(block: torch.nn.Sequential) -> torch.nn.Sequential:
    return torch.nn.Sequential(*list(block)[1:])


def _layer_step(
    layer: torch.nn.Module, x: torch.Tensor, shortcuts: tuple[str, ...]
) -> Callable[[], object]:
    with speed.autocast(x.device, shortcuts):
        gradient = torch.randn_like(layer(x))
    # As in a branch: the spectrogram alone needs no gradient.
    wanted = [*layer.parameters(), *([x] if x.requires_grad else [])]

    def step() -> object:
        with speed.autocast(x.device, shortcuts):
            output = layer(x)
        return torch.autograd.grad(output, wanted, gradient)

    return step


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
            loss = torch.nn.functional.cross_entropy(self.model({"logmel": inputs}).logits, targets)
            loss.backward()
            self.optimizer.step()
            running += loss.item()


class OurLoop:
    """`train_epoch` with every shortcut that the machine has."""

    def __init__(
        self, spectrograms: np.ndarray, targets: np.ndarray, device: str, batch_size: int
    ) -> None:
        params = settle(make_params({**FAST, "batch_size": batch_size, "lr": 1e-3}))
        self.recipe = recipe_of(params)
        speed.set_up_process(threads=params.threads, shortcuts=params.shortcuts)
        self.model = build_branch(params, "logmel", 10, Normalise())
        speed.set_up_model(self.model, torch.device(device), params.shortcuts)
        self.optimizer = training.make_optimizer(self.model, self.recipe)
        data = Data({"logmel": spectrograms}, targets, 10, torch.device(device))
        self.data = data.on_device() if device == "cuda" else data
        self.rows = np.arange(len(targets))

    def epoch(self) -> None:
        training.train_epoch(
            self.model,
            self.optimizer,
            self.data,
            self.rows,
            epoch=0,
            kd_weight=0.0,
            recipe=self.recipe,
        )


def machine_limit(device: str, loop: OurLoop, batch_size: int, clips_per_second: float) -> dict:
    """How far a step is from what the machine's arithmetic and memory would allow."""
    inputs, _ = loop.data.batch(loop.rows[:batch_size])
    operations, moved = (x / batch_size for x in work_of_a_step(loop.model, inputs))
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


def work_of_a_step(model: torch.nn.Module, inputs: dict) -> tuple[float, float]:
    """Count a training step's operations, and the bytes of activations that it moves.

    Two operations for each weight that an output sums over, three times (forward, and the gradients
    of input and weight). Each layer's output written and read once forward and twice each backward,
    in 2 bytes.
    """
    products, values = [], []

    def count(layer: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        values.append(output.numel())
        if hasattr(layer, "weight") and layer.weight.ndim > 1:
            products.append(output.numel() * layer.weight[0].numel())

    leaves = [module for module in model.modules() if not list(module.children())]
    hooks = [leaf.register_forward_hook(count) for leaf in leaves]
    with torch.no_grad():
        model(inputs)
    for hook in hooks:
        hook.remove()
    return 3 * 2.0 * sum(products), 2 * 6.0 * sum(values)


# Kind of work -> what the profiler calls it.
WORK = {
    "fast layers": "compiledfxgraph|batchnormrelu6|^_depthwise",
    "convolutions backward": "convolution_backward",
    "convolutions forward": "convolution",
    "BatchNorm": "batch_norm",
    "ReLU and ReLU6": "clamp|hardtanh|threshold|relu",
    "conversions and copies": "copy_",
    "optimiser": "adam",
}


def shares_of_a_step(loop: OurLoop, device: str) -> dict[str, float]:
    """What the time of our training steps is spent on, by the profiler."""
    activities = [ProfilerActivity.CPU if device == "cpu" else ProfilerActivity.CUDA]
    loop.epoch()
    # The profiler's records split the heap; a step then finds room that is faulted in already.
    if device == "cpu":
        torch.ones(2**29)
    with profile(activities=activities) as profiler:
        loop.epoch()
        synchronise()
    spent = dict.fromkeys([*WORK, "the rest"], 0.0)
    for event in profiler.key_averages():
        own = event.self_cpu_time_total if device == "cpu" else event.self_device_time_total
        kinds = (kind for kind, pattern in WORK.items() if re.search(pattern, event.key.lower()))
        spent[next(kinds, "the rest")] += own
    total = sum(spent.values())
    return {kind: own / total for kind, own in spent.items()}


def _matrix_rate(device: str) -> float:
    size = 2048 if device == "cpu" else 8192
    dtype = _precision(device)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = alternate({"product": lambda: a @ b}, rounds=5)["product"]
    return 2 * size**3 / statistics.median(seconds)


def _precision(device: str) -> torch.dtype:
    """Return the precision of networks that take all shortcuts on a device."""
    taken = speed.resolve("all", torch.device(device))
    return torch.bfloat16 if "bfloat16" in taken else torch.float32


def _bandwidth(device: str) -> float:
    block = torch.empty(2**26, device=device)
    target = torch.empty_like(block)
    seconds = alternate({"copy": lambda: target.copy_(block)}, rounds=5)["copy"]
    return 2 * block.nbytes / statistics.median(seconds)


def bench_growth() -> dict:
    """Time and peak memory of an epoch as clips and branches grow, each in a fresh process."""
    by_clips = {n: in_fresh_process(_epoch_cost, n, 1) for n in (500, 1000, 2000, 4000)}
    by_branches = {n: in_fresh_process(_epoch_cost, 500, n) for n in (1, 2, 3)}
    return {"clips": by_clips, "branches": by_branches}


def bench_long_clips() -> dict:
    """Peak memory of the paper's pair on 10 s clips at 44.1 kHz, batch 64 in micro-batches."""
    return {size: in_fresh_process(_long_clip_cost, size) for size in (8, 16)}


def in_fresh_process(function: Callable, *arguments: object) -> dict:
    # Not a Pool, which would end its process in the middle of what that cleans up.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


SMALL = {**FAST, "batch_size": 32, "width": 0.25, "head": [64, 32]}


def _epoch_cost(n_clips: int, n_branches: int) -> dict:
    """Train one epoch of small networks from stores of 128 x 345 on the disk."""
    return _cost(make_params(SMALL), n_clips=n_clips, n_branches=n_branches, n_frames=345)


def _long_clip_cost(micro_batch: int) -> dict:
    """Train one step of the paper's fused network in single precision."""
    params = make_params({"batch_size": 64, "micro_batch": micro_batch})
    return _cost(params, n_clips=64, n_branches=2, n_frames=862)


def _cost(params: Params, *, n_clips: int, n_branches: int, n_frames: int) -> dict:
    params = settle(params)
    recipe = recipe_of(params)
    speed.set_up_process(threads=params.threads, shortcuts=params.shortcuts)
    names = ["logmel", "cqt", "gammatone"][:n_branches]
    with tempfile.TemporaryDirectory() as folder:
        stores = {n: _random_store(Path(folder) / f"{n}.npy", n_clips, n_frames) for n in names}
        data = Data(stores, np.zeros(n_clips, np.int64), 10)
        branches = [build_branch(params, name, 10, Normalise()) for name in names]
        model = branches[0] if n_branches == 1 else build_fusion(params, branches, 10)
        optimizer = training.make_optimizer(model, recipe)
        before, began = peak_mebibytes(), time.perf_counter()
        rows = np.arange(n_clips)
        training.train_epoch(
            model, optimizer, data, rows, epoch=0, kd_weight=params.kd_weight, recipe=recipe
        )
        seconds = time.perf_counter() - began
    stored = n_branches * n_clips * 128 * n_frames * 4 / 2**20
    return {
        "seconds": seconds,
        "peak_mebibytes": peak_mebibytes(),
        "peak_before_mebibytes": before,
        "store_mebibytes": stored,
    }


def peak_mebibytes() -> float:
    """Return the most memory that this process has had resident, shared pages included."""
    # Not getrusage's figure: a child process begins with its parent's peak.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def _random_store(path: Path, n_clips: int, n_frames: int) -> np.ndarray:
    shape = (n_clips, 128, n_frames)
    store = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    generator = np.random.default_rng(0)
    for first in range(0, n_clips, 100):
        store[first : first + 100] = generator.standard_normal(shape[1:], dtype=np.float32)
        forget_pages(store)
    store.flush()
    return np.load(path, mmap_mode="r")


# A small branch, with every shortcut off.
RECIPE = {
    "representations": ["logmel"],
    "sample_rate": 16000,
    "duration": 2.0,
    "width": 0.25,
    "head": [320, 128],
    "epochs": 10,
    "batch_size": 32,
    "lr": 0.003,
}


def bench_equal_results(*, n_seeds: int = 3) -> dict:
    """Best validation losses of the same recipe with the shortcuts off and on, seed by seed."""
    with tempfile.TemporaryDirectory() as folder:
        found = {
            side: [
                in_fresh_process(_best_validation_loss, RECIPE | switches | {"seed": seed}, folder)
                for seed in range(n_seeds)
            ]
            for side, switches in {"off": {}, "on": FAST}.items()
        }
    difference = statistics.mean(found["on"]) - statistics.mean(found["off"])
    spread = max(found["off"]) - min(found["off"])
    return {"best_validation_loss": found, "difference": difference, "spread_of_seeds": spread}


def _best_validation_loss(values: dict, outputs: str) -> float:
    os.environ["FUSIONKD_OUTPUTS"] = outputs
    run = train_branch(make_params(values), "logmel", report=lambda history, n_epochs: None)
    return float(run.history["val_loss"].min())


def bench_start_up(*, rounds: int) -> dict | None:
    """What papermill, a kernel, the imports and the compiler cost a run before its first step."""
    try:
        import nbformat

        from fusionkd_lib.engine import notebooks
    except ImportError:
        print("papermill or jupytext is not installed: the start-up of a run is left out")
        return None
    source = "from fusionkd_lib import experiment, features, metrics"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source)], metadata={"kernelspec": kernel}
    )
    with tempfile.TemporaryDirectory() as folder:
        work = {"start": lambda: notebooks.execute(notebook, Path(folder) / "start.ipynb")}
        seconds = statistics.median(alternate(work, rounds=rounds)["start"])
    with tempfile.TemporaryDirectory() as cache:
        compiling = {when: in_fresh_process(_compile_seconds, cache) for when in ("first", "later")}
    return {
        "seconds": seconds,
        "compile_seconds": compiling,
        "share_of_a_run_of_ten_minutes": (seconds + compiling["first"]) / 600,
    }


def _compile_seconds(cache: str) -> float:
    """By how much set-up and first step take longer than a later step, with this cache."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
    spectrograms = np.random.default_rng(0).standard_normal((32, 128, 345)).astype(np.float32)
    times = [time.perf_counter()]
    loop = OurLoop(spectrograms, np.arange(32) % 10, "cpu", 32)
    for _ in range(4):
        loop.epoch()
        times.append(time.perf_counter())
    first, *later = np.diff(times)
    return float(first - np.median(later))


def this_machine() -> dict:
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
            measured = results[name].get(device, {}).get("ratio")
            judge(f"{name}, {device}: at least {goal} times as fast", measured, at_least=goal)
    equal, start_up = results["equal_results"], results["start_up"]
    judge(
        "validation loss, shortcuts on: within the seeds' spread",
        abs(equal["difference"]),
        at_most=equal["spread_of_seeds"],
    )
    judge(
        "start-up: at most 5 % of a run of ten minutes",
        start_up and 100 * start_up["share_of_a_run_of_ten_minutes"],
        at_most=5,
    )
    peaks = [cost["peak_mebibytes"] for cost in results["growth"]["clips"].values()]
    judge("MiB that eight times the clips add: at most 512", peaks[-1] - peaks[0], at_most=512)
    smallest = results["long_clips"][8]["peak_mebibytes"] / 1024
    judge("GiB of 10 s clips in micro-batches: at most 8", smallest, at_most=8)
    for name, cost in results["fast_layers"].items():
        print(f"{name}: {cost['ratio']:.1f} times as fast as PyTorch's own")
    for kind, costs in results["growth"].items():
        for number, cost in costs.items():
            seconds, peak = cost["seconds"], cost["peak_mebibytes"]
            print(f"{number:>5} {kind}: {seconds:6.1f} s an epoch, peak {peak:.0f} MiB")


def judge(
    goal: str,
    measured: float | None,
    *,
    at_least: float = float("-inf"),
    at_most: float = float("inf"),
) -> None:
    if measured is None:
        print(f"{goal:60s}      -   not measured on this machine")
        return
    holds = at_least <= measured <= at_most
    print(f"{goal:60s} {measured:6.2f}   {'holds' if holds else 'falls short'}")


def main() -> None:
    """Measure, print, and keep the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="training steps a round")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"))
    options = parser.parse_args()
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    results: dict = {"machine": this_machine(), "representations": {}, "training": {}}
    for device in devices:
        results["representations"][device] = bench_representations(device, rounds=options.rounds)
        results["training"][device] = bench_training(
            device, rounds=options.rounds, steps=options.steps
        )
    results["fast_layers"] = in_fresh_process(bench_fast_layers, options.rounds)
    results["growth"] = bench_growth()
    results["long_clips"] = bench_long_clips()
    results["equal_results"] = bench_equal_results()
    results["start_up"] = bench_start_up(rounds=options.rounds)
    options.out.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"\W+", "-", results["machine"]["gpu"] or results["machine"]["processor"])
    path = options.out / f"{name.strip('-').lower()}.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    report(results)


if __name__ == "__main__":
    main()
