"""Fully convolutional networks: FCN8, FCN16 and FCN32."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_drososeg.models.blocks import conv_block, scaled
from napari_drososeg.models.vgg import VGG16Encoder


def upsampling(n_classes: int, factor: int) -> nn.ConvTranspose2d:
    """Transposed convolution that upsamples by `factor`; it starts as bilinear interpolation and is learnt."""
    layer = nn.ConvTranspose2d(n_classes, n_classes, 2 * factor, stride=factor, padding=factor // 2, bias=False)
    ramp = 1 - (torch.arange(2 * factor) + 0.5 - factor).abs() / factor
    with torch.no_grad():
        layer.weight.copy_(torch.eye(n_classes)[..., None, None] * torch.outer(ramp, ramp))
    return layer


class FCN8(nn.Module):
    """Scores of pool5 after fc6 and fc7, upsampled and added to the scores of pool4 and pool3.

    As published (fc6 7 x 7, 4096 channels, no batch norm) full width has 134,276,585 parameters for three classes;
    with ``fc_channels=1024, fc_kernel=3, batch_norm=True``, which fits into a small file, 20,499,177. Images are padded
    by half a kernel in fc6 instead of by 100 px before the first convolution, so nothing needs to be cropped.

    Parameters
    ----------
    n_classes : int
        Output channels.
    width : float
        Fraction of VGG16's channels, and of `fc_channels`.
    fc_channels : int
        Channels of fc6 and fc7 at full width.
    fc_kernel : int
        Kernel of fc6, odd.
    batch_norm : bool
        Whether the encoder has batch norm.
    dropout : float
        Probability after fc6 and fc7.
    encoder_weights : str, optional
        See `napari_drososeg.models.vgg.VGG16Encoder`.

    Attributes
    ----------
    pools : tuple of int
        Pooled features that are scored besides pool5, coarsest first.
    """

    pools: tuple[int, ...] = (4, 3)

    def __init__(
        self,
        n_classes: int,
        width: float = 1.0,
        fc_channels: int = 4096,
        fc_kernel: int = 7,
        batch_norm: bool = False,
        dropout: float = 0.5,
        encoder_weights: str | None = None,
    ) -> None:
        super().__init__()
        self.encoder = VGG16Encoder(width, batch_norm=batch_norm, weights=encoder_weights)
        channels, fc = self.encoder.channels, scaled(fc_channels, width)
        self.fc = nn.Sequential(
            conv_block(channels[4], fc, 1, kernel=fc_kernel, batch_norm=False),
            nn.Dropout(dropout),
            conv_block(fc, fc, 1, kernel=1, batch_norm=False),
            nn.Dropout(dropout),
        )
        self.score = nn.Conv2d(fc, n_classes, 1)
        self.pool_scores = nn.ModuleDict({f"pool{p}": nn.Conv2d(channels[p - 1], n_classes, 1) for p in self.pools})
        self.up = nn.ModuleList(
            [*(upsampling(n_classes, 2) for _ in self.pools), upsampling(n_classes, 32 >> len(self.pools))]
        )
        for module in (*([] if encoder_weights else self.encoder.modules()), *self.fc.modules()):
            if isinstance(module, nn.Conv2d):  # without batch norm, torch's own start would fade out within 15 layers
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 1, H, W), H and W multiples of 32, to logits (N, n_classes, H, W)."""
        pooled = [functional.max_pool2d(x, 2) for x in self.encoder(images)[2:]]  # pool3, pool4, pool5
        x = self.score(self.fc(pooled[-1]))  # (N, n_classes, H/32, W/32)
        for p, up in zip(self.pools, self.up, strict=False):
            x = up(x) + self.pool_scores[f"pool{p}"](pooled[p - 3])
        logits: Tensor = self.up[-1](x)
        return logits


class FCN16(FCN8):
    """`FCN8` without the scores of pool3: 134,282,582 parameters at full width."""

    pools = (4,)


class FCN32(FCN8):
    """`FCN8` with the scores of pool5 only: 134,308,547 parameters at full width."""

    pools = ()
