"""Networks whose decoder segmentation-models-pytorch (smp) has: LinkNet and FPN, on VGG16 or any encoder of smp."""

from __future__ import annotations

import difflib
from typing import Any

import segmentation_models_pytorch as smp
from segmentation_models_pytorch.encoders._base import EncoderMixin
from torch import Tensor, nn
from torch.nn import functional

from napari_drososeg.errors import DrososegError
from napari_drososeg.models.blocks import scaled
from napari_drososeg.models.vgg import VGG16Encoder


class SmpVGG16(VGG16Encoder, EncoderMixin):
    """Our VGG16 as smp wants an encoder: with pool5 as a sixth feature. smp's own comes in full width only."""

    def __init__(self, width: float, depth: int = 5, output_stride: int = 32) -> None:
        super().__init__(width)
        self._depth, self._output_stride, self._in_channels = depth, output_stride, 1
        self._out_channels = [*self.channels, self.channels[-1]]

    def set_in_channels(self, in_channels: int, pretrained: bool = False) -> None:
        """Do nothing: it is built for grey images."""

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return features at strides 1, 2, 4, 8, 16 and 32."""
        features = super().forward(images)
        return [*features, functional.max_pool2d(features[-1], 2)]


def _encoder_arguments(encoder: str, width: float, weights: str | None) -> dict[str, Any]:
    """Return smp's arguments for an encoder; VGG16 of the given width is registered with smp."""
    if encoder == "vgg16":
        name = f"napari-drososeg-vgg16-{width!r}"
        smp.encoders.encoders[name] = {"encoder": SmpVGG16, "pretrained_settings": {}, "params": {"width": width}}
        return {"encoder_name": name, "encoder_weights": None, "in_channels": 1}
    if width != 1.0:
        raise DrososegError(f"Only the encoder vgg16 comes in other widths, '{encoder}' does not: leave out the width.")
    # timm would fetch "tu-hf-hub:owner/name" and read "tu-local-dir:/path": a checkpoint must make nothing of the kind
    known = encoder in smp.encoders.encoders or (encoder.startswith("tu-") and not set(encoder) & set(":/\\"))
    if not known:
        near = difflib.get_close_matches(encoder, ["vgg16", *smp.encoders.encoders], n=3)
        raise DrososegError(
            f"Unknown encoder '{encoder}'. Choose vgg16 or one of segmentation-models-pytorch, such as "
            f"{', '.join(near or ['resnet34', 'mobilenet_v2', 'efficientnet-b0'])}."
        )
    # timm's encoders ("tu-...") name their weights themselves and want a yes or no here
    return {
        "encoder_name": encoder,
        "encoder_weights": True if weights and encoder.startswith("tu-") else weights,
        "in_channels": 1,
    }


def _build(network: Any, encoder: str, width: float, weights: str | None, **arguments: Any) -> nn.Module:
    encoder_arguments = _encoder_arguments(encoder, width, weights)
    if weights is None:
        model: nn.Module = network(**encoder_arguments, **arguments)
    elif encoder == "vgg16":
        model = network(**encoder_arguments, **arguments)
        model.encoder.load_state_dict(VGG16Encoder(width, weights=weights).state_dict())
    else:
        from napari_drososeg.models.pretrained import download

        model = download(f"{weights} weights of {encoder}", network, **encoder_arguments, **arguments)
    return model


def linknet(
    n_classes: int, width: float = 1.0, encoder: str = "vgg16", encoder_weights: str | None = None
) -> nn.Module:
    """Build LinkNet: each decoder block is 1 x 1 to a quarter, transposed 4 x 4, 1 x 1; skips are added.

    Full width has 15,985,859 parameters for three classes.

    Parameters
    ----------
    n_classes : int
        Output channels.
    width : float
        Fraction of VGG16's channels; the decoder follows.
    encoder : str
        ``"vgg16"``, or the name of an encoder of segmentation-models-pytorch such as ``"resnet34"``.
    encoder_weights : str, optional
        ``"imagenet"`` to start from pretrained weights, downloaded; for VGG16 at full width only.

    Raises
    ------
    DrososegError
        If there is no such encoder or the weights are not available.
    """
    return _build(smp.Linknet, encoder, width, encoder_weights, classes=n_classes)


def fpn(
    n_classes: int,
    width: float = 1.0,
    decoder_width: float | None = None,
    dropout: float = 0.2,
    encoder: str = "vgg16",
    encoder_weights: str | None = None,
) -> nn.Module:
    """Build FPN: laterals on strides 4 to 32, 3 x 3 with group norm on each, summed at stride 4, 1 x 1, x 4.

    Full width has 16,805,955 parameters for three classes. Group norm takes its statistics over the whole input, so
    every pixel depends on all others.

    Parameters
    ----------
    n_classes, width, encoder, encoder_weights
        See `linknet`.
    decoder_width : float, optional
        Fraction of the 256 channels of the pyramid and the 128 of its heads (in steps of 32, at least 64); as `width`
        unless given.
    dropout : float
        Probability of leaving out a channel before the classes.

    Raises
    ------
    DrososegError
        If there is no such encoder or the weights are not available.
    """
    share = width if decoder_width is None else decoder_width
    # smp's group norm has 32 groups; each needs two channels, since the deepest feature may be a single pixel.
    return _build(
        smp.FPN,
        encoder,
        width,
        encoder_weights,
        classes=n_classes,
        decoder_pyramid_channels=scaled(256, share),
        decoder_segmentation_channels=32 * max(2, round(4 * share)),
        decoder_dropout=dropout,
    )
