"""Annotated sections: an image with its labels, checked and normalised."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.data.normalisation import measure, normalise
from napari_drososeg.errors import DrososegError

if TYPE_CHECKING:
    from napari_drososeg.io import Stack


@dataclass(frozen=True)
class AnnotatedSection:
    """One section ready for training.

    Parameters
    ----------
    image : ndarray of float32, shape (Y, X)
        Normalised.
    labels : ndarray of uint8, shape (Y, X)
        0 where nothing is annotated.
    teacher : ndarray of float16, shape (C, Y, X), optional
        Probabilities of an earlier network, which a new one keeps to where nothing is annotated.
    name : str
        For messages.
    """

    image: NDArray[np.float32]
    labels: NDArray[np.uint8]
    teacher: NDArray[np.float16] | None = None
    name: str = ""


def annotated_section(image: NDArray[Any], labels: NDArray[Any], name: str) -> AnnotatedSection:
    """Normalise a section and check it against its labels.

    Parameters
    ----------
    image : ndarray, shape (Y, X), real dtype
        Grey values.
    labels : ndarray of integers, shape (Y, X)
        Label values, 0 is unlabelled.
    name : str
        For messages.

    Raises
    ------
    DrososegError
        If the shapes differ, the image holds NaN, or a label is not a whole number from 0 to 255.
    """
    if image.shape != labels.shape:
        raise DrososegError(f"{name}: the image is {image.shape}, its labels are {labels.shape} (y, x) px.")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise DrososegError(f"{name}: the image contains NaN or infinite values; fill them before training.")
    if labels.dtype.kind not in "buif" or (labels != labels.astype(np.uint8)).any():
        raise DrososegError(f"{name}: labels must be whole numbers from 0 to 255.")
    return AnnotatedSection(normalise(image, measure(image)), labels.astype(np.uint8), name=name)


def read_sections(
    images: Stack, labels: Callable[[int], NDArray[Any]], numbers: Iterable[int]
) -> tuple[list[AnnotatedSection], list[str]]:
    """Read sections with their labels, past what is wrong with some.

    Parameters
    ----------
    images : Stack
        Grey values.
    labels : callable
        ``labels(z)`` returns the labels of a section, shape (Y, X), 0 unlabelled.
    numbers : iterable of int
        Which sections.

    Returns
    -------
    sections : list of AnnotatedSection
        Those that could be read, named after their number, and their file where each has one.
    problems : list of str
        One clause for each of the others.
    """
    sections: list[AnnotatedSection] = []
    problems: list[str] = []
    for z in numbers:
        name = section_name(images, z)
        if z >= images.n_sections:
            problems.append(f"there is no section {z}: '{images.name}' has {images.n_sections}")
            continue
        try:
            sections.append(annotated_section(images.read(z), labels(z), name))
        except IndexError:
            problems.append(f"{name} has no labels: name sections that have both")
        except DrososegError as error:
            text = str(error).rstrip(".")
            problems.append(text if name in text else f"{name}: {text}")
    return sections, problems


def section_name(stack: Stack, z: int) -> str:
    """Return what messages call a section: its number, and its file where it has one to itself."""
    files = [section.path for section in getattr(stack.data, "sections", ())]
    own = z < len(files) and len(files) > 1 and len(set(files)) == len(files)
    return f"section {z} ({files[z].name})" if own else f"section {z} of '{stack.name}'"
