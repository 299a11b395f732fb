"""Take the pictures of the documentation: the real widget in a real napari window on the real stack.

    xvfb-run -a -s "-screen 0 1600x1000x24" python docs/screenshots.py

Writes docs/images/segment.png, or with ``--widget`` batch.png or retrain.png. The public stack is taken from
DROSOSEG_DATA, from what was downloaded before, or from the net, and the synthetic one where none of these works. The
picture of the public stack carries its attribution: Gerhard et al. 2013, doi 10.6084/m9.figshare.856713,
CC BY-NC-SA 3.0.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

IMAGES = Path(__file__).with_name("images")


def pump(until: Callable[[], bool], timeout: float = 600) -> None:
    """Run the event loop until something is true."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + timeout
    while not until():
        QApplication.processEvents()
        time.sleep(0.005)
        if time.monotonic() > end:
            raise TimeoutError("the viewer did not get there in time")


def wait(seconds: float) -> None:
    """Run the event loop for a while."""
    end = time.monotonic() + seconds
    pump(lambda: time.monotonic() > end)


def segment_picture(path: Path, network: str | None, theme: str) -> None:
    """Segment the section on screen and take the picture of the window.

    Parameters
    ----------
    path : Path
        PNG to write.
    network : str or None
        Name of a network, None for the default.
    theme : str
        ``dark`` or ``light``.
    """
    import napari
    from napari.layers import Layer
    from qtpy.QtCore import Qt

    from napari_drososeg._widgets.files.sample_data import drosophila_vnc_sample, synthetic_sample
    from napari_drososeg._widgets.segment.widget import SegmentWidget
    from napari_drososeg._widgets.work.job import Scope
    from napari_drososeg.errors import DrososegError

    attribution = "Gerhard et al. 2013, doi 10.6084/m9.figshare.856713, CC BY-NC-SA 3.0"
    try:
        layers = drosophila_vnc_sample()
    except (DrososegError, OSError) as error:
        print(f"{error}\nThe synthetic stack is used instead.")
        layers, attribution = synthetic_sample(), "synthetic stack"
    viewer = napari.Viewer(show=False)
    viewer.theme = theme
    viewer.add_layer(Layer.create(*layers[0]))
    overlay = viewer.canvas.overlays.text
    overlay.text, overlay.visible = attribution, True
    widget = SegmentWidget(viewer)
    dock = viewer.window.add_dock_widget(widget, name="Segment stack", area="right")
    window = viewer.window._qt_window
    viewer.show()
    wait(0.5)
    window.resize(1400, 900)  # after showing: napari restores the size of its last window
    window.resizeDocks([dock], [320], Qt.Orientation.Horizontal)
    if network:
        widget.network.value = network
    wait(1)
    viewer.reset_view()
    widget.scope.value = Scope.SECTION
    widget.run_button.native.click()
    pump(lambda: not widget.runner.busy)
    widget.scope.value = Scope.STACK
    widget.update_state()
    wait(8)  # the notification of a long run fades
    path.parent.mkdir(parents=True, exist_ok=True)
    window.grab().save(str(path))
    print(f"{path}: {widget.status.value}")
    viewer.close()


def retrain_picture(path: Path, network: str | None, theme: str) -> None:
    """Segment a section, paint corrections on it and train two rounds; take the picture of the window.

    Parameters
    ----------
    path, network, theme
        As in `segment_picture`.
    """
    import napari
    import numpy as np
    from napari._qt.dialogs.qt_notification import NapariQtNotification
    from napari.layers import Layer
    from qtpy.QtCore import Qt

    from napari_drososeg._widgets.files.sample_data import drosophila_vnc_sample, synthetic_sample
    from napari_drososeg._widgets.retrain.widget import RetrainWidget
    from napari_drososeg.errors import DrososegError

    attribution = "Gerhard et al. 2013, doi 10.6084/m9.figshare.856713, CC BY-NC-SA 3.0"
    try:
        layers = drosophila_vnc_sample()
    except (DrososegError, OSError) as error:
        print(f"{error}\nThe synthetic stack is used instead.")
        layers, attribution = synthetic_sample(), "synthetic stack"
    truth = np.asarray(layers[1][0])
    viewer = napari.Viewer(show=False)
    viewer.theme = theme
    image = viewer.add_layer(Layer.create(*layers[0]))
    image.metadata["drososeg_workspace"] = str(Path(os.environ["DROSOSEG_CONFIG"]) / "picture.drososeg")
    overlay = viewer.canvas.overlays.text
    overlay.text, overlay.visible = attribution, True
    widget = RetrainWidget(viewer)
    dock = viewer.window.add_dock_widget(widget, name="Annotate and retrain", area="right")
    window = viewer.window._qt_window
    viewer.show()
    wait(0.5)
    window.resize(1400, 940)
    window.resizeDocks([dock], [320], Qt.Orientation.Horizontal)
    if network:
        widget.start.value = network
    wait(1)
    viewer.reset_view()
    section = widget.annotation.section
    for z in (section + 1, section):
        widget.go_to(z)
        widget.segment_button.native.click()
        pump(lambda: not widget.repainter.busy)
    width = truth.shape[2]
    known = truth[section + 1] > 0  # rounds are to be scored on true labels
    labels = widget.target.layer
    labels.data[section + 1][known] = truth[section + 1][known]
    widget.review(section + 1, [(100, 100), (100, width - 100), (600, width - 100), (600, 100)], locked=True)
    labels.brush_size = 7
    random = np.random.default_rng(4)
    wrong = np.argwhere((np.asarray(labels.data[section]) != truth[section]) & (truth[section] > 0))
    for y, x in random.permutation(wrong)[:40]:
        labels.paint((section, int(y), int(x)), int(truth[section, y, x]))
    pump(lambda: widget.run_button.enabled)
    for _ in range(2):
        widget.run_button.native.click()
        pump(lambda: not widget.training.busy)
        if widget.question.visible:
            widget.take_button.native.click()
        pump(lambda: not widget.repainter.busy)
    for notification in window.findChildren(NapariQtNotification):  # of a long run; it hides the attribution
        notification.close()
    wait(1)
    path.parent.mkdir(parents=True, exist_ok=True)
    window.grab().save(str(path))
    print(f"{path}: {widget.status.value}")
    widget.stop()
    viewer.close()


def batch_picture(path: Path, network: str | None, theme: str) -> None:
    """Segment the synthetic sample folder, two bad files among it, open one result and take the picture of the window.

    Parameters
    ----------
    path, network, theme
        As in `segment_picture`.
    """
    import napari
    import numpy as np
    import tifffile
    from PIL import Image
    from qtpy.QtCore import Qt

    from napari_drososeg._widgets.batch.widget import BatchWidget
    from napari_drososeg._widgets.files.sample_data import synthetic_folder

    folder = synthetic_folder()
    (folder / "08.tif").write_bytes((folder / "00.tif").read_bytes()[:100_000])
    tifffile.imwrite(folder / "09.tif", np.zeros((512, 512), np.uint8))
    viewer = napari.Viewer(show=False)
    viewer.theme = theme
    widget = BatchWidget(viewer)
    dock = viewer.window.add_dock_widget(widget, name="Batch predict", area="right")
    window = viewer.window._qt_window
    viewer.show()
    wait(0.5)
    window.resize(1200, 990)
    window.resizeDocks([dock], [360], Qt.Orientation.Horizontal)
    if network:
        widget.network.value = network
    widget.source.value = str(folder)
    pump(lambda: widget.run_button.enabled)
    widget.run_button.native.click()
    pump(lambda: not widget.runner.busy)
    widget.table.selectRow(9)
    widget.open_file(widget.table.files.rows[0])
    pump(lambda: len(viewer.layers) == 2)
    wait(8)  # the notification of a long run fades
    path.parent.mkdir(parents=True, exist_ok=True)
    window.grab().save(str(path))
    Image.open(path).quantize(256).save(path, optimize=True)  # a third of the size
    print(f"{path}: {widget.status.value}")
    viewer.close()


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widget", default="segment", choices=["segment", "retrain", "batch"])
    parser.add_argument("--network", help="name of a network; else the default")
    parser.add_argument("--theme", default="dark", choices=["dark", "light"])
    parser.add_argument("--output", type=Path, help="PNG; else docs/images/WIDGET.png")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:  # leave the user's remembered choices alone
        os.environ["DROSOSEG_CONFIG"] = folder
        take = {"segment": segment_picture, "retrain": retrain_picture, "batch": batch_picture}[arguments.widget]
        take(arguments.output or IMAGES / f"{arguments.widget}.png", arguments.network, arguments.theme)


if __name__ == "__main__":
    main()
