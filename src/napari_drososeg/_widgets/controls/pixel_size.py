"""The pixel size of an image layer: what its scale says, what the user says instead, and the field for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_drososeg._widgets.layers.images import voxel_size_of

if TYPE_CHECKING:
    from magicgui.widgets import FloatSpinBox
    from napari.layers import Image

    from napari_drososeg.workspace import Workspace

PIXEL_SIZE_KEY = "drososeg_pixel_size"
"""Key in an image layer's metadata under which the user's answer is kept: it belongs to the image."""


def stated(image: Image) -> float | None:
    """Pixel size in nm as the layer's scale says it, the mean of y and x; None where that is not a length."""
    _, y, x = voxel_size_of(image)
    return None if y is None or x is None else (y + x) / 2


def answered(image: Image) -> float | None:
    """Pixel size in nm as the user said it."""
    size = image.metadata.get(PIXEL_SIZE_KEY)
    return float(size) if size else None


def known(image: Image, workspace: Workspace | None) -> float | None:
    """Pixel size in nm: as the user said, in any widget, as the layer or as the workspace says."""
    return answered(image) or stated(image) or (workspace.pixel_size if workspace is not None else None)


def answer(image: Image, size: float | None) -> None:
    """Keep what the user says. It goes before what the file says, which is often wrong; None or 0 takes it back."""
    if size != image.metadata.get(PIXEL_SIZE_KEY):
        kept = {k: v for k, v in image.metadata.items() if k != PIXEL_SIZE_KEY}
        image.metadata = kept | ({PIXEL_SIZE_KEY: size} if size else {})


def restated(image: Image) -> None:
    """Forget the answer if the layer was given another scale that says a length: that was said later."""
    if stated(image) is not None:
        answer(image, None)


def recall(image: Image, workspace: Workspace | None) -> None:
    """Answer with what was once said or found out in a workspace, where nobody has answered."""
    if workspace is not None and answered(image) is None:
        said = workspace.settings.get("pixel_size")
        if said or stated(image) is None:
            answer(image, said or workspace.pixel_size)


def keep(image: Image, workspace: Workspace) -> None:
    """Keep the answer with the rounds that are trained with it."""
    if answered(image) != workspace.settings.get("pixel_size"):
        workspace.save_settings(pixel_size=answered(image))


def put_size(field: FloatSpinBox, size: float) -> None:
    """Put a pixel size into its field, unless it stands there: the user may be typing it.

    The largest that the field takes stands for all above it (a scale in mm): such sizes are refused anyway.
    """
    size = min(size, field.max)
    if abs(field.value - size) > 0.005:  # the field has two decimals
        with field.changed.blocked():
            field.value = round(size, 4)
