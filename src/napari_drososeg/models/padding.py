"""Odd sizes, handled once for all networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Padded(nn.Module):
    """Run `network` on images of any size.

    Images are padded at the bottom and the right, by repeating their last row and column, to a multiple of `stride`;
    the result is cropped back. Edge replication works for images smaller than the padding, down to one pixel.

    Parameters
    ----------
    network : torch.nn.Module
        Maps (N, C, H, W) to (N, K, H, W) where H and W are multiples of `stride`.
    stride : int
        Total stride in px.
    """

    def __init__(self, network: nn.Module, stride: int) -> None:
        super().__init__()
        self.network = network
        self.stride = stride

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, K, H, W)."""
        height, width = images.shape[-2:]
        bottom, right = -height % self.stride, -width % self.stride
        if not (bottom or right):
            return torch.as_tensor(self.network(images))
        logits: Tensor = self.network(functional.pad(images, (0, right, 0, bottom), mode="replicate"))
        return logits[..., :height, :width]
