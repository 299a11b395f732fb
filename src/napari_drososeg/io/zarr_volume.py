"""Labels of a volume as sharded OME-Zarr, written block by block, by any number of processes.

A block is a shard, so a file, and is written whole by whoever made it; nobody else touches that file. Every chunk in it
carries a CRC-32C. Levels are made afterwards from the level before. All of it can be repeated: the same labels give the
same bytes.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.classes import ClassTable
from napari_drososeg.errors import DrososegError
from napari_drososeg.io import atomic
from napari_drososeg.io.units import VoxelSize
from napari_drososeg.io.zarr_writer import CHUNK, label_attributes, level_shapes

if TYPE_CHECKING:
    import zarr

BLOCK = (16, 2048, 2048)
"""Default block (z, y, x) in px: 64 MB of labels in memory, about 2 MB on disk, a minute of work for a processor."""

_configuring = threading.Lock()
"""zarr's configuration is that of the process: a thread would end the choice of another."""

Index = tuple[int, int, int]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class WrittenBlock:
    """What is known of a block on disk.

    Parameters
    ----------
    labels : str
        Checksum (BLAKE2b) of its labels, uint8 in the order (z, y, x).
    file : str
        Checksum of the bytes of its file.
    n_bytes : int
        Size of its file.
    """

    labels: str
    file: str
    n_bytes: int


def checksum(content: bytes | NDArray[Any]) -> str:
    """Return the BLAKE2b of bytes, or of an array in C order, as 32 hex digits."""
    data = content if isinstance(content, bytes) else np.ascontiguousarray(content).data
    return hashlib.blake2b(data, digest_size=16).hexdigest()


@dataclass(frozen=True)
class LabelsVolume:
    """A label image in the making; travels to other processes.

    Parameters
    ----------
    path : Path
        Its folder.
    shape : tuple of three int
        (Z, Y, X).
    block : tuple of three int
        (z, y, x) in px; at most `CHUNK` in y and x, or a multiple of it.
    """

    path: Path
    shape: tuple[int, int, int]
    block: tuple[int, int, int]

    def __post_init__(self) -> None:
        check_block(self.block)

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """(Z, Y, X) of each level."""
        return level_shapes(self.shape)

    def create(self, classes: ClassTable, voxel_size: VoxelSize, name: str) -> None:
        """Write the metadata of all levels; the folder must not exist."""
        import zarr
        from zarr.codecs import Crc32cCodec, ZstdCodec

        group = zarr.create_group(str(self.path), zarr_format=3)
        shapes = self.shapes
        for level, shape in enumerate(shapes):
            shard = self._shard_shape(level)
            group.create_array(
                str(level),
                shape=shape,
                chunks=(1, min(CHUNK, shard[1]), min(CHUNK, shard[2])),
                shards=shard,
                dtype=np.uint8,
                compressors=(ZstdCodec(level=3), Crc32cCodec()),
                fill_value=0,
                dimension_names=("z", "y", "x"),
            )
        group.attrs.update(label_attributes(name, classes, voxel_size, len(shapes)))
        atomic.sync(self.path)

    def _shard_shape(self, level: int) -> tuple[int, int, int]:
        return block_shape(self.shapes[level], self.block)

    def blocks(self, level: int = 0) -> Iterator[Index]:
        """Iterate over the blocks of a level in the order (z, y, x)."""
        counts = (range(-(-n // m)) for n, m in zip(self.shapes[level], self._shard_shape(level), strict=True))
        yield from cast("Iterator[Index]", itertools.product(*counts))

    def n_blocks(self, level: int = 0) -> int:
        """Return the number of blocks of a level."""
        return sum(1 for _ in self.blocks(level))

    def region(self, level: int, index: Index) -> Box:
        """Return the part (z, y, x) of a level that a block covers, in px of that level."""
        z, y, x = (
            slice(i * m, min((i + 1) * m, n))
            for i, m, n in zip(index, self._shard_shape(level), self.shapes[level], strict=True)
        )
        return z, y, x

    def file(self, level: int, index: Index) -> Path:
        """Return the file of a block."""
        return self.path.joinpath(str(level), "c", *map(str, index))

    def write(self, level: int, index: Index, labels: NDArray[np.uint8]) -> WrittenBlock:
        """Write a block and wait until it is on the disk.

        Parameters
        ----------
        level : int
            0 is full size.
        index : tuple of int
            Of `blocks`.
        labels : ndarray of uint8, (z, y, x)
            As large as `region` says.

        Raises
        ------
        DrososegError
            If it cannot be written, such as on a full disk.
        """
        path = self.file(level, index)
        try:
            path.unlink(missing_ok=True)  # what an earlier attempt left is not to be read, let alone merged with
            self._array(level, "r+")[self.region(level, index)] = labels
            content = path.read_bytes()
            atomic.sync(path)
            for folder in path.parents[:3]:  # the names on the way to it have to be on the disk as well
                atomic.sync_folder(folder)
        except OSError as error:
            raise DrososegError(f"{self.path} cannot be written: {error.strerror or error}.") from error
        return WrittenBlock(checksum(labels), checksum(content), len(content))

    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Read a part of a level; a damaged chunk raises `DrososegError`."""
        try:
            return np.asarray(self._array(level, "r")[box], dtype=np.uint8)
        except Exception as error:  # codecs raise errors of many kinds on damaged chunks
            raise DrososegError(f"A block of {self.path} is damaged ({error}).") from error

    def is_intact(self, level: int, index: Index, file: str) -> bool:
        """Whether the file of a block has the checksum `file`."""
        try:
            return checksum(self.file(level, index).read_bytes()) == file
        except OSError:
            return False

    def half(self, level: int, index: Index) -> NDArray[np.uint8]:
        """Make a block (z, y, x) of a level, above 0, from the level before."""
        zs, ys, xs = self.region(level, index)
        _, height, width = self.shapes[level - 1]
        rows, columns = (slice(2 * s.start, min(2 * s.stop, n)) for s, n in ((ys, height), (xs, width)))
        labels = np.empty((zs.stop - zs.start, ys.stop - ys.start, xs.stop - xs.start), np.uint8)
        for z in range(zs.start, zs.stop):
            labels[z - zs.start] = self.read(level - 1, (slice(z, z + 1), rows, columns))[0, ::2, ::2]
        return labels

    def tidy(self) -> None:
        """Remove temporary files of writers that were killed."""
        for folder, _, names in os.walk(self.path):
            for name in names:
                if name.endswith(".partial"):
                    (Path(folder) / name).unlink(missing_ok=True)

    def _array(self, level: int, mode: str) -> zarr.Array[Any]:
        import zarr

        # Blocks of zeros are written as well: what is missing then was lost. An array does not keep this choice.
        with _configuring, zarr.config.set({"array.write_empty_chunks": True}):
            return zarr.open_array(str(self.path / str(level)), mode=cast("Any", mode))


def check_block(block: Index) -> None:
    """Refuse a block (z, y, x) that is not made of whole chunks."""
    if min(block) < 1 or any(n > CHUNK and n % CHUNK for n in block[1:]):
        shown = ",".join(map(str, block))
        raise DrososegError(
            f"Blocks of {shown} cannot be written; give three numbers (z, y, x) above 0, and above {CHUNK} px "
            f"multiples of {CHUNK} for y and x."
        )


def block_shape(shape: tuple[int, int, int], wanted: tuple[int, int, int] | None = None) -> tuple[int, int, int]:
    """Return the block (z, y, x) to write labels of `shape` in: `wanted`, else `BLOCK`, not larger than needed."""
    z, *edges = wanted or BLOCK
    height, width = (min(b, _whole_chunks(n)) for b, n in zip(edges, shape[1:], strict=True))
    return min(z, shape[0]), height, width


def _whole_chunks(length: int) -> int:
    """Round a length up to a multiple of `CHUNK`, unless it is shorter than one."""
    return length if length <= CHUNK else -(-length // CHUNK) * CHUNK
