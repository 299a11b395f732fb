"""U-Net on a VGG16 encoder, with a skip connection at full resolution.

segmentation-models-pytorch's U-Net on VGG16 has no skip from conv1_2, the only encoder feature at full resolution,
which costs thin membranes; hence our own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_drososeg.models.blocks import UpBlock, conv_block, scaled
from napari_drososeg.models.vgg import VGG16Encoder

DECODER_CHANNELS = (512, 256, 128, 64)


class UNet(nn.Module):
    """Four-up U-Net: conv5_3 at the bottom; up + 3 x 3, concatenate, two 3 x 3, four times; 1 x 1 to the classes.

    Full width has 28,038,723 parameters for three classes. Of the two counts in use this is the one with a skip at full
    resolution; segmentation-models-pytorch's decoder has 23,755,827.

    Parameters
    ----------
    n_classes : int
        Output channels.
    width : float
        Fraction of VGG16's channels in the encoder.
    decoder_width : float, optional
        Fraction of 512-256-128-64 in the decoder; as `width` unless given. Two thirds of the work is in the decoder,
        most of the knowledge in the encoder, so a thinner decoder buys much speed for little accuracy.
    encoder_weights : str, optional
        See `napari_drososeg.models.vgg.VGG16Encoder`.
    """

    def __init__(
        self,
        n_classes: int,
        width: float = 1.0,
        decoder_width: float | None = None,
        encoder_weights: str | None = None,
    ) -> None:
        super().__init__()
        self.encoder = VGG16Encoder(width, weights=encoder_weights)
        self.decoder_channels = tuple(
            scaled(c, width if decoder_width is None else decoder_width) for c in DECODER_CHANNELS
        )
        self.skip_channels = self.encoder.channels[-2::-1]  # deepest first, as the decoder
        below = (self.encoder.channels[-1], *self.decoder_channels[:-1])
        self.up = nn.ModuleList(UpBlock(b, c) for b, c in zip(below, self.decoder_channels, strict=True))
        self.merge = nn.ModuleList(
            self.merge_block(c + s, c) for c, s in zip(self.decoder_channels, self.skip_channels, strict=True)
        )
        self.head = nn.Conv2d(self.decoder_channels[-1], n_classes, 1)

    def merge_block(self, channels_in: int, channels_out: int) -> nn.Module:
        """Return what is applied to the decoder's feature and the skip, concatenated."""
        return conv_block(channels_in, channels_out, 2)

    def select(self, level: int, skip: Tensor, x: Tensor) -> Tensor:  # noqa: ARG002 - for subclasses
        """Return what of `skip` (N, S, h, w) joins the upsampled `x` (N, C, h, w); level 0 is the deepest."""
        return skip

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 1, H, W), H and W multiples of 16, to logits (N, n_classes, H, W)."""
        *skips, x = self.encoder(images)  # x: (N, 512, H/16, W/16)
        for level, skip in enumerate(reversed(skips)):
            x = self.up[level](x)
            x = self.merge[level](torch.cat([x, self.select(level, skip, x)], dim=1))
        logits: Tensor = self.head(x)
        return logits
