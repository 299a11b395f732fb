"""Attention U-Net: a U-Net whose skip connections pass through attention gates."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from napari_drososeg.models.unet import UNet


class AttentionGate(nn.Module):
    """Additive attention gate: weighs each pixel of a skip connection by a number between 0 and 1.

    Parameters
    ----------
    skip_channels : int
        Channels of the skip connection.
    gating_channels : int
        Channels of the gating signal.
    """

    def __init__(self, skip_channels: int, gating_channels: int) -> None:
        super().__init__()
        inner = max(1, skip_channels // 2)
        self.from_gating = nn.Sequential(nn.Conv2d(gating_channels, inner, 1), nn.BatchNorm2d(inner))
        self.from_skip = nn.Sequential(nn.Conv2d(skip_channels, inner, 1), nn.BatchNorm2d(inner))
        self.psi = nn.Sequential(nn.Conv2d(inner, 1, 1), nn.BatchNorm2d(1))

    def alpha(self, skip: Tensor, gating: Tensor) -> Tensor:
        """Return the weights (N, 1, h, w) for a skip (N, S, h, w), given the gating signal (N, G, h, w)."""
        joint = torch.relu(self.from_gating(gating) + self.from_skip(skip))
        return torch.sigmoid(self.psi(joint))

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:
        """Return `skip`, weighed."""
        return skip * self.alpha(skip, gating)


class AttentionUNet(UNet):
    """The four-up U-Net with an attention gate on each skip; the gating signal is the upsampled decoder feature.

    Full width has 28,390,255 parameters for three classes. Parameters are those of
    `napari_drososeg.models.unet.UNet`.
    """

    def __init__(
        self,
        n_classes: int,
        width: float = 1.0,
        decoder_width: float | None = None,
        encoder_weights: str | None = None,
    ) -> None:
        super().__init__(n_classes, width, decoder_width, encoder_weights)
        self.gates = nn.ModuleList(
            AttentionGate(s, c) for s, c in zip(self.skip_channels, self.decoder_channels, strict=True)
        )

    def select(self, level: int, skip: Tensor, x: Tensor) -> Tensor:
        """Weigh the skip by its gate."""
        return cast("Tensor", self.gates[level](skip, x))
