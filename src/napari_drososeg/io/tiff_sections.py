"""One page of a TIFF file, read by region without reading the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.errors import DrososegError
from napari_drososeg.io.grey import Grey

if TYPE_CHECKING:
    from tifffile import TiffFrame, TiffPage


@dataclass(frozen=True)
class RawSection:
    """Uncompressed samples in one run of bytes: memory-mapped.

    Parameters
    ----------
    path : Path
        The file.
    offset : int
        First byte.
    stored : tuple of int
        (h, w), (h, w, s), or (s, h, w) if `planar`.
    stored_dtype : numpy.dtype
        With the byte order of the file.
    grey : Grey
        Applied to what is read.
    planar : bool
        Whether the samples of a pixel lie in separate planes.
    """

    path: Path
    offset: int
    stored: tuple[int, ...]
    stored_dtype: np.dtype[Any]
    grey: Grey
    planar: bool = False
    compressed = False
    whole_only = False

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w)."""
        return self.stored[1:] if self.planar else self.stored[:2]  # type: ignore[return-value]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what `read` returns."""
        return _grey_dtype(self.stored_dtype)

    def read(self, ys: slice, xs: slice) -> NDArray[Any]:
        """Return the region as a new array (h, w)."""
        try:
            mapped = np.memmap(self.path, self.stored_dtype, "r", self.offset, self.stored)
        except (OSError, ValueError) as error:
            raise DrososegError(f"{self.path} can no longer be read ({error}): was it moved or cut short?") from error
        region = np.moveaxis(mapped[:, ys, xs], 0, -1) if self.planar else mapped[ys, xs]
        return self.grey(np.asarray(region))


class SegmentSection:
    """A page in strips or tiles, compressed or not: only those that the region touches are read and decoded."""

    def __init__(self, page: TiffPage | TiffFrame, path: Path, grey: Grey, number: int) -> None:
        self.path = path
        self.grey = grey
        self._keyframe = page.keyframe
        self._keyframe.is_jfif  # noqa: B018 -- decoding JPEG needs it, and it is read from the file, closed by then
        self._offsets = page.dataoffsets
        self._counts = page.databytecounts
        self._number = number
        self.shape = (int(self._keyframe.imagelength), int(self._keyframe.imagewidth))
        self.compressed = self._keyframe.compression != 1
        # One strip or tile for each sample plane.
        self.whole_only = len(self._offsets) <= self._keyframe.shaped[0]
        self.dtype = _grey_dtype(np.dtype(self._keyframe.dtype))

    def read(self, ys: slice, xs: slice) -> NDArray[Any]:
        """Return the region as a new array (h, w)."""
        key = self._keyframe
        n_samples, _, height, width, contig = key.shaped
        out = np.zeros((n_samples, ys.stop - ys.start, xs.stop - xs.start, contig), key.dtype)
        try:
            with self.path.open("rb") as file:
                for index in self._segments(ys, xs):
                    if self._counts[index] == 0:
                        continue  # a hole in a sparse file is 0
                    file.seek(self._offsets[index])
                    data = file.read(self._counts[index])
                    if len(data) < self._counts[index]:
                        raise ValueError("the file ends too early")
                    decoded, where, _ = key.decode(data, index, jpegtables=key.jpegtables)
                    if decoded is not None:
                        _place(out, decoded[0], where, ys, xs, (height, width))
        except Exception as error:  # decoders raise errors of many kinds
            raise DrososegError(_why(self.path, self._number, error)) from error
        if n_samples > 1:
            return self.grey(np.moveaxis(out[..., 0], 0, -1))
        return self.grey(out[0] if contig > 1 else out[0, ..., 0])

    def _segments(self, ys: slice, xs: slice) -> Iterator[int]:
        key = self._keyframe
        _, _, height, width, _ = key.shaped
        tall = key.tilelength if key.is_tiled else min(key.rowsperstrip, height)
        wide = key.tilewidth if key.is_tiled else width
        rows, columns = -(-height // tall), -(-width // wide)
        for sample in range(key.shaped[0]):
            for r in range(ys.start // tall, -(-ys.stop // tall)):
                for c in range(xs.start // wide, -(-xs.stop // wide)):
                    yield (sample * rows + r) * columns + c


def _place(
    out: NDArray[Any], segment: NDArray[Any], where: tuple[int, ...], ys: slice, xs: slice, size: tuple[int, int]
) -> None:
    sample, _, top, left, _ = where
    bottom = min(top + segment.shape[0], ys.stop, size[0])
    right = min(left + segment.shape[1], xs.stop, size[1])
    y0, x0 = max(top, ys.start), max(left, xs.start)
    if y0 < bottom and x0 < right:
        part = segment[y0 - top : bottom - top, x0 - left : right - left]
        out[sample, y0 - ys.start : bottom - ys.start, x0 - xs.start : right - xs.start] = part


def _why(path: Path, number: int, error: Exception) -> str:
    if "imagecodecs" in str(error):
        return f"{path} uses a compression that needs an additional package: pip install imagecodecs."
    reason = str(error) or type(error).__name__
    return f"Page {number + 1} of {path} is damaged or cannot be decoded ({reason}): copy or export the file again."


def _grey_dtype(stored: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.uint8) if stored.kind == "b" else stored.newbyteorder("=")
