"""The workspace of an image: annotation, reviewed regions and rounds of retraining, on disk and crash-safe.

Importing it loads neither torch nor Qt; `napari_drososeg.workspace.retraining` does the learning.
"""

from __future__ import annotations

from napari_drososeg.workspace.annotation import Absorbed, Tracker, merge
from napari_drososeg.workspace.folder import Workspace, copy_workspace, create_workspace, default_folder, open_workspace
from napari_drososeg.workspace.regions import ReviewedRegion, rectangle
from napari_drososeg.workspace.rounds import START, Round, Rounds

__all__ = [
    "START",
    "Absorbed",
    "ReviewedRegion",
    "Round",
    "Rounds",
    "Tracker",
    "Workspace",
    "copy_workspace",
    "create_workspace",
    "default_folder",
    "merge",
    "open_workspace",
    "rectangle",
]
