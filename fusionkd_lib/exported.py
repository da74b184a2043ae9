"""A classifier in one ONNX file: what it tells of itself, and its scores, without torch.

The file's metadata hold a JSON document under each key of `Told`. Nothing in the file is taken on
trust: it is ours and whole, or it is refused in one sentence.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from fusionkd_lib.errors import InputError
from fusionkd_lib.reading import parse_json, read_bytes

SUFFIX, OPSET, MOST_BYTES = ".onnx", 18, 2**30


class Told(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """What a classifier tells of itself, in a file's metadata and to whoever tags with it."""

    fusionkd: Literal[1] = 1  # version of this format
    opset: int = OPSET
    run: str
    digest: str  # of the run's complete.json
    commit: str
    head: str
    heads: tuple[str, ...] = ()  # whose scores are further outputs, `scores_logmel` and so on
    thresholds_of: dict[str, tuple[float, ...]] = {}  # of those heads
    score_of: dict[str, float] = {}
    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    multi_label: bool
    sample_rate: int = Field(ge=1000, le=768_000)
    window_seconds: float = Field(ge=0.01, le=3600)
    dataset: str
    data_status: str
    data_note: str
    licence: str  # of the training data
    metric: str
    score: float  # by that metric, on the run's test clips, in the precision of its training
    precision: Literal["float32", "float16", "int8"] = "float32"
    in_float32: tuple[str, ...] = ()  # what a file of another precision has in this one

    @property
    def n_samples(self) -> int:
        """Samples of a window."""
        return round(self.window_seconds * self.sample_rate)

    @property
    def outputs(self) -> dict[str, str]:
        """The name of the file's output of each head."""
        return {self.head: "scores"} | {head: f"scores_{head}" for head in self.heads}

    def of(self, head: str) -> "Told":
        """Return what is told of one of the heads."""
        if head == self.head:
            return self
        own = {"thresholds": self.thresholds_of[head], "score": self.score_of[head]}
        own |= {"head": head, "heads": (), "thresholds_of": {}, "score_of": {}}
        return self.model_copy(update=own)

    @property
    def warning(self) -> str:
        """What the licence of the training data forbids, if anything."""
        trained = f"{self.run}: trained on {self.dataset} ({self.licence})"
        return f"{trained}: for non-commercial use only" if "NC" in self.licence else ""


@dataclass(frozen=True, eq=False)
class Exported:
    """A file that can be run.

    Parameters
    ----------
    told
        Its metadata.
    session
        ONNX Runtime's.
    output
        The name of the scores that are taken.
    """

    told: Told
    session: Any
    output: str = "scores"

    def scores(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Return the scores (B, K) in [0, 1] of B waveforms (N,) of one length."""
        return self.session.run([self.output], {"waveform": np.stack(waveforms)})[0]

    def of(self, head: str) -> "Exported":
        """Return the classifier of one of the file's heads."""
        return replace(self, told=self.told.of(head), output=self.told.outputs[head])


def require_tools(*names: str) -> None:
    """Say in one sentence how to install packages that are missing."""
    if missing := [name for name in names if find_spec(name) is None]:
        raise InputError(f"ONNX files need {' and '.join(missing)}: pip install 'fusionkd[export]'")


def open_exported(path: str | Path) -> Exported:
    """Open a file that ``fusionkd export`` wrote.

    Raises
    ------
    InputError
        If it cannot be read, is damaged, or another project's.
    """
    require_tools("onnxruntime")
    import onnxruntime

    remedy = "export it again, or name a file of fusionkd export"
    content = read_bytes(path, remedy=remedy, most=MOST_BYTES)
    onnxruntime.set_default_logger_severity(4)  # a fault is told here
    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        found = session.get_modelmeta().custom_metadata_map
        told = Told(**{key: parse_json(text.encode()) for key, text in found.items()})
        numbers = {told.outputs[head]: len(told.of(head).thresholds) for head in told.outputs}
        sizes = {output.name: output.shape[-1] for output in session.get_outputs()}
    except Exception as error:  # of ONNX Runtime's, a dozen; of metadata, what parsing raises
        fault = f"is damaged, or no file of this version's fusionkd export ({type(error).__name__})"
        raise InputError(f"{path}: {fault}: {remedy}") from None
    if sizes != numbers or {*sizes.values()} != {len(told.labels)}:
        raise InputError(f"{path}: its labels, thresholds and scores differ in number: {remedy}")
    return Exported(told, session)
