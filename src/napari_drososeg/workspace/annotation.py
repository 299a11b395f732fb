"""From what a user paints on a labels layer to the annotation of the image, and back.

Painting is found by comparing the layer with what the program last wrote there, not from events: undo and redo emit
none, and neither does painting the class a pixel already has. For each pixel, with ``shown`` what the layer holds and
``written`` what the program last put there:

==========================================  ====================================================================
shown                                       annotation
==========================================  ====================================================================
differs from written, a class               becomes that class
differs from written, 0 (erased)            becomes 0: the pixel is the network's again
differs from written, outside the table     as at the last program write; the layer is to be put back
equals written (untouched, or undone)       as at the last program write
==========================================  ====================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.workspace.chunks import ChunkedLabels, Key

Labels = NDArray[np.uint8]


def merge(prediction: Labels, reviewed: Labels, annotation: Labels) -> Labels:
    """Return what a layer shows: the prediction, under what was reviewed, under what was painted.

    Parameters
    ----------
    prediction, reviewed, annotation : ndarray of uint8, one shape
        0 where there is nothing.

    Returns
    -------
    ndarray of uint8, same shape
    """
    shown: Labels = np.where(annotation != 0, annotation, np.where(reviewed != 0, reviewed, prediction))
    return shown


@dataclass(frozen=True)
class Absorbed:
    """What became of a look at a layer.

    Parameters
    ----------
    changed : int
        Pixels whose annotation is another one than before.
    refused : int
        Pixels painted with a value outside the class table.
    """

    changed: int
    refused: int


@dataclass
class _Touched:
    """A chunk the user changed since the last program write.

    Parameters
    ----------
    mask : ndarray of bool, chunk shape
        Where the layer differs from what was written.
    annotation, reviewed : ndarray of uint8, chunk shape
        What they were there before.
    """

    mask: NDArray[np.bool_]
    annotation: Labels
    reviewed: Labels


@dataclass
class Tracker:
    """Takes what is painted on one labels layer into the annotation; one for each layer of an image.

    Parameters
    ----------
    annotation, reviewed : ChunkedLabels
        Of the workspace; shared by all layers of the image.
    n_classes : int
        Values above it are refused.
    """

    annotation: ChunkedLabels
    reviewed: ChunkedLabels
    n_classes: int
    _touched: dict[Key, _Touched] = field(default_factory=dict)

    def absorb(self, z: int, ys: slice, xs: slice, shown: Labels, written: Labels) -> Absorbed:
        """Take over what differs between the layer and what the program last wrote; on return it is on the disk.

        Call it at every save tick for the sections that may have been painted on, and before every program write for
        the region that is about to be written.

        Parameters
        ----------
        z : int
            Section.
        ys, xs : slice
            Region in px, with start and stop.
        shown, written : ndarray of uint8, (h, w)
            The layer's labels over the region, and what the program last put there.

        Returns
        -------
        Absorbed

        Raises
        ------
        DrososegError
            If the disk is full; what could not be saved is tried again at the next call.
        """
        different = shown != written
        foreign = different & (shown > self.n_classes)
        different &= ~foreign
        changed = 0
        for key, outer, inner in self.annotation.keys_of(z, ys, xs):
            if key in self._touched or different[outer].any():
                changed += self._absorb_chunk(key, inner, shown[outer], different[outer])
        return Absorbed(changed, int(np.count_nonzero(foreign)))

    def _absorb_chunk(self, key: Key, inner: tuple[slice, slice], shown: Labels, different: NDArray[np.bool_]) -> int:
        z, corner = key[0], self.annotation.box(key)
        ys, xs = (slice(c.start + s.start, c.start + s.stop) for c, s in zip(corner, inner, strict=True))
        annotation, reviewed = self.annotation.read(z, ys, xs), self.reviewed.read(z, ys, xs)
        touched = self._touched.get(key)
        if touched is None:
            shape = self.annotation.chunk
            touched = _Touched(np.zeros(shape, np.bool_), np.zeros(shape, np.uint8), np.zeros(shape, np.uint8))
        before = touched.mask[inner]
        # What the annotation would be if this layer had not been painted on.
        base = np.where(before, touched.annotation[inner], annotation)
        base_reviewed = np.where(before, touched.reviewed[inner], reviewed)
        new = np.where(different, shown, base)
        new_reviewed = np.where(different & (shown == 0), 0, base_reviewed)
        self.annotation.write(z, ys, xs, new)
        self.reviewed.write(z, ys, xs, new_reviewed)
        # Only now: had the disk been full, the next call would have to start from the same state.
        touched.mask[inner], touched.annotation[inner], touched.reviewed[inner] = different, base, base_reviewed
        if touched.mask.any():
            self._touched[key] = touched
        else:
            self._touched.pop(key, None)
        return int(np.count_nonzero((new != annotation) | (new_reviewed != reviewed)))

    def settle(self, z: int, ys: slice, xs: slice) -> None:
        """Forget what is older than a program write to a region; call it right after that write.

        The undo history must not reach back over it: the caller drops that as well.

        Parameters
        ----------
        z : int
            Section.
        ys, xs : slice
            Region in px, with start and stop.
        """
        for key, _, inner in self.annotation.keys_of(z, ys, xs):
            touched = self._touched.get(key)
            if touched is not None:
                touched.mask[inner] = False
                if not touched.mask.any():
                    del self._touched[key]
