"""What trains and what is locked, section by section: counted, and outlined in a layer. No Qt here."""

from __future__ import annotations

import shutil
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from napari_drososeg._widgets.layers.error_maps import MARK
from napari_drososeg._widgets.layers.images import add_above, shape_of, space_of
from napari_drososeg._widgets.work.store import IN_MEMORY_BYTES, allocate, index_of, new_scratch

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

    from napari_drososeg.workspace import Workspace

TRAINS, LOCKED = 1, 2
"""Values of the outline layer."""


@dataclass(frozen=True)
class SectionState:
    """What is known of one section.

    Parameters
    ----------
    trains, locked : (256,) int64 array
        Pixels per label value that train, and that rounds are compared on.
    reviewed : bool
        Whether it has a reviewed region that trains.
    """

    trains: NDArray[np.int64]
    locked: NDArray[np.int64]
    reviewed: bool

    @property
    def words(self) -> str:
        """One line about it."""
        train, locked = int(self.trains.sum()), int(self.locked.sum())
        parts = [f"{train:,} pixels used for training"] if train else []
        parts += ["reviewed"] if self.reviewed else []
        parts += [f"{locked:,} pixels locked for validation"] if locked else []
        return ", ".join(parts) or "not annotated"


class Overview:
    """Follows a workspace, section by section, as it is told that one has changed.

    Parameters
    ----------
    viewer : napari.Viewer
        Where the outline layer goes.
    image : Image
        The image.
    workspace : Workspace
        Its workspace.

    Attributes
    ----------
    sections : dict of int to SectionState
        Those of which anything is known.
    """

    def __init__(self, viewer: napari.Viewer, image: Image, workspace: Workspace) -> None:
        self._viewer, self._image, self._workspace = viewer, image, workspace
        self.sections: dict[int, SectionState] = {}
        self._stale: dict[int, None] = dict.fromkeys(workspace.sections)
        self._marked: dict[int, list[tuple[slice, slice]]] = {}
        self._wanted = self._drawn = False
        self.layer: Labels | None = None
        self._named = ""
        image.events.name.connect(self._follow_name)

    def _follow_name(self, _event: Any = None) -> None:
        """Call the outline after the image again, unless the user has called it something else."""
        layer = self.layer
        if layer is not None and layer.name == self._named:
            layer.name = f"{self._image.name} training area"
            self._named = layer.name  # napari may have added a number
            layer.metadata[MARK] = {"labels": self._image.name}

    @property
    def trains(self) -> NDArray[np.int64]:
        """Pixels (256,) per label value that train."""
        return sum((s.trains for s in self.sections.values()), np.zeros(256, np.int64))

    @property
    def locked(self) -> NDArray[np.int64]:
        """Pixels (256,) per label value that rounds are compared on."""
        return sum((s.locked for s in self.sections.values()), np.zeros(256, np.int64))

    def note(self, z: int) -> None:
        """Note that a section is to be looked at again."""
        self._stale[z] = None

    def update(self, first: int) -> bool:
        """Look at one section that has changed, `first` before others; False when there is none."""
        if not self._stale:
            return False
        z = first if first in self._stale else next(iter(self._stale))
        del self._stale[z]
        self._survey(z)
        return True

    def _survey(self, z: int) -> None:
        trains, locked = np.zeros(256, np.int64), np.zeros(256, np.int64)
        boxes = self._workspace.touched(z)
        for ys, xs in self._marked.get(z, []) if self.layer is not None else []:
            if (ys, xs) not in boxes:
                self._draw(z, ys, xs, np.zeros((ys.stop - ys.start, xs.stop - xs.start), np.uint8))
        for ys, xs in boxes:
            known, mask = self._workspace.labels(z, ys, xs), self._workspace.locked(z, ys, xs)
            trains += np.bincount(known[~mask], minlength=256)
            locked += np.bincount(known[mask], minlength=256)
            self._draw(z, ys, xs, np.where(known == 0, 0, np.where(mask, LOCKED, TRAINS)).astype(np.uint8))
        trains[0] = locked[0] = 0
        self._marked[z] = boxes
        reviewed = any(r.section == z and not r.locked for r in self._workspace.regions)
        if boxes:
            self.sections[z] = SectionState(trains, locked, reviewed)
        else:
            self.sections.pop(z, None)

    # ---------------------------------------------------------------- the outline layer

    def show(self, wanted: bool) -> None:
        """Show or hide the outline; the layer is made when there is something to show."""
        if wanted == self._wanted and (self.layer is None or self.layer in self._viewer.layers):
            return
        self._wanted = wanted
        if not wanted:
            self.remove()
        else:
            self.layer = None
            self._stale |= dict.fromkeys(self.sections)

    @property
    def deleted(self) -> bool:
        """Whether the user has deleted the outline layer."""
        return self._wanted and self.layer is not None and self.layer not in self._viewer.layers

    def refresh(self) -> None:
        """Show what was drawn."""
        drawn, self._drawn = self._drawn, False
        if drawn and self.layer is not None and self.layer in self._viewer.layers and self.layer.visible:
            self.layer.refresh(thumbnail=False, highlight=False, extent=False)

    def remove(self) -> None:
        """Take the outline layer away."""
        if self.layer is not None and self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)
        self.layer = None

    def _draw(self, z: int, ys: slice, xs: slice, marks: NDArray[np.uint8]) -> None:
        if not self._wanted:
            return
        if self.layer is None:
            if not marks.any():
                return
            self.layer = self._make()
        data = self.layer.data
        data[index_of(tuple(data.shape), z, ys, xs)] = marks
        self._drawn = True

    def _make(self) -> Labels:
        shape = shape_of(self._image)[3 - self._image.ndim :]
        folder = None if int(np.prod(shape, dtype=np.int64)) <= IN_MEMORY_BYTES else new_scratch()
        colors = {None: np.zeros(4), 0: np.zeros(4), TRAINS: np.ones(4), LOCKED: np.array([0.94, 0.89, 0.26, 1])}
        layer = Labels(
            allocate(shape, np.uint8, folder, "outline"),
            name=f"{self._image.name} training area",
            colormap=DirectLabelColormap(color_dict=colors),
            features={"index": [0, TRAINS, LOCKED], "outline": ["not annotated", "trains", "locked for validation"]},
            metadata={MARK: {"labels": self._image.name}},  # nothing to evaluate or to paint on
            **space_of(self._image),
        )
        layer.contour = 2
        layer.editable = False
        if folder is not None:
            weakref.finalize(layer, shutil.rmtree, folder, ignore_errors=True)
        add_above(self._viewer, layer)
        self._named = layer.name
        return layer
