"""Labels as TIFF: one run of uncompressed palette pages, so that any order of writing works and any reader opens it."""

from __future__ import annotations

from typing import IO, Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.io.marks import KEY, SOFTWARE, make_mark
from napari_drososeg.io.writing import LabelsWriter, palette

# Classic TIFF counts bytes in 32 bits; each page also needs a directory with its own copy of the palette.
_CLASSIC_BYTES = 2**32 - 2**24
_PAGE_BYTES = 2048


class TiffWriter(LabelsWriter):
    """Palette TIFF that ImageJ opens as one calibrated stack."""

    _file: IO[bytes] | None = None

    def _begin(self) -> None:
        import tifffile

        # Let tifffile write the directories around a run of zeros of the right length; the labels go there later.
        with tifffile.TiffWriter(self.temporary, ome=self._ome(), bigtiff=self._big()) as tif:
            where = tif.write(
                None,
                shape=self.shape,
                dtype=np.uint8,
                photometric="palette",
                colormap=palette(self.classes).T.astype(np.uint16) * 257,
                software=SOFTWARE,
                contiguous=True,
                returnoffset=True,
                **self._description(),
            )
        assert where is not None
        self._offset = where[0]
        self._file = self.temporary.open("r+b")

    def _ome(self) -> bool:
        return False

    def _big(self) -> bool:
        z, y, x = self.shape
        return z * y * x + z * _PAGE_BYTES > _CLASSIC_BYTES

    def _resolution(self) -> dict[str, Any]:
        _, y, x = self.voxel_size
        return {"resolutionunit": "NONE"} | ({"resolution": (1 / x, 1 / y)} if x and y else {})

    def _description(self) -> dict[str, Any]:
        """ImageJ's own header: key=value lines, of which it passes over those it does not know."""
        z_size, y_size, x_size = self.voxel_size
        n = self.shape[0]
        lines = ["ImageJ=1.54f", f"images={n}", f"slices={n}", "loop=false"]
        if x_size and y_size:
            lines.append("unit=nm")
            if z_size:
                lines.append(f"spacing={z_size!r}")
        mark = make_mark(self.classes, self.voxel_size)
        text = "\n".join([*lines, f"{KEY}={mark}", ""])
        return {"metadata": None, "description": text} | self._resolution()

    def _write(self, z: int, values: NDArray[np.uint8], y0: int, x0: int) -> None:
        assert self._file is not None
        _, height, width = self.shape
        start = self._offset + z * height * width
        if values.shape[1] == width:
            self._file.seek(start + y0 * width)
            self._file.write(np.ascontiguousarray(values).data)
            return
        for i, row in enumerate(np.ascontiguousarray(values)):
            self._file.seek(start + (y0 + i) * width + x0)
            self._file.write(row.data)

    def _finish(self) -> None:
        self._release()

    def _release(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.close()


class OmeTiffWriter(TiffWriter):
    """The same with OME-XML instead of ImageJ's header."""

    def _ome(self) -> bool:
        return True

    def _description(self) -> dict[str, Any]:
        mark = make_mark(self.classes, self.voxel_size)
        metadata: dict[str, Any] = {
            "axes": "ZYX",
            "Name": self.name,
            "Description": mark,
            # Not a random one, as is usual: the same labels give the same bytes.
            "UUID": str(uuid5(NAMESPACE_URL, f"{SOFTWARE} {self.name} {self.shape} {mark}")),
        }
        for axis, size in zip("ZYX", self.voxel_size, strict=True):
            if size:
                metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "nm"}
        return {"metadata": metadata} | self._resolution()
