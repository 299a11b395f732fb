"""Building blocks that several networks share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


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


class UpBlock(nn.Sequential):
    """Twice the size by repeating pixels, then a convolution of 3 x 3 and what follows it, as in `conv_block`."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(*conv_block(channels_in, channels_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels_in, h, w) to (N, channels_out, 2 h, 2 w)."""
        out: Tensor = super().forward(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out

    def folded(self) -> nn.Sequential:
        """Return the same function with 4 / 9 of the multiplications of its convolution.

        A 3 x 3 convolution meets every pixel of the small image several times in the large one. Adding up the weights
        it is met with gives a transposed convolution of 4 x 4 with stride 2, which does without the large image.
        """
        convolution, *rest = self
        assert isinstance(convolution, nn.Conv2d)
        weight = convolution.weight.detach()
        n_out, n_in = weight.shape[:2]
        kernels = functional.pad(weight.flip(2, 3).reshape(-1, 1, 3, 3), (1, 1, 1, 1))
        transposed = nn.ConvTranspose2d(n_in, n_out, 4, stride=2, padding=1, bias=convolution.bias is not None)
        summed = functional.conv2d(kernels, torch.ones(1, 1, 2, 2)).reshape(n_out, n_in, 4, 4)
        transposed.weight.data = summed.transpose(0, 1).contiguous()
        if convolution.bias is not None:
            transposed.bias.data = convolution.bias.detach().clone()
        return nn.Sequential(transposed, *rest)


def fold_upsampling(network: nn.Module) -> nn.Module:
    """Replace every `UpBlock` of `network`, in place, by what it folds to; for prediction, not for training."""
    for name, child in network.named_children():
        if isinstance(child, UpBlock):
            setattr(network, name, child.folded())
        else:
            fold_upsampling(child)
    return network
