"""A trained branch, or the fused network, as a product: tags for recordings of any length.

A recording is cut into windows of the run's duration, one after the other or overlapping; the last
one is aligned to the end, where it overlaps its neighbour, and a recording shorter than a window is
padded as the run padded its clips. The score of a recording is, of a multi-label task, the maximum
over the windows (a tag is present where it is present at some time), and of a single-label one the
mean of the probabilities (which sum to one). The thresholds were chosen on clips of one window: the
more windows, the more easily a maximum reaches them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from fusionkd_lib.audio import stream_mono
from fusionkd_lib.catalogue import FUSED, licence
from fusionkd_lib.errors import InputError, choose, nearest
from fusionkd_lib.experiment import clip_format, load_branch, load_fusion, representations_of
from fusionkd_lib.exported import SUFFIX, Exported, Told, open_exported
from fusionkd_lib.features import ClipFormat, compute
from fusionkd_lib.records import COMPLETE, Record
from fusionkd_lib.runs import Run, runs_root
from fusionkd_lib.training import probabilities

# So many windows of the paper's 4 s at 44.1 kHz take about 200 MB in the network.
WINDOWS_AT_ONCE = 16
# Where a run had no validation clips to choose thresholds on.
DEFAULT_THRESHOLD = 0.5
DECIMALS = 6
# Of full scale, 1: what counts as reaching it, the share of samples that do so in a recording that
# was clipped, and what the noise of any microphone passes.
FULL_SCALE, CLIPPED, SILENCE = 0.999, 1e-3, 1e-4


@dataclass(frozen=True, eq=False)
class Tagger:
    """One classifier of a finished run, with all that it needs from a file to its tags.

    Parameters
    ----------
    told
        What it tells of itself: the run, the head, K labels and thresholds, its window.
    clip_format
        What a window is brought to.
    network
        In evaluation mode; it takes spectrograms in dB.
    representations
        Waveforms (B, N) -> (B, 1, F, T) by name.
    record
        Of the finished run.
    """

    told: Told
    clip_format: ClipFormat
    network: nn.Module
    representations: dict[str, nn.Module]
    record: Record

    def scores(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Return the scores (B, K) in [0, 1] of B waveforms (N,), each one window at most.

        They are computed in single precision, whatever the run trained in.
        """
        spectrograms = compute(self.representations, waveforms, self.clip_format)  # (B, F, T)
        inputs = {name: torch.from_numpy(x[:, None]) for name, x in spectrograms.items()}
        with torch.inference_mode():
            logits = self.network(inputs).logits  # (B, K)
        return probabilities(logits.numpy(), multi_label=self.told.multi_label)


Classifier = Tagger | Exported


def load_tagger(run_folder: str | Path, head: str | None = None) -> Classifier:
    """Load a classifier of a finished run, or of a file that was exported from one.

    Parameters
    ----------
    run_folder
        The run's folder, or its name, or a file that ends in ``.onnx``.
    head
        A branch of the run, or ``"fused"``; else the branch of a branch run, and the fused
        classifier of a fusion run. A file has the heads that it was exported with.

    Raises
    ------
    InputError
        If there is no such run or head, the run is not finished, or its weights are damaged or
        another network's.
    """
    if str(run_folder).endswith(SUFFIX):
        file = open_exported(run_folder)
        return file.of(choose("head", head or file.told.head, list(file.told.outputs)))
    run = _find_run(run_folder).record
    heads = list(run.scores)  # the fused classifier, where there is one, comes last
    head = choose("head", head or heads[-1], heads)
    named = run.params.representations if head == FUSED else (head,)
    params = run.params.replace(representations=named, branch=None)
    network = load_fusion(run) if head == FUSED else load_branch(run, head)
    given = clip_format(params), network.eval(), representations_of(params), run
    return Tagger(told_of(run, head), *given)


def told_of(run: Record, head: str) -> Told:
    """Return what a classifier of a run tells of itself."""
    origin, params, labels = run.provenance, run.params, run.provenance.classes
    facts = origin.model_dump(include={"commit", "dataset", "data_status", "data_note", "metric"})
    facts |= {"run": run.name, "digest": run.digest, "head": head, "score": run.score(head)}
    facts |= {"multi_label": origin.metric == "micro_auprc", "licence": licence(params.dataset)}
    facts |= {"sample_rate": params.sample_rate, "window_seconds": params.duration}
    thresholds = run.metrics[head].get("thresholds") or [DEFAULT_THRESHOLD] * len(labels)
    return Told(**facts, labels=labels, thresholds=thresholds)


def _find_run(folder_or_name: str | Path) -> Run:
    """Return the run of that folder, or of that name among this project's."""
    root = runs_root()
    for folder in (Path(folder_or_name), root / folder_or_name):
        if any((folder / name).is_file() for name in ("params.yaml", COMPLETE)):
            return Run(folder.resolve())
    names = sorted(path.parent.name for path in root.glob(f"*/{COMPLETE}"))
    way_out = nearest(str(folder_or_name), names) or f"give a folder, or a run of {root}"
    raise InputError(f"{folder_or_name}: there is no such run: {way_out}")


def cut_windows(
    blocks: Iterable[np.ndarray], n_samples: int, step: int | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Cut a waveform that comes in blocks (n,) into windows (n_samples,) and their first samples.

    They start every `step` samples, without it one after the other; a rest makes a last one that is
    aligned to the end. A waveform shorter than a window is yielded as it is.
    """
    start, held, window, step = 0, np.empty(0, dtype=np.float32), None, step or n_samples
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) >= n_samples:
            window, held = held[:n_samples], held[step:]
            yield start, window
            start += step
    if window is None:
        yield 0, held
    elif len(held) > n_samples - step:
        yield start + len(held) - n_samples, np.concatenate([window[:step], held])[-n_samples:]


def tag_file(
    tagger: Classifier, path: str | Path, *, windows: bool = False, overlap: float = 0.0
) -> dict[str, Any]:
    """Tag a recording of any length, rate and format that can be read.

    Parameters
    ----------
    tagger
        From `load_tagger`.
    path
        The sound file; it is read block by block.
    windows
        Whether the scores of each window are wanted too.
    overlap
        Share of a window that the next one repeats, 0 to 0.9.

    Returns
    -------
    dict
        Plain data: ``file``, ``duration_seconds``, ``run``, ``head``, ``data_status``, ``scores``
        (class -> [0, 1]), ``tags`` (of a multi-label task the classes whose score reaches their
        threshold, the highest first; of a single-label one the likeliest class), and
        with ``windows`` a list of ``start_seconds``, ``end_seconds``, ``scores`` and ``tags``; with
        ``warning`` what makes the scores doubtful.

    Raises
    ------
    InputError
        As `load_mono`.
    """
    told = tagger.told
    starts, end, by_window, levels = _score_windows(tagger, path, overlap=overlap)
    scores = by_window.max(axis=0) if told.multi_label else by_window.mean(axis=0)  # (K,)
    result = {
        "file": str(path),
        "duration_seconds": round(end, 3),
        **{key: getattr(told, key) for key in ("run", "head", "data_status")},
        "scores": _by_class(told, scores),
        "tags": _tags(told, scores),
    }
    if doubts := _doubts(end, levels, window=told.window_seconds):
        result["warning"] = "; ".join(doubts)
    if windows:
        result["windows"] = [
            {
                "start_seconds": round(start, 3),
                "end_seconds": round(min(start + told.window_seconds, end), 3),
                "scores": _by_class(told, row),
                "tags": _tags(told, row),
            }
            for start, row in zip(starts, by_window, strict=True)
        ]
    return result


def _score_windows(
    tagger: Classifier, path: str | Path, *, overlap: float
) -> tuple[list[float], float, np.ndarray, np.ndarray]:
    """Return where the windows start and the last one ends, in seconds, scores (n, K) and levels.

    The levels (n, 2) of a window are its highest sample and the share of those at full scale.
    """
    rate, n_samples = tagger.told.sample_rate, tagger.told.n_samples
    blocks, step = stream_mono(path, sample_rate=rate, quiet=True), round(n_samples * (1 - overlap))
    windows = cut_windows(blocks, n_samples, step)
    windows = iter(tqdm(windows, unit=" windows", leave=False, disable=None))  # on a terminal
    starts, end, scores, levels = [], 0, [], []
    # A batch at a time, so that memory does not grow with the recording.
    while batch := list(islice(windows, WINDOWS_AT_ONCE)):
        starts += [start / rate for start, _ in batch]
        end = (batch[-1][0] + len(batch[-1][1])) / rate
        scores.append(tagger.scores([window for _, window in batch]))
        levels += [(np.abs(x).max(), np.mean(np.abs(x) >= FULL_SCALE)) for _, x in batch]
    return starts, end, np.concatenate(scores), np.array(levels)


def _doubts(end: float, levels: np.ndarray, *, window: float) -> list[str]:
    """Return what makes the scores of a recording doubtful."""
    loudest, clipped = levels[:, 0].max(), levels[:, 1].mean()
    found = {
        f"{end:.3g} s are less than a window of {window:g} s: the rest was padded": end < window,
        f"silent: no sample reaches {SILENCE:g} of full scale": loudest < SILENCE,
        f"{clipped:.1%} of the samples are at full scale: clipped": clipped > CLIPPED,
    }
    return [doubt for doubt, is_so in found.items() if is_so]


def _tags(told: Told, scores: np.ndarray) -> list[str]:
    order = np.argsort(-scores, kind="stable")
    if not told.multi_label:
        # Exactly one class is right: a threshold could only contradict the accuracy of the tables.
        return [told.labels[order[0]]]
    return [told.labels[k] for k in order if scores[k] >= told.thresholds[k]]


def _by_class(told: Told, scores: np.ndarray) -> dict[str, float]:
    rounded = [round(float(score), DECIMALS) for score in scores]
    return dict(zip(told.labels, rounded, strict=True))
