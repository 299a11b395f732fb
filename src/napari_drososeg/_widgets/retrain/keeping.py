"""Keepers that hold a layer's painted pixels in the workspace of its image. No Qt here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_drososeg._widgets.work.store import NOTHING, Keeper, OwnAnnotation, Pixels, Slices, index_of, pieces

if TYPE_CHECKING:
    from napari_drososeg.workspace import Workspace


class WorkspaceKeeper:
    """Keeps what is painted on one layer in a workspace, which all layers of the image share.

    Parameters
    ----------
    workspace : Workspace
        Open for writing.
    changed : callable
        ``changed(z, slices)`` is called where painting has changed what is known.
    """

    def __init__(self, workspace: Workspace, changed: Callable[[int, Slices], None]) -> None:
        self._workspace, self._changed = workspace, changed
        self._tracker = workspace.tracker()
        self._met: set[int] = set()

    @property
    def n_classes(self) -> int:
        """Values above it are refused."""
        return self._tracker.n_classes

    @n_classes.setter
    def n_classes(self, n: int) -> None:
        self._tracker.n_classes = n

    def absorb(self, z: int, slices: Slices, shown: Pixels, written: Pixels) -> int:
        """See `Keeper`; below a label that is not a class, what was painted before it stays."""
        self._met.add(z)
        foreign = (shown > self.n_classes) & (shown != written)
        if foreign.any():
            annotation = self._workspace.annotation.read(z, *slices)
            shown = np.where(foreign, np.where(annotation, annotation, written), shown)
        if self._tracker.absorb(z, *slices, shown, written).changed:
            self._changed(z, slices)
        return int(np.count_nonzero(foreign))

    def overtaken(self, z: int, slices: Slices, shown: Pixels, written: Pixels) -> Pixels:
        """Return what a layer would show if it had not been painted on where other layers have been since.

        Everything on it must have been absorbed. Without this its old strokes would count as new ones.
        """
        if z not in self._met:
            return shown
        self._tracker.settle(z, *slices)
        return np.where((shown != written) & (shown != self.known(z, slices)), written, shown)

    def holds(self, z: int) -> bool:
        """See `Keeper`."""
        return z in self._met or bool(self._workspace.touched(z))

    def known(self, z: int, slices: Slices) -> Pixels:
        """See `Keeper`."""
        return self._workspace.labels(z, *slices)

    def settle(self, z: int, slices: Slices) -> None:
        """See `Keeper`."""
        self._tracker.settle(z, *slices)


class LeftWorkspace(OwnAnnotation):
    """Keeps painting in memory on top of a workspace that has been closed, so that nothing of it is predicted over.

    Parameters
    ----------
    shape, n_classes, folder
        As in `OwnAnnotation`.
    workspace : Workspace
        It is only read.
    """

    def __init__(self, shape: tuple[int, ...], n_classes: int, folder: Path | None, workspace: Workspace) -> None:
        super().__init__(shape, n_classes, folder)
        self.workspace = workspace

    def absorb(self, z: int, slices: Slices, shown: Pixels, written: Pixels) -> int:
        """See `Keeper`; what is erased is noted too, as the workspace still has it."""
        refused = super().absorb(z, slices, shown, written)
        erased = (shown == 0) & (written != 0)
        if erased.any():
            at = index_of(self.shape, z, *slices)
            self.annotation[at] = np.where(erased, NOTHING, np.asarray(self.annotation[at]))
        return refused

    def holds(self, z: int) -> bool:
        """See `Keeper`."""
        return super().holds(z) or bool(self.workspace.touched(z))

    def known(self, z: int, slices: Slices) -> Pixels:
        """See `Keeper`."""
        own = super().known(z, slices)
        kept = np.where(own, own, self.workspace.labels(z, *slices))
        return np.where(own == NOTHING, np.uint8(0), kept)


def move_in(old: Keeper, new: WorkspaceKeeper, workspace: Workspace) -> None:
    """Bring what a keeper in memory holds into a workspace."""
    if not isinstance(old, OwnAnnotation):
        return
    whole = slice(0, old.shape[-2]), slice(0, old.shape[-1])
    for z in sorted(old.sections):
        for part in pieces(whole):
            mine = old.known(z, part)
            same = isinstance(old, LeftWorkspace) and old.workspace.folder == workspace.folder
            new.absorb(z, part, mine, workspace.labels(z, *part) if same else np.zeros_like(mine))
            new.settle(z, part)
