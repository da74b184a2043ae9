"""What 8 bits cost in accuracy: ``python -m bench.eight_bits RUN... --keep``.

Each run's branch is exported in single precision and in 8 bits, calibrated on its own training
clips, and both files name the run's test clips. Pooled over the runs, as over the folds of one
recipe, int8 is to lose at most one point.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.devices import session_of
from bench.record import Record, place_of
from fusionkd_lib import experiment, metrics
from fusionkd_lib.export.onnx_file import export
from fusionkd_lib.tagging import Tagger, load_tagger

MOST_LOST = 1.0  # points
PRECISIONS = ("float32", "int8")


def windows(tagger: Tagger, rows: np.ndarray, clips: Any) -> Iterator[np.ndarray]:
    """Yield clips as one window each, (1, N)."""
    for row in rows:
        yield clips.read(int(row), tagger.told.sample_rate)[None, : tagger.told.n_samples]


def right_of(run: str, head: str | None) -> dict[str, np.ndarray]:
    """Return the recordings (n,) of a run's test clips, and which each file names rightly."""
    tagger = load_tagger(run, head)
    params = tagger.record.params
    clips = experiment.clips_of(params)
    rows = experiment.prepare(params).split.test
    found = {"recording": clips.table["group"].to_numpy(str)[rows]}
    found["pytorch"] = tagger.record.scores[tagger.told.head].argmax(1) == clips.targets[rows]
    for precision in PRECISIONS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "file.onnx"
            export(tagger, path, precision=precision)
            session = session_of(str(path))
        answers = [
            session.run(["scores"], {"waveform": window})[0].argmax()
            for window in windows(tagger, rows, clips)
        ]
        found[precision] = np.array(answers) == clips.targets[rows]
    return found


def compare(right: np.ndarray, other: np.ndarray, recordings: np.ndarray) -> dict[str, Any]:
    """Return one side less the other in points, its interval over recordings, and the verdict."""
    drawn = metrics.bootstrap(
        lambda _, differences: differences.mean(),
        right,
        right.astype(float) - other,
        recordings,
        seed=0,
    )
    points = 100 * (int(right.sum()) - int(other.sum())) / len(right)
    low, high = (100 * float(end) for end in np.quantile(drawn, [0.025, 0.975]))
    verdict = "reached" if points >= -MOST_LOST else f"missed by {-MOST_LOST - points:.2f}"
    return {
        "points": points,
        "interval_95": [low, high],
        "changed_answers_percent": 100 * float((right != other).mean()),
        "goal": f"int8 loses at most {MOST_LOST:g} point: {verdict}",
    }


def main() -> None:
    """Compare, print, and keep the record where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--head", help="as of fusionkd export")
    parser.add_argument("--keep", action="store_true", help="keep the record in outputs/bench")
    told = parser.parse_args()
    record, parts = Record(place_of("eight_bits") if told.keep else None), []
    for run in told.runs:
        parts.append(right_of(run, told.head))
        pooled = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        of_each = {
            Path(name).name: {
                key: 100 * float(x.mean()) for key, x in part.items() if x.dtype == bool
            }
            for name, part in zip(told.runs, parts, strict=False)
        }
        found = compare(pooled["int8"], pooled["float32"], pooled["recording"])
        told_of = record.tell(now=True, clips=len(pooled["recording"]), runs=of_each, pooled=found)
    print(told_of)


if __name__ == "__main__":
    main()
