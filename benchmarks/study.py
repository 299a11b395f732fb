"""The reference study's tables with our columns beside them.

    python scripts/train_zoo.py runs                        # the development runs, trained on sections 00-11
    python benchmarks/study.py --runs runs                  # everything below, but for the study's protocol
    python benchmarks/study.py --runs runs --parts leak-free speed protocol --epochs 3

``leak-free`` scores the development runs on sections 13-15, of which they saw nothing; ``orientations`` does so with
the mean of eight flips and turns (``drososeg predict --orientations 8``), ``ensemble`` with the mean of all networks.
``speed`` times the networks on images of 256 x 256 px, the shipped ones where there is no development run: the weights
do not matter. ``protocol`` trains by the study's own protocol, with its random split of tiles, which leaks. Each part
is kept in ``docs/benchmark.json`` when it is run: scores by network, speeds by what the processor computes in.
``docs/benchmark.md`` is made from it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contestants import make
from inference import DATA, ROOT, machine
from napari_drososeg.checkpoint import load_spec, sha256
from napari_drososeg.classes import DROSOPHILA_CLASSES, UNLABELLED
from napari_drososeg.inference.config import cpu_has_bf16
from napari_drososeg.zoo import find_network
from study_report import report, write_figure

if TYPE_CHECKING:
    from napari_drososeg.inference import Predictor, Result

NETWORKS = (
    "fcn8", "segnet", "unet", "r2unet", "attention-unet", "linknet", "pspnet", "fpn", "deeplabv3plus", "transunet",
    "swin-unet",
)  # fmt: skip
SECTIONS = range(13, 16)
ORIENTATIONS = 8
TILE = 256
PARTS = ("leak-free", "orientations", "ensemble", "speed", "protocol")


def load(data: Path, numbers: Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return sections (Z, Y, X) of the public stack and their labels."""
    from napari_drososeg.io import read_stack
    from napari_drososeg.samples import read_vnc_labels

    stack, labels = read_stack(data / "stack1" / "raw"), read_vnc_labels(data / "stack1" / "labels")
    return np.stack([stack.read(z) for z in numbers]), np.stack([labels.read(z) for z in numbers])


def data_hash(images: NDArray[np.uint8], truth: NDArray[np.uint8]) -> str:
    """Return the SHA-256 of pixels and labels."""
    return hashlib.sha256(images.tobytes() + truth.tobytes()).hexdigest()


def how(training: dict[str, Any]) -> dict[str, Any]:
    """Return from a card what a network was trained with and on."""
    recipe = training.get("recipe", {})
    loss = recipe.get("loss", {})
    weights = ":" + ",".join(f"{w:g}" for w in loss["class_weights"]) if loss.get("class_weights") else ""
    return {
        "batch": recipe.get("batch"),
        "patch": recipe.get("patch"),
        "seed": recipe.get("seed"),
        "augmentation": {k: v for k, v in recipe.get("augmentation", {}).items() if v},
        "loss": "+".join(name for name, _ in loss.get("terms", [])) + weights,
        "trained_with": training.get("machine"),
    }


def predicting(
    path: Path, images: NDArray[np.uint8], output: str, orientations: int = 1
) -> tuple[Predictor, Iterator[Result]]:
    """Return a network, and its results on sections (Z, Y, X) as they come."""
    from napari_drososeg.inference import PredictConfig, Predictor
    from napari_drososeg.io import as_stack

    predictor = Predictor(path, PredictConfig(device="cpu", orientations=orientations))
    size = predictor.spec.pixel_size
    stack = as_stack(images, voxel_size=(None, size, size))
    return predictor, predictor.run(stack, predictor.plan(stack), outputs={output})


def leak_free(
    checkpoints: dict[str, Path], data: Path, orientations: int = 1
) -> tuple[dict[str, Any], dict[str, NDArray[np.uint8]]]:
    """Score each network as `drososeg predict` runs it; also return its labels (Z, Y, X) for the figure."""
    from napari_drososeg.metrics import Scores, confusion_matrix

    images, truth = load(data, SECTIONS)
    rows: dict[str, Any] = {}
    predictions: dict[str, NDArray[np.uint8]] = {}
    for name, path in checkpoints.items():
        predictor, results = predicting(path, images, "labels", orientations)
        labels = np.zeros(images.shape, np.uint8)
        for result in results:
            labels[result.z, *result.slices] = result.labels
        each = [confusion_matrix(t, p, len(DROSOPHILA_CLASSES)) for t, p in zip(truth, labels, strict=True)]
        training = predictor.spec.training
        rows[name] = {
            "pooled": Scores.from_confusion(sum(each)).to_dict(),
            "averaged": Scores.mean_of(map(Scores.from_confusion, each)).to_dict(),
            "engine": predictor.description,
            "sha256": sha256(path),
            "bytes": path.stat().st_size,
            "arguments": predictor.spec.arguments,
            "trained_on": training.get("sections"),
            "start": training.get("start"),
            "steps": training.get("recipe", {}).get("steps"),
            "minutes": training.get("minutes"),
            **how(training),
            "data_sha256": data_hash(images, truth),
        }
        predictions[name] = labels
        print(f"{name}: mIoU {rows[name]['pooled']['mean_iou']:.4f}", file=sys.stderr, flush=True)
    return {"rows": rows, "sections": f"{SECTIONS[0]}-{SECTIONS[-1]}"}, predictions


def ensemble(checkpoints: dict[str, Path], data: Path) -> dict[str, Any]:
    """Score the mean of all networks' probabilities, also without the pixels on both sides of where classes meet."""
    from skimage.segmentation import find_boundaries

    from napari_drososeg.metrics import Scores, confusion_matrix

    images, truth = load(data, SECTIONS)
    total = np.zeros((len(images), len(DROSOPHILA_CLASSES), *images.shape[1:]), np.float32)
    for path in checkpoints.values():
        for result in predicting(path, images, "probabilities")[1]:
            total[result.z, :, *result.slices] += result.probabilities
    labels = (total.argmax(1) + 1).astype(np.uint8)
    borders = np.stack([find_boundaries(section) for section in truth])
    inside = np.where(borders, UNLABELLED, truth)
    pooled, away = (
        Scores.from_confusion(confusion_matrix(t, labels, len(DROSOPHILA_CLASSES))).to_dict() for t in (truth, inside)
    )
    return {
        "pooled": pooled,
        "away_from_borders": away,
        "borders": float(borders.mean()),
        "errors_at_borders": float((labels != truth)[borders].sum() / max(1, (labels != truth).sum())),
        "sha256": {name: sha256(path) for name, path in checkpoints.items()},
        "data_sha256": data_hash(images, truth),
    }


def speed(checkpoints: dict[str, Path], data: Path, turns: int) -> dict[str, Any]:
    """Time every network on one 256 x 256 px image, from grey values to labels; all take turns."""
    from napari_drososeg.inference.quantisation import has_nncf  # with OpenVINO, which the other parts do without

    images, _ = load(data, SECTIONS[:1])
    image, calibration = np.ascontiguousarray(images[0, :TILE, :TILE]), images
    ways: dict[str, dict[str, Any]] = {"torch": {"kind": "torch"}}
    if cpu_has_bf16():
        ways["bf16"] = {"kind": "ours", "precision": "bf16", "halo": "default"}
    else:
        ways["f32"] = {"kind": "ours", "precision": "f32", "halo": "default"}
    if has_nncf():
        ways["int8"] = {"kind": "ours", "precision": "int8", "halo": "default"}
    segments = {
        (name, way): make(str(path), calibration, **options)
        for name, path in checkpoints.items()
        for way, options in ways.items()
    }
    times: dict[tuple[str, str], list[float]] = {key: [] for key in segments}
    for turn in range(turns + 1):
        for key, segment in segments.items():
            start = time.perf_counter()
            segment(image)
            if turn:  # the first compiles
                times[key].append(time.perf_counter() - start)
    rows = {name: {way: median(times[name, way]) for way in ways} for name in checkpoints}
    return {"rows": rows, "turns": turns, "ways": ", ".join(ways)}


def commit() -> str:
    """Return the commit that is run, with a plus sign if files differ from it."""
    git = ["git", "-C", str(ROOT)]
    found = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False).stdout
    return f"{found}{'+' if changed.strip() else ''}"


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run the chosen parts and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of scripts/train_zoo.py")
    parser.add_argument("--parts", nargs="+", default=PARTS[:-1], choices=PARTS)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--figure", action="store_true", help="draw the errors of the networks that leak-free scores")
    parser.add_argument("--turns", type=int, default=7, help="of the speed measurement")
    parser.add_argument("--epochs", type=int, default=300, help="at most, of the study's protocol")
    parser.add_argument("--minutes", type=float, default=math.inf, help="at most, for each network of the protocol")
    parser.add_argument("--full-width", action="store_true", help="published widths in the study's protocol")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmark.json")
    options = parser.parse_args(arguments)

    result: dict[str, Any] = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    stamp = {"date": date.today().isoformat(), "commit": commit(), "machine": machine()}
    development = {name: options.runs / f"{name}-00-11" / f"{name}.safetensors" for name in options.networks}
    checkpoints = {name: path for name, path in development.items() if path.exists()}
    for name in development.keys() - checkpoints.keys():
        print(f"{name}: no development run in {options.runs}, left out", file=sys.stderr)
    if "leak-free" in options.parts:
        part, predictions = leak_free(checkpoints, options.data)
        before = result.get("leak-free", {})
        new = {name: row | {"measured": stamp} for name, row in part["rows"].items()}
        known = before.get("rows", {}) | new
        part["rows"] = {name: known[name] for name in NETWORKS if name in known}
        part["figure"] = before.get("figure", [])
        if options.figure:
            images, truth = load(options.data, SECTIONS)
            write_figure(
                options.out.with_suffix(".png"), images[0], truth[0], {n: p[0] for n, p in predictions.items()}
            )
            part["figure"] = list(predictions)
        result["leak-free"] = part
    if "orientations" in options.parts:
        part, _ = leak_free(checkpoints, options.data, ORIENTATIONS)
        known = result.get("orientations", {}).get("rows", {}) | {
            name: row | {"measured": stamp} for name, row in part["rows"].items()
        }
        result["orientations"] = {"rows": {name: known[name] for name in NETWORKS if name in known}}
    if "ensemble" in options.parts:
        if len(checkpoints) > 1 and checkpoints.keys() >= result.get("ensemble", {}).get("sha256", {}).keys():
            result["ensemble"] = ensemble(checkpoints, options.data) | {"measured": stamp}
        else:
            print("ensemble: fewer networks than it had, or only one; left as it was", file=sys.stderr)
    if "speed" in options.parts:
        timed = {name: checkpoints.get(name) or find_network(name) for name in options.networks}
        part = speed(timed, options.data, options.turns) | stamp
        result["speed"] = result.get("speed", {}) | {part["ways"]: part}
    if "protocol" in options.parts:
        import torch

        from study_protocol import train_and_score

        sizes = {
            name: {} if options.full_width else load_spec(checkpoints.get(name) or find_network(name)).arguments
            for name in options.networks
        }
        if torch.cuda.is_available():
            stamp |= {"machine": stamp["machine"] | {"processor": torch.cuda.get_device_name()}}
        rows = result.get("protocol", {}).get("rows", {})
        sections = load(options.data, range(16))
        for name, arguments_of_network in sizes.items():
            # a graphics card is through before it is worth keeping what an interrupted run needs
            folder = None if torch.cuda.is_available() else options.runs / "study" / name
            rows[name] = train_and_score(
                name, arguments_of_network, sections, folder, options.epochs, options.minutes
            ) | {"data_sha256": data_hash(*sections), "measured": stamp}
            result["protocol"] = {"rows": {n: rows[n] for n in NETWORKS if n in rows}}
            options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(report(result), encoding="utf-8")
    print(report(result))
    return result


if __name__ == "__main__":
    main()
