"""How fast, how large and how exact: our inference against plain torch and MONAI, on the same weights.

    pip install -e '.[bench]'
    python benchmarks/inference.py

Every way of predicting runs in a process of its own, which gives its peak memory. All take turns, so that a machine
that is slow for a while is slow for all; the best of several turns counts. Prints tables and writes
``docs/benchmark-inference.json``, ``.md`` and ``.png``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Collection
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ceiling
from contestants import BASELINE, CONTESTANTS, REFERENCE
from napari_drososeg.checkpoint import load_spec, sha256
from napari_drososeg.inference.config import cpu_has_bf16, processor_name
from napari_drososeg.zoo import find_network

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DATA = Path(os.environ.get("DROSOSEG_DATA") or ROOT.parent / "shared" / "data" / "drosophila-vnc")
VALIDATION = (13, 14, 15)
"""Sections of the public stack whose truth the labels are compared with."""


def load_sections(data: Path, edge: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], str]:
    """Return sections (Z, Y, X) cropped or mirrored to `edge`, their truth, and what they are."""
    from napari_drososeg.io import read_stack
    from napari_drososeg.samples import read_vnc_labels, synthetic_stack

    if (data / "stack1" / "raw").is_dir():
        stack, labels = read_stack(data / "stack1" / "raw"), read_vnc_labels(data / "stack1" / "labels")
        images = np.stack([stack.read(z) for z in VALIDATION])
        truth = np.stack([labels.read(z) for z in VALIDATION])
        name = f"public Drosophila VNC stack 1, sections {', '.join(map(str, VALIDATION))}"
    else:
        synthetic, truth = synthetic_stack((2, 512, 512))
        images, name = np.asarray(synthetic.data), "synthetic stack"
    height, width = images.shape[1:]
    if edge <= min(height, width):
        return images[:, :edge, :edge], truth[:, :edge, :edge], name
    grow = ((0, 0), (0, max(0, edge - height)), (0, max(0, edge - width)))
    large, large_truth = (np.pad(a[:1], grow, mode="symmetric") for a in (images, truth))
    return large, large_truth, f"{name.rsplit(',', maxsplit=2)[0]}, mirrored"


LONG = 30.0
"""Seconds for a section from which a contestant is not timed again."""


class Contestant:
    """A process that predicts sections when asked to."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.times: list[float] = []
        self.answer: dict[str, Any] = {}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "contestants.py"), json.dumps(job)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def predict(self, section: int, labels: Path | None = None) -> bool:
        """Predict one section; False if memory ran out."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = ""
        try:
            print(
                json.dumps({"section": section, "labels": labels and str(labels)}), file=self._process.stdin, flush=True
            )
            line = self._process.stdout.readline()
        except BrokenPipeError:
            pass
        if not line:
            self._process.wait()
            if self._process.returncode != -9:  # not killed for its memory: a real failure
                assert self._process.stderr is not None
                raise RuntimeError(self._process.stderr.read()[-3000:])
            self.answer = {"error": "out of memory"}
        else:
            self.answer = json.loads(line)
        if "error" in self.answer:
            return False
        self.times.append(self.answer["seconds"])
        return True

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def race(
    network: str, data: Path, edge: int, repeats: int, folder: Path, names: Collection[str] = CONTESTANTS
) -> dict[str, Any]:
    """Compare contestants on sections of one size."""
    from napari_drososeg.metrics import Scores, confusion_matrix

    images, truth, source = load_sections(data, edge)
    np.save(folder / "sections.npy", images)
    np.save(folder / "calibration.npy", load_sections(data, min(edge, 1024))[0])
    names = [n for n in names if CONTESTANTS[n].get("precision") != "bf16" or cpu_has_bf16()]
    job = {
        "network": network,
        "sections": str(folder / "sections.npy"),
        "calibration": str(folder / "calibration.npy"),
    }
    labels: dict[str, NDArray[np.uint8]] = {}
    failed: set[str] = set()
    rows: dict[str, Any] = {}
    for name in ("ours, f32", "ours, int8"):  # done once for a network, with torch: no part of a prediction's memory
        converting = Contestant({**job, "options": CONTESTANTS[name]})
        converting.predict(0)
        converting.close()
    with ExitStack() as processes:
        started: dict[str, Contestant] = {}
        for name in names:  # every section once: labels, compilation, peak memory
            contestant = started[name] = Contestant({**job, "options": CONTESTANTS[name]})
            processes.callback(contestant.close)
            files = [folder / f"labels-{z}.npy" for z in range(len(images))]
            done = [contestant.predict(z, file) for z, file in enumerate(files)]
            if all(done):
                labels[name] = np.stack([np.load(f) for f in files])
            else:
                failed.add(name)
            print(f"  {edge} px: {name}: {contestant.answer}", file=sys.stderr, flush=True)
        for _ in range(repeats - 1):
            for name in names:
                # what takes minutes is timed once: noise is small against that, and it has nothing to compile
                if name not in failed and min(started[name].times) < LONG:
                    started[name].predict(0)
        for name, contestant in started.items():
            if name in failed:
                rows[name] = {"error": "out of memory"}
                continue
            rows[name] = {
                "best_seconds": min(contestant.times),
                "median_seconds": median(contestant.times),
                "mpx_per_second": edge * edge / 1e6 / min(contestant.times),
                "peak_bytes": contestant.answer["peak"],
                "loaded_bytes": contestant.answer["loaded"],
            }
    for name, found in labels.items():
        row = rows[name]
        if BASELINE in labels:
            row["times_monai_defaults"] = row["mpx_per_second"] / rows[BASELINE]["mpx_per_second"]
        if REFERENCE in labels:
            row["labels_as_reference"] = float(np.mean(found == labels[REFERENCE]))
        n = int(max(truth.max(), found.max()))
        row["mean_iou"] = Scores.from_confusion(confusion_matrix(truth, found, n)).mean_iou
    return {"edge": edge, "source": source, "rows": rows}


def pipeline(
    network: str, data: Path, edge: int, counts: tuple[int, int], repeats: int, folder: Path
) -> dict[str, Any]:
    """Files to files against the bare engine, and peak memory at two numbers of sections."""
    import tifffile

    images, _, _ = load_sections(data, edge)

    def measure(n: int, times: int) -> dict[str, Any]:
        source = folder / f"stack-{n}"
        source.mkdir(exist_ok=True)
        for z in range(n):
            tifffile.imwrite(source / f"{z:04d}.tif", images[z % len(images)])
        command = [sys.executable, str(HERE / "whole_pipeline.py"), network, str(source), str(folder / f"{n}.tif")]
        done = subprocess.run([*command, str(times)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    few, many = counts
    speed = measure(few, repeats)
    small = measure(few, 0)
    large = measure(many, 0)
    return {
        "description": speed["description"],
        "edge": edge,
        "sections": few,
        "bare_seconds": min(speed["bare_seconds"]),
        "whole_seconds": min(speed["whole_seconds"]),
        "whole_over_bare_speed": min(speed["bare_seconds"]) / min(speed["whole_seconds"]),
        "peak_bytes": {str(few): small["peak"], str(many): large["peak"]},
    }


def machine() -> dict[str, str]:
    """Say what it ran on."""
    from importlib.metadata import PackageNotFoundError, version

    packages = {}
    for name in ("torch", "openvino", "monai", "nncf", "numpy"):
        with contextlib.suppress(PackageNotFoundError):  # some benchmarks do without some of them
            packages[name] = version(name)
    return {
        "processor": processor_name(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        **packages,
    }


def table(result: dict[str, Any]) -> str:
    """Return one race as a Markdown table."""
    edge = result["edge"]
    lines = [
        f"### {edge} x {edge} px ({result['source']})",
        "",
        "| | Mpx/s | x MONAI | peak MB | labels as torch | mIoU |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in result["rows"].items():
        if "error" in row:
            lines.append(f"| {name} | {row['error']} | | | | |")
            continue
        iou = f"{row['mean_iou']:.4f}"
        same = f"{row['labels_as_reference']:.3%}" if "labels_as_reference" in row else ""
        ratio = f"{row['times_monai_defaults']:.1f}" if "times_monai_defaults" in row else ""
        lines.append(
            f"| {name} | {row['mpx_per_second']:.3f} | {ratio} | {row['peak_bytes'] / 1e6:.0f} | {same} | {iou} |"
        )
    return "\n".join(lines)


def report(result: dict[str, Any]) -> str:
    """Return all of it as a Markdown page."""
    computer, files, weights = result["machine"], result["pipeline"], result["weights"]
    peaks = ", ".join(f"{v / 1e6:.0f} MB at {n} sections" for n, v in files["peak_bytes"].items())
    packages = ", ".join(f"{k} {v}" for k, v in computer.items() if k not in ("processor", "cores"))
    return (
        "\n\n".join(
            [
                "# Inference, measured",
                f"Printed by `python benchmarks/inference.py` on {result['date']}: {computer['processor']}, "
                f"{computer['cores']} cores; {packages}. All rows use the same weights ({weights['name']}, trained on "
                f"sections {weights['sections']}). Mpx/s is the best of several turns (one, where a section takes over "
                f"{LONG:.0f} s); peak memory is that of a whole process; *labels as torch* is the share equal to plain "
                "torch on the whole section.",
                *(table(race) for race in result["races"]),
                "![Speeds](benchmark-inference.png)",
                f"{ceiling.words(result['ceiling'])} What is built of them can hardly be faster.",
                f"From files to files ({files['sections']} sections of {files['edge']} px, {files['description']}): "
                f"{files['whole_over_bare_speed']:.3f} of the bare engine's speed. Peak memory: {peaks}.",
            ]
        )
        + "\n"
    )


def plot(races: list[dict[str, Any]], path: Path) -> None:
    """Draw the speeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(races), figsize=(5.2 * len(races), 3.6), sharey=True, squeeze=False)
    for axis, result in zip(axes[0], races, strict=True):
        rows = {n: r for n, r in result["rows"].items() if "error" not in r}
        colors = ["#0072B2" if n.startswith("ours") else "#999999" for n in rows]
        bars = axis.barh(list(rows), [r["mpx_per_second"] for r in rows.values()], color=colors)
        ratios = [f"{r['times_monai_defaults']:.1f}x" if "times_monai_defaults" in r else "" for r in rows.values()]
        axis.bar_label(bars, ratios, padding=3)
        axis.set_title(f"{result['edge']} x {result['edge']} px")
        axis.set_xlabel("Mpx/s (x: against MONAI's defaults)")
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].invert_yaxis()  # shared by all
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run it all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="unet")
    parser.add_argument("--data", type=Path, default=DATA, help="the public stack; the synthetic one where missing")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--repeats", type=int, default=5, help="turns for the smallest size; at least 2 for others")
    parser.add_argument("--sections", type=int, nargs=2, default=[20, 200], help="for peak memory")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmark-inference.json")
    options = parser.parse_args(arguments)
    contestants = list(CONTESTANTS)
    if options.quick:
        options.sizes, options.repeats, options.sections = [288], 1, [2, 5]
        contestants = [BASELINE, REFERENCE, "ours, f32", "ours, int8"]
    first = options.sizes[0]
    races = []
    for edge in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            turns = options.repeats if edge == first else max(1, min(2, options.repeats))
            races.append(race(options.network, options.data, edge, turns, Path(folder), contestants))
        print(table(races[-1]), end="\n\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        turns = min(3, options.repeats)
        few, many = options.sections
        files = pipeline(options.network, options.data, min(first, 1024), (few, many), turns, Path(folder))
    checkpoint = find_network(options.network)
    weights = {"name": load_spec(checkpoint).name, "sections": load_spec(checkpoint).training.get("sections")}
    result = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "weights": weights | {"sha256": sha256(checkpoint)},
        "races": races,
        "pipeline": files,
        "ceiling": ceiling.measure(options.network, 0.2 if options.quick else 5.0),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(report(result), encoding="utf-8")
    plot(races, options.out.with_suffix(".png"))
    print(report(result).splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
