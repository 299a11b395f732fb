"""R2U-Net: a U-Net of recurrent residual blocks."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from napari_drososeg.errors import DrososegError
from napari_drososeg.models.blocks import conv_block
from napari_drososeg.models.unet import UNet
from napari_drososeg.models.vgg import VGG16_STAGES


class RecurrentConv(nn.Module):
    """One 3 x 3 convolution, batch norm and ReLU, applied `steps` + 1 times with the same weights.

    Parameters
    ----------
    channels : int
        Channels in and out.
    steps : int
        Recurrent steps after the first application; each sees the input plus its own last result.
    """

    def __init__(self, channels: int, steps: int) -> None:
        super().__init__()
        self.conv = conv_block(channels, channels, 1)
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to the same shape."""
        state = self.conv(x)
        for _ in range(self.steps):
            state = self.conv(x + state)
        return cast("Tensor", state)


class RecurrentResidual(nn.Module):
    """1 x 1 convolution to the width, then `n` recurrent convolutions with a shortcut around them."""

    def __init__(self, channels_in: int, channels_out: int, n: int, steps: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels_in, channels_out, 1)
        self.body = nn.Sequential(*(RecurrentConv(channels_out, steps) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to (N, channels_out, h, w)."""
        x = self.project(x)
        return cast("Tensor", x + self.body(x))


class R2UNet(UNet):
    """The four-up U-Net with a VGG16 encoder and recurrent residual blocks in the decoder.

    Full width has 25,602,563 parameters for three classes, the first of the counts in use and the one on the encoder
    that all networks share; with `recurrent_encoder` it has 27,622,851.

    Parameters
    ----------
    n_classes, width, decoder_width, encoder_weights
        See `napari_drososeg.models.unet.UNet`.
    steps : int
        Recurrent steps t; the number of parameters does not depend on it.
    recurrent_encoder : bool
        Whether the encoder, too, is made of recurrent residual blocks, with VGG16's widths and depths.

    Raises
    ------
    DrososegError
        If pretrained weights are asked for that do not exist or cannot be downloaded.
    """

    def __init__(
        self,
        n_classes: int,
        width: float = 1.0,
        decoder_width: float | None = None,
        steps: int = 2,
        recurrent_encoder: bool = False,
        encoder_weights: str | None = None,
    ) -> None:
        if recurrent_encoder and encoder_weights is not None:
            raise DrososegError("There are no pretrained weights for a recurrent encoder: leave one of the two out.")
        self.steps = steps
        super().__init__(n_classes, width, decoder_width, encoder_weights)
        if recurrent_encoder:
            inputs = (1, *self.encoder.channels[:-1])
            self.encoder.stages = nn.ModuleList(
                RecurrentResidual(i, o, n, steps)
                for i, o, (_, n) in zip(inputs, self.encoder.channels, VGG16_STAGES, strict=True)
            )

    def merge_block(self, channels_in: int, channels_out: int) -> nn.Module:
        """Return a recurrent residual block."""
        return RecurrentResidual(channels_in, channels_out, 2, self.steps)
