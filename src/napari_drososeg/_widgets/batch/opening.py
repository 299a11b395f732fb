"""Opening a file of a finished run in the viewer: its image, and its labels above it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from napari.qt.threading import create_worker

from napari_drososeg._widgets.files import dialogs
from napari_drososeg._widgets.files.reader import read_layers
from napari_drososeg._widgets.layers.images import file_of
from napari_drososeg._widgets.work.failures import say_failure

if TYPE_CHECKING:
    import napari

    from napari_drososeg._widgets.batch.outlook import FileRow

LABELS_KEY = "drososeg_file"
"""Key in the metadata of a labels layer under which the file is kept that it was read from."""


def show_result(viewer: napari.Viewer, row: FileRow, title: str) -> None:
    """Open an image and, if they are done, its labels; what is open already is chosen instead.

    The labels are read in a worker thread, since those that can be painted on come into memory whole.

    Parameters
    ----------
    viewer : napari.Viewer
        Where to.
    row : FileRow
        The file.
    title : str
        Of the network, for the name of the labels.
    """
    image = _opened(viewer, row.source, file_of)
    if image is None:
        before = set(viewer.layers)
        dialogs.open_path(viewer, row.source)
        image = next((layer for layer in viewer.layers if layer not in before), None)
    if image is None:
        return
    _bring_into_view(viewer, image)
    if row.state != "done":
        return
    viewer.layers.selection.active = image
    labels = _opened(viewer, row.target, lambda layer: layer.metadata.get(LABELS_KEY))
    if labels is not None:
        labels.visible = True
        return
    name = f"{image.name} [{title}]"

    def show(tuples: list[Any]) -> None:
        for data, arguments, kind in tuples:
            metadata = {**arguments["metadata"], LABELS_KEY: row.target}
            viewer.add_layer(Layer.create(data, {**arguments, "name": name, "metadata": metadata}, kind))

    worker = create_worker(
        read_layers, row.target, _start_thread=False, _progress={"desc": f"Opening {Path(row.target).name}"}
    )
    worker.returned.connect(show)
    worker.errored.connect(say_failure)
    worker.start()


def _bring_into_view(viewer: napari.Viewer, layer: Layer) -> None:
    """Show a section of a layer: the viewer may be on one, of a taller stack, that the layer does not have."""
    layer.visible = True
    low, high = layer.extent.world
    first = viewer.dims.ndim - layer.ndim
    for axis in viewer.dims.not_displayed:
        if axis >= first:
            point = viewer.dims.point[axis]
            viewer.dims.set_point(axis, float(min(max(point, low[axis - first]), high[axis - first])))


def _opened(viewer: napari.Viewer, path: str, place: Any) -> Layer | None:
    return next((layer for layer in viewer.layers if place(layer) == path), None)
