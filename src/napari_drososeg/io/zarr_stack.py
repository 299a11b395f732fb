"""Open OME-Zarr images (0.4 and 0.5) and plain zarr arrays (v2 and v3)."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.errors import DrososegError
from napari_drososeg.io.lazy import LazyArray
from napari_drososeg.io.marks import KEY, read_mark
from napari_drososeg.io.stack import Stack
from napari_drososeg.io.units import UNKNOWN_VOXEL_SIZE, VoxelSize, to_nanometres

if TYPE_CHECKING:
    import zarr

MissingChunks = Literal["error", "fill"]

_METADATA = ("zarr.json", ".zarray", ".zgroup")
_SLAB_BYTES = 256 * 2**20


def is_zarr(path: Path) -> bool:
    """Whether a folder is, or calls itself, a zarr array or group."""
    return path.is_dir() and (path.suffix.lower() == ".zarr" or any((path / m).is_file() for m in _METADATA))


class ZarrSections(LazyArray):
    """A zarr array of two to five axes as (Z, Y, X).

    Parameters
    ----------
    array : zarr.Array
        Axes other than z, y and x have length 1.
    path : Path
        Its folder.
    axes : str
        One letter an axis, ending in ``yx``.
    missing_chunks : {"error", "fill"}
        What a chunk that is not there means: an incomplete copy, or the fill value.
    """

    def __init__(self, array: zarr.Array[Any], path: Path, axes: str, missing_chunks: MissingChunks) -> None:
        n_sections = array.shape[axes.index("z")] if "z" in axes else 1
        dtype = np.uint8 if array.dtype == bool else array.dtype
        super().__init__((n_sections, *array.shape[-2:]), dtype)
        self.array = array
        self.path = path
        self._axes = axes
        self._missing = missing_chunks
        shards = getattr(array, "shards", None) or array.chunks
        self._grid: tuple[int, ...] = tuple(shards)
        self._depth = array.chunks[axes.index("z")] if "z" in axes else 1
        self._slabs: dict[tuple[int, ...], NDArray[Any]] = {}  # by the first section, rows and columns
        self._lock = threading.Lock()

    def read_region(self, z: int, ys: slice, xs: slice) -> NDArray[Any]:
        """See `LazyArray.read_region`."""
        z0 = z - z % self._depth
        n_bytes = self._depth * (ys.stop - ys.start) * (xs.stop - xs.start) * self.dtype.itemsize
        if self._depth == 1 or n_bytes > _SLAB_BYTES:
            one: NDArray[Any] = self._read(slice(z, z + 1), ys, xs)[0]
            return one
        # A chunk of several sections is decoded whole in any case: keep it for the next section, and with it those of
        # the other tiles of this section, but nothing of sections that were read before.
        with self._lock:
            key = (z0, ys.start, ys.stop, xs.start, xs.stop)
            if key not in self._slabs:
                others = sum(slab.nbytes for slab in self._slabs.values())
                if n_bytes + others > _SLAB_BYTES or next(iter(self._slabs), key)[0] != z0:
                    self._slabs.clear()
                self._slabs[key] = self._read(slice(z0, min(z0 + self._depth, self.shape[0])), ys, xs)
            kept: NDArray[Any] = self._slabs[key][z - z0].copy()
            return kept

    def _read(self, zs: slice, ys: slice, xs: slice) -> NDArray[Any]:
        part = {"z": zs, "y": ys, "x": xs}
        key = tuple(part.get(a, slice(0, 1)) for a in self._axes)
        if self._missing == "error":
            self._check_chunks(key)
        try:
            region = np.asarray(self.array[key])
        except Exception as error:  # codecs raise errors of many kinds on damaged chunks
            raise DrososegError(
                f"A chunk of section {zs.start} in {self.path} is damaged ({error}): copy or export it again."
            ) from error
        return region.reshape((-1, *region.shape[-2:])).astype(self.dtype, copy=False)

    def _check_chunks(self, key: tuple[slice, ...]) -> None:
        """Raise where zarr would read the fill value in place of a lost chunk."""
        spans = (range(k.start // n, -(-k.stop // n)) for k, n in zip(key, self._grid, strict=True))
        for chunk in itertools.product(*spans):
            name = self.array.metadata.encode_chunk_key(chunk)
            if not (self.path / name).exists():
                raise DrososegError(
                    f"The chunk {name} of {self.path} is missing: copy it again, or, if chunks of nothing but "
                    f"{self.array.fill_value} were left out on purpose, set DROSOSEG_MISSING_CHUNKS=fill."
                )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_slabs": {}, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


def open_zarr(path: Path, *, missing_chunks: MissingChunks = "error") -> Stack:
    """Open an OME-Zarr image or a zarr array without reading its pixels.

    Parameters
    ----------
    path : Path
        Folder of the image group, of an array, or of a group that holds one array.
    missing_chunks : {"error", "fill"}
        Whether a chunk that is not there is an error when it is read, or the fill value.

    Returns
    -------
    Stack
        Level 0 of a multiscale image.

    Raises
    ------
    DrososegError
        If the metadata is damaged, the image has time points or channels, or nothing was ever written.
    """
    import zarr

    if not any((path / m).is_file() for m in _METADATA):
        raise DrososegError(f"{path} has no zarr metadata (zarr.json, .zarray or .zgroup): copy or export it again.")
    try:
        node = zarr.open(str(path), mode="r")
        if isinstance(node, zarr.Array):
            return _open_array(node, path, path, missing_chunks)
        return _open_group(node, path, missing_chunks)
    except DrososegError:
        raise
    except Exception as error:  # zarr raises errors of many kinds on damaged metadata
        raise DrososegError(f"{path} cannot be read as zarr ({error!r}): copy or export it again.") from error


def _open_group(group: zarr.Group, path: Path, missing: MissingChunks) -> Stack:
    import zarr

    attributes = group.attrs.asdict()
    ome = attributes.get("ome", attributes)
    if "multiscales" in ome:
        return _open_multiscale(group, ome, attributes, path, missing)
    if "plate" in ome or "well" in ome:
        raise DrososegError(f"{path} is a plate or well with many images: open one of the image folders inside.")
    if "bioformats2raw.layout" in ome:
        return _open_group(zarr.open_group(str(path / "0"), mode="r"), path / "0", missing)
    names = sorted(name for name, _ in group.arrays())
    if len(names) == 1 and isinstance(array := group[names[0]], zarr.Array):
        return _open_array(array, path / names[0], path, missing)
    inside = ", ".join(names or sorted(name for name, _ in group.groups())) or "nothing"
    raise DrososegError(f"{path} is a zarr group, not one image; open one of its contents: {inside}.")


def _open_multiscale(
    group: zarr.Group, ome: Mapping[str, Any], attributes: Mapping[str, Any], path: Path, missing: MissingChunks
) -> Stack:
    import zarr

    scales = ome["multiscales"][0]
    level = scales["datasets"][0]
    array = group[level["path"]]
    if not isinstance(array, zarr.Array):
        raise DrososegError(f"{path} names {level['path']} as its image, which is not an array: export it again.")
    axes, units = _axes(scales.get("axes"), len(array.shape))
    voxel_size = _ngff_voxel_size(axes, units, [level, scales])
    classes, marked = read_mark(attributes.get(KEY))
    notices: tuple[str, ...] = ()
    if len(ome["multiscales"]) > 1:
        notices = (f"{path.name} holds several images; the first is used",)
    is_label = "image-label" in ome
    data = _sections(array, path / level["path"], axes, "fill" if is_label else missing, path)
    return Stack(data, _stem(path), marked or voxel_size, path, notices, classes)


def _axes(described: Any, n_axes: int) -> tuple[str, list[str | None]]:
    if not described:  # NGFF 0.1 and 0.2 had no axes: always t, c, z, y, x
        return "tczyx"[-n_axes:], [None] * n_axes
    names = [a if isinstance(a, str) else str(a["name"]) for a in described]
    units = [None if isinstance(a, str) else a.get("unit") for a in described]
    return "".join(n[0].lower() for n in names), units


def _ngff_voxel_size(axes: str, units: Sequence[str | None], parts: Sequence[Mapping[str, Any]]) -> VoxelSize:
    scale = np.ones(len(axes))
    known = False
    for part in parts:
        for step in part.get("coordinateTransformations") or ():
            if step.get("type") == "scale":
                scale, known = scale * np.asarray(step["scale"], float), True
    if not known:
        return UNKNOWN_VOXEL_SIZE
    z, y, x = (to_nanometres(float(scale[axes.index(a)]), units[axes.index(a)]) if a in axes else None for a in "zyx")
    return z, y, x


def _open_array(array: zarr.Array[Any], path: Path, root: Path, missing: MissingChunks) -> Stack:
    n_axes = len(array.shape)
    attributes = array.attrs.asdict()
    # zarr v2 has no names of its own; xarray keeps them there
    names = getattr(array.metadata, "dimension_names", None) or attributes.get("_ARRAY_DIMENSIONS")
    axes = "".join(str(n or "?")[0].lower() for n in names or ())
    if not set(axes) & set("zyx"):  # names in other words say nothing about the order
        axes = "tczyx"[-n_axes:]
    size = attributes.get("voxel_size", attributes.get("resolution"))
    units = attributes.get("units", attributes.get("unit"))
    voxel_size = UNKNOWN_VOXEL_SIZE
    if isinstance(size, list) and len(size) == 3 and units:
        three = [units] * 3 if isinstance(units, str) else [str(u) for u in units][-3:]
        z, y, x = (to_nanometres(float(s), u) for s, u in zip(size, three, strict=True))
        voxel_size = (z, y, x)
    return Stack(_sections(array, path, axes, missing, root), _stem(root), voxel_size, root)


def _sections(array: zarr.Array[Any], path: Path, axes: str, missing: MissingChunks, root: Path) -> ZarrSections:
    if np.dtype(array.dtype).kind not in "buif":
        raise DrososegError(f"{root} contains values of type {array.dtype}; a stack needs integers or real numbers.")
    if not 2 <= len(axes) == len(array.shape) <= 5 or not axes.endswith("yx") or 0 in array.shape:
        raise DrososegError(f"{root} has the shape {array.shape} with axes '{axes}'; a stack needs (z, y, x).")
    for axis, length in zip(axes, array.shape, strict=True):
        if axis not in "zyx" and length > 1:
            what = {"t": "time points", "c": "channels"}.get(axis, f"planes along '{axis}'")
            raise DrososegError(f"{root} has {length} {what}: save the one to segment as its own zarr (z, y, x).")
    sections = ZarrSections(array, path, axes, missing)
    if not _any_chunk(path):
        raise DrososegError(f"{path} contains no chunks: the copy is incomplete, or it was never written.")
    return sections


def _any_chunk(path: Path) -> bool:
    return any(p.is_file() for p in path.rglob("*") if p.name not in {"zarr.json", ".zarray", ".zattrs"})


def _stem(path: Path) -> str:
    stem = path.name
    for ending in (".zarr", ".ome"):
        if stem.lower().endswith(ending):
            stem = stem[: -len(ending)]
    return stem
