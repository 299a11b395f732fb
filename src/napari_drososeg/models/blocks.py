"""Building blocks that several networks share."""

from __future__ import annotations

import math

from torch import nn


def scaled(channels: int, width: float) -> int:
    """Return `channels` times `width`, at least 4."""
    return max(4, round(channels * width))


def conv_block(
    channels_in: int,
    channels_out: int,
    n: int,
    *,
    kernel: int = 3,
    dilation: int = 1,
    batch_norm: bool = True,
    bias: bool = True,
) -> nn.Sequential:
    """Stack `n` times a convolution that keeps the size, batch norm and ReLU.

    Parameters
    ----------
    channels_in, channels_out : int
        Channels before the first and after each convolution.
    n : int
        Number of convolutions.
    kernel, dilation : int
        Of each convolution.
    batch_norm, bias : bool
        Whether there is a batch norm after each convolution, and a bias in it.
    """
    layers: list[nn.Module] = []
    for k in range(n):
        padding = dilation * (kernel // 2)
        conv = nn.Conv2d(
            channels_in if k == 0 else channels_out, channels_out, kernel, padding=padding, dilation=dilation, bias=bias
        )
        layers += [conv, *([nn.BatchNorm2d(channels_out)] if batch_norm else []), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def pooled_block(channels_in: int, channels_out: int) -> nn.Sequential:
    """1 x 1 convolution, group norm and ReLU, for features pooled to a single pixel.

    Batch norm cannot normalise one value a channel, which is what a batch of one leaves there; groups of about 16
    channels can be normalised whatever the batch.
    """
    groups = math.gcd(channels_out, max(1, channels_out // 16))
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 1, bias=False), nn.GroupNorm(groups, channels_out), nn.ReLU(inplace=True)
    )
