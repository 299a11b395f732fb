from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "inference.py"


@pytest.mark.timeout(900)
def test_the_benchmark_runs_and_reports(tiny_network, tmp_path):
    for name in ("monai", "nncf", "openvino", "matplotlib"):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install 'napari-drososeg[bench]'")
    out = tmp_path / "benchmark.json"
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # it shall run, not be fast
    command = [sys.executable, str(SCRIPT), "--quick", "--network", str(tiny_network)]
    done = subprocess.run(
        [*command, "--data", str(tmp_path / "none"), "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
        env=one_thread,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(out.read_text())
    (race,) = result["races"]
    assert set(race["rows"]) == {"MONAI, defaults", "torch, whole section", "ours, f32", "ours, int8"}
    for row in race["rows"].values():
        assert row["mpx_per_second"] > 0
        assert row["labels_as_reference"] > 0.9
    assert race["rows"]["ours, f32"]["labels_as_reference"] > 0.999
    assert set(result["pipeline"]["peak_bytes"]) == {"2", "5"}
    assert "| ours, int8 |" in done.stdout
    assert result["ceiling"]["macs_per_pixel"] > 0
    assert {"f32", "int8"} <= set(result["ceiling"]["mpx_per_second"])
    assert out.with_suffix(".png").stat().st_size > 1000
