"""Lengths as files write them, in nanometres."""

from __future__ import annotations

import re

VoxelSize = tuple[float | None, float | None, float | None]
"""Voxel size (z, y, x) in nm; None where it is not known."""

UNKNOWN_VOXEL_SIZE: VoxelSize = (None, None, None)

_METRES = {
    "pm": 1e-12,
    "angstrom": 1e-10,
    "å": 1e-10,
    "nm": 1e-9,
    "nanometer": 1e-9,
    "um": 1e-6,
    "µm": 1e-6,
    "micron": 1e-6,
    "micrometer": 1e-6,
    "mm": 1e-3,
    "millimeter": 1e-3,
    "cm": 1e-2,
    "centimeter": 1e-2,
    "inch": 2.54e-2,
    "m": 1.0,
    "meter": 1.0,
}

# A resolution tag alone is believed only in the range of electron microscopy: many programs fill it with 72 or
# 300 dots per inch, which would be pixels of 353 and 85 micrometres.
_PLAUSIBLE_NM = (0.05, 2000.0)


def to_nanometres(value: float | None, unit: str | None) -> float | None:
    r"""Convert a length to nm.

    Parameters
    ----------
    value : float or None
        A length in `unit`.
    unit : str or None
        As files write it: ``nm``, ``micron``, ``µm``, ``\u00B5m``, ``nanometer``, ...

    Returns
    -------
    float or None
        None where the value is not positive and finite, or the unit is not a known length (``pixel``).
    """
    if value is None or unit is None or not 0 < value < float("inf"):
        return None
    # Java writes the micro sign as an escape sequence; there are two micro signs in Unicode.
    name = re.sub(r"\\u00[bB]5", "µ", unit).strip().replace("\u03bc", "µ")
    name = name if name in _METRES else name.lower().replace("metre", "meter")
    if name not in _METRES and name.endswith("s"):
        name = name[:-1]
    if name not in _METRES:
        return None
    return float(f"{value * _METRES[name] / 1e-9:.6g}")


def plausible(nanometres: float | None) -> float | None:
    """Return a pixel size (nm) that electron microscopy could have, else None."""
    if nanometres is None or not _PLAUSIBLE_NM[0] <= nanometres <= _PLAUSIBLE_NM[1]:
        return None
    return nanometres


def not_square(voxel_size: VoxelSize) -> str | None:
    """Say that y and x of a voxel size (z, y, x), nm, differ by more than a fiftieth; None where they do not."""
    _, y, x = voxel_size
    if y is None or x is None or abs(y - x) <= 0.02 * max(y, x):
        return None
    return (
        f"The pixels are not square, {y:g} x {x:g} nm (y, x), and taken for squares of {(y + x) / 2:g} nm: resample "
        "the image if the labels are poor."
    )
