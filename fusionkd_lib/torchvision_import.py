"""torchvision's classification models, also beside a torch without CUDA.

A CUDA-linked torchvision cannot load its compiled operators there, and then fails at import, on the
two detection operators whose behaviour it describes ("operator torchvision::nms does not exist").
No classification model calls them, so their bare schemas are enough.
"""

from types import ModuleType

import torch

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

# A schema lives as long as the library object that declared it.
_declared: list[torch.library.Library] = []


def classification_models() -> ModuleType:
    """Return ``torchvision.models``, with the missing operators declared where that is needed."""
    try:
        from torchvision import models
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(operator + SCHEMA)
        _declared.append(library)
        from torchvision import models
    return models
