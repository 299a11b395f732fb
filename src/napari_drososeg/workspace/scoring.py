"""What a round changed: on the strokes, on the locked regions, and far from both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.classes import ClassTable
from napari_drososeg.metrics import Scores, confusion_matrix, empty_confusion
from napari_drososeg.workspace.material import Window

Labels = NDArray[np.uint8]

WORSE = 0.002
"""Loss of mean IoU on the locked regions that is noise."""

NOT_FOUND = 0.02
"""A class that was painted is not found if the network labels less than this part of its painted pixels so."""

FAR_DRIFT = 0.2
"""Share of pixels away from annotation above which a user is told how much the prediction changed there."""


@dataclass(frozen=True)
class NetworkScores:
    """How one network does on the annotated windows.

    Parameters
    ----------
    annotated : Scores
        On the pixels that train.
    locked : Scores or None
        On the locked regions; None where there are none.
    """

    annotated: Scores
    locked: Scores | None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready numbers: ``annotated_right`` (share), ``annotated_recall``, ``mean_iou`` and ``iou``."""
        plain: dict[str, Any] = {
            "annotated_right": _plain(self.annotated.pixel_accuracy),
            "annotated_recall": [_plain(v) for v in self.annotated.recall],
        }
        if self.locked is not None:
            plain |= {"mean_iou": _plain(self.locked.mean_iou), "iou": [_plain(v) for v in self.locked.iou]}
        return plain


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def score(windows: Sequence[Window], predicted: Sequence[Labels], n_classes: int) -> NetworkScores:
    """Score a network.

    Parameters
    ----------
    windows : sequence of Window
        What is known.
    predicted : sequence of ndarray of uint8, (h, w)
        Its labels of each.
    n_classes : int
        Number of classes.
    """
    annotated, locked = empty_confusion(n_classes), empty_confusion(n_classes)
    for window, labels in zip(windows, predicted, strict=True):
        annotated += confusion_matrix(window.labels, labels, n_classes)
        locked += confusion_matrix(window.validation, labels, n_classes)
    return NetworkScores(Scores.from_confusion(annotated), Scores.from_confusion(locked) if locked.any() else None)


def drift(windows: Sequence[Window], before: Sequence[Labels], after: Sequence[Labels]) -> float:
    """Return the share of pixels without annotation, in the annotated windows, whose label changed; 0 of none."""
    changed = total = 0
    for window, old, new in zip(windows, before, after, strict=True):
        free = (window.labels == 0) & (window.validation == 0)
        changed += int(np.count_nonzero(free & (old != new)))
        total += int(np.count_nonzero(free))
    return changed / total if total else 0.0


def decide(
    before: NetworkScores | None, after: NetworkScores, classes: ClassTable, *, first: bool = False
) -> tuple[bool, str]:
    """Say whether a round is to be adopted without asking, and why.

    Parameters
    ----------
    before : NetworkScores or None
        Of the network it started from; None where that had not learnt these classes.
    after : NetworkScores
        Of the new one.
    classes : ClassTable
        For the names.
    first : bool
        Whether no other network of these classes is in use.

    Returns
    -------
    adopted : bool
        Not if it scores worse on the locked regions; without these, not if fewer of the annotated pixels are right,
        or a class that was painted has vanished; without scores before, not if one is not found, unless it is `first`.
    verdict : str
        One sentence.
    """
    right = f"{after.annotated.pixel_accuracy:.1%} of the annotated pixels are correct"
    if after.locked is not None:
        new = after.locked.mean_iou
        if before is None or before.locked is None:
            return True, f"Mean IoU {new:.3f} on the locked regions."
        old = before.locked.mean_iou
        if new < old - WORSE:
            return False, f"Worse on the locked regions: mean IoU {new:.3f}, {old:.3f} before."
        return True, f"Mean IoU {new:.3f} on the locked regions, {old:.3f} before."
    lost = [n for n, r in zip(classes.names, after.annotated.recall, strict=True) if r < NOT_FOUND]
    if before is None:
        if lost:
            yet = " yet" if first else ""
            way_out = ": paint more of it, or train with more effort" if first else ""
            return first, f"It does not find {', '.join(lost)}{yet} where it was painted{way_out}; {right}."
        return True, f"{right}."
    # What was not found before has not vanished: a round that is better elsewhere is the way to it.
    gone = [n for n, r in zip(classes.names, before.annotated.recall, strict=True) if n in lost and r >= NOT_FOUND]
    if gone:
        return False, f"It no longer finds {', '.join(gone)} where it was painted; {right}."
    old = before.annotated.pixel_accuracy
    if after.annotated.pixel_accuracy < old:
        return False, f"Only {right}, {old:.1%} before."
    return True, f"{right}, {old:.1%} before."
