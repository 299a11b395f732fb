"""SegNet: an encoder and its mirror image, which puts each value back where its maximum was found."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_drososeg.models.blocks import conv_block
from napari_drososeg.models.vgg import VGG16_STAGES, VGG16Encoder


def pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """Max-pool 2 x 2 with stride 2.

    Parameters
    ----------
    x : Tensor
        (N, C, 2h, 2w).

    Returns
    -------
    values : Tensor
        (N, C, h, w).
    index : Tensor
        (N, C, h, w) int64: which of the four was the largest, 0 and 1 in the upper row, 2 and 3 in the lower one; the
        first of equals. Found by comparisons, because OpenVINO has no fast pooling with indices.
    """
    seen = x.detach()
    a, b = seen[..., ::2, ::2], seen[..., ::2, 1::2]
    c, d = seen[..., 1::2, ::2], seen[..., 1::2, 1::2]
    index = torch.where(torch.maximum(c, d) > torch.maximum(a, b), (d > c).long() + 2, (b > a).long())
    return functional.max_pool2d(x, 2), index


def unpool(values: Tensor, index: Tensor) -> Tensor:
    """Put each value at its index within 2 x 2 pixels, zero elsewhere: (N, C, h, w) to (N, C, 2h, 2w)."""
    zero = torch.zeros_like(values)
    planes = torch.stack([torch.where(index == k, values, zero) for k in range(4)], dim=2)
    return functional.pixel_shuffle(planes.flatten(1, 2), 2)


class SegNet(nn.Module):
    """VGG16 with batch norm, five poolings, five unpoolings by the stored indices, and the mirrored decoder.

    Full width has 29,443,587 parameters for three classes. The decoder has the encoder's widths, since each unpooling
    uses the indices of its encoder channel.

    Parameters
    ----------
    n_classes : int
        Output channels.
    width : float
        Fraction of VGG16's channels.
    encoder_weights : str, optional
        See `napari_drososeg.models.vgg.VGG16Encoder`.
    """

    def __init__(self, n_classes: int, width: float = 1.0, encoder_weights: str | None = None) -> None:
        super().__init__()
        self.encoder = VGG16Encoder(width, weights=encoder_weights)
        channels = self.encoder.channels
        # The last convolution of a stage goes to the width of the next finer one, that of the finest to the classes.
        self.decoder = nn.ModuleList(
            nn.Sequential(
                conv_block(channels[k], channels[k], VGG16_STAGES[k][1] - 1),
                conv_block(channels[k], channels[k - 1], 1) if k else nn.Conv2d(channels[0], n_classes, 3, padding=1),
            )
            for k in range(4, -1, -1)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 1, H, W), H and W multiples of 32, to logits (N, n_classes, H, W)."""
        x, indices = images, []
        for stage in self.encoder.stages:
            x, index = pool(stage(x))
            indices.append(index)
        for stage, index in zip(self.decoder, reversed(indices), strict=True):
            x = stage(unpool(x, index))
        return x
