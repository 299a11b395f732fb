"""PSPNet: pyramid pooling over a dilated encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_drososeg.models.blocks import conv_block, pooled_block, scaled
from napari_drososeg.models.vgg import VGG16Encoder

BINS = (1, 2, 3, 6)


class PSPNet(nn.Module):
    """VGG16 at stride 8 with dilated stage 5; means over 1, 2, 3 and 6 bins a side, each 1 x 1; 3 x 3 head; x 8.

    Full width has 19,706,307 parameters for three classes, all of them used; segmentation-models-pytorch's has
    15,524,163 on VGG16, of which stage 5 (7,082,496) gets no gradient, and stops at conv4_3.

    Parameters
    ----------
    n_classes : int
        Output channels.
    width : float
        Fraction of VGG16's channels.
    decoder_width : float, optional
        Fraction of the pyramid's 4 x 128 and the head's 512 channels; as `width` unless given.
    dropout : float
        Probability of leaving out a channel before the classes.
    encoder_weights : str, optional
        See `napari_drososeg.models.vgg.VGG16Encoder`.
    """

    def __init__(
        self,
        n_classes: int,
        width: float = 1.0,
        decoder_width: float | None = None,
        dropout: float = 0.1,
        encoder_weights: str | None = None,
    ) -> None:
        super().__init__()
        self.encoder = VGG16Encoder(width, last_stride=8, weights=encoder_weights)
        deepest = self.encoder.channels[-1]
        share = width if decoder_width is None else decoder_width
        each, head = scaled(128, share), scaled(512, share)
        self.branches = nn.ModuleList(
            pooled_block(deepest, each) if n == 1 else conv_block(deepest, each, 1, kernel=1, bias=False) for n in BINS
        )
        self.head = nn.Sequential(
            conv_block(deepest + len(BINS) * each, head, 1, bias=False),
            nn.Dropout2d(dropout),
            nn.Conv2d(head, n_classes, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 1, H, W), H and W multiples of 8, to logits (N, n_classes, H, W)."""
        x = self.encoder(images)[-1]  # (N, 512, H/8, W/8)
        size = x.shape[-2:]
        pyramid = [
            functional.interpolate(branch(functional.adaptive_avg_pool2d(x, n)), size=size, mode="bilinear")
            for n, branch in zip(BINS, self.branches, strict=True)
        ]
        logits = self.head(torch.cat([x, *pyramid], dim=1))
        return functional.interpolate(logits, scale_factor=8.0, mode="bilinear")
