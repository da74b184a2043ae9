"""The networks of the paper: `Branch`, `FusionModule`, `FusionKD` (sections III and IV-C).

Axes: (B, C, F, T) before and within a trunk, (B, K) for logits. Each network returns one `Output`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionkd_lib.catalogue import FUSED
from fusionkd_lib.efficientnet import as_grey_image, first_convolution
from fusionkd_lib.trunks import build_trunk


@dataclass(frozen=True)
class Output:
    """What every network returns.

    Parameters
    ----------
    name
        The representation of a branch, or ``"fused"``.
    logits
        (B, K)
    feature_map
        (B, C, f, t): M_j of a branch, or the pooled and concatenated map of the fusion module.
    branches
        The outputs of the branches of a fused network, by name.

    Examples
    --------
    >>> Output("cqt", torch.zeros(1, 2), torch.zeros(1, 8, 2, 2)).logits_by_head()
    {'cqt': tensor([[0., 0.]])}
    """

    name: str
    logits: Tensor
    feature_map: Tensor
    branches: Mapping[str, "Output"] = field(default_factory=dict)

    def logits_by_head(self) -> dict[str, Tensor]:
        """Return the logits (B, K) of every classifier: the branches' first, the own one last."""
        heads = {**self.branches, self.name: self}
        return {name: head.logits for name, head in heads.items()}


class Normalise(nn.Module):
    """Spectrogram (B, 1, F, T) in dB -> zero mean and unit deviation over the training clips.

    The two figures are buffers, so that a saved branch takes plain dB spectrograms.

    >>> Normalise(-40.0, 10.0)(torch.full((1, 1, 1, 2), -30.0))
    tensor([[[[1., 1.]]]])
    """

    def __init__(self, mean: float = 0.0, deviation: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(float(mean)))
        self.register_buffer("deviation", torch.tensor(float(deviation)))

    def forward(self, spectrogram: Tensor) -> Tensor:
        """(B, 1, F, T) in dB -> (B, 1, F, T)."""
        return (spectrogram - self.mean) / self.deviation


@torch.no_grad()
def colour_stem() -> nn.Sequential:
    """Two 1x1 convolutions from 1 to 3 channels, as a trunk wants (Adapa 2019, the paper's [2]).

    >>> colour_stem()(torch.zeros(2, 1, 128, 87)).shape
    torch.Size([2, 3, 128, 87])
    """
    first, second = nn.Conv2d(1, 10, kernel_size=1), nn.Conv2d(10, 3, kernel_size=1)
    stem = nn.Sequential(nn.BatchNorm2d(1), first, nn.ReLU(), second, nn.ReLU())
    # A channel that is born dead never learns, and with all three a branch sees nothing: more than
    # half of all draws have one. With its sign turned it is alive; other draws stay as they are.
    sign = 1.0 - 2.0 * dead_channels(stem)
    second.weight *= sign.view(-1, 1, 1, 1)
    second.bias *= sign
    return stem


@torch.no_grad()
def dead_channels(stem: nn.Sequential) -> Tensor:
    """Return which channels (3,) of a stem are blocked at all common levels of its input.

    >>> dead_channels(colour_stem())
    tensor([False, False, False])
    """
    levels = torch.linspace(-1.5, 1.5, 31).view(1, 1, 1, -1)  # most of what BatchNorm gives
    before = stem[1:4](levels)  # (1, 3, 1, 31)
    return (before <= 0).all(dim=3).flatten()


def classifier(n_features: int, hidden: Sequence[int], n_classes: int) -> nn.Sequential:
    """Fully connected layers with BatchNorm and ReLU, then the logits (section IV-C).

    >>> classifier(1280, (1280, 512), 10)(torch.zeros(2, 1280)).shape
    torch.Size([2, 10])
    """
    layers = []
    for width in hidden:
        layers += [nn.Linear(n_features, width), nn.BatchNorm1d(width), nn.ReLU()]
        n_features = width
    return nn.Sequential(*layers, nn.Linear(n_features, n_classes))


def global_average(feature_map: Tensor) -> Tensor:
    """(B, C, f, t) -> (B, C).

    >>> global_average(torch.ones(2, 1280, 4, 3)).shape
    torch.Size([2, 1280])
    """
    return feature_map.mean(dim=(2, 3))


class Branch(nn.Module):
    """One representation, one network: a tagger of its own (sections III-B and IV-C).

    Parameters
    ----------
    name
        The representation it looks at.
    n_classes
        K.
    trunk, width, weights
        As of `build_trunk`.
    hidden
        Widths of the fully connected layers before the logits.
    tap
        Which feature layer gives M_j, counted from the end; -1 is the last convolution.
    normalise
        Mean and deviation of the training clips, in dB.
    initialise
        Whether pretrained weights are wanted; not where a trained branch's own will be loaded.

    Examples
    --------
    >>> branch = Branch("logmel", 10, width=0.25, hidden=(16, 8))
    >>> output = branch({"logmel": torch.zeros(2, 1, 64, 64)})
    >>> output.logits.shape, output.feature_map.shape
    (torch.Size([2, 10]), torch.Size([2, 1280, 2, 2]))
    """

    def __init__(
        self,
        name: str,
        n_classes: int,
        *,
        trunk: str = "mobilenet_v2",
        width: float = 1.0,
        weights: str = "scratch",
        hidden: Sequence[int] = (1280, 512),
        tap: int = -1,
        normalise: Normalise | None = None,
        initialise: bool = True,
    ) -> None:
        super().__init__()
        self.name, self.normalise = name, normalise or Normalise()
        self.stem = colour_stem()
        origin = weights if initialise else "scratch"
        self.trunk, n_channels = build_trunk(trunk, width=width, weights=origin)
        if weights == "imagenet":
            first_convolution(self.trunk).padding_mode = "replicate"
            if initialise:
                as_grey_image(self.stem, self.trunk)
        self.head = classifier(n_channels, hidden, n_classes)
        self.tap = len(self.trunk) + tap

    def forward(self, spectrograms: Mapping[str, Tensor]) -> Output:
        """Classify clips, given their spectrograms (B, 1, F, T) in dB by representation."""
        x = self.stem(self.normalise(spectrograms[self.name]))  # (B, 3, F, T)
        for depth, layer in enumerate(self.trunk):
            x = layer(x)
            if depth == self.tap:
                feature_map = x  # (B, C_j, f_j, t_j)
        # Losses want full precision, also where autocast computed the network in half of it.
        return Output(self.name, self.head(global_average(x)).float(), feature_map)


class FusionModule(nn.Module):
    """Feature maps of any number of branches -> one classifier (sections III-C and IV-C).

    Parameters
    ----------
    channels
        C_j of each branch.
    n_classes
        K.
    hidden
        Widths of the two fully connected layers; the paper's are 2560 and 512 for two branches.
    fusion
        ``gap``: pool and classify, as IV-C says; ``conv``: a convolution and a pooling layer after
        the concatenation first, as III-C says.

    Examples
    --------
    >>> fusion = FusionModule((4, 4), 10, hidden=(16, 8))
    >>> fusion([torch.zeros(2, 4, 4, 3), torch.zeros(2, 4, 3, 3)]).feature_map.shape
    torch.Size([2, 8, 3, 3])
    """

    def __init__(
        self,
        channels: Sequence[int],
        n_classes: int,
        *,
        hidden: Sequence[int] = (2560, 512),
        fusion: str = "gap",
    ) -> None:
        super().__init__()
        total = sum(channels)
        self.mix = nn.Identity() if fusion == "gap" else _mixing_layers(total)
        self.head = classifier(total, hidden, n_classes)

    def forward(self, feature_maps: Sequence[Tensor]) -> Output:
        """Classify what feature maps (B, C_j, f_j, t_j) show together."""
        size = [min(m.shape[axis] for m in feature_maps) for axis in (2, 3)]
        pooled = [F.adaptive_avg_pool2d(feature_map, size) for feature_map in feature_maps]
        x = self.mix(torch.cat(pooled, dim=1))  # (B, sum C_j, f, t)
        return Output(FUSED, self.head(global_average(x)).float(), x)


def _mixing_layers(n_channels: int) -> nn.Sequential:
    # Depthwise and pointwise, as the trunks have it: a full 3x3 kernel over 2560 channels alone
    # would hold 59 million weights.
    depthwise = nn.Conv2d(n_channels, n_channels, 3, padding=1, groups=n_channels, bias=False)
    pointwise = nn.Conv2d(n_channels, n_channels, 1, bias=False)
    after = nn.BatchNorm2d(n_channels), nn.ReLU(), nn.AvgPool2d(2, ceil_mode=True)
    return nn.Sequential(depthwise, pointwise, *after)


class FusionKD(nn.Module):
    """Branches and the fusion module that teaches them (Fig. 1).

    Parameters
    ----------
    branches
        Pretrained branches, in the order of the representations.
    fusion
        The module over their feature maps.

    Examples
    --------
    >>> branches = [Branch(name, 10, width=0.25, hidden=(16, 8)) for name in ("logmel", "cqt")]
    >>> model = FusionKD(branches, FusionModule((1280, 1280), 10, hidden=(32, 8)))
    >>> clips = {"logmel": torch.zeros(2, 1, 64, 64), "cqt": torch.zeros(2, 1, 48, 64)}
    >>> list(model(clips).logits_by_head())
    ['logmel', 'cqt', 'fused']
    """

    def __init__(self, branches: Sequence[Branch], fusion: FusionModule) -> None:
        super().__init__()
        self.branches = nn.ModuleDict({branch.name: branch for branch in branches})
        self.fusion = fusion

    def forward(self, spectrograms: Mapping[str, Tensor]) -> Output:
        """Classify clips, given their spectrograms (B, 1, F_j, T) by representation."""
        branches = {name: branch(spectrograms) for name, branch in self.branches.items()}
        fused = self.fusion([output.feature_map for output in branches.values()])
        return Output(FUSED, fused.logits, fused.feature_map, branches)


@torch.no_grad()
def tap_channels(branch: Branch) -> int:
    """Return C_j, the channel count of a branch's feature map M_j.

    >>> tap_channels(Branch("logmel", 10, width=0.25, hidden=(16, 8)))
    1280
    """
    was_training = branch.training
    feature_map = branch.eval()({branch.name: torch.zeros(1, 1, 64, 64)}).feature_map
    branch.train(was_training)
    return feature_map.shape[1]


def n_parameters(network: nn.Module) -> int:
    """Return how many parameters a network trains.

    >>> n_parameters(nn.Linear(3, 2))
    8
    """
    return sum(parameter.numel() for parameter in network.parameters())
