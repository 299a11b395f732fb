"""Runs that are broken with real processes and resumed; all scenarios are in ``benchmarks/faults.py``."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 3


@pytest.mark.skipif(os.name == "nt", reason="signals and limits are others there")
@pytest.mark.timeout(400)
def test_broken_runs_end_as_undisturbed_ones(network: Path) -> None:
    """SIGKILL of a whole run, of a client with workers, and a full disk."""
    command = [sys.executable, str(ROOT / "benchmarks" / "faults.py"), "--seeds", str(SEEDS), "--json"]
    result = subprocess.run([*command, "--network", str(network)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert [r["state"] for r in json.loads(result.stdout)] == ["passed"] * SEEDS


def test_the_example_does_the_whole_job(
    tmp_path: Path, network: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["unattended.py", str(tmp_path), str(network)])
    runpy.run_path(str(ROOT / "examples" / "unattended.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert "section 4: duplicate" in said
    assert "block 27 of 27" in said
    assert "done" in said
    assert (tmp_path / "areas.csv").stat().st_size > 100
