"""ArcFace's network in torch, so that a loss can be differentiated through it: IResNet (arXiv 1801.07698, 3.2.2).

The layout and the names are those of insightface's torch models, the published `glintr100_torch.pth` among them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

FACE_SIZE = 112  # pixels of a side of the aligned face
IRESNET_18, IRESNET_34, IRESNET_50, IRESNET_100 = (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 14, 3), (3, 13, 30, 3)
GLINTR100 = {"layers": IRESNET_100, "widths": (64, 128, 256, 512), "stem": 64, "embedding": 512, "size": FACE_SIZE}
EPSILON = 1e-5


class IResNet(nn.Module):
    """Face (B, 3, size, size) in [-1, 1], RGB -> raw embedding (B, embedding); its length is not 1.

    layers: blocks of each stage; every stage halves the sides. widths: channels of the stages; stem: of the first
    convolution.
    """

    def __init__(
        self,
        layers: Sequence[int] = IRESNET_100,
        widths: Sequence[int] = (64, 128, 256, 512),
        stem: int = 64,
        embedding: int = 512,
        size: int = FACE_SIZE,
    ) -> None:
        super().__init__()
        self.size = size
        self.conv1 = _convolution(3, stem, 3)
        self.bn1 = _norm(stem)
        self.prelu = nn.PReLU(stem)
        for number, (blocks, before, width) in enumerate(
            zip(layers, (stem, *widths[:-1]), widths, strict=True), start=1
        ):
            first = IBasicBlock(before, width, 2)
            setattr(
                self, f"layer{number}", nn.Sequential(first, *(IBasicBlock(width, width) for _ in range(blocks - 1)))
            )
        self.stages = len(layers)
        self.bn2 = _norm(widths[-1])
        side = size
        for _ in layers:
            side = (side + 1) // 2
        self.fc = nn.Linear(widths[-1] * side * side, embedding)
        self.features = nn.BatchNorm1d(embedding, EPSILON)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        x = self.prelu(self.bn1(self.conv1(x)))
        for number in range(1, self.stages + 1):
            x = getattr(self, f"layer{number}")(x)
        return self.features(self.fc(self.bn2(x).flatten(1)))


class IBasicBlock(nn.Module):
    """Residual block: norm, convolution, norm, PReLU, convolution with the stride, norm; x (B, C, h, w)."""

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = _norm(channels)
        self.conv1 = _convolution(channels, width, 3)
        self.bn2 = _norm(width)
        self.prelu = nn.PReLU(width)
        self.conv2 = _convolution(width, width, 3, stride)
        self.bn3 = _norm(width)
        changes = stride != 1 or channels != width
        self.downsample = nn.Sequential(_convolution(channels, width, 1, stride), _norm(width)) if changes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, width, h / stride, w / stride)."""
        y = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return y + (x if self.downsample is None else self.downsample(x))


def _convolution(channels: int, width: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, EPSILON)


def iresnet_config(weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The arguments of :class:`IResNet` that weights of its names were made with; {} when they are not an IResNet's."""
    matches = (re.match(r"layer(\d+)\.\d+\.conv1\.weight$", key) for key in weights)
    blocks = Counter(int(match[1]) for match in matches if match)
    stages = range(1, 1 + max(blocks, default=0))
    needed = ["conv1.weight", "bn2.weight", "fc.weight", *(f"layer{stage}.0.conv1.weight" for stage in stages)]
    if not stages or any(key not in weights for key in needed):
        return {}
    cells = weights["fc.weight"].shape[1] // len(weights["bn2.weight"])
    return {
        "layers": tuple(blocks[number] for number in stages),
        "widths": tuple(len(weights[f"layer{number}.0.conv1.weight"]) for number in stages),
        "stem": len(weights["conv1.weight"]),
        "embedding": len(weights["fc.weight"]),
        "size": round(cells**0.5) * 2 ** len(stages),
    }
