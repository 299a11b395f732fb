"""A labels layer that is painted on: where to look, and where to show. No Qt here."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np

from napari_drososeg._widgets.layers.history import Steps, stroke_in_progress
from napari_drososeg._widgets.layers.targets import Target
from napari_drososeg._widgets.work.store import Slices, pieces

LOOKED_AT = 4_000_000
"""Pixels of a section in memory up to which it is compared whole while it is on screen, whatever painted on it."""
Part = tuple[int, int, int, int, int]
"""Section, y0, y1, x0, x1."""


@dataclass(eq=False)
class Painting:
    """A labels layer with what is still to be done for it.

    Attributes
    ----------
    dirty : dict of Part to None
        Where it may have been painted on: to be compared with what the program wrote.
    stale : dict of Part to None
        Where it no longer shows what is known: to be written.
    gone : bool
        Whether it has left the viewer: what was painted before is still to be kept.
    """

    target: Target
    steps: Steps
    dirty: dict[Part, None] = field(default_factory=dict)
    stale: dict[Part, None] = field(default_factory=dict)
    refresh: bool = False
    gone: bool = False
    _checksum: tuple[int, int] | None = None
    _visited: set[int] = field(default_factory=set)

    @property
    def free(self) -> bool:
        """Whether its array may be read and written: not during a stroke."""
        return self.gone or not stroke_in_progress(self.target.layer)

    def look(self, section: int | None) -> None:
        """Note where it has been painted on since the last look.

        Parameters
        ----------
        section : int or None
            The one on screen: compared whole if that is cheap, as other programs write without a history. None looks
            at the history only.
        """
        store = self.target.store
        whole = slice(0, store.shape[-2]), slice(0, store.shape[-1])
        boxes = self.steps.look() if self.steps.readable else None
        for z, ys, xs in boxes or ():
            self.note(self.dirty, z, (ys, xs))
        if section is None:
            return
        if boxes is None:
            self.note(self.dirty, section, whole)
        elif isinstance(store.labels, np.ndarray) and whole[0].stop * whole[1].stop <= LOOKED_AT:
            checksum = section, zlib.crc32(np.ascontiguousarray(store.labels[store.index(section, *whole)]))
            if checksum != self._checksum:
                self._checksum = checksum
                self.note(self.dirty, section, whole)
        elif section not in self._visited:  # too large for more than once: from then on the history says where
            self._visited.add(section)
            self.note(self.dirty, section, whole)

    def forget(self) -> None:
        """Note what the undo history says before it is emptied."""
        self.look(None)
        self.steps.forget()

    def show(self, z: int, slices: Slices) -> None:
        """Note that a part no longer shows what is known."""
        self.note(self.stale, z, slices)

    @staticmethod
    def note(where: dict[Part, None], z: int, slices: Slices) -> None:
        for ys, xs in pieces(slices):
            where[z, ys.start, ys.stop, xs.start, xs.stop] = None
