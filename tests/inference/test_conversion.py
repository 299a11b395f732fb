"""Preparing a network for OpenVINO in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from napari_drososeg.errors import DrososegError
from napari_drososeg.inference import Interrupted, PredictConfig, Predictor
from napari_drososeg.inference.cache import cache_folder
from napari_drososeg.inference.child import run_child

pytest.importorskip("openvino")
from napari_drososeg.inference.conversion import cache_name, cached, converted


def test_neither_torch_nor_the_quantiser_is_loaded_by_a_prediction(tiny_network: Path, inference_cache: Path) -> None:
    pytest.importorskip("nncf")
    code = (
        "import sys, numpy as np\n"
        "from napari_drososeg.inference import PredictConfig, predict\n"
        "from napari_drososeg.io import as_stack\n"
        "stack = as_stack(np.eye(64, dtype='u1')[None], voxel_size=(50, 4.6, 4.6))\n"
        "for precision in ('f32', 'int8'):\n"
        "    config = PredictConfig(device='cpu', engine='openvino', precision=precision)\n"
        "    assert predict(stack, sys.argv[1], config).min() > 0\n"
        "print(sorted({'torch', 'nncf'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tiny_network)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    folders = [p.name for p in (inference_cache / "openvino").iterdir()]
    assert any(name.startswith(f"{cache_name(tiny_network)}-int8") for name in folders)
    assert not [name for name in folders if name.startswith(".partial")]


def test_cancelling_kills_the_process(tiny_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROSOSEG_CACHE", str(tmp_path / "cache"))
    running: list[int] = []

    def children() -> int:
        return sum("napari_drososeg.inference" in p.cmdline() for p in psutil.Process().children())

    def cancelled() -> bool:
        running.append(children())
        return len(running) == 3

    with pytest.raises(Interrupted):
        Predictor(tiny_network, PredictConfig(device="cpu", engine="openvino"), cancelled=cancelled)
    assert running == [1, 1, 1]
    assert children() == 0
    assert list((cache_folder() / "openvino").iterdir()) == []


def test_a_failure_is_one_line_that_says_what_the_process_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"no")
    with pytest.raises(DrososegError, match=r"^'.*bad\.safetensors' is not a network[^\n]*$"):
        run_child("convert", bad, tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    with pytest.raises(DrososegError, match="cannot be started"):
        run_child("convert", bad, tmp_path)


def test_nothing_is_kept_of_what_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROSOSEG_CACHE", str(tmp_path))

    def fail(folder: Path) -> None:
        (folder / "model.xml").write_text("half")
        raise DrososegError("stopped")

    with pytest.raises(DrososegError, match="stopped"):
        cached("name", fail)
    assert list((tmp_path / "openvino").iterdir()) == []


def test_a_cache_that_cannot_be_written_costs_only_time(
    tiny_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import openvino as ov

    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DROSOSEG_CACHE", str(tmp_path / "file" / "cache"))
    model = ov.Core().compile_model(converted(tiny_network), "CPU")
    assert np.ptp(model(np.random.default_rng(0).random((1, 1, 64, 64), np.float32))[0]) > 0


def test_nothing_is_sent_to_the_makers_of_openvino(tiny_network: Path) -> None:
    pytest.importorskip("openvino")
    code = (
        "import sys, numpy as np\n"
        "from napari_drososeg.inference import PredictConfig, predict\n"
        "from napari_drososeg.io import as_stack\n"
        f"predict(as_stack(np.zeros((1, 64, 64), np.uint8)), {str(tiny_network)!r}, PredictConfig(engine='openvino'))\n"
        "assert 'openvino' in sys.modules\n"
        "assert not [m for m in sys.modules if m.startswith('openvino_telemetry') and sys.modules[m]]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
