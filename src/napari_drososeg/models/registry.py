"""The registry of architectures: strings and numbers only, so that listing them does not import torch."""

from __future__ import annotations

import dataclasses
import inspect
import math
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_drososeg.errors import DrososegError
from napari_drososeg.models.llvm import spare_triton

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Architecture:
    """Facts about a kind of network, with its default arguments unless `find_architecture` was given others.

    Parameters
    ----------
    name : str
        What `create_model` and checkpoints call it.
    title : str
        What people call it.
    factory : str
        ``"module:attribute"`` of a callable ``(n_classes, **arguments) -> torch.nn.Module``.
    stride : int
        Total stride in px: image sides are padded to multiples of it, tiles start at multiples of it.
    receptive_field : int
        One-sided reach in px: a pixel's result depends on no pixel further away than this in y or in x. A halo of
        this many pixels (rounded up to the stride) makes tiled inference exact. 0 where `global_context` is set.
    global_context : bool
        Whether every pixel depends on the whole input, so that tiles cannot be exact and are blended.
    reference : str
        Publication.
    sizes : str
        What images it takes, beyond that any size is padded to the stride.
    variant_of : str or None
        Name of the architecture of the reference study that this is a variant of; None for the eleven themselves.
    """

    name: str
    title: str
    factory: str
    stride: int
    receptive_field: int
    global_context: bool
    reference: str
    sizes: str = "any"
    variant_of: str | None = None


_WIDTHS = ("width", "decoder_width")

_FCN_REFERENCE = "Long, Shelhamer, Darrell: Fully convolutional networks. CVPR 2015, arXiv 1411.4038"

ARCHITECTURES: dict[str, Architecture] = {
    a.name: a
    for a in (
        Architecture(
            name="fcn8",
            title="FCN8",
            factory="napari_drososeg.models.fcn:FCN8",
            stride=32,
            receptive_field=245,
            global_context=False,
            reference=_FCN_REFERENCE,
        ),
        Architecture(
            name="segnet",
            title="SegNet",
            factory="napari_drososeg.models.segnet:SegNet",
            stride=32,
            receptive_field=211,
            global_context=False,
            reference="Badrinarayanan, Kendall, Cipolla: SegNet. TPAMI 2017, arXiv 1511.00561",
        ),
        Architecture(
            name="unet",
            title="U-Net",
            factory="napari_drososeg.models.unet:UNet",
            stride=16,
            receptive_field=150,
            global_context=False,
            reference="Ronneberger, Fischer, Brox: U-Net. MICCAI 2015, doi 10.1007/978-3-319-24574-4_28; "
            "encoder of Simonyan, Zisserman: VGG16. ICLR 2015, arXiv 1409.1556",
        ),
        Architecture(
            name="r2unet",
            title="R2U-Net",
            factory="napari_drososeg.models.r2unet:R2UNet",
            stride=16,
            receptive_field=210,
            global_context=False,
            reference="Alom, Hasan, Yakopcic, Taha, Asari: Recurrent residual U-Net. 2018, arXiv 1802.06955",
        ),
        Architecture(
            name="attention-unet",
            title="Attention U-Net",
            factory="napari_drososeg.models.attention_unet:AttentionUNet",
            stride=16,
            receptive_field=150,
            global_context=False,
            reference="Oktay et al.: Attention U-Net. MIDL 2018, arXiv 1804.03999",
        ),
        Architecture(
            name="linknet",
            title="LinkNet",
            factory="napari_drososeg.models.smp_networks:linknet",
            stride=32,
            receptive_field=152,
            global_context=False,
            reference="Chaurasia, Culurciello: LinkNet. VCIP 2017, arXiv 1707.03718",
        ),
        Architecture(
            name="pspnet",
            title="PSPNet",
            factory="napari_drososeg.models.pspnet:PSPNet",
            stride=8,
            receptive_field=0,
            global_context=True,
            reference="Zhao, Shi, Qi, Wang, Jia: Pyramid scene parsing network. CVPR 2017, arXiv 1612.01105",
        ),
        Architecture(
            name="fpn",
            title="FPN",
            factory="napari_drososeg.models.smp_networks:fpn",
            stride=32,
            receptive_field=0,
            global_context=True,
            reference="Kirillov, Girshick, He, Dollar: Panoptic feature pyramid networks. CVPR 2019, arXiv 1901.02446",
        ),
        Architecture(
            name="deeplabv3plus",
            title="DeepLabv3+",
            factory="napari_drososeg.models.deeplab:DeepLabV3Plus",
            stride=16,
            receptive_field=0,
            global_context=True,
            reference="Chen, Zhu, Papandreou, Schroff, Adam: DeepLabv3+. ECCV 2018, arXiv 1802.02611",
        ),
        Architecture(
            name="transunet",
            title="TransUNet",
            factory="napari_drososeg.models.transunet:TransUNet",
            stride=16,
            receptive_field=0,
            global_context=True,
            reference="Chen et al.: TransUNet. 2021, arXiv 2102.04306",
            sizes="any, best the size it was trained at: other sizes interpolate the learnt positions",
        ),
        Architecture(
            name="swin-unet",
            title="Swin-Unet",
            factory="napari_drososeg.models.swin_unet:SwinUNet",
            stride=32,
            receptive_field=0,
            global_context=True,
            reference="Cao et al.: Swin-Unet. ECCV Workshops 2022, arXiv 2105.05537",
            sizes="any, best multiples of the size it was trained at: other sizes have windows that are partly empty",
        ),
        Architecture(
            name="fcn16",
            title="FCN16",
            factory="napari_drososeg.models.fcn:FCN16",
            stride=32,
            receptive_field=241,
            global_context=False,
            reference=_FCN_REFERENCE,
            variant_of="fcn8",
        ),
        Architecture(
            name="fcn32",
            title="FCN32",
            factory="napari_drososeg.models.fcn:FCN32",
            stride=32,
            receptive_field=233,
            global_context=False,
            reference=_FCN_REFERENCE,
            variant_of="fcn8",
        ),
    )
}


def find_architecture(name: str, **arguments: Any) -> Architecture:
    """Return the architecture called `name`.

    Parameters
    ----------
    name : str
        Key of `ARCHITECTURES`.
    **arguments
        Those of the network, as for `create_model`. The receptive field depends on some of them, and on an encoder
        other than VGG16 it is not known: then the network counts as one with global context.

    Raises
    ------
    DrososegError
        If there is none; the message lists those there are.
    """
    from napari_drososeg.models import reach

    if name not in ARCHITECTURES:
        raise DrososegError(f"Unknown architecture '{name}'. Choose one of: {', '.join(ARCHITECTURES)}.")
    entry = ARCHITECTURES[name]
    if arguments.get("encoder", "vgg16") != "vgg16":
        return dataclasses.replace(entry, receptive_field=0, global_context=True)
    if entry.global_context:
        return entry
    return dataclasses.replace(entry, receptive_field=reach.receptive_field(name, **arguments))


def create_model(architecture: str, n_classes: int, **arguments: Any) -> torch.nn.Module:
    """Build a network with random weights.

    Parameters
    ----------
    architecture : str
        Key of `ARCHITECTURES`.
    n_classes : int
        Number of output channels.
    **arguments
        Passed on to the architecture, such as ``width=0.5``; where it takes ``encoder_weights="imagenet"``, its encoder
        starts from public weights, downloaded.

    Returns
    -------
    torch.nn.Module
        Maps images (N, 1, H, W) to logits (N, n_classes, H, W) for any H and W >= 1: sides are padded to a multiple
        of the stride and the result is cropped.

    Raises
    ------
    DrososegError
        If there is no such architecture, it does not take these arguments, or it cannot be built with them.
    """
    from napari_drososeg.models.padding import Padded

    entry = find_architecture(architecture)
    module, attribute = entry.factory.split(":")
    spare_triton()
    factory = getattr(import_module(module), attribute)
    taken = list(inspect.signature(factory).parameters)[1:]
    unknown = [name for name in arguments if name not in taken]
    if unknown:
        raise DrososegError(f"{entry.title} does not take {', '.join(unknown)}. It takes: {', '.join(taken)}.")
    for name, value in arguments.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if name in _WIDTHS and value is not None and not (number and 0 < value < math.inf):
            raise DrososegError(f"The {name} of {entry.title} cannot be {value}; use a number above 0, such as 0.5.")
    try:
        network: torch.nn.Module = factory(n_classes, **arguments)
    except DrososegError:
        raise
    except Exception as error:  # of smp, timm and torch, of many kinds
        given = ", ".join(f"{name}={value}" for name, value in arguments.items())
        reason = " ".join(str(error).split()).rstrip(".")
        raise DrososegError(f"{entry.title} cannot be built with {given or 'its defaults'} ({reason}).") from error
    return Padded(network, entry.stride)
