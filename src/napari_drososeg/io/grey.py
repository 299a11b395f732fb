"""From what a file stores to one grey value per pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

RGB_NOTICE = "colour was converted to grey"
INVERTED_NOTICE = "grey levels were stored with white as 0 and are inverted"
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Grey:
    """How stored samples become grey values.

    Parameters
    ----------
    how : {"as is", "colour", "inverted", "table"}
        ``colour``: samples (h, w, 2 to 4) as grey + alpha, RGB or RGBA. ``table``: look-up in `table`.
    table : ndarray or None
        Grey value of each index.
    """

    how: Literal["as is", "colour", "inverted", "table"] = "as is"
    table: NDArray[Any] | None = None

    @property
    def notice(self) -> tuple[str, ...]:
        """What to tell the user, if anything."""
        if self.how == "as is" or (self.how == "table" and self.table is None):
            return ()
        return (INVERTED_NOTICE,) if self.how == "inverted" else (RGB_NOTICE,)

    def __call__(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Convert a region; returns new memory (h, w) in the byte order of this machine."""
        native = samples.astype(samples.dtype.newbyteorder("="), copy=True)
        if native.dtype == bool:
            native = native.astype(np.uint8)
        if self.how == "colour":
            return rgb_to_grey(native)
        if self.how == "inverted":
            return invert(native)
        if self.how == "table" and self.table is not None:
            grey: NDArray[Any] = self.table[native]
            return grey
        return native


def rgb_to_grey(samples: NDArray[Any]) -> NDArray[Any]:
    """Convert (..., 1 to 4) grey, grey + alpha, RGB or RGBA to grey of the same dtype (luma; alpha is dropped)."""
    if samples.shape[-1] < 3:
        first: NDArray[Any] = samples[..., 0]
        return first
    luma = sum(samples[..., i] * np.float32(w) for i, w in enumerate(LUMA))
    if np.issubdtype(samples.dtype, np.integer):
        luma = np.rint(luma)
    return np.asarray(luma).astype(samples.dtype)


def invert(grey: NDArray[Any]) -> NDArray[Any]:
    """Exchange black and white: the largest value of an integer dtype minus the value; floats change sign."""
    if np.issubdtype(grey.dtype, np.unsignedinteger):
        return np.asarray(np.iinfo(grey.dtype).max - grey)
    return np.asarray(-1 - grey if np.issubdtype(grey.dtype, np.integer) else -grey)


def palette_grey(colors: NDArray[np.uint8]) -> Grey:
    """Return how indices into a palette become grey.

    Parameters
    ----------
    colors : ndarray of uint8, shape (n, 3)
        RGB of each index.
    """
    table = np.zeros(256, np.uint8)
    table[: len(colors)] = rgb_to_grey(colors)
    same = np.array_equal(table[: len(colors)], np.arange(len(colors)))
    return Grey() if same else Grey("table", table)
