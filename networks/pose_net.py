"""PoseNet: pose pictures -> features for the UNet's first convolution (MimicMotion, arXiv 2406.19680, section 3.2)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import Conv2d, SiLU


class PoseNet(nn.Module):
    """Eight convolutions down to 1/8 size, a projection to the UNet's width and one learned scale.

    channels: width of the UNet's first level (320 in SVD).
    A fresh PoseNet gives zeros: its projection starts at zero, so training starts from the plain UNet.
    """

    def __init__(self, channels: int = 320) -> None:
        super().__init__()
        self.conv_layers = nn.Sequential(
            *(Conv2d(3, 3, 3, padding=1), SiLU()),
            *(Conv2d(3, 16, 4, stride=2, padding=1), SiLU()),
            *(Conv2d(16, 16, 3, padding=1), SiLU()),
            *(Conv2d(16, 32, 4, stride=2, padding=1), SiLU()),
            *(Conv2d(32, 32, 3, padding=1), SiLU()),
            *(Conv2d(32, 64, 4, stride=2, padding=1), SiLU()),
            *(Conv2d(64, 64, 3, padding=1), SiLU()),
            *(Conv2d(64, 128, 3, padding=1), SiLU()),
        )
        self.final_proj = Conv2d(128, channels, 1)
        self.scale = nn.Parameter(torch.full((1,), 2.0))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation, zero biases, zero projection."""
        for layer in self.conv_layers:
            if isinstance(layer, Conv2d):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.final_proj.weight)
        nn.init.zeros_(self.final_proj.bias)

    def forward(self, pose: torch.Tensor) -> torch.Tensor:
        """Pose pictures in [-1, 1], (N, 3, H, W) or (B, F, 3, H, W) -> features (N or B*F, channels, H/8, W/8)."""
        if pose.ndim == 5:
            pose = pose.flatten(0, 1)
        return self.final_proj(self.conv_layers(pose)) * self.scale
