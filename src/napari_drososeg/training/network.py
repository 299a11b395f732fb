"""The device and the network of a training: made, given weights to start from, taken apart."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric import Fabric

from napari_drososeg.errors import DrososegError
from napari_drososeg.models import create_model

if TYPE_CHECKING:
    from torch import Tensor, nn

    from napari_drososeg.training.config import TrainConfig

_ENCODERS = (("encoder",), ("patch_embed", "layers", "norm"))  # the latter in Swin-Unet, whose names are timm's


def preferred_precision(accelerator: str = "auto") -> str:
    """Return the precision that is fastest without losing accuracy: bf16 where it is computed natively.

    Parameters
    ----------
    accelerator : str
        What is trained on, as lightning-fabric names it: a processor beside a graphics card is asked for itself.
    """
    if accelerator not in ("cpu", "mps") and torch.cuda.is_available():
        # cards before Ampere take bf16, too, but emulate it
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16")
    return "bf16-mixed" if native else "32-true"


def fabric(config: TrainConfig) -> Fabric:
    """Return what knows devices and precision; with several devices, it starts the other processes.

    Raises
    ------
    DrososegError
        If these devices, or as many, are not to be had here.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces each choice we made on stderr
    try:
        made = Fabric(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.nodes,
            strategy=config.strategy,
            precision=preferred_precision(config.accelerator) if config.precision == "auto" else config.precision,
        )
    except Exception as error:  # of many kinds
        reason = " ".join(str(error).split()).split(". ")[0].rstrip(".")
        raise DrososegError(
            f"Nothing can be trained on {config.devices} x '{config.accelerator}' here ({reason}): choose the device "
            "auto or cpu, or fewer devices."
        ) from error
    if config.devices * config.nodes > 1:
        made.launch()
    if made.device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # all batches have one shape: worth finding the fastest convolutions
    return made


def build(config: TrainConfig, *, pretrained: bool) -> nn.Module:
    """Return the network with the random weights of the seed; without `pretrained`, public ones are not fetched."""
    arguments = dict(config.arguments)
    if not pretrained:
        arguments.pop("encoder_weights", None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return create_model(config.architecture, config.n_classes, **arguments)


def load_start(model: nn.Module, start: Mapping[str, Tensor]) -> None:
    """Load all weights.

    Raises
    ------
    DrososegError
        If they are those of another network.
    """
    try:
        model.load_state_dict(start)
    except RuntimeError as error:
        reason = " ".join(str(error).split(":", 1)[-1].split())[:200]
        raise DrososegError(
            f"The weights to start from are those of another network ({reason}): transfer what fits, or start from "
            "one of the same architecture, arguments and number of classes."
        ) from error


def transfer_weights(model: nn.Module, source: Mapping[str, Tensor]) -> int:
    """Load the tensors whose name and shape fit.

    Returns
    -------
    int
        How many.

    Raises
    ------
    DrososegError
        If none does.
    """
    own: dict[str, Tensor] = model.state_dict()
    fitting = {k: v for k, v in source.items() if k in own and v.shape == own[k].shape and v.ndim}
    if not fitting:
        raise DrososegError(
            "No weights of the network to start from fit this architecture: choose the same one, or start without."
        )
    model.load_state_dict(own | fitting)
    return len(fitting)


def encoder_of(model: nn.Module) -> list[nn.Module]:
    """Return the modules of a network of `create_model` that are its encoder.

    Raises
    ------
    DrososegError
        If it is not known which they are.
    """
    children = dict(model.network.named_children())
    for names in _ENCODERS:
        if names[0] in children:
            return [children[name] for name in names]
    raise DrososegError("It is not known which part of this network is its encoder: leave its learning rate at 1.")


def norms_of(model: nn.Module) -> list[nn.Module]:
    """Return the batch norms of a network: what keeps statistics of the images it has seen."""
    return [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]


def parameter_groups(model: nn.Module, encoder_rate: float) -> list[dict[str, Any]]:
    """Return parameters for an optimiser, with ``factor`` for their learning rate; frozen ones are left out."""
    if encoder_rate == 1:
        return [{"params": list(model.parameters()), "factor": 1.0}]
    encoder = [p for module in encoder_of(model) for p in module.parameters()]
    known = {id(p) for p in encoder}
    groups = [{"params": [p for p in model.parameters() if id(p) not in known], "factor": 1.0}]
    if encoder_rate == 0:
        for parameter in encoder:
            parameter.requires_grad_(False)
    else:
        groups.append({"params": encoder, "factor": encoder_rate})
    return groups
