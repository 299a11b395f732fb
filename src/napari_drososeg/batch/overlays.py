"""Overlays: the class colours of finished labels laid over their image, a picture for each section."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_drososeg.batch.beside import OVERLAYS_MARK, holds_overlays, picture_of
from napari_drososeg.batch.plan import Part
from napari_drososeg.batch.stacks import writing
from napari_drososeg.batch.tasks import Progress, Receipt, open_input
from napari_drososeg.errors import DrososegError
from napari_drososeg.evaluation import overlay, to_grey
from napari_drososeg.io import Stack, atomic, read_labels
from napari_drososeg.io.marks import KEY, SOFTWARE
from napari_drososeg.io.png_writer import resolution

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_drososeg.classes import ClassTable
    from napari_drososeg.io import VoxelSize

MAX_PIXELS = 8192 * 8192
"""Of a picture. Larger ones are not opened by ordinary programs (Pillow warns from 89 megapixels), and need the
whole section in memory, which labels do not."""


def check_drawable(stack: Stack, part: Part) -> None:
    """Refuse sections that are too large for a picture.

    Raises
    ------
    DrososegError
        Naming the stack.
    """
    height, width = stack.shape[1:] if part.roi is None else (s.stop - s.start for s in part.roi)
    if height * width > MAX_PIXELS:
        raise DrososegError(
            f"Overlays are limited to {MAX_PIXELS / 1e6:.0f} megapixels, and a section of '{stack.name}' has "
            f"{height * width / 1e6:.0f}; omit --overlays, or choose a smaller region."
        )


@dataclass(frozen=True)
class OverlayTask:
    """Draw the overlays of an item beside their final place, complete and synced.

    The receipt says ``overlays``: the temporary and the final path.

    Parameters
    ----------
    source : Path
        The image.
    fingerprint : str
        Of the image, as the run saw it.
    labels : Path
        Its labels, complete.
    base : Path
        Folder for the pictures, ``0000.png`` being section 0; of an image of one section, its name without ``.png``.
    part : Part
        Which sections are drawn, and which region of them.
    classes : ClassTable
        The colours.
    """

    source: Path
    fingerprint: str
    labels: Path
    base: Path
    part: Part
    classes: ClassTable

    @property
    def title(self) -> str:
        """See `Task`."""
        return f"overlays of {self.source.name}"

    def steps(self) -> Generator[Progress, None, Receipt]:
        """See `Task`."""
        started = time.monotonic()
        stack, labels = open_input(self.source, self.fingerprint), read_labels(self.labels)
        sections = self.part.sections or range(stack.n_sections)
        region = self.part.roi or (slice(None), slice(None))
        single = stack.n_sections == 1
        place = picture_of(self.base) if single else self.base
        digits = max(4, len(str(stack.n_sections - 1)))  # as the sections of labels are called
        temporary = atomic.temporary_sibling(place)
        yield Progress(0, len(sections))
        try:
            with writing(place):
                if not single:
                    temporary.mkdir()
                for k, z in enumerate(sections, start=1):
                    picture = overlay(to_grey(stack.read(z, *region)), labels.read(z, *region), self.classes)
                    path = temporary if single else temporary / f"{z:0{digits}d}.png"
                    save_overlay(path, picture, labels.voxel_size)
                    yield Progress(k, len(sections))
                atomic.sync(temporary)
        except BaseException:
            atomic.remove(temporary)
            raise
        return Receipt({"overlays": [str(temporary), str(place)]}, time.monotonic() - started)


def save_overlay(path: Path, picture: NDArray[np.uint8], voxel_size: VoxelSize) -> None:
    """Write an overlay, with a mark by which it is known again and its pixel size.

    Parameters
    ----------
    path : Path
        Where to, whatever it is called.
    picture : ndarray of uint8, (Y, X, 3)
        RGB.
    voxel_size : tuple of float or None
        (z, y, x) in nm.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Software", SOFTWARE)
    info.add_text(KEY, json.dumps(OVERLAYS_MARK))
    with path.open("wb") as file:
        Image.fromarray(picture).save(file, format="PNG", pnginfo=info, **resolution(voxel_size))


def put_overlays(temporary: Path, place: Path, base: Path) -> None:
    """Give overlays their final name; a picture where there is now a folder, or the reverse, goes if it is ours."""
    with writing(place):
        atomic.put_in_place(temporary, place)
        other = base if place != base else picture_of(base)
        if other.exists() and holds_overlays(other):
            atomic.remove(other)
