"""Where the workspace of an image layer lies."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from napari_drososeg._widgets.layers.images import file_of, stack_of
from napari_drososeg.errors import DrososegError
from napari_drososeg.workspace import default_folder
from napari_drososeg.workspace.documents import MAIN, Description
from napari_drososeg.workspace.identity import ImageIdentity
from napari_drososeg.zoo import user_folder

if TYPE_CHECKING:
    from napari.layers import Image

FOLDER_KEY = "drososeg_workspace"
"""Key in an image layer's metadata under which a chosen folder is kept: it belongs to the image."""


def is_workspace(folder: Path) -> bool:
    """Whether a folder looks like a workspace."""
    return (folder / MAIN).is_file()


def folder_of(image: Image) -> Path:
    """Where the workspace of an image is: where the user said, beside its file, or in the user's own folder."""
    chosen = image.metadata.get(FOLDER_KEY)
    if chosen:
        return Path(chosen)
    file = file_of(image)
    if file is not None:
        path = Path(file)
        zarrs = [p for p in (path, *path.parents) if p.suffix == ".zarr"]
        folder = default_folder(zarrs[-1] if zarrs else path)
        if is_workspace(folder) or os.access(folder.parent, os.W_OK):
            return folder
    home, identity = user_folder().parent / "workspaces", ImageIdentity.of(stack_of(image))
    name, digest = re.sub(r"[^\w .-]+", "_", image.name[:40]), identity.sha256[:8]
    mine = home / f"{name}-{digest}"
    if not is_workspace(mine):  # the layer may have had another name
        for folder in sorted(home.glob(f"*-{digest}")):
            with contextlib.suppress(DrososegError):
                if Description.read(folder).image.difference(identity) is None:
                    return folder
    return mine
