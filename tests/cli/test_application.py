"""The program as a whole: how it starts, fails and is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from napari_drososeg import __version__
from napari_drososeg.batch import Manifest
from napari_drososeg.cli import app
from napari_drososeg.cli.application import verdict

Run = Callable[..., Any]
HEAVY = ("torch", "openvino", "qtpy", "PyQt6", "PySide6", "napari", "numpy", "dask", "zarr", "tifffile", "rich")


def run_program(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys, time\n"
        "from napari_drososeg.cli import app\n"
        "try: app()\n"
        "except SystemExit as stop: status = stop.code\n"
        "print(time.process_time(), *sys.modules, file=sys.stderr)\n"
        "sys.exit(status)"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("arguments", [("--help",), ("predict", "--help"), ("--version",)])
def test_help_is_light_and_quick(arguments: tuple[str, ...]) -> None:
    seconds = []
    for _ in range(3):
        result = run_program(*arguments)
        assert result.returncode == 0
        took, *modules = result.stderr.split()
        loaded = {m.split(".")[0] for m in modules}
        assert not loaded & set(HEAVY)
        seconds.append(float(took))  # of the processor: what else the machine does must not matter
    # the help of one command takes typer's import of pydantic, half a second on slow processors, none of it ours
    assert min(seconds) < (1.5 if "predict" in arguments else 0.5), seconds


def test_help_names_every_command() -> None:
    shown = run_program("--help").stdout
    for command in ("demo", "predict", "info", "models", "evaluate"):
        assert f"  {command} " in shown


def test_version(drososeg: Run) -> None:
    assert drososeg("--version").stdout == f"drososeg {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict",), "Missing argument 'IN...'. See: drososeg predict --help"),
        (("predct",), "No such command 'predct'"),
        (("--bad",), "No such option: --bad. See: drososeg --help"),
        (("--debug=3", "models"), "--debug"),
        (("demo", "--seed", "-1"), "--seed"),
        (("train", "a.tif", "b.tif", "-o", "x", "--seed", "-1"), "--seed"),
        (("fine-tune", "a.tif", "b.tif", "-o", "x", "--seed", "-1"), "--seed"),
        (("predict", "x", "-o", "y", "--tile", "many"), "--tile"),
        (("predict", "nothing.tif", "-o", "y.tif"), "'nothing.tif' does not exist"),
        (("info", "nothing.tif"), "nothing.tif does not exist"),
        (("models", "no-such"), "no network 'no-such'"),
    ],
)
def test_errors_are_one_line(arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(app, list(arguments), prog_name="drososeg")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("drososeg: ")
    assert message in result.stderr


@pytest.mark.parametrize("place", [("--debug", "info", "nothing.tif"), ("info", "nothing.tif", "--debug")])
def test_debug_shows_the_traceback_wherever_it_stands(place: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, list(place))
    assert result.exit_code == 2
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("drososeg: ")


def test_what_nobody_expected_is_one_line_too() -> None:
    code, line = verdict(ZeroDivisionError("division\nby zero"))
    assert code == 1
    assert line == "ZeroDivisionError: division by zero (this should not happen; --debug shows where)"
    assert verdict(PermissionError(13, "Permission denied", "x.tif"))[0] == 1


@pytest.mark.skipif(os.name == "nt", reason="signals are sent differently there")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_leaves_nothing_half_written(tmp_path: Path, network: Path, sent: signal.Signals, code: int) -> None:
    source, out = tmp_path / "long.tif", tmp_path / "labels.tif"
    noise = np.random.default_rng(0).integers(0, 255, (600, 256, 256), dtype=np.uint8)
    tifffile.imwrite(source, noise, photometric="minisblack")
    out.write_bytes(b"earlier")
    # whoever runs the tests in the background of a shell has them, and what they start, ignore Ctrl+C
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    start += "from napari_drososeg.cli import app; app()"
    options = ["-m", str(network), "--engine", "torch", "--overwrite", "--no-check"]
    program = subprocess.Popen(
        [sys.executable, "-c", start, "predict", str(source), "-o", str(out), *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 90
    while not list(tmp_path.glob(".labels.tif.*.part")) and time.monotonic() < deadline:
        assert program.poll() is None
        time.sleep(0.02)
    program.send_signal(sent)
    _, errors = program.communicate(timeout=60)
    assert program.returncode == code, errors
    assert errors.splitlines()[-1].startswith("drososeg: stopped")
    assert "Traceback" not in errors
    assert out.read_bytes() == b"earlier"
    left = sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("."))
    assert left == [".labels.tif.drososeg.jsonl"]
    assert [e["state"] for e in Manifest(tmp_path / left[0]).items.values()] == ["started"]
