"""The network a round starts from."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import torch

from napari_drososeg.checkpoint import NetworkSpec, load_model, sha256
from napari_drososeg.data.normalisation import Normalisation
from napari_drososeg.errors import DrososegError
from napari_drososeg.models import create_model, find_architecture
from napari_drososeg.training.sharing import inherit_licence
from napari_drososeg.workspace import recipes
from napari_drososeg.workspace.folder import Workspace
from napari_drososeg.workspace.recipes import EFFORTS, SCRATCH, RetrainSettings
from napari_drososeg.workspace.rounds import START
from napari_drososeg.zoo import DEFAULT_NETWORK, find_network

if TYPE_CHECKING:
    from torch import nn

    from napari_drososeg.classes import ClassTable


@dataclass(frozen=True)
class Start:
    """What a round starts from.

    Parameters
    ----------
    spec : NetworkSpec
        Of the network, with the classes of the workspace.
    model : torch.nn.Module
        The network as it is now.
    parent : str
        Its name and SHA-256, as in a checkpoint; ``"scratch"`` for random weights.
    base : str
        Empty for a network that has learnt its classes. Otherwise what they are learnt upon, each round anew, as all
        that is known of them is annotated here: ``"scratch"``, or name and SHA-256 of a network of other classes.
    origin : tuple of NetworkSpec and torch.nn.Module, optional
        The network of other classes; where it is there no more, the one as it is now.
    """

    spec: NetworkSpec
    model: nn.Module
    parent: str
    base: str = ""
    origin: tuple[NetworkSpec, nn.Module] | None = None

    @property
    def blank(self) -> bool:
        """Whether what the network says of an image means nothing yet."""
        return self.parent == self.base


def find_start(workspace: Workspace, settings: RetrainSettings, pixel_size: float | None) -> Start:
    """Find what a round starts from.

    Raises
    ------
    DrososegError
        If there is no such network.
    """
    if settings.start == SCRATCH:
        spec = scratch_spec(workspace, pixel_size, EFFORTS[settings.effort].scratch_width)
        return Start(spec, create_model(spec.architecture, len(spec.classes), **spec.arguments), SCRATCH, SCRATCH)
    in_use = workspace.rounds.in_use
    of_here = settings.start is None and in_use != START
    path = workspace.rounds.checkpoint(in_use) if of_here else find_network(settings.start or DEFAULT_NETWORK)
    spec, model = load_model(path)
    parent = f"{spec.name} {sha256(path)}"
    if spec.classes.names != workspace.classes.names:
        made = with_classes(spec, model, workspace.classes)
        return Start(replace(spec, classes=workspace.classes), made, parent, parent, (spec, model))
    base = next((r.base for r in workspace.rounds if r.number == in_use), "") if of_here else ""
    if base in ("", SCRATCH):
        return Start(spec, model, parent, base)
    return Start(spec, model, parent, base, _find(base, workspace) or (spec, model))


def _find(base: str, workspace: Workspace) -> tuple[NetworkSpec, nn.Module] | None:
    """Return the network that rounds of a workspace began with; None if it is there no more."""
    name, _, digest = base.rpartition(" ")
    said = [r.settings.get("start") for r in workspace.rounds if r.parent == base]
    for each in dict.fromkeys([*said, name]):
        with suppress(DrososegError, OSError):
            path = find_network(each or DEFAULT_NETWORK)
            if sha256(path) == digest:
                return load_model(path)
    return None


def with_classes(spec: NetworkSpec, model: nn.Module, classes: ClassTable) -> nn.Module:
    """Return a network for other classes that knows of images what another one knows.

    Parameters
    ----------
    spec, model
        The other network.
    classes : ClassTable
        What the new one is to tell apart. A class of the same name in both is kept.

    Returns
    -------
    torch.nn.Module
        Of the same architecture. What depends on the classes is random, by a fixed seed, and else as in `model`.
    """
    arguments = {k: v for k, v in spec.arguments.items() if k != "encoder_weights"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = create_model(spec.architecture, len(classes), **arguments)
    with torch.device("meta"):
        larger = create_model(spec.architecture, len(spec.classes) + 1, **arguments).state_dict()
    old, new = model.state_dict(), made.state_dict()
    same = [(spec.classes.names.index(n), classes.names.index(n)) for n in classes.names if n in spec.classes.names]
    for name, value in old.items():
        if value.shape == larger[name].shape:
            new[name].copy_(value)
        elif value.shape[1:] == larger[name].shape[1:]:  # a row for each class
            for before, after in same:
                new[name][after] = value[before]
        else:  # the transposed convolutions of an FCN, from each class to each
            for (before, after), (into, now_into) in product(same, same):
                new[name][after, now_into] = value[before, into]
    return made.eval()


def scratch_spec(workspace: Workspace, pixel_size: float | None, width: float) -> NetworkSpec:
    """Return the description of a small network with random weights for the image of a workspace."""
    arguments = {"width": width, "decoder_width": width}
    kind = find_architecture(recipes.SCRATCH_ARCHITECTURE, **arguments)
    return NetworkSpec(
        name=recipes.SCRATCH_NAME,
        title="Own network",
        architecture=kind.name,
        arguments=arguments,
        classes=workspace.classes,
        normalisation=Normalisation(),
        pixel_size=pixel_size or recipes.SCRATCH_PIXEL_SIZE,
        stride=kind.stride,
        receptive_field=kind.receptive_field,
        global_context=kind.global_context,
        halo=64,
        licence=inherit_licence(None, ()),
    )
