"""A classifier in one ONNX file: what it tells of itself, and its scores, without torch.

The file's metadata hold a JSON document under each key of `Told`. Nothing in the file is taken on
trust: it is ours and whole, or it is refused in one sentence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from fusionkd_lib.errors import InputError
from fusionkd_lib.reading import parse_json, read_bytes

SUFFIX = ".onnx"
MOST_BYTES = 2**30
NEEDED = ("onnx", "onnxruntime")
OPSET = 18
STRICT = {"frozen": True, "extra": "forbid", "strict": True, "allow_inf_nan": False}
Score = Annotated[float, Field(ge=0, le=1)]


class Told(BaseModel, **STRICT):
    """What a classifier tells of itself, in a file's metadata and to whoever tags with it."""

    fusionkd: Literal[1] = 1  # version of this format
    opset: int = OPSET
    run: str
    digest: str  # of the run's complete.json
    commit: str
    head: str
    labels: Annotated[tuple[str, ...], Field(min_length=2, strict=False)]
    thresholds: Annotated[tuple[float, ...], Field(strict=False)]
    multi_label: bool
    sample_rate: Annotated[int, Field(ge=1000, le=768_000)]
    window_seconds: Annotated[float, Field(gt=0, le=3600)]
    dataset: str
    data_status: str
    data_note: str
    licence: str  # of the training data
    metric: str
    score: Score  # by that metric, on the run's test clips
    precision: Literal["float32", "int8"] = "float32"
    in_float32: Annotated[tuple[str, ...], Field(strict=False)] = ()  # layers of an int8 file

    @property
    def n_samples(self) -> int:
        """Samples of a window."""
        return round(self.window_seconds * self.sample_rate)

    @property
    def warning(self) -> str | None:
        """What the licence of the training data forbids, if anything."""
        status = f"{self.run}: trained on {self.dataset} ({self.licence})"
        return f"{status}: for non-commercial use only" if "NC" in self.licence else None


@dataclass(frozen=True, eq=False)
class Exported:
    """A file that can be run.

    Parameters
    ----------
    told
        Its metadata.
    session
        ONNX Runtime's, on one thread.
    """

    told: Told
    session: Any

    def scores(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Return the scores (B, K) in [0, 1] of B waveforms (N,) of one length."""
        return self.session.run(["scores"], {"waveform": np.stack(waveforms)})[0]


def require_tools() -> None:
    """Say in one sentence how to install what an exported file needs, where it is missing."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        way_out = "pip install 'fusionkd[export]'"
        raise InputError(f"ONNX files need {' and '.join(missing)}: {way_out}")


def open_exported(path: str | Path) -> Exported:
    """Open a file that `fusionkd export` wrote.

    Raises
    ------
    InputError
        If it cannot be read, is damaged, or another project's.
    """
    require_tools()
    import onnxruntime

    remedy = "export it again, or name a file of fusionkd export"
    content = read_bytes(path, remedy=remedy, most=MOST_BYTES)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    except Exception as error:  # it has a dozen, without a name of their own
        fault = f"is no ONNX model, or a damaged one ({type(error).__name__})"
        raise InputError(f"{path}: {fault}: {remedy}") from None
    try:
        found = session.get_modelmeta().custom_metadata_map
        told = Told(**{key: parse_json(value.encode()) for key, value in found.items()})
        if not len(told.labels) == len(told.thresholds) == session.get_outputs()[0].shape[1]:
            raise ValueError("its labels, thresholds and scores differ in number")
    except (ValueError, RecursionError):
        fault = "its metadata are not those of a file that this version of fusionkd exported"
        raise InputError(f"{path}: {fault}: {remedy}") from None
    return Exported(told, session)
