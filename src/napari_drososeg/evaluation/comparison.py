"""Comparing two stacks of labels, section by section."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.classes import DROSOPHILA_CLASSES, ClassTable
from napari_drososeg.errors import DrososegError
from napari_drososeg.evaluation.truth import TruthFormat, strips, truth_reader
from napari_drososeg.metrics import Scores, confusion_matrix, empty_confusion

if TYPE_CHECKING:
    from napari_drososeg.io import Stack


@dataclass(frozen=True)
class SectionEvaluation:
    """Comparison of one section.

    Parameters
    ----------
    labels_section, truth_section : int
        Section numbers in the two stacks, from 0.
    confusion : ndarray of int64, shape (C, C + 1)
        As `napari_drososeg.metrics.confusion_matrix` returns it.
    """

    labels_section: int
    truth_section: int
    confusion: NDArray[np.int64]

    @property
    def scores(self) -> Scores:
        """Scores of this section alone."""
        return Scores.from_confusion(self.confusion)


@dataclass(frozen=True)
class Evaluation:
    """Comparison of two stacks of labels.

    Parameters
    ----------
    classes : ClassTable
        What the label values mean.
    sections : tuple of SectionEvaluation
        One per compared section, in the order they were asked for.
    notices : tuple of str
        What the reader of the numbers should know.
    """

    classes: ClassTable
    sections: tuple[SectionEvaluation, ...]
    notices: tuple[str, ...] = ()

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Sum of the sections' confusion matrices, shape (C, C + 1); the last column is unlabelled pixels."""
        return sum((s.confusion for s in self.sections), start=empty_confusion(len(self.classes)))

    @property
    def pooled(self) -> Scores:
        """Scores of all pixels taken together: the ones to quote."""
        return Scores.from_confusion(self.confusion)

    @property
    def averaged(self) -> Scores:
        """Mean of the sections' scores, each section counting the same."""
        return Scores.mean_of(s.scores for s in self.sections)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready data; per-class lists are in the order of ``classes``."""
        return {
            "classes": self.classes.to_list(),
            "pooled": self.pooled.to_dict(),
            "averaged": self.averaged.to_dict(),
            "confusion": self.confusion.tolist(),
            "confusion_rows": list(self.classes.names),
            "confusion_columns": [*self.classes.names, "unlabelled"],
            "sections": [
                {
                    "labels_section": s.labels_section,
                    "truth_section": s.truth_section,
                    **s.scores.to_dict(),
                    "confusion": s.confusion.tolist(),
                }
                for s in self.sections
            ],
            "notices": list(self.notices),
        }


def pair_sections(n_labels: int, n_truth: int, sections: Sequence[int] | None = None) -> list[tuple[int, int]]:
    """Say which section of the labels belongs to which section of the truth.

    Parameters
    ----------
    n_labels, n_truth : int
        Sections of the two stacks.
    sections : sequence of int, optional
        Sections of the truth to compare. Where both stacks have the same number of sections, the same numbers
        are taken from the labels; where the labels have as many sections as are listed, they are taken in
        that order.

    Returns
    -------
    list of (int, int)
        Pairs of (labels section, truth section).

    Raises
    ------
    DrososegError
        If the sections cannot be paired, or one is not in its stack.
    """
    if sections is None:
        if n_labels != n_truth:
            raise DrososegError(
                f"The labels have {n_labels} sections and the truth {n_truth}; say which sections of the "
                f"truth are meant (--sections), for example 0-{min(n_labels, n_truth) - 1}."
            )
        return [(z, z) for z in range(n_truth)]
    wrong = [z for z in sections if not 0 <= z < n_truth]
    if wrong:
        raise DrososegError(f"Section {wrong[0]} is not in the truth, which has the sections 0 to {n_truth - 1}.")
    if n_labels == n_truth:
        return [(z, z) for z in sections]
    if n_labels == len(sections):
        return list(enumerate(sections))
    raise DrososegError(
        f"The labels have {n_labels} sections and the truth {n_truth}, so {len(sections)} chosen sections "
        f"cannot be paired with them; choose {n_labels}, or pair them one by one (--sections 0-2:13-15)."
    )


def evaluate(
    labels: Stack | NDArray[Any],
    truth: Stack | NDArray[Any],
    classes: ClassTable = DROSOPHILA_CLASSES,
    *,
    pairs: Sequence[tuple[int, int]] | None = None,
    truth_format: TruthFormat = "classes",
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Compare labels with truth.

    Parameters
    ----------
    labels, truth : Stack or ndarray of integers, (Z, Y, X) or (Y, X)
        Label values; sections of both must have the same size. Truth 0 is not counted, predicted 0 is wrong.
    classes : ClassTable
        What the values mean.
    pairs : sequence of (int, int), optional
        Which sections to compare, as `pair_sections` gives them; every section with its namesake if left out.
    truth_format : {"classes", "vnc", "auto"}
        Whether the truth holds class values or the raw values of the public VNC data set; "auto" looks, see
        `detect_truth_format`.
    progress : callable, optional
        Called as ``progress(done, total)`` after each section.

    Returns
    -------
    Evaluation

    Raises
    ------
    DrososegError
        If the sections differ in size, cannot be paired, or hold values outside the class table.
    """
    labels_stack, truth_stack = _stack(labels, "labels"), _stack(truth, "truth")
    chosen = checked_pairs(labels_stack, truth_stack, pairs)
    read_truth = truth_reader(truth_stack, classes, truth_format, [t for _, t in chosen])
    sections, empty = [], []
    for done, (z_labels, z_truth) in enumerate(chosen, start=1):
        matrix = empty_confusion(len(classes))
        blank = True
        for rows in strips(truth_stack.shape):
            part = labels_stack.read(z_labels, rows)
            blank = blank and not part.any()
            try:
                matrix += confusion_matrix(read_truth(z_truth, rows), part, len(classes))
            except DrososegError as error:
                raise DrososegError(f"Section {z_truth}: {error}") from error
        if blank:
            empty.append(z_labels)
        sections.append(SectionEvaluation(z_labels, z_truth, matrix))
        if progress is not None:
            progress(done, len(chosen))
    return Evaluation(classes, tuple(sections), _notices(empty, sections))


def _notices(empty: Sequence[int], sections: Sequence[SectionEvaluation]) -> tuple[str, ...]:
    notices = []
    if empty:
        shown = ", ".join(map(str, empty[:8])) + (", ..." if len(empty) > 8 else "")
        notices.append(
            f"Nothing is labelled in section {shown} of the labels; those pixels count as wrong. "
            "Choose sections to leave them out (--sections)."
        )
    bare = [s.truth_section for s in sections if s.confusion.sum() == 0]
    if bare:
        shown = ", ".join(map(str, bare[:8])) + (", ..." if len(bare) > 8 else "")
        notices.append(f"The truth of section {shown} is unlabelled, so it says nothing about the labels.")
    return tuple(notices)


def _stack(labels: Stack | NDArray[Any], name: str) -> Stack:
    from napari_drososeg.io import Stack, as_stack

    return labels if isinstance(labels, Stack) else as_stack(labels, name=name)


def checked_pairs(labels: Stack, truth: Stack, pairs: Sequence[tuple[int, int]] | None) -> list[tuple[int, int]]:
    """Return the pairs of sections to compare; `DrososegError` if they cannot be compared."""
    if labels.shape[1:] != truth.shape[1:]:
        raise DrososegError(
            f"The labels '{labels.name}' have sections of {_size(labels)} pixels and the truth "
            f"'{truth.name}' of {_size(truth)}; they must be the same size."
        )
    chosen = list(pairs) if pairs is not None else pair_sections(labels.shape[0], truth.shape[0])
    if not chosen:
        raise DrososegError("There are no sections to compare; choose at least one.")
    for z_labels, z_truth in chosen:
        if not (0 <= z_labels < labels.shape[0] and 0 <= z_truth < truth.shape[0]):
            raise DrososegError(
                f"Sections {z_labels} (labels) and {z_truth} (truth) cannot be compared: the stacks have "
                f"{labels.shape[0]} and {truth.shape[0]} sections, counted from 0."
            )
    return chosen


def _size(stack: Stack) -> str:
    return f"{stack.shape[2]} x {stack.shape[1]}"
