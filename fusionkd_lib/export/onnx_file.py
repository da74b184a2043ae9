"""A trained classifier as one ONNX file, from waveform to scores, and its model card.

torch's older exporter is used: it takes a second, and writes the same graph as the newer one, which
takes a minute and needs another package. What it warns of is that it is the older one, and that it
traces: nothing here depends on values.
"""

import json
import warnings
from pathlib import Path
from string import Template

import onnx
import torch
from torch import Tensor, nn

from fusionkd_lib.export.frontend import FrontEnd
from fusionkd_lib.exported import OPSET, Told
from fusionkd_lib.tagging import Tagger


class Classifier(nn.Module):
    """Waveforms (B, N) -> scores (B, K) in [0, 1]."""

    def __init__(self, front: FrontEnd, network: nn.Module, *, multi_label: bool) -> None:
        super().__init__()
        self.front, self.network, self.multi_label = front, network, multi_label

    def forward(self, waveforms: Tensor) -> Tensor:
        """(B, N) -> (B, K)."""
        logits = self.network(self.front(waveforms)).logits  # (B, K)
        return torch.sigmoid(logits) if self.multi_label else torch.softmax(logits, dim=1)


def write_graph(classifier: Classifier, path: Path, *, n_samples: int) -> None:
    """Write the classifier's graph, for any number of waveforms of any length."""
    sizes = {"waveform": {0: "batch", 1: "samples"}, "scores": {0: "batch"}}
    named = {"input_names": ["waveform"], "output_names": ["scores"], "dynamic_axes": sizes}
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        waveforms = (torch.zeros(2, n_samples),)
        torch.onnx.export(
            classifier.eval(), waveforms, path, **named, opset_version=OPSET, dynamo=False
        )


def write(tagger: Tagger, path: Path) -> None:
    """Write a classifier with what it tells of itself."""
    front = FrontEnd(tagger.representations, tagger.clip_format)
    classifier = Classifier(front, tagger.network, multi_label=tagger.told.multi_label)
    write_graph(classifier, path, n_samples=tagger.told.n_samples)
    add_metadata(path, tagger.told)


def add_metadata(path: Path, told: Told) -> None:
    """Write each fact as a JSON document into a file's metadata."""
    model = onnx.load(path)
    facts = told.model_dump(mode="json")
    onnx.helper.set_model_props(model, {key: json.dumps(x) for key, x in facts.items()})
    onnx.save(model, path)


def card(told: Told, out: Path) -> str:
    """Return the model card, made from what the classifier tells of itself."""
    template = Template(Path(__file__).with_name("model_card.md").read_text(encoding="utf-8"))
    facts = told.model_dump(mode="json") | {"file": out.name, "warning": told.warning or ""}
    return template.substitute(facts | {"labels": ", ".join(told.labels)})
