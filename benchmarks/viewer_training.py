"""Measure retraining inside napari against the same round outside it, and how the viewer feels meanwhile.

A real napari window with the real Annotate and retrain widget on the real stack, with the same strokes and
settings as a plain ``drososeg fine-tune`` afterwards. Needs a display; without one:

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/viewer_training.py

Inside, somebody looks around: the section is changed twice a second (not with ``--still``), which needs a core of its
own where the picture is drawn in software. Goals: training within 10 % of the speed outside,
event-loop delay under 50 ms at the 95th percentile.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from viewer import LoopWatch, open_stack, pump, wait

GOALS = {"slower_percent": 10.0, "p95_ms": 50.0}
START = "from napari_drososeg.cli import app; app()"


def strokes(stack: Any, n: int) -> Iterator[tuple[int, int, int]]:
    """Yield places (y, x) in a section of a stack and the class painted there, the same every time."""
    random = np.random.default_rng(0)
    height, width = stack.shape[1:]
    for k in range(n):
        y, x = int(random.integers(20, height - 20)), int(random.integers(20, width - 20))
        yield y, x, k % 3 + 1


def write_stack(folder: Path, data: str | None) -> Path:
    """Write the public stack as one file, so that the process reads the same as the viewer."""
    import tifffile

    stack = open_stack(data)
    path = folder / "stack.tif"
    sections = np.stack([stack.read(z) for z in range(stack.n_sections)])
    tifffile.imwrite(path, sections, photometric="minisblack")
    return path


def inside(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Paint and train in a viewer.

    Parameters
    ----------
    path : Path
        The stack.
    settings : dict
        ``network``, ``effort``, ``steps``, ``still``.

    Returns
    -------
    dict
        Delays idle and while training, seconds of the training itself and from the press to the section shown.
    """
    import napari

    from napari_drososeg._widgets.retrain.widget import RetrainWidget

    viewer = napari.Viewer(show=True)
    viewer.open(str(path), plugin="napari-drososeg")
    widget = RetrainWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Annotate and retrain", area="right")
    image = viewer.layers[0]
    image.metadata["drososeg_pixel_size"] = 4.6
    if settings["network"]:
        widget.start.value = settings["network"]
    widget.effort.value, widget.steps.value = settings["effort"], settings["steps"] or 0
    widget.segment_button.native.click()
    pump(lambda: not widget.repainter.busy)
    target = widget.target
    target.layer.brush_size = 9
    section = widget.annotation.section
    for y, x, value in strokes(widget.annotation.stack, 60):
        target.layer.paint((section, y, x), value)
    pump(lambda: widget.run_button.enabled)
    watch = LoopWatch()
    wait(2)
    watch.start()
    pass_time = wait if settings["still"] else partial(look_around, viewer)
    pass_time(4)
    result: dict[str, Any] = {"idle": watch.stop()}
    watch.start()
    start, used = time.perf_counter(), time.process_time()
    widget.run_button.native.click()
    while widget.training.busy:
        pass_time(0.5)
    result["training"] = watch.stop()
    result["viewer_cores"] = round((time.process_time() - used) / (time.perf_counter() - start), 2)
    pump(lambda: widget.question.visible or not widget.repainter.waiting)
    result["press_to_section_s"] = round(time.perf_counter() - start, 2)
    pump(lambda: not widget.repainter.busy)
    state = widget.training.state
    if state.round is None:
        raise SystemExit(f"The round failed: {widget.status.value}")
    result |= {"steps": state.step, "train_s": state.seconds, "round_s": state.round["seconds"]}
    result["settings"] = state.round["settings"]
    widget.stop()
    viewer.close()
    return result


def look_around(viewer: Any, seconds: float) -> None:
    """Change the section twice a second for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        wait(0.5)
        viewer.dims.set_point(0, (viewer.dims.point[0] + 1) % viewer.dims.nsteps[0])


def outside(folder: Path, path: Path, settings: dict[str, Any]) -> dict[str, float]:
    """Train the same round with the command line, on the same workspace; nothing else runs.

    Returns
    -------
    dict
        Seconds of the training itself and of the round.
    """
    command = [sys.executable, "-c", START, "fine-tune", "--workspace", str(folder), "--image", str(path), "--json"]
    for option, name in (("--from", "start"), ("--effort", "effort"), ("--steps", "steps"), ("--pixel-size", None)):
        value = 4.6 if name is None else settings[name]
        command += [option, str(value)] if value is not None else []
    command += ["--predict", ",".join(map(str, settings["predict"]))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    trained = [e for e in events if e["event"] == "training"]
    return {"train_s": trained[-1]["seconds"], "round_s": events[-1]["round"]["seconds"], "steps": len(trained)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", help="name of a network; else the default")
    parser.add_argument("--data", help="folder of the public data set; else DROSOSEG_DATA or the download")
    parser.add_argument("--effort", default="quick", choices=["quick", "balanced", "thorough"])
    parser.add_argument("--steps", type=int, help="instead of the effort's")
    parser.add_argument("--still", action="store_true", help="nobody looks around")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:  # leave the user's remembered choices alone
        os.environ["DROSOSEG_CONFIG"] = name
        path = write_stack(Path(name), arguments.data)
        result = inside(path, {k: getattr(arguments, k) for k in ("network", "effort", "steps", "still")})
        settings = result.pop("settings")
        result["outside"] = outside(path.with_name("stack.tif.drososeg"), path, settings)
    slower = 100 * (result["train_s"] / result["outside"]["train_s"] - 1)
    result["slower_percent"] = round(slower, 1)
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"{'event-loop delay, ms':24}{'p50':>8}{'p95':>8}{'p99':>8}{'max':>8}")
    for name in ("idle", "training"):
        row = result[name]
        print(f"{name:24}" + "".join(f"{row[k]:8.1f}" for k in ("p50_ms", "p95_ms", "p99_ms", "max_ms")))
    print(f"{result['steps']} steps: {result['train_s']:.1f} s inside, {result['outside']['train_s']:.1f} s outside")
    print(f"whole round: {result['round_s']:.1f} s inside, {result['outside']['round_s']:.1f} s outside")
    print(f"from the press until the section is shown: {result['press_to_section_s']:.1f} s")
    print(f"processor that the viewer took meanwhile: {result['viewer_cores']:.2f} of {os.cpu_count()} cores")
    found = {"slower_percent": result["slower_percent"], "p95_ms": result["training"]["p95_ms"]}
    for name, goal in GOALS.items():
        print(f"goal {name} < {goal:g}: {'met' if found[name] < goal else 'missed'} ({found[name]:g})")


if __name__ == "__main__":
    main()
