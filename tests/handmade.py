"""Finished runs that were never trained, with scores of one's own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusionkd_lib.catalogue import BASELINES, DATASETS, REPRESENTATIONS, baselines_of
from fusionkd_lib.metrics import official, summary
from fusionkd_lib.params import Params
from fusionkd_lib.records import Provenance, TestClips
from fusionkd_lib.runs import Run, run_name


def write_run(
    root: Path,
    params: Params,
    scores: Mapping[str, np.ndarray],
    *,
    branch: str | None = None,
    targets: np.ndarray | None = None,
    weights: Mapping[str, Mapping[str, torch.Tensor]] | None = None,
    **told: Any,
) -> Run:
    """Write a finished run into a folder of runs.

    Every clip is a recording of its own; the targets are class 0 where none are given. What is told
    beside that goes into the provenance.
    """
    params = params.replace(representations=[branch]) if branch in REPRESENTATIONS else params
    scores = {head: x.astype(np.float32) for head, x in scores.items()}
    n, n_classes = next(iter(scores.values())).shape
    targets = np.zeros(n, dtype=np.int64) if targets is None else targets
    names = ([f"{letter}{i}" for i in range(n)] for letter in "cr")
    test = TestClips(*map(np.array, names), targets)
    kind = told.get("kind") or ("branch" if branch else "fusion")
    run = Run(root / run_name(params, branch=branch))
    run.begin(params)
    run.write_history(
        {"epoch": epoch, "loss": 1 / epoch} for epoch in range(1, params.n_epochs(kind) + 1)
    )
    run.finish(
        metrics={
            head: summary(targets, x) | {"thresholds": [0.5] * n_classes}
            for head, x in scores.items()
        },
        scores=scores,
        weights=weights or {},
        provenance=provenance_of(params, test, n_classes=n_classes, **told),
        test=test,
    )
    return run


def provenance_of(params: Params, test: TestClips, *, n_classes: int, **told: Any) -> Provenance:
    """Say where a run came from, some of it as it is told."""
    dataset = DATASETS[params.dataset]
    values = {
        "kind": "fusion" if len(params.representations) > 1 else "branch",
        "metric": official(test.targets),
        "dataset": dataset.title,
        "data": "0123456789abcdef",
        "data_status": "real" if dataset.folder else "synthetic",
        "data_note": f"{len(test.clips)} clips.",
        "classes": tuple("abcdefghij"[:n_classes]),
        "n_train": 20,
        "n_validation": 10,
        "n_test": len(test.clips),
        "n_dropped": 0,
        "test_clips": test.digest,
        "parents": {},
        "selected_epoch": {"joint": 1},
        "device": "cpu",
        "processor": "one of two",
        "peak_mebibytes": 100.0,
        "started": "2026-01-31T12:00:00+00:00",
        "training_seconds": 1.0,
        "commit": "unknown",
        "versions": {},
    }
    return Provenance(**values | told)


def write_baselines(
    root: Path, params: Params, scores: Mapping[str, np.ndarray], **told: Any
) -> Run:
    """Write the baselines of a pair, with the same scores where none of its own are given."""
    heads = {
        head: scores.get(head, scores["chance"]) for head in baselines_of(params.representations)
    }
    return write_run(
        root, params, heads, branch=BASELINES, kind=BASELINES, selected_epoch={}, **told
    )


def write_pair(
    root: Path, params: Params, scores: Mapping[str, Mapping[str, np.ndarray]], **told: Any
) -> list[Run]:
    """Write the branch runs of a pair, where they are not there yet, and its fusion run.

    Parameters
    ----------
    scores
        ``alone``: branch -> scores before distillation; ``together``: classifier -> scores.
    """
    runs = [Run(root / run_name(params, branch=name)) for name in scores["alone"]]
    for run, (name, values) in zip(runs, scores["alone"].items(), strict=True):
        if not run.is_complete:
            write_run(root, params, {name: values}, branch=name, **told)
    parents = {run.name: run.record.digest for run in runs}
    return [*runs, write_run(root, params, scores["together"], parents=parents, **told)]
