"""Open TIFF files: plain multi-page, ImageJ and OME."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from napari_drososeg.errors import DrososegError
from napari_drososeg.io.grey import Grey, palette_grey
from napari_drososeg.io.lazy import Section, SectionArray
from napari_drososeg.io.marks import KEY, read_mark
from napari_drososeg.io.stack import Stack
from napari_drososeg.io.tiff_sections import RawSection, SegmentSection
from napari_drososeg.io.units import UNKNOWN_VOXEL_SIZE, VoxelSize, plausible, to_nanometres

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage, TiffPageSeries

_BILEVEL_INVERTED, _PALETTE, _CMYK = 0, 3, 5
_MOST_COLOURS = 4  # RGBA; a pixel of more samples holds channels
_DOTS_UNIT_NM = 1e7  # 1 cm: nobody measures voxels of electron microscopy in units as large


def open_tiff(path: Path, *, indices: bool = False) -> Stack:
    """Open a TIFF file without reading its pixels.

    Parameters
    ----------
    path : Path
        Plain, multi-page, ImageJ or OME-TIFF.
    indices : bool
        Whether the values of a palette image are wanted as they are (labels) and not as grey.

    Returns
    -------
    Stack
        `data` reads by region: memory-mapped, or the strips and tiles that the region touches.

    Raises
    ------
    DrososegError
        If the file is damaged or shorter than it says, has time points or channels, pages of different sizes, or
        colours for print (CMYK).
    """
    import tifffile

    if path.stat().st_size == 0:
        raise DrososegError(f"{path} is empty (0 bytes): copy or export it again.")
    try:
        with tifffile.TiffFile(path) as tif:
            _check_directories(tif, path)
            parts = _parts(tif, path)
            _check_declared(tif, parts, path)
            classes, marked_size = _mark(tif)
            voxel_size = marked_size or _voxel_size(tif)
            greys = [_grey(part.keyframe, path, indices or classes is not None) for part in parts]
            sections = _in_file_order(
                parts, [_sections(tif, part, path, grey) for part, grey in zip(parts, greys, strict=True)]
            )
            several = len(tif.series) > 1 and tif.is_ome
    except (DrososegError, PermissionError):
        raise
    except Exception as error:  # tifffile raises errors of many kinds on damaged files
        raise DrososegError(f"{path} is not a TIFF file or is damaged ({error}): export it again.") from error
    notices = [f"{path.name}: {n}" for n in dict.fromkeys(n for grey in greys for n in grey.notice)]
    if several:
        notices.append(f"{path.name} holds several images; the first is used")
    return Stack(SectionArray(sections), _stem(path), voxel_size, path, tuple(notices), classes)


def _stem(path: Path) -> str:
    stem = path.stem
    return stem[:-4] if stem.lower().endswith(".ome") else stem


def _check_directories(tif: TiffFile, path: Path) -> None:
    """Follow the chain of pages to its end: tifffile stops at a broken link and only logs it."""
    handle, fmt = tif.filehandle, tif.tiff
    handle.seek(fmt.offsetsize)  # classic files keep the first link at byte 4, BigTIFF at 8
    offset = struct.unpack(fmt.offsetformat, handle.read(fmt.offsetsize))[0]
    seen: set[int] = set()
    while offset:
        if offset in seen or offset >= handle.size:
            raise DrososegError(_short(path, f"page {len(seen) + 1} is not there"))
        seen.add(offset)
        handle.seek(offset)
        try:
            n_tags = struct.unpack(fmt.tagnoformat, handle.read(fmt.tagnosize))[0]
            handle.seek(offset + fmt.tagnosize + n_tags * fmt.tagsize)
            offset = struct.unpack(fmt.offsetformat, handle.read(fmt.offsetsize))[0]
        except struct.error as error:
            raise DrososegError(_short(path, f"page {len(seen)} is cut off")) from error
    if len(tif.pages) < len(seen) or not seen:
        raise DrososegError(_short(path, f"{len(tif.pages)} of {len(seen)} pages can be read"))


def _short(path: Path, what: str) -> str:
    return f"{path} is damaged or was cut short ({what}): copy or export it again."


def _parts(tif: TiffFile, path: Path) -> list[TiffPageSeries]:
    """Return the series that make up the stack: tifffile starts a new one for each page that was written by itself."""
    full = [s for s in tif.series if not s.keyframe.is_reduced]
    if not full:
        raise DrososegError(f"{path} contains no image of full size: export it again.")
    if tif.is_ome:  # such files may hold several images on purpose
        full = full[:1]
    first = full[0].keyframe
    for other in full:
        if (found := _look(other.keyframe)) != (expected := _look(first)):
            raise DrososegError(
                f"The pages of {path} differ: page {other.keyframe.index + 1} is {found}, page {first.index + 1} is "
                f"{expected}; save them with one size and type."
            )
        _n_sections(other.axes, other.shape, path)
    return full


def _look(key: TiffPage) -> str:
    """Describe what the pages of a stack share."""
    deep = f"{key.imagedepth} x " if key.imagedepth > 1 else ""
    samples = f" with {key.samplesperpixel} samples a pixel" if key.samplesperpixel > 1 else ""
    photometric = getattr(key.photometric, "name", str(key.photometric)).lower()
    return f"{deep}{key.imagelength} x {key.imagewidth} {key.dtype} {photometric}{samples}"


def _in_file_order(parts: Sequence[TiffPageSeries], sections: Sequence[list[Section]]) -> list[Section]:
    """Return the sections of all parts: pages of one kind are one series, wherever they are in the file."""
    together = [section for of_part in sections for section in of_part]
    if len(parts) == 1 or parts[0].kind != "generic":  # only such series take up pages with others in between
        return together
    places = [page.treeindex for part in parts for page in part if page is not None]
    return [section for _, section in sorted(zip(places, together, strict=True), key=lambda pair: pair[0])]


def _n_sections(axes: str, shape: Sequence[int], path: Path) -> int:
    long = {a: n for a, n in zip(axes, shape, strict=True) if n > 1 and a not in "YXS"}
    if (samples := dict(zip(axes, shape, strict=True)).get("S", 1)) > _MOST_COLOURS:
        long["C"] = samples
    for axis, name in (("T", "time points"), ("C", "channels")):
        if axis in long:
            raise DrososegError(
                f"{path} has {long[axis]} {name} (axes {axes}): save the one to segment as its own stack, "
                "for example in Fiji with Image > Duplicate."
            )
    if len(long) > 1:
        raise DrososegError(f"{path} has the axes {axes} of lengths {tuple(shape)}: save it as one stack (Z, Y, X).")
    return next(iter(long.values()), 1)


def _check_declared(tif: TiffFile, parts: Sequence[TiffPageSeries], path: Path) -> None:
    """Compare the planes that are there with the number the file itself gives."""
    n_planes = sum(_n_sections(part.axes, part.shape, path) for part in parts)
    declared = n_planes
    if tif.is_imagej and tif.imagej_metadata:
        declared = int(tif.imagej_metadata.get("images", 1))
    elif tif.is_ome and (pixels := _ome_pixels(tif)) is not None:
        declared = int(pixels.get("SizeZ", 1)) * int(pixels.get("SizeT", 1))
    elif tif.shaped_metadata:
        # of all that is there, thumbnails too; one plane less than declared has to show
        declares = sum(int(np.prod(each["shape"])) for each in tif.shaped_metadata)
        holds = sum(int(np.prod(s.shape)) for s in tif.series)
        declared = -(-n_planes * declares // max(1, holds))
    if n_planes < declared:
        raise DrososegError(_short(path, f"it declares {declared} sections and holds {n_planes}"))


def _sections(tif: TiffFile, series: TiffPageSeries, path: Path, grey: Grey) -> list[Section]:
    key = series.keyframe
    if np.dtype(key.dtype or "V").kind not in "buif":
        raise DrososegError(f"{path} contains values of type {key.dtype}; a stack needs integers or real numbers.")
    n = _n_sections(series.axes, series.shape, path)
    stored, planar = _stored_shape(key)
    dtype = np.dtype(key.dtype).newbyteorder(tif.byteorder)
    n_bytes = int(np.prod(stored)) * dtype.itemsize
    start = series.dataoffset
    if start is not None and key.is_final:
        if start + n * n_bytes > tif.filehandle.size:
            raise DrososegError(_short(path, f"it holds {tif.filehandle.size} bytes, its sections need more"))
        return [RawSection(path, start + z * n_bytes, stored, dtype, grey, planar) for z in range(n)]
    sections: list[Section] = []
    for z, page in enumerate(series):
        if page is None:
            raise DrososegError(_short(path, f"section {z + 1} of {n} is missing"))
        home = Path(page.parent.filehandle.path)
        _check_segments(page, home)
        if key.is_final and _one_run(page):
            sections.append(RawSection(home, page.dataoffsets[0], stored, dtype, grey, planar))
        else:
            sections.append(SegmentSection(page, home, grey, page.index))
    if len(sections) != n:
        raise DrososegError(_short(path, f"{len(sections)} of {n} sections are there"))
    return sections


def _stored_shape(key: TiffPage) -> tuple[tuple[int, ...], bool]:
    n_planes, _, height, width, contig = key.shaped
    if n_planes > 1:
        return (n_planes, height, width), True
    return ((height, width, contig), False) if contig > 1 else ((height, width), False)


def _one_run(page: Any) -> bool:
    ends = [o + c for o, c in zip(page.dataoffsets, page.databytecounts, strict=True)]
    return list(page.dataoffsets[1:]) == ends[:-1]


def _check_segments(page: Any, path: Path) -> None:
    size = path.stat().st_size
    ends = [o + c for o, c in zip(page.dataoffsets, page.databytecounts, strict=True) if c]
    if not ends:
        raise DrososegError(_short(path, f"page {page.index + 1} has no data"))
    if max(ends) > size:
        raise DrososegError(_short(path, f"page {page.index + 1} needs {max(ends)} bytes, the file has {size}"))


def _grey(key: TiffPage, path: Path, indices: bool) -> Grey:
    if int(key.photometric) == _CMYK:
        raise DrososegError(f"{path} holds colours for print (CMYK): save it as grey or RGB.")
    if key.shaped[0] > 1 or key.shaped[4] > 1:
        return Grey("colour")
    if int(key.photometric) == _BILEVEL_INVERTED and not indices:
        return Grey("inverted")
    if int(key.photometric) == _PALETTE and not indices and key.colormap is not None and key.bitspersample <= 8:
        return palette_grey((key.colormap >> 8).astype(np.uint8).T)
    return Grey()


def _mark(tif: TiffFile) -> tuple[Any, VoxelSize | None]:
    if tif.is_imagej and tif.imagej_metadata:
        mark = tif.imagej_metadata.get(KEY)
        return read_mark(mark) if mark else (None, None)
    if tif.is_ome and tif.ome_metadata:
        found = ElementTree.fromstring(tif.ome_metadata).find("{*}Image/{*}Description")
        return read_mark(None if found is None else found.text)
    return None, None


def _ome_pixels(tif: TiffFile) -> ElementTree.Element | None:
    try:
        return ElementTree.fromstring(tif.ome_metadata or "").find("{*}Image/{*}Pixels")
    except ElementTree.ParseError:
        return None


def _voxel_size(tif: TiffFile) -> VoxelSize:
    if tif.is_ome:
        pixels = _ome_pixels(tif)
        if pixels is None:
            return UNKNOWN_VOXEL_SIZE
        z, y, x = (
            to_nanometres(_float(pixels.get(f"PhysicalSize{a}")), pixels.get(f"PhysicalSize{a}Unit", "µm"))
            for a in "ZYX"
        )
        return z, y, x
    page = tif.pages.first
    y, x = (_per_pixel(page.tags.get(name)) for name in ("YResolution", "XResolution"))
    meta = tif.imagej_metadata if tif.is_imagej else None
    if meta and meta.get("unit"):
        unit = str(meta["unit"])
        units = [str(meta.get(name, unit)) for name in ("zunit", "yunit")]
        return (
            _calibrated(_float(meta.get("spacing")), units[0]),
            _calibrated(y, units[1]),
            _calibrated(x, unit),
        )
    unit = {2: "inch", 3: "cm"}.get(int(page.tags.valueof("ResolutionUnit", 1)), "none")
    return None, plausible(to_nanometres(y, unit)), plausible(to_nanometres(x, unit))


def _calibrated(value: float | None, unit: str) -> float | None:
    """Return a length of ImageJ in nm; inch and cm stem from dots per inch or cm, which rarely are a calibration."""
    size = to_nanometres(value, unit)
    return plausible(size) if (to_nanometres(1, unit) or 0) >= _DOTS_UNIT_NM else size


def _per_pixel(tag: Any) -> float | None:
    try:
        dots, units = tag.value
        return float(units / dots)
    except (AttributeError, TypeError, ValueError, ZeroDivisionError):
        return None


def _float(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
