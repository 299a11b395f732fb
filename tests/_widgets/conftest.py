"""Fixtures of the viewer tests. They need a display with OpenGL: run them under Xvfb (see the README)."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session", autouse=True)
def _torch_before_opengl() -> None:
    """Tests train in the process of the viewer, as the plugin never does; see `napari_drososeg.models.llvm`."""
    import torchvision  # noqa: F401


@pytest.fixture(autouse=True)
def _display(request: pytest.FixtureRequest) -> None:
    if (
        "qtbot" in request.fixturenames
        and sys.platform == "linux"
        and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    ):
        pytest.skip("viewer tests need a display; run them with xvfb-run")


@pytest.fixture(scope="session")
def balanced_network(tiny_network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network with its last layer shifted so that all classes occur: else every comparison is of ones."""
    import torch

    from napari_drososeg.checkpoint import load_model, save_checkpoint
    from napari_drososeg.data.normalisation import measure, normalise

    spec, model = load_model(tiny_network)
    section = make_sections(1)[0]
    with torch.inference_mode():
        logits = model(torch.from_numpy(normalise(section, measure(section)))[None, None])[0]
        last = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)][-1]
        last.bias -= logits.flatten(1).median(dim=1).values
    path = tmp_path_factory.mktemp("balanced") / "tiny.safetensors"
    return save_checkpoint(path, model.state_dict(), spec)


@pytest.fixture(autouse=True)
def zoo_with_tiny(balanced_network: Path) -> Path:
    """Put the tiny network into the user's zoo of this test."""
    from napari_drososeg.zoo import user_folder

    user_folder().mkdir(parents=True, exist_ok=True)
    shutil.copy(balanced_network, user_folder() / "tiny.safetensors")
    return user_folder()


def make_sections(n: int = 3, height: int = 96, width: int = 80) -> np.ndarray:
    """Grey sections with something in them, the same every time."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (5 + z)) * np.cos(y / 7) for z in range(n)]
    return (127 + 90 * np.stack(waves)).astype(np.uint8)


@pytest.fixture
def stack() -> np.ndarray:
    """Three small sections."""
    return make_sections()


@pytest.fixture
def many_sections() -> Callable[..., np.ndarray]:
    """Give grey sections of a chosen size."""
    return make_sections


@pytest.fixture
def open_widget(make_napari_viewer: Any, qtbot: Any) -> Callable[..., Any]:
    """Give a viewer with the Segment widget docked, on the tiny network with the torch engine (quick to start)."""

    def build(data: Any = None, *, viewer: Any = None, **layer: Any) -> Any:
        from napari_drososeg._widgets.segment.widget import SegmentWidget

        viewer = viewer if viewer is not None else make_napari_viewer(show=True)
        if data is not None:
            viewer.add_image(data, **{"name": "em", "scale": None, **layer})
        widget = SegmentWidget(viewer)
        dock = viewer.window.add_dock_widget(widget, name="Segment stack", area="right")
        dock.setMinimumWidth(320)
        if viewer.window._qt_window.isVisible():
            qtbot.waitUntil(widget.isVisible)
        widget.network.value = "tiny"
        widget.device.value, widget.engine.value, widget.precision.value = "cpu", "torch", "f32"
        return widget

    return build


@pytest.fixture
def open_retrain(make_napari_viewer: Any, qtbot: Any, zoo_with_tiny: Path) -> Callable[..., Any]:
    """Give a viewer with the widget docked, on the tiny network."""
    from napari_drososeg._widgets.controls import preferences

    preferences.save("segment", {"device": "cpu", "engine": "torch", "precision": "f32"})

    def build(file: Path | None = None, *, data: Any = None, viewer: Any = None) -> Any:
        from napari_drososeg._widgets.retrain.widget import RetrainWidget

        viewer = viewer if viewer is not None else make_napari_viewer(show=True)
        if file is not None:
            viewer.open(str(file), plugin="napari-drososeg")
        elif data is not None:
            viewer.add_image(data, name="em")
        widget = RetrainWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Annotate and retrain", area="right").setMinimumWidth(320)
        qtbot.waitUntil(widget.isVisible)
        widget.start.value = "tiny"
        widget.steps.value = 4
        return widget

    return build


@pytest.fixture
def finish(qtbot: Any) -> Callable[[Any], None]:
    """Wait until a widget's run has ended."""

    def wait(widget: Any) -> None:
        qtbot.waitUntil(lambda: not widget.runner.busy, timeout=60_000)

    return wait


@pytest.fixture
def settle(qtbot: Any) -> Callable[[Any], None]:
    """Wait until the widget's delayed updates and its probe of the machine are through."""

    def wait(widget: Any) -> None:
        from superqt.utils._qthreading import WorkerBase

        until = time.monotonic() + 20
        while time.monotonic() < until and (WorkerBase._worker_set or widget._later.isActive()):
            qtbot.wait(30)

    return wait
