"""What a layer of napari says about itself in our words: shape, pixel size, stack, and what of it is on screen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Layer

from napari_drososeg._widgets.work.ordering import View

if TYPE_CHECKING:
    import napari

    from napari_drososeg.io import Stack, VoxelSize


def shape_of(layer: Image | Labels) -> tuple[int, int, int]:
    """(Z, Y, X) of a layer's finest level; colour channels are left out."""
    data = layer.data[0] if layer.multiscale else layer.data
    shape = tuple(int(n) for n in data.shape[: layer.ndim])
    return (1, *shape) if len(shape) == 2 else shape  # type: ignore[return-value]


def image_problem(layer: Image | None) -> str | None:
    """Why a layer cannot be segmented, or None."""
    if layer is None:
        return "Open an image first."
    if layer.ndim not in (2, 3):
        return f"'{layer.name}' has {layer.ndim} axes; a stack has two (Y, X) or three (Z, Y, X)."
    data = layer.data[0] if layer.multiscale else layer.data
    if np.dtype(data.dtype).kind not in "buif":
        return f"'{layer.name}' holds {data.dtype} values; grey values must be whole or real numbers."
    if 0 in data.shape:
        return f"'{layer.name}' is empty."
    return None


def voxel_size_of(layer: Image | Labels) -> VoxelSize:
    """Voxel size (z, y, x) in nm as far as scale and units say it, else None."""
    sizes: list[float | None] = []
    for scale, unit in zip(layer.scale, layer.units, strict=True):
        try:
            sizes.append(abs(float(scale)) * float((1 * unit).to("nanometer").magnitude))
        except Exception:  # pint raises its own kinds for pixels and for units that are not a length
            sizes.append(None)
    return tuple(([None] * 3 + sizes)[-3:])  # type: ignore[return-value]


def notices_of(layer: Image | Labels | None) -> tuple[str, ...]:
    """Tell what the reader had to say about the file of an image layer."""
    found = layer.metadata.get("notices") if layer is not None else None
    return tuple(n for n in found if isinstance(n, str)) if isinstance(found, list | tuple) else ()


def stack_of(layer: Image | Labels) -> Stack:
    """Our lazily read stack of an image or labels layer, with what its reader had to say."""
    from napari_drososeg.io import as_stack

    data = list(layer.data) if layer.multiscale else layer.data
    rgb = isinstance(layer, Image) and layer.rgb
    stack = as_stack(data, name=layer.name, rgb=rgb, voxel_size=voxel_size_of(layer))
    return replace(stack, notices=tuple(dict.fromkeys((*notices_of(layer), *stack.notices))))


def file_of(layer: Layer) -> str | None:
    """Path the layer was opened from, or None."""
    return layer.source.path or None


def shows_sections(viewer: napari.Viewer) -> bool:
    """Whether the viewer shows rows and columns of a section, also transposed."""
    dims = viewer.dims
    return dims.ndisplay == 2 and set(dims.displayed) == {dims.ndim - 2, dims.ndim - 1}


def view_of(viewer: napari.Viewer, layer: Image | Labels) -> View:
    """Tell what of the layer is on screen, in pixels of its finest level; all of it where that is not known."""
    n_z, n_y, n_x = shape_of(layer)
    section = 0
    if layer.ndim == 3:
        ndim = viewer.dims.ndim
        point = layer.world_to_data(viewer.dims.point[ndim - layer.ndim :])
        section = int(np.clip(round(float(point[0])), 0, n_z - 1))
    whole = View(section, (0, n_y, 0, n_x))
    if not shows_sections(viewer):
        return whole
    corners = np.asarray(layer.corner_pixels, float)[:, -2:]
    if layer.multiscale:
        factors = np.asarray(layer.downsample_factors)[layer.data_level][-2:]
        corners = np.stack([corners[0] * factors, (corners[1] + 1) * factors - 1])  # the last pixel, to its far edge
    y0, x0 = np.floor(corners[0]).astype(int)
    y1, x1 = np.ceil(corners[1]).astype(int) + 1
    y0, y1, x0, x1 = max(0, y0), min(n_y, y1), max(0, x0), min(n_x, x1)
    if y1 - y0 < 2 or x1 - x0 < 2:  # nothing drawn yet
        return whole
    return View(section, (int(y0), int(y1), int(x0), int(x1)))


def space_of(layer: Layer) -> dict[str, Any]:
    """Transform, units and axis labels, as arguments for a layer that lies on the same grid."""
    return {
        "scale": layer.scale,
        "translate": layer.translate,
        "rotate": layer.rotate,
        "shear": layer.shear,
        "affine": layer.affine,
        "units": layer.units,
        "axis_labels": layer.axis_labels,
    }


def lie_on(layer: Layer, other: Layer) -> None:
    """Give a layer the transform, units and axis labels of another one on the same grid."""
    mine = space_of(layer)
    for name, value in space_of(other).items():
        if not np.array_equal(np.asarray(mine[name]), np.asarray(value)):
            setattr(layer, name, value)


def add_above(viewer: napari.Viewer, layer: Layer) -> None:
    """Add a layer on top; the one that the user has selected stays selected."""
    active = viewer.layers.selection.active
    viewer.add_layer(layer)
    if active is not None and active in viewer.layers:
        viewer.layers.selection.active = active
