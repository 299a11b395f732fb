"""Which image a workspace belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_drososeg.io import Stack, VoxelSize

BLOCK = 64
"""Edge in px of the blocks that are looked at."""
WHOLE = 4_000_000
"""Pixels of a section up to which it is read at once: nine reads of a remote or computed one would take nine times."""


@dataclass(frozen=True)
class ImageIdentity:
    """What is known of an image without keeping it.

    Parameters
    ----------
    name : str
        Of the stack.
    path : str or None
        Where it was read from.
    shape : tuple of int
        (Z, Y, X).
    dtype : str
        Of its values.
    voxel_size : tuple of three float or None
        (z, y, x) in nm.
    sha256 : str
        Of pixels at nine places in the first, middle and last section: an image of the same shape but other content
        is told apart at almost no cost.
    """

    name: str
    path: str | None
    shape: tuple[int, int, int]
    dtype: str
    voxel_size: VoxelSize
    sha256: str

    @classmethod
    def of(cls, stack: Stack) -> ImageIdentity:
        """Take it from a stack; reads up to three sections."""
        digest = hashlib.sha256()
        n_z, n_y, n_x = stack.shape
        for z in sorted({0, n_z // 2, n_z - 1}):
            section = stack.read(z) if n_y * n_x <= WHOLE else None
            for y in sorted({0, (n_y - min(n_y, BLOCK)) // 2, n_y - min(n_y, BLOCK)}):
                for x in sorted({0, (n_x - min(n_x, BLOCK)) // 2, n_x - min(n_x, BLOCK)}):
                    at = slice(y, y + BLOCK), slice(x, x + BLOCK)
                    block = stack.read(z, *at) if section is None else section[at]
                    digest.update(np.ascontiguousarray(block).tobytes())
        path = None if stack.path is None else str(Path(stack.path).resolve())
        return cls(stack.name, path, stack.shape, str(stack.dtype), stack.voxel_size, digest.hexdigest())

    def difference(self, other: ImageIdentity) -> str | None:
        """Say in words why `other` is another image; None if it is the same. Name and path do not matter."""
        if self.shape != other.shape:
            return f"its shape (z, y, x) is {other.shape}, not {self.shape}"
        if self.dtype != other.dtype:
            return f"its values are {other.dtype}, not {self.dtype}"
        return None if self.sha256 == other.sha256 else "its pixels differ"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        plain = asdict(self)
        return plain | {"shape": list(self.shape), "voxel_size_nm": list(plain.pop("voxel_size"))}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> ImageIdentity:
        """Build one from what `to_dict` returns."""
        z, y, x = (int(n) for n in plain["shape"])
        size = tuple(None if s is None else float(s) for s in plain["voxel_size_nm"])
        path = plain["path"]
        return cls(
            str(plain["name"]),
            None if path is None else str(path),
            (z, y, x),
            str(plain["dtype"]),
            size,  # type: ignore[arg-type]  # three, as written
            str(plain["sha256"]),
        )
