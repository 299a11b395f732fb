"""Measure how the viewer feels while a stack is segmented: event-loop delay and time to the first tile.

A real napari window with the real Segment widget on the real stack. Needs a display; without one:

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/viewer.py

The delay is how much later than asked a 20 ms timer of the GUI thread fires. Goals: 95th percentile under 50 ms,
99th under 250 ms, first tile within 1 s of pressing Segment once the network is loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari_drososeg.io import Stack

INTERVAL_MS = 20
GOALS = {"p95_ms": 50.0, "p99_ms": 250.0, "first_tile_s": 1.0}


def open_stack(data: str | None) -> Stack:
    """Open the public stack, or make the synthetic one where it is not to be had."""
    from napari_drososeg.errors import DrososegError
    from napari_drososeg.samples import drosophila_vnc, synthetic_stack

    try:
        return drosophila_vnc(data)[0]
    except (DrososegError, OSError) as error:
        print(f"{error}\nThe synthetic stack is used instead.")
        return synthetic_stack(shape=(16, 1024, 1024))[0]


class LoopWatch:
    """Records how late a short timer of the GUI thread fires."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.delays: list[float] = []
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(INTERVAL_MS)
        self._timer.timeout.connect(self._fired)

    def start(self) -> None:
        """Begin anew."""
        self.delays, self._last = [], time.perf_counter()
        self._timer.start()

    def stop(self) -> dict[str, float]:
        """Stop and return the percentiles in ms."""
        self._timer.stop()
        late = np.array(self.delays or [0.0])
        names = {"p50_ms": 50, "p95_ms": 95, "p99_ms": 99}
        found = {name: round(float(np.percentile(late, q)), 1) for name, q in names.items()}
        return {**found, "max_ms": round(float(late.max()), 1), "samples": len(late)}

    def _fired(self) -> None:
        now = time.perf_counter()
        self.delays.append(max(0.0, 1000 * (now - self._last) - INTERVAL_MS))
        self._last = now


def pump(until: Any, timeout: float = 600) -> None:
    """Run the event loop until something is true."""
    from qtpy.QtCore import QEventLoop
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + timeout
    while not until():
        QApplication.processEvents(QEventLoop.ProcessEventsFlag.WaitForMoreEvents)
        if time.monotonic() > end:
            raise TimeoutError("the viewer did not get there in time")


def wait(seconds: float) -> None:
    """Run the event loop for a while."""
    from qtpy.QtCore import QTimer

    over: list[bool] = []
    QTimer.singleShot(int(1000 * seconds), lambda: over.append(True))
    pump(lambda: bool(over))


def measure(network: str | None, data: str | None, sections: int) -> dict[str, Any]:
    """Segment in a viewer and measure.

    Parameters
    ----------
    network : str or None
        Name of a network, None for the default.
    data : str or None
        Folder of the public data set.
    sections : int
        How many sections.

    Returns
    -------
    dict
        Delays idle, while loading and while segmenting, time to the first tile, pixels per second.
    """
    import napari

    from napari_drososeg._widgets.files.reader import image_tuple
    from napari_drososeg._widgets.segment.widget import SegmentWidget
    from napari_drososeg._widgets.work.job import Scope

    stack = open_stack(data)
    viewer = napari.Viewer(show=True)
    pixels, arguments, _ = image_tuple(stack)
    viewer.add_image(pixels, **arguments)
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Segment stack", area="right")
    if network:
        widget.network.value = network
    watch = LoopWatch()
    wait(2)
    watch.start()
    wait(3)
    result: dict[str, Any] = {"network": widget.network.value, "idle": watch.stop()}

    # loading: the first section brings the network in
    widget.scope.value = Scope.SECTION
    watch.start()
    start = time.perf_counter()
    widget.run_button.native.click()
    pump(lambda: not widget.runner.busy)
    result["loading"] = {**watch.stop(), "seconds": round(time.perf_counter() - start, 2)}

    # the whole stack from scratch, with the network loaded
    viewer.layers.remove(widget.target.layer)
    widget.scope.value = Scope.RANGE
    widget.first.value, widget.last.value = 0, min(sections, stack.n_sections) - 1
    wait(1)
    watch.start()
    start = time.perf_counter()
    widget.run_button.native.click()
    pump(lambda: bool(widget.runner.fraction))
    result["first_tile_s"] = round(time.perf_counter() - start, 3)
    pump(lambda: not widget.runner.busy)
    seconds = time.perf_counter() - start
    result["segmenting"] = {**watch.stop(), "seconds": round(seconds, 2)}
    done = (widget.last.value - widget.first.value + 1) * stack.shape[1] * stack.shape[2]
    result["mpx_per_s"] = round(done / seconds / 1e6, 2)
    result["status"] = widget.status.value
    viewer.close()
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", help="name of a network; else the default")
    parser.add_argument("--data", help="folder of the public data set; else DROSOSEG_DATA or the download")
    parser.add_argument("--sections", type=int, default=16)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:  # leave the user's remembered choices alone
        os.environ["DROSOSEG_CONFIG"] = folder
        result = measure(arguments.network, arguments.data, arguments.sections)
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"{result['network']}: {result['status']}  {result['mpx_per_s']} Mpx/s")
    print(f"{'event-loop delay, ms':24}{'p50':>8}{'p95':>8}{'p99':>8}{'max':>8}")
    for name in ("idle", "loading", "segmenting"):
        row = result[name]
        print(f"{name:24}" + "".join(f"{row[k]:8.1f}" for k in ("p50_ms", "p95_ms", "p99_ms", "max_ms")))
    print(f"first tile after {result['first_tile_s']:.2f} s")
    found = {**{k: result["segmenting"][k] for k in ("p95_ms", "p99_ms")}, "first_tile_s": result["first_tile_s"]}
    for name, goal in GOALS.items():
        print(f"goal {name} < {goal:g}: {'met' if found[name] < goal else 'missed'} ({found[name]:g})")


if __name__ == "__main__":
    main()
