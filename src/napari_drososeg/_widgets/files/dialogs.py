"""Files and dialogs that the widgets share: open an image, open the sample, save labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from napari.qt.threading import create_worker
from napari.utils.notifications import show_info
from qtpy.QtWidgets import QFileDialog, QMenu, QMessageBox, QWidget

from napari_drososeg._widgets.work.failures import say_failure
from napari_drososeg.errors import DrososegError

if TYPE_CHECKING:
    import napari
    from magicgui.widgets import PushButton

    from napari_drososeg._widgets.controls.fields import Life
    from napari_drososeg._widgets.layers.targets import Target

PLUGIN = "napari-drososeg"
FORMATS = {
    "TIFF with colours (*.tif)": ("tiff", ".tif"),
    "OME-TIFF (*.ome.tif)": ("ome-tiff", ".ome.tif"),
    "OME-Zarr, for large stacks (*.ome.zarr)": ("ome-zarr", ".ome.zarr"),
    "Folder of PNG sections (*)": ("png", ""),
}


def open_menu(parent: QWidget, viewer: napari.Viewer, button: QWidget) -> QMenu:
    """Show the menu under the Open button: a file, or a folder of sections."""
    menu = QMenu(parent)
    menu.setToolTipsVisible(True)
    file = menu.addAction("File…")
    file.setToolTip("A TIFF, OME-TIFF or PNG.")
    file.triggered.connect(lambda: open_path(viewer, QFileDialog.getOpenFileName(parent, "Open a stack")[0]))
    folder = menu.addAction("Folder of sections, or zarr…")
    folder.setToolTip("One file per section, ordered by the numbers in their names; or a zarr.")
    folder.triggered.connect(
        lambda: open_path(viewer, QFileDialog.getExistingDirectory(parent, "Open a folder of sections"))
    )
    menu.popup(button.mapToGlobal(button.rect().bottomLeft()))
    return menu


def open_path(viewer: napari.Viewer, path: str) -> None:
    """Open a file or folder with our reader; an empty path is a dialog that was left."""
    if not path:
        return
    try:
        viewer.open(path, plugin=PLUGIN)
    except Exception as error:  # whatever a damaged file brings about is said, not raised into Qt
        say_failure(error)


def open_sample(viewer: napari.Viewer, button: PushButton, life: Life) -> None:
    """Add the public stack with its labels hidden; the synthetic one where that cannot be had.

    Reading, downloading and drawing go on in a worker thread.

    Parameters
    ----------
    viewer : napari.Viewer
        Where to.
    button : PushButton
        Cannot be pressed meanwhile, and says so.
    life : Life
        Of the widget that the button is in.
    """
    text = button.text
    button.enabled, button.text = False, "Opening …"

    def load() -> tuple[list[Any], str]:
        from napari_drososeg._widgets.files.sample_data import drosophila_vnc_sample, synthetic_sample

        try:
            return drosophila_vnc_sample(), ""
        except DrososegError as error:
            return synthetic_sample(), f"{error} The synthetic stack was opened instead."

    def show(loaded: tuple[list[Any], str]) -> None:
        tuples, why = loaded
        for data, arguments, kind in tuples:
            hidden = {"visible": False} if kind == "labels" else {}
            viewer.add_layer(Layer.create(data, {**arguments, **hidden}, kind))
        viewer.layers.selection.active = viewer.layers[-len(tuples)]
        if why:
            show_info(why)

    def finished() -> None:
        if not life.over:
            button.enabled, button.text = True, text

    worker = create_worker(load, _start_thread=False, _progress={"desc": "Opening the sample stack"})
    worker.returned.connect(show)
    worker.errored.connect(say_failure)
    worker.finished.connect(finished)
    worker.start()


def save_dialog(parent: QWidget, name: str) -> tuple[Path, str] | None:
    """Ask where to save; None when the dialog was left. Returns the path with its suffix, and the format."""
    chosen, kind = QFileDialog.getSaveFileName(parent, "Save labels", f"{name}.tif", ";;".join(FORMATS))
    if not chosen:
        return None
    form, suffix = FORMATS.get(kind, ("tiff", ".tif"))
    path = Path(chosen)
    if suffix and not path.name.lower().endswith((suffix, suffix.replace(".tif", ".tiff"))):
        stem = path.name
        for known in (".ome.tif", ".ome.zarr", ".tif"):
            stem = stem.removesuffix(known)
        path = path.with_name(stem + suffix)
    elif not suffix and path.suffix.lower() in (".png", ".tif"):
        path = path.with_suffix("")
    if path != Path(chosen) and path.exists() and not _may_replace(parent, path):
        return None
    return path, form


def _may_replace(parent: QWidget, path: Path) -> bool:
    """Ask what the file dialog could not, because the name got its ending only afterwards."""
    question = f"'{path.name}' exists already. Replace it?"
    return QMessageBox.question(parent, "Save labels", question) == QMessageBox.StandardButton.Yes


def save(target: Target, path: Path, form: str, voxel_size: Any, finished: Callable[[Exception | None], None]) -> None:
    """Write the labels of a result layer in a worker thread.

    Parameters
    ----------
    target : Target
        The layer; painted pixels are part of its labels.
    path : Path
        Where.
    form : str
        As in `napari_drososeg.io.write_labels`.
    voxel_size : tuple
        (z, y, x) in nm, None where unknown.
    finished : callable
        Called on the GUI thread with the error, or with None.
    """
    labels, classes, layer = target.store.labels, target.classes, target.layer
    outcome: list[Exception] = []

    def write() -> None:
        from napari_drososeg.io import as_stack, write_labels

        try:
            write_labels(path, as_stack(labels).data, classes=classes, voxel_size=voxel_size, format=form)
        except Exception as error:
            outcome.append(error)

    worker = create_worker(write, _start_thread=False, _progress={"desc": f"Saving {path.name}"})

    def ended(_layer: Any = layer) -> None:  # held until then: its arrays on disk go with it
        finished(outcome[0] if outcome else None)

    worker.finished.connect(ended)
    worker.start()
