"""What is wrong with sections before anything is predicted: missing, repeated, shifted, of another contrast.

Each section is measured on a small picture of itself, against the section before; then the measurements of a stack are
judged together. Nothing is left out or filled because of it: findings are told and recorded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_drososeg.io import Stack

EDGE = 512
"""Longest edge in px of the picture that is looked at."""

WHOLE_SECTION = 4096 * 4096
"""Sections up to this many px are looked at whole, larger ones at their middle."""

BLANK = 0.95
"""A section is missing if this share of its pixels has one value. Alignment pads far less than this."""

SAME = 0.95
"""Correlation from which on a section is the one before again. On the public stacks (50 nm sections) neighbours reach
at most 0.41; an identical copy has 1."""

SHIFT = 0.02
"""Shift against the section before, as a part of the section's edge, from which on it is told (and at least
`SHIFT_PIXELS`): the public stacks, which are aligned, stay below 1 %."""

SHIFT_PIXELS = 4

BETTER = 0.1
"""How much the correlation has to gain by undoing the shift; without it the shift found is chance. In the public stacks
it gains at most 0.06, and falls from 0.3 to 0.1 or less where a section is moved by `SHIFT`."""

JUMP = 5.0
"""Robust z-score from which on brightness or contrast jumps, if it also exceeds `LEAST_JUMP`."""

LEAST_JUMP = 0.75
"""Change of the mean in standard deviations, or of log2 of the standard deviation, that is never a jump."""

NEIGHBOURS = 3
"""Sections on each side that one is compared with in brightness and contrast."""

Kind = Literal["missing", "duplicate", "shifted", "contrast"]


@dataclass(frozen=True)
class SectionMeasures:
    """What was measured of one section.

    Parameters
    ----------
    mean, std : float
        Of its grey values, those that are exactly 0 left out.
    blank : float
        Share of the pixels that have the commonest value, if that is the median.
    correlation : float or None
        With the section before, where both are not 0; None where there is none, or nothing to compare.
    shift : tuple of float
        (y, x) in px by which this section's content lies off the one before.
    shifted_correlation : float or None
        With that shift undone.
    """

    mean: float
    std: float
    blank: float
    correlation: float | None = None
    shift: tuple[float, float] = (0.0, 0.0)
    shifted_correlation: float | None = None

    def to_list(self) -> list[Any]:
        """Return JSON-ready values for `from_list`."""
        return [list(v) if isinstance(v, tuple) else v for v in asdict(self).values()]

    @classmethod
    def from_list(cls, values: Sequence[Any]) -> SectionMeasures:
        """Build from what `to_list` returns."""
        mean, std, blank, correlation, shift, shifted = values
        return cls(mean, std, blank, correlation, (shift[0], shift[1]), shifted)


@dataclass(frozen=True)
class Finding:
    """Something to look at.

    Parameters
    ----------
    section : int
        Place among the measurements given.
    kind : {"missing", "duplicate", "shifted", "contrast"}
        What is wrong.
    detail : str
        In words, with numbers.
    """

    section: int
    kind: Kind
    detail: str


class Thumbnail:
    """A small picture of a section.

    Parameters
    ----------
    stack : Stack
        The images.
    z : int
        Section.

    Attributes
    ----------
    pixels : ndarray of float32, (h, w)
        Means of `factor` x `factor` px; NaN and infinity count as 0.
    factor : int
        Its reduction.
    edge : int
        Longest edge of the section in px.
    """

    def __init__(self, stack: Stack, z: int) -> None:
        _, height, width = stack.shape
        self.edge = max(height, width)
        limit = math.isqrt(WHOLE_SECTION)
        rows, columns = (
            slice(0, n) if height * width <= WHOLE_SECTION or n <= limit else slice((n - limit) // 2, (n + limit) // 2)
            for n in (height, width)
        )
        region = stack.read(z, rows, columns)
        with np.errstate(invalid="ignore"):
            region = np.where(np.isfinite(region), region, 0) if region.dtype.kind == "f" else region
        sample = region[:: max(1, region.shape[0] // EDGE), :: max(1, region.shape[1] // EDGE)]
        self.blank = float(np.mean(sample == np.sort(sample, axis=None)[sample.size // 2]))
        tissue = sample[sample != 0] if (sample != 0).any() else sample
        self.mean, self.std = float(np.mean(tissue, dtype=np.float64)), float(np.std(tissue, dtype=np.float64))
        self.factor = f = max(1, math.ceil(max(region.shape) / EDGE))
        h, w = (max(1, n // f) for n in region.shape)
        cut = region[: h * f, : w * f] if min(region.shape) >= f else region[:1, :1]
        self.pixels: NDArray[np.float32] = cut.reshape(h, cut.shape[0] // h, w, cut.shape[1] // w).mean(
            axis=(1, 3), dtype=np.float32
        )


def measure_section(now: Thumbnail, before: Thumbnail | None) -> SectionMeasures:
    """Measure a section, against the one before where that has the same size."""
    alone = SectionMeasures(now.mean, now.std, now.blank)
    if before is None or before.pixels.shape != now.pixels.shape:
        return alone
    correlation = correlate(now.pixels, before.pixels)
    if correlation is None:
        return alone
    dy, dx = find_shift(now.pixels, before.pixels)
    a, b = undo_shift(now.pixels, before.pixels, dy, dx)
    shift = (float(dy * now.factor), float(dx * now.factor))
    return SectionMeasures(now.mean, now.std, now.blank, correlation, shift, correlate(a, b))


def correlate(a: NDArray[np.float32], b: NDArray[np.float32]) -> float | None:
    """Return Pearson's correlation of two pictures where both are not 0; None where that is too little."""
    used = (a != 0) & (b != 0)
    if np.count_nonzero(used) < max(16, 0.05 * a.size):
        return None
    x, y = a[used].astype(np.float64), b[used].astype(np.float64)
    x -= x.mean()
    y -= y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale > 0 else None


def find_shift(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[int, int]:
    """Find the shift (y, x) in px of the content of `a` against `b` by phase correlation (Kuglin and Hines 1975).

    The pictures are smoothed a little and fade out towards their edges, which otherwise would correlate with
    themselves at shift 0.
    """
    from scipy import fft

    height, width = a.shape
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[None, 1:-1]

    def spectrum(picture: NDArray[np.float32]) -> NDArray[np.complex128]:
        tissue = picture != 0
        level = picture[tissue].mean() if tissue.any() else 0.0
        found: NDArray[np.complex128] = fft.rfft2(np.where(tissue, picture - level, 0.0) * window)
        return found

    cross = spectrum(a) * np.conj(spectrum(b))
    cross /= np.abs(cross) + 1e-9 * float(np.abs(cross).max() or 1.0)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    cross *= np.exp(-(fy**2 + fx**2) / (2 * 0.1**2))
    peaks = fft.irfft2(cross, s=(height, width))
    y, x = (int(i) for i in np.unravel_index(int(np.argmax(peaks)), peaks.shape))
    return y - height if y > height // 2 else y, x - width if x > width // 2 else x


def undo_shift(
    a: NDArray[np.float32], b: NDArray[np.float32], dy: int, dx: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cut out of `a` and `b` what lies on each other once `a` is moved back by (dy, dx)."""
    height, width = a.shape
    return (
        a[max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)],
        b[max(0, -dy) : height + min(0, -dy), max(0, -dx) : width + min(0, -dx)],
    )


def judge(measures: Sequence[SectionMeasures], edge: int) -> list[Finding]:
    """Find what is wrong in a stack.

    Parameters
    ----------
    measures : sequence of SectionMeasures
        Of its sections, in order.
    edge : int
        Longest edge of a section in px.

    Returns
    -------
    list of Finding
        In the order of the sections.
    """
    missing = {k for k, m in enumerate(measures) if m.std == 0 or m.blank >= BLANK}
    found = [Finding(k, "missing", _blank_detail(measures[k])) for k in missing]
    there = [k for k in range(len(measures)) if k not in missing]
    least = max(SHIFT_PIXELS, SHIFT * edge)
    away = (0.0, 0.0)  # how far the section before lies off, if that was told
    for k in there:
        m = measures[k]
        if m.correlation is None or m.shifted_correlation is None:
            away = (0.0, 0.0)
            continue
        if m.correlation >= SAME:
            found.append(Finding(k, "duplicate", f"the same as the section before (correlation {m.correlation:.2f})"))
            continue
        real = math.hypot(*m.shift) >= least and m.shifted_correlation - m.correlation >= BETTER
        # One section that is off shifts twice, there and back; only the first is told.
        back = math.hypot(m.shift[0] + away[0], m.shift[1] + away[1]) < 0.5 * math.hypot(*away)
        if real and not back:
            y, x = m.shift
            found.append(Finding(k, "shifted", f"by ({y:+.0f}, {x:+.0f}) px (y, x) against the section before"))
        away = m.shift if real and not back else (0.0, 0.0)
    found += _jumps([measures[k] for k in there], there)
    return sorted(found, key=lambda f: (f.section, f.kind))


def _blank_detail(m: SectionMeasures) -> str:
    share = "all" if m.std == 0 or m.blank == 1 else f"{100 * m.blank:.0f} %"
    return f"{share} of it has one grey value" if m.std > 0 else f"nothing but the grey value {m.mean:g}"


def _jumps(measures: Sequence[SectionMeasures], places: Sequence[int]) -> list[Finding]:
    """Compare brightness and contrast with the median of the neighbours, in units of what is usual in the stack."""
    if len(measures) < 3:
        return []
    contrast = float(np.median([m.std for m in measures]))
    means = np.array([m.mean for m in measures]) / contrast
    spreads = np.log2([m.std for m in measures])
    found: dict[int, list[str]] = {}
    for values, words in ((means, ("darker", "brighter")), (spreads, ("flatter", "of more contrast"))):
        off = np.array([v - np.median(_around(values, k)) for k, v in enumerate(values)])
        usual = 1.4826 * float(np.median(np.abs(off)))
        for k in np.flatnonzero(np.abs(off) > max(LEAST_JUMP, JUMP * usual)):
            by = f"{abs(off[k]):.1f} standard deviations" if values is means else f"a factor of {2 ** abs(off[k]):.1f}"
            found.setdefault(int(k), []).append(f"{words[int(off[k] > 0)]} than its neighbours by {by}")
    return [Finding(places[k], "contrast", ", ".join(texts)) for k, texts in found.items()]


def _around(values: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    return np.concatenate([values[max(0, k - NEIGHBOURS) : k], values[k + 1 : k + 1 + NEIGHBOURS]])
