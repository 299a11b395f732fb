"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "drosophila-vnc"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run at the same time, those of one file stay together, and all with a viewer: they share a screen."""
    for item in items:
        viewer = item.path.parent.name == "_widgets"
        item.add_marker(pytest.mark.xdist_group("viewer" if viewer else item.path.name))


FOLDERS = ("HOME", "CACHE", "CONFIG")


@pytest.fixture(scope="session", autouse=True)
def no_folders_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Also between tests: a form that Qt closes after its test still writes down what was chosen."""
    with pytest.MonkeyPatch.context() as patch:
        for name in FOLDERS:
            patch.setenv(f"DROSOSEG_{name}", str(tmp_path_factory.mktemp(f"drososeg-{name.lower()}")))
        yield


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the program remembers between runs out of the user's own folders."""
    for name in FOLDERS:
        monkeypatch.setenv(f"DROSOSEG_{name}", str(tmp_path / f"drososeg-{name.lower()}"))
    monkeypatch.delenv("DROSOSEG_DATA", raising=False)


@pytest.fixture(scope="session")
def vnc() -> Path:
    """Folder of the public stack with its labels, in the layout of the original."""
    folder = Path(os.environ.get("DROSOSEG_TEST_DATA", DATA))
    if not folder.is_dir():
        pytest.skip(f"the public Drosophila VNC stack is not at {folder} (set DROSOSEG_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def tiny_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a very narrow U-Net with fixed random weights, for tests that need speed, not sense."""
    import torch

    from napari_drososeg.checkpoint import NetworkSpec, save_checkpoint
    from napari_drososeg.classes import DROSOPHILA_CLASSES
    from napari_drososeg.data import Normalisation
    from napari_drososeg.models import create_model, find_architecture

    arguments = {"width": 0.0625}
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = create_model("unet", 3, **arguments)
    unet = find_architecture("unet")
    spec = NetworkSpec(
        name="tiny",
        title="Tiny U-Net",
        architecture="unet",
        arguments=arguments,
        classes=DROSOPHILA_CLASSES,
        normalisation=Normalisation(),
        pixel_size=4.6,
        stride=unet.stride,
        receptive_field=unet.receptive_field,
        global_context=False,
        halo=32,
        licence="CC0-1.0",
        training={"data": "none: random weights", "sections": ""},
    )
    return save_checkpoint(tmp_path_factory.mktemp("zoo") / "tiny.safetensors", model.state_dict(), spec)


@pytest.fixture(scope="session")
def network(tiny_network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network with its last layer balanced, so that all three classes occur in its labels."""
    from napari_drososeg.checkpoint import load_model

    spec, model = load_model(tiny_network)
    return balanced(model, spec, tmp_path_factory.mktemp("balanced") / "tiny.safetensors")


@pytest.fixture(scope="session")
def global_network(tiny_network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a narrow FPN with random weights, balanced: every pixel depends on its whole tile of 96 px."""
    import torch

    from napari_drososeg.checkpoint import load_spec
    from napari_drososeg.models import create_model, find_architecture

    arguments = {"width": 0.0625}
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = create_model("fpn", 3, **arguments).eval()
    facts = {"name": "global", "title": "Tiny FPN", "architecture": "fpn", "arguments": arguments}
    facts |= {"stride": find_architecture("fpn").stride, "receptive_field": 0, "global_context": True}
    spec = replace(load_spec(tiny_network), halo=32, tile=96, **facts)
    return balanced(model, spec, tmp_path_factory.mktemp("global") / "global.safetensors")


def balanced(model: Any, spec: Any, path: Path) -> Path:
    """Give each class about as many pixels of a synthetic section, and save the network."""
    import torch

    from napari_drososeg.checkpoint import save_checkpoint
    from napari_drososeg.data import measure, normalise
    from napari_drososeg.samples import synthetic_stack

    stack, _ = synthetic_stack((1, 128, 128), 2)
    section = stack.read(0)
    with torch.inference_mode():
        logits = model(torch.from_numpy(normalise(section, measure(section)))[None, None])[0]
        last = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)][-1]
        mean, std = logits.mean((1, 2)), logits.std((1, 2))
        last.weight /= std[:, None, None, None]
        last.bias -= mean
        last.bias /= std
    return save_checkpoint(path, model.state_dict(), spec, half=False)


@pytest.fixture
def drososeg() -> Callable[..., Any]:
    """Run a command in this process."""
    from typer.testing import CliRunner

    from napari_drososeg.cli import app

    def run(*arguments: object, code: int = 0) -> Any:
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exit_code == code, result.output
        assert code == 0 or len(result.stderr.strip().splitlines()) >= 1
        return result

    return run
