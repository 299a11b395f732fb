from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_drososeg.checkpoint import load_spec
from napari_drososeg.io import read_stack
from napari_drososeg.workspace import create_workspace, open_workspace

Run = Callable[..., Any]


@pytest.fixture
def labels_file(tmp_path: Path, synthetic: tuple[np.ndarray, np.ndarray]) -> Path:
    """Sparse labels of sections 0 and 2: every eighth row."""
    sparse = np.zeros_like(synthetic[1][[0, 2]])
    sparse[:, ::8] = synthetic[1][[0, 2], ::8]
    tifffile.imwrite(tmp_path / "strokes.tif", sparse)
    return tmp_path / "strokes.tif"


@pytest.fixture
def fast(network: Path) -> tuple[Any, ...]:
    return ("--from", network, "--steps", 3, "--device", "cpu")


def test_sparse_labels_make_a_network(
    drososeg: Run, stack_file: Path, labels_file: Path, fast: tuple[Any, ...], tmp_path: Path
) -> None:
    out = tmp_path / "mine.safetensors"
    arguments = ("fine-tune", stack_file, labels_file, "--sections", "0,2", "--validate", 2, *fast, "-o", out)
    result = drososeg(*arguments, "--json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [e["step"] for e in events if e["event"] == "training"] == [1, 2, 3]
    finished = events[-1]["round"]
    assert finished["sections"] == [0]
    assert 0 <= finished["after"]["mean_iou"] <= 1
    spec = load_spec(out)
    assert (spec.name, spec.licence) == ("mine", "CC0-1.0")
    assert spec.parent.startswith("tiny ")
    drososeg(*arguments, code=2)  # it is there now
    text = drososeg(*arguments, "--overwrite").stdout
    assert "Written to" in text
    assert "locked regions" in text
    assert sorted(p.name for p in tmp_path.iterdir() if "drososeg" not in p.name) == [
        "mine.safetensors", "stack.tif", "strokes.tif",
    ]  # fmt: skip


def test_own_classes_from_a_network_of_others(
    drososeg: Run, stack_file: Path, fast: tuple[Any, ...], tmp_path: Path, synthetic: tuple[np.ndarray, np.ndarray]
) -> None:
    strokes = np.zeros_like(synthetic[1])
    strokes[:, ::8] = np.where(synthetic[1][:, ::8] == 3, 5, 4)
    tifffile.imwrite(tmp_path / "strokes.tif", strokes, photometric="minisblack")
    arguments = ("fine-tune", stack_file, tmp_path / "strokes.tif", *fast, "-o", tmp_path / "mine.safetensors")
    assert "name those of LABELS with --classes" in drososeg(*arguments, code=2).stderr
    names = ("a", "b", "c", "other", "mitochondria")
    rows = [{"value": v, "name": n, "color": "#123456"} for v, n in enumerate(names, start=1)]
    (tmp_path / "classes.json").write_text(json.dumps(rows))
    drososeg(*arguments, "--classes", tmp_path / "classes.json")
    spec = load_spec(tmp_path / "mine.safetensors")
    assert spec.classes.names == names
    assert spec.parent.startswith("tiny ")


def test_a_workspace_gains_a_round(
    drososeg: Run, stack_file: Path, fast: tuple[Any, ...], tmp_path: Path, synthetic: tuple[np.ndarray, np.ndarray]
) -> None:
    folder = tmp_path / "w"
    with create_workspace(folder, read_stack(stack_file)) as workspace:
        workspace.annotation.write(1, slice(0, 3), slice(0, 61), synthetic[1][1, :3, :61])
        # open in the viewer meanwhile
        result = drososeg("fine-tune", "--workspace", folder, *fast, "--predict", 2, "--json")
        assert {"event": "predicted", "section": 2} in [json.loads(line) for line in result.stdout.splitlines()]
        assert workspace.rounds.prediction(1, workspace.image.shape).sections == [2]
    stack_file.rename(tmp_path / "moved.tif")
    assert "--image" in drososeg("fine-tune", "--workspace", folder, *fast, code=2).stderr
    assert "Round 2" in drososeg("fine-tune", "--workspace", folder, *fast, "--image", tmp_path / "moved.tif").stdout
    with open_workspace(folder) as again:
        assert [r.number for r in again.rounds] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--workspace DIR"),
        (("a.tif", "b.tif"), "-o NETWORK.safetensors"),
        (("a.tif", "b.tif", "-o", "x.pt"), "written as .safetensors"),
        (("--workspace", "w", "--classes", "c.json"), "--classes is for IMAGES and LABELS"),
        (("a.tif", "--workspace", "w"), "either"),
        (("--workspace", "w", "--validate", "2"), "--validate is for IMAGES and LABELS"),
        (("a.tif", "b.tif", "-o", "x.safetensors", "--predict", "2"), "--predict needs --workspace"),
        (("a.tif", "b.tif", "-o", "/dev/null/x.safetensors"), "Cannot write '/dev/null/x.safetensors'"),
        (("--workspace", "w", "--effort", "heroic"), "quick, balanced or thorough"),
        (("--workspace", "w"), "no workspace in"),
    ],
)
def test_what_cannot_be_meant_is_refused(drososeg: Run, arguments: tuple[str, ...], message: str) -> None:
    assert message in drososeg("fine-tune", *arguments, code=2).stderr


def test_labels_that_do_not_fit_are_refused(
    drososeg: Run, stack_file: Path, labels_file: Path, fast: tuple[Any, ...], tmp_path: Path
) -> None:
    out = ("-o", tmp_path / "mine.safetensors")
    assert "--sections" in drososeg("fine-tune", stack_file, labels_file, *fast, *out, code=2).stderr
    tifffile.imwrite(labels_file, np.full((3, 96, 80), 9, np.uint8), photometric="minisblack")
    assert "value 9" in drososeg("fine-tune", stack_file, labels_file, *fast, *out, code=2).stderr


def test_the_line_stop_on_stdin_keeps_the_best_so_far(
    stack_file: Path, fast: tuple[Any, ...], tmp_path: Path, synthetic: tuple[np.ndarray, np.ndarray]
) -> None:
    folder = tmp_path / "w"
    with create_workspace(folder, read_stack(stack_file)) as workspace:
        workspace.annotation.write(1, slice(0, 3), slice(0, 61), synthetic[1][1, :3, :61])
    command = ("fine-tune", "--workspace", folder, *fast[:2], "--steps", 100000, "--device", "cpu", "--json")
    with subprocess.Popen(
        [sys.executable, "-m", "napari_drososeg.cli", *map(str, command)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdin is not None
        last: dict[str, Any] = {}
        for line in process.stdout:
            last = json.loads(line)
            if last["event"] == "training" and last["step"] == 1:
                process.stdin.write("stop\n")
                process.stdin.flush()
    assert process.returncode == 0
    assert last["round"]["stopped"]
    with open_workspace(folder) as again:
        assert [r.stopped for r in again.rounds] == [True]
