"""Labels as palette PNG files, one for each section."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.io.marks import KEY, SOFTWARE, make_mark
from napari_drososeg.io.units import VoxelSize
from napari_drososeg.io.writing import LabelsWriter, palette

# PNG keeps whole dots per metre, in 31 bits: pixels below half a nm have too many of them.
_SMALLEST_NM = 1e9 / (2**31 - 1)


def resolution(voxel_size: VoxelSize) -> dict[str, tuple[float, float]]:
    """Return what Pillow's ``save`` is told of the pixel size, dots per inch; nothing where a PNG cannot say it."""
    _, y, x = voxel_size
    return {"dpi": (2.54e7 / x, 2.54e7 / y)} if x and y and min(x, y) > _SMALLEST_NM else {}


class PngWriter(LabelsWriter):
    """A folder ``0000.png``, ``0001.png``, ..., or one file where the target ends in ``.png``."""

    def _begin(self) -> None:
        self._single = self.path.suffix.lower() == ".png" and self.shape[0] == 1
        self._digits = max(4, len(str(self.shape[0] - 1)))
        if not self._single:
            self.temporary.mkdir()
        self._current: tuple[int, NDArray[np.uint8]] | None = None

    def _file(self, z: int) -> Path:
        return self.temporary if self._single else self.temporary / f"{z:0{self._digits}d}.png"

    def _write(self, z: int, values: NDArray[np.uint8], y0: int, x0: int) -> None:
        if values.shape == self.shape[1:]:
            if self._current is not None and self._current[0] == z:
                self._current = None
            self._save(z, values)
            return
        section = self._section(z)
        section[y0 : y0 + values.shape[0], x0 : x0 + values.shape[1]] = values

    def _section(self, z: int) -> NDArray[np.uint8]:
        """Return the section that tiles go to; it is saved when tiles of another one come."""
        from PIL.PngImagePlugin import PngImageFile

        if self._current is None or self._current[0] != z:
            self._flush()
            section = np.zeros(self.shape[1:], np.uint8)
            if self._file(z).is_file():
                with PngImageFile(self._file(z)) as image:
                    section[:] = np.asarray(image)
            self._current = (z, section)
        return self._current[1]

    def _flush(self) -> None:
        if self._current is not None:
            self._save(*self._current)
            self._current = None

    def _save(self, z: int, section: NDArray[np.uint8]) -> None:
        from PIL import Image
        from PIL.PngImagePlugin import PngInfo

        image = Image.fromarray(np.ascontiguousarray(section)).convert("P")
        # Image.convert makes a grey palette that keeps the values as indices.
        image.putpalette(palette(self.classes).tobytes(), "RGB")
        info = PngInfo()
        info.add_text("Software", SOFTWARE)
        info.add_text(KEY, make_mark(self.classes, self.voxel_size))
        with self._file(z).open("wb") as file:
            image.save(file, format="PNG", pnginfo=info, optimize=False, bits=8, **resolution(self.voxel_size))

    def _finish(self) -> None:
        self._flush()
        for z in range(self.shape[0]):
            if not self._file(z).is_file():
                self._save(z, np.zeros(self.shape[1:], np.uint8))

    def _release(self) -> None:
        self._current = None
