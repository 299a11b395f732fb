"""napari's undo history of a labels layer: what it could bring back, and where the user has been since the last look.

napari keeps undo steps as boxes or as lists of pixels, in private attributes. Where these look different than expected
the answers here are the careful ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Labels

Box = tuple[int, slice, slice]
"""Section, rows and columns."""


def history_touches(layer: Labels, z: int, slices: tuple[slice, slice]) -> bool:
    """Whether undo or redo could change pixels of a tile; yes where that cannot be told."""
    steps = [*getattr(layer, "_undo_history", ()), *getattr(layer, "_redo_history", ())]
    box = ((z, z + 1), (slices[0].start, slices[0].stop), (slices[1].start, slices[1].stop))[3 - layer.ndim :]
    for atom in (a for step in steps for a in step):
        spans = _spans(atom)
        if spans is None or all(a < hi and lo < b for (a, b), (lo, hi) in zip(spans, box, strict=True)):
            return True
    return False


def forget_history(layer: Labels) -> None:
    """Empty undo and redo: they must not reach back over what the program has written since."""
    reset = getattr(layer, "_reset_history", None)
    if reset is not None:
        reset()


def stroke_in_progress(layer: Labels) -> bool:
    """Whether the user is in the middle of a brush stroke (napari groups its steps while the button is down)."""
    return bool(getattr(layer, "_block_history", False))


class Steps:
    """Tells where a layer was painted on, undone or redone since the last look.

    Parameters
    ----------
    layer : Labels
        Of (Z, Y, X) or (Y, X).
    """

    def __init__(self, layer: Labels) -> None:
        self._layer = layer
        # The steps themselves are kept, not only their numbers, which Python gives to others once they are gone.
        self._seen: dict[int, tuple[Any, bool]] = {}

    @property
    def readable(self) -> bool:
        """Whether this napari keeps its history where it is looked for."""
        return hasattr(self._layer, "_undo_history") and hasattr(self._layer, "_redo_history")

    def look(self) -> list[Box] | None:
        """Return the boxes of all steps that came, went, were undone or redone; None if one cannot be told."""
        layer = self._layer
        now = {
            id(atom): (atom, done)
            for done, steps in ((True, "_undo_history"), (False, "_redo_history"))
            for step in getattr(layer, steps, ())
            for atom in step
        }
        before, self._seen = self._seen, now
        changed = [atom for key, (atom, done) in now.items() if key not in before or before[key][1] != done]
        changed += [atom for key, (atom, _) in before.items() if key not in now]
        boxes: list[Box] = []
        for atom in changed:
            spans = _spans(atom)
            if spans is None:
                return None
            (z0, z1), (y0, y1), (x0, x1) = spans if layer.ndim == 3 else [(0, 1), *spans]
            boxes += [(z, slice(y0, y1), slice(x0, x1)) for z in range(z0, z1)]
        return boxes

    def forget(self) -> None:
        """Forget what was seen: the history has been emptied."""
        self._seen = {}


def _spans(atom: Any) -> list[tuple[int, int]] | None:
    """Start and stop along each axis of what a step touches; None where that cannot be told."""
    try:
        key = atom.slice_key if hasattr(atom, "slice_key") else atom[0]
        return [
            (int(k.start), int(k.stop)) if isinstance(k, slice) else (int(np.min(k)), int(np.max(k)) + 1) for k in key
        ]
    except (TypeError, ValueError, IndexError, AttributeError):
        return None
