"""VGG16, the encoder of all convolutional networks here, at any fraction of its published width."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from napari_drososeg.errors import DrososegError
from napari_drososeg.models.blocks import conv_block, scaled

VGG16_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and number of 3 x 3 convolutions of VGG16's five stages (Simonyan and Zisserman, 2015, column D)."""


class VGG16Encoder(nn.Module):
    """The convolutions of VGG16, without pool5. Full width has 14,721,984 parameters.

    Parameters
    ----------
    width : float
        Fraction of the published number of channels.
    channels_in : int
        Image channels.
    batch_norm : bool
        Whether each convolution is followed by batch norm; as published it is not.
    last_stride : int
        Stride of the last feature, 16 or 8. For 8, pool4 is skipped and stage 5 dilated by two instead.
    weights : str, optional
        ``"imagenet"`` to start from weights trained on ImageNet, downloaded through segmentation-models-pytorch; at
        full width only.

    Attributes
    ----------
    channels : tuple of int
        Channels of the five features.

    Raises
    ------
    DrososegError
        If pretrained weights are asked for that do not exist or cannot be downloaded.
    """

    def __init__(
        self,
        width: float = 1.0,
        channels_in: int = 1,
        *,
        batch_norm: bool = True,
        last_stride: int = 16,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.channels = tuple(scaled(c, width) for c, _ in VGG16_STAGES)
        self.pools = (False, True, True, True, last_stride == 16)  # before each stage
        inputs = (channels_in, *self.channels[:-1])
        self.stages = nn.ModuleList(
            conv_block(i, o, n, batch_norm=batch_norm, dilation=1 if pool or k == 0 else 2)
            for k, (i, o, (_, n), pool) in enumerate(zip(inputs, self.channels, VGG16_STAGES, self.pools, strict=True))
        )
        if weights is not None:
            if width != 1.0:
                raise DrososegError(f"There are pretrained weights for VGG16 at full width only, not at {width:g}.")
            self._load_pretrained(weights, channels_in, "vgg16_bn" if batch_norm else "vgg16")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the last feature of each stage, at strides 1, 2, 4, 8 and 16 (or `last_stride`)."""
        features: list[Tensor] = []
        x = images
        for pool, stage in zip(self.pools, self.stages, strict=True):
            x = stage(functional.max_pool2d(x, 2) if pool else x)
            features.append(x)
        return features

    def _load_pretrained(self, weights: str, channels_in: int, name: str) -> None:
        from napari_drososeg.models.pretrained import smp_encoder

        # Both list convolutions and norms in the order in which they are applied.
        values = smp_encoder(name, weights, channels_in).state_dict().values()
        self.load_state_dict(dict(zip(self.state_dict(), values, strict=True)))
