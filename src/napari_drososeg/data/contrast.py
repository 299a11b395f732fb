"""Whether an image is bright where electron micrographs are dark, so that its grey values have to be inverted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_drososeg.io import Stack

LEAST, MOST = 256, 512
"""Edge in px of the parts looked at: in less of a section, one large bright or dark body decides."""

SMOOTHING, LINE = 1.5, 9
"""Standard deviation in px of what is smoothed away as noise, and width in px below which something counts as thin."""

SKEW, THIN = 0.1, -0.06
"""Limits, of which an inverted image passes both. Parts of 512 px of the public and the synthetic stack have a skewness
below -0.1 and thin structures above 0.09; inverted, the opposite. Smaller ones, and ones of strongly changed gamma,
range, noise, sharpness, size or borders, may pass one of the limits; of over a thousand none passed both."""


def looks_inverted(stack: Stack) -> bool:
    """Whether membranes seem to be bright on dark; False where there is too little to tell.

    Membranes are few and thin. So where they are dark, grey values trail off to the dark side and thin structures are
    darker than what is around them, and the reverse where they are bright. Both must say so, in each of up to three
    sections.

    Parameters
    ----------
    stack : Stack
        One part, of up to 512 x 512 px, is read of each of these sections.
    """
    n, height, width = stack.shape
    if min(height, width) < LEAST:
        return False
    at = tuple(slice((m - min(m, MOST)) // 2, (m + min(m, MOST)) // 2) for m in (height, width))
    sections = sorted({n // 6, n // 2, n - 1 - n // 6})
    return all(is_bright_on_dark(stack.read(z, *at)) for z in sections)


def is_bright_on_dark(pixels: NDArray[Any]) -> bool:
    """Whether grey values (h, w) trail off to the bright side and thin structures are bright; see `looks_inverted`."""
    from scipy import ndimage

    if not np.isfinite(pixels).all():
        return False
    smooth = ndimage.gaussian_filter(pixels.astype(np.float32), SMOOTHING)
    centred = smooth - smooth.mean()
    spread = float(centred.std())
    if spread == 0:
        return False
    bright = float((smooth - ndimage.grey_opening(smooth, (LINE, LINE))).mean())
    dark = float((ndimage.grey_closing(smooth, (LINE, LINE)) - smooth).mean())
    thin = (dark - bright) / (dark + bright) if dark + bright > 0 else 0.0
    return float((centred**3).mean()) / spread**3 > SKEW and thin < THIN
