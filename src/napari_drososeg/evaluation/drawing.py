"""Drawing labels over their image, and where labels and truth differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.classes import DROSOPHILA_CLASSES, UNLABELLED, ClassTable
from napari_drososeg.data.normalisation import SAMPLE_PIXELS
from napari_drososeg.errors import DrososegError
from napari_drososeg.evaluation.comparison import checked_pairs, wrong_pixels
from napari_drososeg.evaluation.truth import TruthFormat, truth_reader
from napari_drososeg.io import atomic

if TYPE_CHECKING:
    from napari_drososeg.io import Stack

ERROR_COLOR = (240, 228, 66)
"""Yellow (Okabe-Ito): wrong pixels in an error map. None of the class colours."""

UNKNOWN_COLOR = (70, 70, 70)
"""Dark grey: pixels of an error map that have no truth."""

OPACITY = 0.45
"""Part of an overlay's colour that is the class's; the rest is the image."""

PERCENTILES = (0.5, 99.5)
"""Of a section's grey values: what is shown black and white, so that single hot or dead pixels do not matter."""

STRIP_ROWS = 512


def to_grey(section: NDArray[Any]) -> NDArray[np.uint8]:
    """Stretch a section to 0-255 between its `PERCENTILES`.

    Parameters
    ----------
    section : ndarray, (Y, X), any real dtype
        Grey values. Pixels that are exactly 0 (the fill of aligned stacks), NaN or infinite do not count for the
        percentiles; above `SAMPLE_PIXELS` a regular grid is looked at, as for normalisation.

    Returns
    -------
    ndarray of uint8, (Y, X)
        128 everywhere where all values that count are equal; NaN is black.
    """
    step = max(1, int(np.sqrt(section.size / SAMPLE_PIXELS)))
    sample = section[::step, ::step]
    values = sample[np.isfinite(sample) & (sample != 0)].astype(np.float64)
    low, high = np.percentile(values, PERCENTILES) if values.size else (0.0, 0.0)
    grey = np.full(section.shape, 128, dtype=np.uint8)
    if high > low:
        for start in range(0, len(section), STRIP_ROWS):  # in doubles, which are eight times as large as bytes
            strip = section[start : start + STRIP_ROWS].astype(np.float64)
            stretched = np.clip((strip - low) * (255 / (high - low)), 0, 255)
            grey[start : start + STRIP_ROWS] = np.nan_to_num(stretched).astype(np.uint8)
    return grey


def overlay(grey: NDArray[np.uint8], labels: NDArray[Any], classes: ClassTable) -> NDArray[np.uint8]:
    """Lay the class colours over a grey section, with `OPACITY`.

    Parameters
    ----------
    grey : ndarray of uint8, (Y, X)
        The image.
    labels : ndarray of integers, (Y, X)
        Values 0 to 255; 0 and values without a class stay grey.
    classes : ClassTable
        The colours.

    Returns
    -------
    ndarray of uint8, (Y, X, 3)
        RGB.
    """
    greys = np.arange(256, dtype=np.float32)[:, np.newaxis]
    mixed = np.repeat(greys[np.newaxis], 256, axis=0).repeat(3, axis=2)  # (label, grey, RGB)
    for c in classes:
        mixed[c.value] = (1 - OPACITY) * greys + OPACITY * np.array(c.rgb, dtype=np.float32)
    colors: NDArray[np.uint8] = mixed.astype(np.uint8)
    drawn: NDArray[np.uint8] = colors[labels, grey]
    return drawn


def error_map(labels: NDArray[Any], truth: NDArray[Any], image: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Draw where labels and truth differ.

    Parameters
    ----------
    labels, truth : ndarray of integers, (Y, X)
        Class values; a pixel without truth (0) is neither right nor wrong.
    image : ndarray of uint8, (Y, X), optional
        Grey image to draw on. Without it right pixels are black and those without truth dark grey.

    Returns
    -------
    ndarray of uint8, (Y, X, 3)
        RGB; wrong pixels in `ERROR_COLOR`.

    Raises
    ------
    DrososegError
        If the shapes differ.
    """
    if labels.shape != truth.shape or (image is not None and image.shape != truth.shape):
        raise DrososegError(f"Labels of shape {labels.shape} cannot be drawn against truth of shape {truth.shape}.")
    canvas = np.zeros((*truth.shape, 3), dtype=np.uint8)
    if image is None:
        canvas[truth == UNLABELLED] = UNKNOWN_COLOR
    else:
        canvas[:] = image[..., np.newaxis]
    canvas[wrong_pixels(labels, truth)] = ERROR_COLOR
    return canvas


def error_maps(
    labels: Stack,
    truth: Stack,
    classes: ClassTable = DROSOPHILA_CLASSES,
    *,
    pairs: Sequence[tuple[int, int]] | None = None,
    truth_format: TruthFormat = "classes",
) -> Iterator[NDArray[np.uint8]]:
    """Yield one `error_map` per compared section; parameters as in `evaluate`."""
    chosen = checked_pairs(labels, truth, pairs)
    read_truth = truth_reader(truth, classes, truth_format, [t for _, t in chosen])
    everything = slice(0, truth.shape[1])
    for z_labels, z_truth in chosen:
        yield error_map(labels.read(z_labels), read_truth(z_truth, everything))


def check_error_maps(path: Path, n_sections: int) -> None:
    """Refuse a file that error maps of so many sections cannot be written to.

    Raises
    ------
    DrososegError
        If the suffix is another than of TIFF or PNG, or several sections are to become a PNG.
    """
    suffix = path.suffix.lower()
    if suffix not in (".tif", ".tiff", ".png"):
        raise DrososegError(f"An error map is written as .tif or .png, not as '{path.name}'.")
    if suffix == ".png" and n_sections != 1:
        raise DrososegError(f"A PNG holds one section; write the {n_sections} error maps to a .tif instead.")


def write_error_maps(path: Path, maps: Iterator[NDArray[np.uint8]], shape: tuple[int, int, int]) -> Path:
    """Write error maps as an RGB TIFF, or as a PNG where there is one and the name ends so.

    Parameters
    ----------
    path : Path
        ``.tif``, ``.tiff`` or ``.png``; replaced as a whole once it is complete.
    maps : iterator of ndarray of uint8, (Y, X, 3)
        As many as `shape` says.
    shape : tuple of int
        (Z, Y, X).

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    DrososegError
        As `check_error_maps`, or if it cannot be written.
    """
    check_error_maps(path, shape[0])
    with atomic.replacing(path) as partial:
        if path.suffix.lower() == ".png":
            from PIL import Image

            Image.fromarray(next(maps)).save(partial, format="PNG")
        else:
            import tifffile

            big = int(np.prod(shape)) * 3 > 2**31
            tifffile.imwrite(
                partial,
                maps,
                shape=(*shape, 3),
                dtype=np.uint8,
                photometric="rgb",
                bigtiff=big,
                compression="zlib",
            )
    return path
