"""The networks of rounds: found, and saved to the zoo. No Qt here."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_drososeg.checkpoint import copy_checkpoint, load_spec
from napari_drososeg.errors import DrososegError
from napari_drososeg.workspace import START
from napari_drososeg.workspace.recipes import SCRATCH
from napari_drososeg.zoo import find_card, list_networks, user_folder

if TYPE_CHECKING:
    from napari_drososeg.workspace import Rounds
    from napari_drososeg.zoo import NetworkCard


def card_of(rounds: Rounds, number: int) -> NetworkCard:
    """Return the network of a round; of `START`, the one that the first round began with.

    Raises
    ------
    DrososegError
        If there is none, or it is gone.
    """
    if number != START:
        return find_card(rounds.checkpoint(number))
    parent = next((r.parent for r in rounds), "")
    if not parent or parent == SCRATCH:
        raise DrososegError("The first round began from scratch: there is no earlier network to return to.")
    return find_card(parent.rpartition(" ")[0] or parent)


def save_as_network(checkpoint: Path, title: str) -> Path:
    """Put the network of a round into the user's zoo under a name of its own.

    Parameters
    ----------
    checkpoint : Path
        Of the round.
    title : str
        What widgets will show; its name follows from that.

    Returns
    -------
    Path
        The new file.

    Raises
    ------
    DrososegError
        If there is a network of that name, or it cannot be written.
    """
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    if not name:
        raise DrososegError("A network needs a name with letters or digits.")
    target = user_folder() / f"{name}.safetensors"
    if target.exists() or any(card.name == name for card in list_networks()):
        raise DrososegError(f"A network named '{name}' already exists: choose another name.")
    spec = replace(load_spec(checkpoint), name=name, title=title.strip())
    return copy_checkpoint(checkpoint, target, spec)
