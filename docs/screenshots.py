"""Take the pictures of the documentation: the real widget in a real napari window on the real stack.

    xvfb-run -a -s "-screen 0 1600x1000x24" python docs/screenshots.py

Writes docs/images/segment.png. The public stack is taken from DROSOSEG_DATA, from what was downloaded before, or from
the net, and the synthetic one where none of these works. The picture of the public stack carries its attribution:
Gerhard et al. 2013, doi 10.6084/m9.figshare.856713, CC BY-NC-SA 3.0.
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

    from napari_drososeg._widgets.job import Scope
    from napari_drososeg._widgets.sample_data import drosophila_vnc_sample, synthetic_sample
    from napari_drososeg._widgets.segment import SegmentWidget
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


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", help="name of a network; else the default")
    parser.add_argument("--theme", default="dark", choices=["dark", "light"])
    parser.add_argument("--output", type=Path, default=IMAGES / "segment.png")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:  # leave the user's remembered choices alone
        os.environ["DROSOSEG_CONFIG"] = folder
        segment_picture(arguments.output, arguments.network, arguments.theme)


if __name__ == "__main__":
    main()
