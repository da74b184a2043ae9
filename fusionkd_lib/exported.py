"""A classifier in one ONNX file: what it tells of itself, and its scores, without torch.

The file's metadata hold a JSON document under each key of `Told`. Nothing in the file is taken on
trust. Before ONNX Runtime sees it, its messages are walked: it must be one graph of ONNX's own
operators, without graphs inside (which may loop for ever), functions, or tensors that lie in other
files. Memory has a limit; time has none but that of the operators.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from fusionkd_lib.errors import InputError
from fusionkd_lib.reading import parse_json, read_bytes

SUFFIX, OPSET, MOST_BYTES = ".onnx", 18, 2**30
# Files of ours have thousands of fields, and 16 windows of the paper's take 200 MB.
MOST_FIELDS, MOST_MEMORY = 10**6, 2**33
# Of onnx.proto: which fields are messages to look into, and which no file of ours has.
INSIDE = {("model", 7): "graph", ("graph", 1): "node", ("graph", 5): "tensor"}
INSIDE |= {("node", 5): "attribute", ("attribute", 5): "tensor", ("attribute", 10): "tensor"}
REFUSED = {("model", 20), ("model", 25), ("graph", 15), ("tensor", 13)}
REFUSED |= {("attribute", number) for number in (6, 11, 22, 23)}
REMEDY = "export it again, or name a file of fusionkd export"


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
    score: float  # by that metric, on the run's test clips
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
        own = {"head": head, "thresholds": self.thresholds_of[head], "score": self.score_of[head]}
        return self.model_copy(update=own | {"heads": (), "thresholds_of": {}, "score_of": {}})

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
    path
        Where it stands.
    output
        The name of the scores that are taken.
    """

    told: Told
    session: Any
    path: str | Path
    output: str = "scores"

    def scores(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Return the scores (B, K) in [0, 1] of B waveforms (N,) of one length.

        Raises
        ------
        InputError
            If the graph cannot be computed, or what it gives are no scores.
        """
        try:
            (scores,) = self.session.run([self.output], {"waveform": np.stack(waveforms)})
            # NaN is in no interval.
            if len(scores) != len(waveforms) or not ((scores >= 0) & (scores < 1.001)).all():
                raise ValueError("what it computes are no scores")
        except Exception as error:  # of ONNX Runtime's, a dozen
            raise _damaged(self.path, error) from None
        return scores

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

    content = read_bytes(path, remedy=REMEDY, most=MOST_BYTES)
    onnxruntime.set_default_logger_severity(4)  # a fault is told here
    try:
        check_graph(content)
        given = _options(onnxruntime), ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(content, *given)
        found = session.get_modelmeta().custom_metadata_map
        told = Told(**{key: parse_json(text.encode()) for key, text in found.items()})
        numbers = {told.outputs[head]: len(told.of(head).thresholds) for head in told.outputs}
        sizes = {output.name: output.shape[-1] for output in session.get_outputs()}
        if sizes != numbers or {*sizes.values()} != {len(told.labels)}:
            raise ValueError("labels, thresholds and scores differ in number")
    except Exception as error:  # of ONNX Runtime's, a dozen; of metadata, what parsing raises
        raise _damaged(path, error) from None
    return Exported(told, session, path)


def _damaged(path: str | Path, error: Exception) -> InputError:
    why = error if type(error) is ValueError else type(error).__name__
    fault = f"is damaged, or no file of this version's fusionkd export ({why})"
    return InputError(f"{path}: {fault}: {REMEDY}")


@cache
def _options(ort: Any) -> Any:
    """Return ONNX Runtime's options: the format is ONNX's, and memory has a limit."""
    kind = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    limit = ort.OrtArenaCfg({"max_mem": MOST_MEMORY})
    ort.create_and_register_allocator(ort.OrtMemoryInfo("Cpu", *kind), limit)
    options = ort.SessionOptions()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def check_graph(content: bytes) -> None:
    """Refuse a model that is more than one graph of ONNX's operators, all in one file.

    Raises
    ------
    ValueError
        With what it has that it should not.
    """
    waiting, n_fields = [("model", memoryview(content))], 0
    while waiting:
        message, inner = waiting.pop()
        for n_fields, (number, value) in enumerate(fields(inner), n_fields + 1):  # noqa: B020
            place = message, number
            foreign = place == ("node", 7) and value not in (b"", b"ai.onnx")  # its domain
            if place in REFUSED or foreign or n_fields > MOST_FIELDS:
                raise ValueError("holds more than one plain graph of ONNX's operators")
            waiting += [(INSIDE[place], value)] if place in INSIDE else []


def fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    r"""Yield the numbers of a protobuf message's fields, and the bytes of those that have a length.

    Raises
    ------
    ValueError
        If it is none.

    Examples
    --------
    >>> [(number, bytes(value)) for number, value in fields(memoryview(b"\x08\x05\x12\x01x"))]
    [(1, b''), (2, b'x')]
    """
    place = 0
    while place < len(message):
        key, start = varint(message, place)
        kind = key & 7  # 0: a whole number, 1: 8 bytes, 2: their number and bytes, 5: 4 bytes
        size, start = varint(message, start) if kind in (0, 2) else (4 if kind == 5 else 8, start)
        place = start + (size if kind else 0)
        if key >> 32 or kind not in (0, 1, 2, 5) or place > len(message):
            raise ValueError("is no ONNX file")
        yield key >> 3, message[start:place]


def varint(message: memoryview, place: int) -> tuple[int, int]:
    """Return the whole number that starts at a place of a message, and where it ends."""
    if not (found := re.compile(rb"[\x80-\xff]{0,9}[\x00-\x7f]").match(message, place)):
        raise ValueError("is no ONNX file")
    return sum((byte & 127) << 7 * i for i, byte in enumerate(found[0])), found.end()
