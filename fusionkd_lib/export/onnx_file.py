"""A trained classifier as one ONNX file, from waveform to scores, with a model card beside it.

torch's older exporter is used: it takes a second, and writes the graph that the newer one takes a
minute and another package for. It warns that it is the older one, and that it traces: nothing here
depends on values, and on sizes only where `frontend` and the two functions below see to it.
"""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from string import Template
from unittest.mock import patch

import onnx
import torch
from onnxruntime.quantization.onnx_model import ONNXModel
from torch import Tensor, nn
from torch.nn import functional as F

from fusionkd_lib.errors import InputError
from fusionkd_lib.export.frontend import FrontEnd
from fusionkd_lib.export.quantise import halve, quantise, training_clips
from fusionkd_lib.exported import OPSET, SUFFIX, Told
from fusionkd_lib.storage import replacing, write_text
from fusionkd_lib.tagging import Tagger, told_of
from fusionkd_lib.torchvision_import import classification_models


def export(
    tagger: Tagger, out: Path, *, precision: str = "float32", all_heads: bool = False
) -> None:
    """Write a classifier of a run into a file, and its model card beside it.

    Parameters
    ----------
    tagger
        From `tagging.load_tagger`, of a run.
    out
        Ends in ``.onnx``; the card has ``.md`` instead.
    precision
        Of the network: ``float32``; ``float16``, in which its weights are stored, though it
        computes in single precision; ``int8``, calibrated on the run's training clips.
    all_heads
        Whether a fused classifier's file has the scores of the distilled branches too.

    Raises
    ------
    InputError
        Where the classifier cannot be exported, the file has another ending, or the clips for int8
        are not here; where all heads are asked of a run whose network does not have them.
    """
    if out.suffix != SUFFIX or not isinstance(tagger, Tagger):
        raise InputError(f"{out}: export writes a run into a file that ends in {SUFFIX}")
    told, kept = tagger.told.model_copy(update=facts_of_heads(tagger) if all_heads else {}), ()
    clips = training_clips(tagger) if precision == "int8" else []
    with replacing(out) as partial:
        write_graph(Classifier(tagger, told).eval(), partial)
        if precision != "float32":
            kept = halve(partial) if precision == "float16" else quantise(partial, clips)
        told = told.model_copy(update={"precision": precision, "in_float32": kept})
        add_metadata(partial, told)
    write_text(out.with_suffix(".md"), card(told, name=out.name))


def facts_of_heads(tagger: Tagger) -> dict[str, object]:
    """Return what a file tells of the heads beside the fused one."""
    run, heads = tagger.record, tagger.record.params.representations
    if tagger.told.head in heads or run.params.select == "per_head":
        raise InputError(f"{run.name}: no network of this run has all heads: export one of them")
    thresholds = {head: told_of(run, head).thresholds for head in heads}
    scores = {head: run.score(head) for head in heads}
    return {"heads": heads, "thresholds_of": thresholds, "score_of": scores}


class Classifier(nn.Module):
    """Waveforms (B, N) -> scores (B, K) in [0, 1] of each head that a file tells of."""

    def __init__(self, tagger: Tagger, told: Told) -> None:
        super().__init__()
        self.front = FrontEnd(tagger.representations, tagger.clip_format)
        self.network, self.told = tagger.network, told

    def forward(self, waveforms: Tensor) -> tuple[Tensor, ...]:
        """(B, N) -> (B, K) of each head."""
        logits = self.network(self.front(waveforms)).logits_by_head()
        scores = nn.Sigmoid() if self.told.multi_label else nn.Softmax(dim=1)
        return tuple(scores(logits[head]) for head in self.told.outputs)


def write_graph(classifier: Classifier, path: Path) -> None:
    """Write the classifier's graph, for any number of waveforms of any length."""
    outputs, n_samples = [*classifier.told.outputs.values()], classifier.told.n_samples
    sizes = {"waveform": {0: "batch", 1: "samples"}} | {name: {0: "batch"} for name in outputs}
    named = {"input_names": ["waveform"], "output_names": outputs, "opset_version": OPSET}
    shuffles = patch.object(classification_models().shufflenetv2, "channel_shuffle", shuffled)
    pools = patch("torch.nn.functional.adaptive_avg_pool2d", pooled)
    with warnings.catch_warnings(), torch.inference_mode(), shuffles, pools:
        warnings.simplefilter("ignore")
        given = classifier, (torch.zeros(2, n_samples),), path
        try:
            torch.onnx.export(*given, **named, dynamic_axes=sizes, dynamo=False)
        except torch.onnx.OnnxExporterError as error:  # an operation of a trunk of one's own
            raise InputError(f"this trunk cannot be exported ({error}): use another") from None


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Shuffle channels (B, C, F, T) as torchvision's `channel_shuffle` does, whatever the sizes."""
    return x[:, torch.arange(x.shape[1]).reshape(groups, -1).T.flatten()]


def pooled(x: Tensor, size: Sequence[int]) -> Tensor:
    """Pool (B, C, F, T) to F' rows as `adaptive_avg_pool2d` does; all branches have the same T."""
    n, m = x.shape[2], int(size[0])
    rows = [[i * n // m <= k < -(-(i + 1) * n // m) for k in range(n)] for i in range(m)]
    return x if n == m else F.normalize(torch.tensor(rows).float(), p=1, dim=1) @ x


def add_metadata(path: Path, told: Told) -> None:
    """Write each fact as a JSON document into a file's metadata, and drop what nothing uses."""
    model, facts = onnx.load(path), told.model_dump(mode="json")
    ONNXModel(model).clean_initializers()  # ONNX Runtime would complain of each
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in facts.items()})
    onnx.save(model, path)


def card(told: Told, *, name: str) -> str:
    """Return the model card, made from what the classifier tells of itself."""
    facts = told.model_dump(mode="json") | {"file": name, "warning": told.warning or ""}
    scores = {head: f"{told.metric} {score:.4f}" for head, score in told.score_of.items()}
    further = [f"`scores_{head}` ({score})" for head, score in scores.items()]
    template = Template(Path(__file__).with_name("model_card.md").read_text(encoding="utf-8"))
    facts |= {
        "score": f"{told.score:.4f}",
        "further": further or ["none"],
        "in_float32": facts["in_float32"] or ["all"],
    }
    return template.substitute(
        facts | {key: ", ".join(facts[key]) for key in ("labels", "in_float32", "further")}
    )
