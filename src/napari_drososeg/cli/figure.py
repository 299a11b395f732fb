"""The picture of the demo: image, labels and errors side by side, with a legend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from napari_drososeg.classes import ClassTable
from napari_drososeg.evaluation import ERROR_COLOR, error_map, overlay, to_grey
from napari_drososeg.io import atomic

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont
    from PIL.ImageFont import ImageFont as BitmapFont

MARGIN = 16
HEADER = 44
LEGEND = 48
PAPER = (255, 255, 255)
INK = (35, 35, 35)


def draw_comparison(
    path: Path,
    image: NDArray[Any],
    labels: NDArray[Any],
    truth: NDArray[Any],
    classes: ClassTable,
    notes: Sequence[str],
) -> Path:
    """Write image, labels and errors of one section side by side as a PNG.

    Parameters
    ----------
    path : Path
        Where to; replaced once complete.
    image, labels, truth : ndarray, (Y, X)
        Grey values and class values.
    classes : ClassTable
        Names and colours for the legend.
    notes : sequence of str
        A few words after each class in the legend, such as its IoU; as many as classes.

    Returns
    -------
    Path
        `path`.
    """
    grey = to_grey(image)
    wrong = float(np.mean((labels != truth)[truth > 0])) if (truth > 0).any() else 0.0
    panels = (
        ("Image", np.repeat(grey[..., np.newaxis], 3, axis=2)),
        ("Labels", overlay(grey, labels, classes)),
        (f"Errors ({100 * wrong:.1f} % of the pixels)", error_map(labels, truth, grey // 2)),
    )
    height, width = grey.shape
    # Small sections are enlarged so that the words above and below fit.
    zoom = max(1, -(-384 // width))
    height, width = height * zoom, width * zoom
    canvas = Image.new("RGB", (len(panels) * (width + MARGIN) + MARGIN, HEADER + height + LEGEND), color=PAPER)
    draw = ImageDraw.Draw(canvas)
    title, text = ImageFont.load_default(20), ImageFont.load_default(17)
    for i, (caption, pixels) in enumerate(panels):
        x = MARGIN + i * (width + MARGIN)
        panel = Image.fromarray(pixels)
        canvas.paste(panel.resize((width, height), Image.Resampling.NEAREST) if zoom > 1 else panel, (x, HEADER))
        draw.text((x, HEADER // 2), caption, font=title, fill=INK, anchor="lm")
    y = HEADER + height + LEGEND // 2
    _legend(draw, text, y, canvas.width, classes, notes)
    with atomic.replacing(path) as partial:
        canvas.save(partial, format="PNG")
    return path


def _legend(
    draw: ImageDraw.ImageDraw,
    font: FreeTypeFont | BitmapFont,
    y: int,
    width: int,
    classes: ClassTable,
    notes: Sequence[str],
) -> None:
    entries = [(c.rgb, f"{c.name}  {note}") for c, note in zip(classes, notes, strict=True)]
    entries.append((ERROR_COLOR, "wrong"))
    lengths = [draw.textlength(words, font=font) + 24 + 36 for _, words in entries]
    x = max(float(MARGIN), (width - sum(lengths)) / 2)
    for (color, words), length in zip(entries, lengths, strict=True):
        draw.rectangle((x, y - 8, x + 16, y + 8), fill=color, outline=INK)
        draw.text((x + 24, y), words, font=font, fill=INK, anchor="lm")
        x += length
