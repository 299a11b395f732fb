"""DeepLabv3+: atrous spatial pyramid pooling, and a decoder that looks back at a finer feature."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_drososeg.models.blocks import conv_block, pooled_block, scaled
from napari_drososeg.models.vgg import VGG16Encoder

RATES = (6, 12, 18)


def separable_block(channels_in: int, channels_out: int, dilation: int = 1) -> nn.Sequential:
    """3 x 3 convolution of each channel by itself, then 1 x 1 over channels, each with batch norm and ReLU."""
    depthwise = nn.Conv2d(
        channels_in, channels_in, 3, padding=dilation, dilation=dilation, groups=channels_in, bias=False
    )
    return nn.Sequential(
        depthwise,
        nn.BatchNorm2d(channels_in),
        nn.ReLU(inplace=True),
        conv_block(channels_in, channels_out, 1, kernel=1, bias=False),
    )


class DeepLabV3Plus(nn.Module):
    """ASPP on VGG16's conv5_3, which has stride 16 already; upsampled x 4, joined by 48 channels of conv3_3; x 4.

    With separable convolutions, as published, full width has 15,888,691 parameters for three classes; with plain ones
    20,158,243. segmentation-models-pytorch's does not take VGG16.

    Parameters
    ----------
    n_classes : int
        Output channels.
    width : float
        Fraction of VGG16's channels.
    decoder_width : float, optional
        Fraction of the 256 channels of pyramid and decoder and of the 48 of the finer feature; as `width` unless given.
    separable : bool
        Whether the 3 x 3 convolutions of pyramid and decoder are separable.
    dropout : float
        Probability after the pyramid.
    encoder_weights : str, optional
        See `napari_drososeg.models.vgg.VGG16Encoder`.
    """

    def __init__(
        self,
        n_classes: int,
        width: float = 1.0,
        decoder_width: float | None = None,
        separable: bool = True,
        dropout: float = 0.1,
        encoder_weights: str | None = None,
    ) -> None:
        super().__init__()
        self.encoder = VGG16Encoder(width, weights=encoder_weights)
        share = width if decoder_width is None else decoder_width
        channels, low = scaled(256, share), scaled(48, share)
        finer, deepest = self.encoder.channels[2], self.encoder.channels[4]

        def conv3x3(channels_in: int, dilation: int = 1) -> nn.Sequential:
            if separable:
                return separable_block(channels_in, channels, dilation)
            return conv_block(channels_in, channels, 1, dilation=dilation, bias=False)

        self.pyramid = nn.ModuleList(
            [conv_block(deepest, channels, 1, kernel=1, bias=False), *(conv3x3(deepest, rate) for rate in RATES)]
        )
        self.image_pool = pooled_block(deepest, channels)
        self.project = nn.Sequential(
            conv_block((len(RATES) + 2) * channels, channels, 1, kernel=1, bias=False), nn.Dropout(dropout)
        )
        self.low = conv_block(finer, low, 1, kernel=1, bias=False)
        self.refine = nn.Sequential(conv3x3(channels + low), conv3x3(channels))
        self.head = nn.Conv2d(channels, n_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 1, H, W), H and W multiples of 16, to logits (N, n_classes, H, W)."""
        _, _, finer, _, x = self.encoder(images)  # (N, 256, H/4, W/4), (N, 512, H/16, W/16)
        branches = [branch(x) for branch in self.pyramid]
        whole = self.image_pool(x.mean((2, 3), keepdim=True)).expand_as(branches[0])
        x = self.project(torch.cat([*branches, whole], dim=1))
        x = functional.interpolate(x, scale_factor=4.0, mode="bilinear")
        x = self.head(self.refine(torch.cat([x, self.low(finer)], dim=1)))
        return functional.interpolate(x, scale_factor=4.0, mode="bilinear")
