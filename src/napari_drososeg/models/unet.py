"""U-Net on a VGG16 encoder, with a skip connection at full resolution.

segmentation-models-pytorch's U-Net on VGG16 has no skip from conv1_2, the only encoder feature at full resolution,
which costs thin membranes; hence our own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

VGG16_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and number of 3 x 3 convolutions of VGG16's five stages (Simonyan and Zisserman, 2015, column D)."""

DECODER_CHANNELS = (512, 256, 128, 64)


def scaled(channels: int, width: float) -> int:
    """Return `channels` times `width`, at least 4."""
    return max(4, round(channels * width))


def conv_block(channels_in: int, channels_out: int, n: int) -> nn.Sequential:
    """Stack `n` times a 3 x 3 convolution, batch norm and ReLU."""
    layers: list[nn.Module] = []
    for k in range(n):
        layers += [
            nn.Conv2d(channels_in if k == 0 else channels_out, channels_out, 3, padding=1),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class VGG16Encoder(nn.Module):
    """The convolutions of VGG16 with batch norm, without pool5.

    Parameters
    ----------
    width : float
        Fraction of the published number of channels.
    channels_in : int
        Image channels.

    Attributes
    ----------
    channels : tuple of int
        Channels of the five features.
    """

    def __init__(self, width: float = 1.0, channels_in: int = 1) -> None:
        super().__init__()
        self.channels = tuple(scaled(c, width) for c, _ in VGG16_STAGES)
        inputs = (channels_in, *self.channels[:-1])
        self.stages = nn.ModuleList(
            conv_block(i, o, n) for i, o, (_, n) in zip(inputs, self.channels, VGG16_STAGES, strict=True)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the last feature of each stage, at strides 1, 2, 4, 8 and 16."""
        features: list[Tensor] = []
        x = images
        for k, stage in enumerate(self.stages):
            x = stage(x if k == 0 else functional.max_pool2d(x, 2))
            features.append(x)
        return features


class UNet(nn.Module):
    """Four-up U-Net: conv5_3 at the bottom; up + 3 x 3, concatenate, two 3 x 3, four times; 1 x 1 to the classes.

    Full width has 28,038,723 parameters for three classes.

    Parameters
    ----------
    n_classes : int
        Output channels.
    width : float
        Fraction of VGG16's channels in the encoder.
    decoder_width : float, optional
        Fraction of 512-256-128-64 in the decoder; as `width` unless given. Two thirds of the work is in the decoder,
        most of the knowledge in the encoder, so a thinner decoder buys much speed for little accuracy.
    """

    def __init__(self, n_classes: int, width: float = 1.0, decoder_width: float | None = None) -> None:
        super().__init__()
        self.encoder = VGG16Encoder(width)
        decoder = tuple(scaled(c, width if decoder_width is None else decoder_width) for c in DECODER_CHANNELS)
        skips = self.encoder.channels[-2::-1]
        below = (self.encoder.channels[-1], *decoder[:-1])
        self.up = nn.ModuleList(conv_block(b, c, 1) for b, c in zip(below, decoder, strict=True))
        self.merge = nn.ModuleList(conv_block(c + s, c, 2) for c, s in zip(decoder, skips, strict=True))
        self.head = nn.Conv2d(decoder[-1], n_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 1, H, W), H and W multiples of 16, to logits (N, n_classes, H, W)."""
        *skips, x = self.encoder(images)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips), strict=True):
            x = up(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
            x = merge(torch.cat([x, skip], dim=1))
        logits: Tensor = self.head(x)
        return logits
