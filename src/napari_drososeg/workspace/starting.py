"""The network a round starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_drososeg.checkpoint import NetworkSpec, load_model, sha256
from napari_drososeg.data.normalisation import Normalisation
from napari_drososeg.errors import DrososegError
from napari_drososeg.models import create_model, find_architecture
from napari_drososeg.training.sharing import inherit_licence
from napari_drososeg.workspace import recipes
from napari_drososeg.workspace.folder import Workspace
from napari_drososeg.workspace.recipes import SCRATCH, RetrainSettings
from napari_drososeg.workspace.rounds import START
from napari_drososeg.zoo import DEFAULT_NETWORK, find_network

if TYPE_CHECKING:
    from torch import nn


def find_start(
    workspace: Workspace, settings: RetrainSettings, pixel_size: float | None
) -> tuple[NetworkSpec, nn.Module, str]:
    """Return the network a round starts from, and what its `parent` is to say.

    Raises
    ------
    DrososegError
        If there is no such network, or its classes are not those of the workspace.
    """
    if settings.start == SCRATCH:
        spec = scratch_spec(workspace, pixel_size)
        return spec, create_model(spec.architecture, len(spec.classes), **spec.arguments), SCRATCH
    in_use = workspace.rounds.in_use
    if settings.start is None and in_use != START:
        path = workspace.rounds.checkpoint(in_use)
    else:
        path = find_network(settings.start or DEFAULT_NETWORK)
    spec, model = load_model(path)
    if spec.classes.names != workspace.classes.names:
        raise DrososegError(
            f"The network '{spec.title}' knows other classes ({', '.join(spec.classes.names)}) than this workspace "
            f"({', '.join(workspace.classes.names)}): start from scratch, or from another network."
        )
    return spec, model, f"{spec.name} {sha256(path)}"


def scratch_spec(workspace: Workspace, pixel_size: float | None) -> NetworkSpec:
    """Return the description of a small network with random weights for the image of a workspace."""
    arguments = dict(recipes.SCRATCH_ARGUMENTS)
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
