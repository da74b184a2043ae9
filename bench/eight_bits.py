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
from fusionkd_lib.errors import InputError
from fusionkd_lib.export.onnx_file import export
from fusionkd_lib.tagging import Tagger, load_tagger

MOST_LOST = 1.0  # points
PRECISIONS = ("float32", "int8")


def windows(tagger: Tagger, rows: np.ndarray, clips: Any) -> Iterator[np.ndarray]:
    """Yield clips as one window each, (1, N)."""
    for row in rows:
        yield clips.read(int(row), tagger.told.sample_rate)[None, : tagger.told.n_samples]


def answers_of(run: str, head: str | None) -> dict[str, np.ndarray]:
    """Return of a run's test clips (n,) the recordings, the classes, and each file's answers."""
    tagger = load_tagger(run, head)
    params = tagger.record.params
    if tagger.told.multi_label:
        raise InputError(
            f"{run}: accuracy is of clips with one label each, and its clips have several"
        )
    clips = experiment.clips_of(params)
    rows = experiment.prepare(params).split.test
    found = {"recording": clips.table["group"].to_numpy(str)[rows], "right": clips.targets[rows]}
    found["pytorch"] = tagger.record.scores[tagger.told.head].argmax(1)
    for precision in PRECISIONS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "file.onnx"
            export(tagger, path, precision=precision)
            session = session_of(str(path))
        answers = [
            session.run(["scores"], {"waveform": window})[0].argmax()
            for window in windows(tagger, rows, clips)
        ]
        found[precision] = np.array(answers)
    return found


def compare(
    answers: np.ndarray, others: np.ndarray, right: np.ndarray, recordings: np.ndarray
) -> dict[str, Any]:
    """Return one side less the other in points, its interval over recordings, and the verdict."""
    one, other = answers == right, others == right
    drawn = metrics.bootstrap(
        lambda _, differences: differences.mean(),
        one,
        one.astype(float) - other,
        recordings,
        seed=0,
    )
    points = 100 * (int(one.sum()) - int(other.sum())) / len(right)
    low, high = (100 * float(end) for end in np.quantile(drawn, [0.025, 0.975]))
    verdict = "reached" if points >= -MOST_LOST else f"missed by {-MOST_LOST - points:.2f}"
    return {
        "points": points,
        "interval_95": [low, high],
        "changed_answers_percent": 100 * float((answers != others).mean()),
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
        try:
            parts.append(answers_of(run, told.head))
        except InputError as error:
            parser.error(str(error))
        pooled = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        of_each = {
            Path(name).name: {
                key: 100 * float((part[key] == part["right"]).mean())
                for key in ("pytorch", *PRECISIONS)
            }
            for name, part in zip(told.runs, parts, strict=False)
        }
        found = compare(*(pooled[key] for key in ("int8", "float32", "right", "recording")))
        told_of = record.tell(now=True, clips=len(pooled["recording"]), runs=of_each, pooled=found)
    print(told_of)


if __name__ == "__main__":
    main()
