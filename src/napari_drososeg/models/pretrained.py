"""Encoders trained on ImageNet, downloaded when a network is first built with them.

`encoder_weights` says where training starts. It is not a property of the trained network: the arguments of a checkpoint
omit it, so that loading one never downloads anything.
"""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from napari_drososeg.errors import DrososegError


def smp_encoder(name: str, weights: str, channels_in: int = 1) -> nn.Module:
    """Return an encoder of segmentation-models-pytorch with pretrained weights.

    Raises
    ------
    DrososegError
        If there are no such weights, or they cannot be downloaded.
    """
    from segmentation_models_pytorch.encoders import get_encoder

    return download(f"{weights} weights of {name}", get_encoder, name, in_channels=channels_in, weights=weights)


def timm_model(name: str, **arguments: Any) -> nn.Module:
    """Return a model of timm with pretrained weights; `arguments` are those of `timm.create_model`.

    Raises
    ------
    DrososegError
        If there is no such model, or it cannot be downloaded.
    """
    import timm

    return download(f"weights of {name}", timm.create_model, name, pretrained=True, **arguments)


def download(what: str, function: Any, *args: Any, **kwargs: Any) -> nn.Module:
    """Call `function`, which builds a model from weights that may have to be downloaded.

    Raises
    ------
    DrososegError
        If it fails; the message names `what` could not be got.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the download library, about tokens and symbolic links
            model: nn.Module = function(*args, **kwargs)
    except Exception as error:  # the hub, the network and the cache each raise their own kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DrososegError(
            f"Could not get the {what} ({reason}). Check the internet connection, or leave encoder_weights out."
        ) from error
    return model
