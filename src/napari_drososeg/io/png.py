"""Open PNG files, one section each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.errors import DrososegError
from napari_drososeg.io.grey import Grey, palette_grey
from napari_drososeg.io.lazy import SectionArray
from napari_drososeg.io.marks import KEY, read_mark
from napari_drososeg.io.stack import Stack
from napari_drososeg.io.units import plausible, to_nanometres

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngImageFile

_END = b"IEND\xaeB\x60\x82"


@dataclass(frozen=True)
class PngSection:
    """A PNG file; always decoded whole.

    Parameters
    ----------
    path : Path
        The file.
    shape : tuple of int
        (h, w).
    dtype : numpy.dtype
        uint8, or uint16 for 16-bit grey.
    grey : Grey
        Applied to what is read.
    """

    path: Path
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    grey: Grey
    compressed = True
    whole_only = True

    def read(self, ys: slice, xs: slice) -> NDArray[Any]:
        """Return the region as a new array (h, w)."""
        try:
            with _image(self.path) as image:
                samples = np.asarray(image)
        except DrososegError:
            raise
        except Exception as error:  # Pillow raises OSError, SyntaxError, zlib.error, ...
            raise DrososegError(f"{self.path} is damaged ({error}): copy or export it again.") from error
        return self.grey(samples[ys, xs]).astype(self.dtype, copy=False)


def open_png(path: Path, *, indices: bool = False) -> Stack:
    """Open a PNG file as a stack of one section.

    Parameters
    ----------
    path : Path
        Grey of 1 to 16 bits, palette, RGB or RGBA.
    indices : bool
        Whether the values of a palette image are wanted as they are (labels) and not as grey.

    Returns
    -------
    Stack
        Of shape (1, Y, X).

    Raises
    ------
    DrososegError
        If the file is not a PNG file, is empty or was cut short.
    """
    _check_end(path)
    with _image(path) as image:
        mode, (width, height), info = image.mode, image.size, dict(image.info)
        colors = np.asarray(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    classes, voxel_size = read_mark(info.get(KEY))
    if voxel_size is None:
        # Pillow gives dots per inch only where the file gives dots per metre.
        x, y = (plausible(to_nanometres(1 / d, "inch")) if d > 0 else None for d in info.get("dpi", (0, 0)))
        voxel_size = (None, y, x)
    grey = Grey()
    if mode in ("RGB", "RGBA", "LA"):
        grey = Grey("colour")
    elif mode == "P" and not indices and classes is None:
        grey = palette_grey(colors)
    dtype = np.dtype(np.uint16 if mode.startswith("I") else np.uint8)
    section = PngSection(path, (height, width), dtype, grey)
    notices = tuple(f"{path.name}: {n}" for n in grey.notice)
    return Stack(SectionArray([section]), path.stem, voxel_size, path, notices, classes)


def _check_end(path: Path) -> None:
    size = path.stat().st_size
    if size == 0:
        raise DrososegError(f"{path} is empty (0 bytes): copy or export it again.")
    with path.open("rb") as file:
        start = file.read(8)
        file.seek(max(0, size - 1024))
        end = file.read()
    if start != b"\x89PNG\r\n\x1a\n":
        raise DrososegError(f"{path} is not a PNG file, whatever its name says: export it again as PNG or TIFF.")
    if _END not in end:
        raise DrososegError(f"{path} was cut short (its end is missing): copy or export it again.")


def _image(path: Path) -> PngImageFile:
    from PIL.PngImagePlugin import PngImageFile

    try:
        # Not Image.open: it refuses sections of more than 179 megapixels as a "decompression bomb".
        return PngImageFile(path)
    except Exception as error:
        raise DrososegError(f"{path} is not a PNG file or is damaged ({error}): export it again.") from error
