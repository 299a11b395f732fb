"""Comparing two stacks of labels, section by section."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.classes import DROSOPHILA_CLASSES, UNLABELLED, ClassTable
from napari_drososeg.errors import DrososegError
from napari_drososeg.evaluation.truth import TruthFormat, strips, truth_reader
from napari_drososeg.metrics import Scores, confusion_matrix, empty_confusion

if TYPE_CHECKING:
    from napari_drososeg.io import Stack


def wrong_pixels(labels: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which pixels have a truth and another label; those without truth (0) are neither right nor wrong."""
    return cast("NDArray[np.bool_]", (truth != UNLABELLED) & (labels != truth))


@dataclass(frozen=True)
class SectionEvaluation:
    """Comparison of one section.

    Parameters
    ----------
    labels_section, truth_section : int
        Section numbers in the two stacks, from 0.
    confusion : ndarray of int64, shape (C, C + 1)
        As `napari_drososeg.metrics.confusion_matrix` returns it.
    labelled : bool
        Whether anything is labelled in this section of the labels.
    """

    labels_section: int
    truth_section: int
    confusion: NDArray[np.int64]
    labelled: bool = True

    def __add__(self, other: SectionEvaluation) -> SectionEvaluation:
        """Put together what was counted in two parts of the same section."""
        return replace(self, confusion=self.confusion + other.confusion, labelled=self.labelled or other.labelled)

    @property
    def scores(self) -> Scores:
        """Scores of this section alone."""
        return Scores.from_confusion(self.confusion)


@dataclass(frozen=True)
class Strip:
    """Comparison of some rows of a section.

    Parameters
    ----------
    part : SectionEvaluation
        What was counted in these rows.
    rows : slice
        Rows of the section.
    labels, truth : ndarray of integers, (h, X)
        Class values; 0 is unlabelled.
    """

    part: SectionEvaluation
    rows: slice
    labels: NDArray[Any]
    truth: NDArray[Any]

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Pixels (h, X) that have a truth and another label."""
        return wrong_pixels(self.labels, self.truth)


@dataclass(frozen=True)
class Evaluation:
    """Comparison of two stacks of labels.

    Parameters
    ----------
    classes : ClassTable
        What the label values mean.
    sections : tuple of SectionEvaluation
        One per compared section, in the order they were asked for.
    """

    classes: ClassTable
    sections: tuple[SectionEvaluation, ...]

    @property
    def notices(self) -> tuple[str, ...]:
        """What the reader of the numbers should know."""
        notices = []
        if empty := [s.labels_section for s in self.sections if not s.labelled]:
            notices.append(
                f"Nothing is labelled in section {_listed(empty)} of the labels; those pixels count as wrong. "
                "Choose sections to leave them out."
            )
        if bare := [s.truth_section for s in self.sections if s.confusion.sum() == 0]:
            notices.append(f"The truth of section {_listed(bare)} is unlabelled, so it says nothing about the labels.")
        return tuple(notices)

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
                f"The labels have {n_labels} sections and the truth {n_truth}; specify the sections of the truth "
                f"(--sections), for example 0-{min(n_labels, n_truth) - 1}."
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
    sections: list[SectionEvaluation] = []
    for strip in compare(labels_stack, truth_stack, classes, chosen, truth_format):
        if strip.rows.start == 0:
            sections.append(strip.part)
        else:
            sections[-1] += strip.part
        if progress is not None and strip.rows.stop == truth_stack.shape[1]:
            progress(len(sections), len(chosen))
    return Evaluation(classes, tuple(sections))


def compare(
    labels: Stack,
    truth: Stack,
    classes: ClassTable,
    pairs: Sequence[tuple[int, int]],
    truth_format: TruthFormat = "classes",
) -> Iterator[Strip]:
    """Compare strip by strip, in the order of `pairs`; parameters and errors as of `evaluate`."""
    read_truth = truth_reader(truth, classes, truth_format, [t for _, t in pairs])
    for z_labels, z_truth in pairs:
        for rows in strips(truth.shape):
            right, said = read_truth(z_truth, rows), labels.read(z_labels, rows)
            try:
                matrix = confusion_matrix(right, said, len(classes))
            except DrososegError as error:
                raise DrososegError(f"Section {z_truth}: {error}") from error
            yield Strip(SectionEvaluation(z_labels, z_truth, matrix, bool(said.any())), rows, said, right)


def _listed(sections: Sequence[int]) -> str:
    return ", ".join(map(str, sections[:8])) + (", ..." if len(sections) > 8 else "")


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
