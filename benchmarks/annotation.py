"""How much a few strokes bring: a simulated annotator on images of another kind than the network was trained on.

    pip install -e '.[bench]'
    python benchmarks/annotation.py --network runs/unet-00-11/unet.safetensors

Section 12 of the public stack is annotated with strokes of 61 x 3 px, half of them where the current prediction is
wrong, half where it is right, of one class after the other, always the same for one seed. After 0, 6, 30 and 120
strokes a round is trained, and sections 13 to 15 are scored. Beside it, on the same strokes, a random forest on
multi-scale features, which is what ilastik and convpaint do, and the ceiling: the same network trained with all labels
of the section. Writes ``docs/benchmark-annotation.json`` and ``.md``; cells that are there already are not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference import machine
from napari_drososeg.classes import DROSOPHILA_CLASSES, ClassTable, SegmentationClass
from napari_drososeg.io import Stack, as_stack, read_labels
from napari_drososeg.metrics import Scores, confusion_matrix
from napari_drososeg.workspace import Workspace, create_workspace
from napari_drososeg.workspace.recipes import SCRATCH, RetrainSettings

ROOT = Path(__file__).resolve().parents[1]
ANNOTATED, TESTED = 12, (13, 14, 15)
STROKES = (6, 30, 120)
LENGTH, THICKNESS = 61, 3
ANGLES = 12
VOXEL_SIZE = (50.0, 4.6, 4.6)
GAP = 0.02
"""Way from 0 strokes to the ceiling below which nothing is said of parts of it."""

OWN = "own classes"
OWN_NAMES = {"neurite": "#56B4E9", "membrane": "#E69F00", "mitochondrion": "#CC79A7", "glia": "#009E73"}
OWN_CLASSES = ClassTable(tuple(SegmentationClass(k, *named) for k, named in enumerate(OWN_NAMES.items(), start=1)))
"""What no network here was trained on: cytoplasm as the data set has it, of neurites and of glia with what is outside;
none of the names is that of a class that a network knows."""

Pixels = NDArray[np.float32]


def blurred(image: Pixels) -> Pixels:
    """Blur with sigma 2."""
    from scipy import ndimage

    out: Pixels = ndimage.gaussian_filter(image, 2)
    return out


def halved(image: Pixels) -> Pixels:
    """Average blocks of 2 x 2."""
    height, width = image.shape
    out: Pixels = image.reshape(height // 2, 2, width // 2, 2).mean((1, 3))
    return out


def noisy(image: Pixels) -> Pixels:
    """Add noise of sigma 0.1 of the range, fixed for each image."""
    rng = np.random.default_rng(int(image.sum()))
    out: Pixels = image + rng.normal(0, 25.5, image.shape).astype(np.float32)
    return out


SHIFTS: dict[str, Callable[[Pixels], Pixels]] = {
    "none": lambda image: image,
    "blur, sigma 2": blurred,
    "gamma 0.5": lambda image: 255 * (image / 255) ** np.float32(0.5),
    "gamma 2": lambda image: 255 * (image / 255) ** np.float32(2),
    "inverted": lambda image: 255 - image,
    "half resolution": halved,
    "noise, sigma 0.1": noisy,
}


def own_labels(labels: Stack) -> Stack:
    """Return the truth with `OWN_CLASSES`."""
    table = np.full(256, 2, np.uint8)  # membrane of all directions, junctions, synapses
    table[[255, 191, 159]] = 1, 3, 4
    original = read_labels(Path(labels.path or ""))
    return as_stack(table[np.stack([original.read(z) for z in range(original.n_sections)])])


def load(shift: str, crop: int | None) -> tuple[Stack, NDArray[np.uint8]]:
    """Return the shifted sections, the annotated one first, and their truth (Z, Y, X)."""
    from napari_drososeg.samples import drosophila_vnc

    stack, labels = drosophila_vnc(os.environ.get("DROSOSEG_DATA", ROOT.parent / "shared" / "data" / "drosophila-vnc"))
    if shift == OWN:
        labels = own_labels(labels)
    part = slice(0, crop)
    images, truth = [], []
    for z in (ANNOTATED, *TESTED):
        image = SHIFTS.get(shift, SHIFTS["none"])(stack.read(z, part, part).astype(np.float32))
        images.append(np.clip(np.rint(image), 0, 255).astype(np.uint8))
        truth.append(labels.read(z, part, part)[:: 2 if shift == "half resolution" else 1])
        truth[-1] = truth[-1][:, :: 2 if shift == "half resolution" else 1]
    size = (50.0, None, None) if shift == "half resolution" else VOXEL_SIZE
    return as_stack(np.stack(images), name=shift, voxel_size=size), np.stack(truth)


class Annotator:
    """Strokes on one section, as a person would who knows the truth.

    A stroke is a bar of 61 x 3 px around a pixel, turned so that most of it is of that pixel's class, and covers those
    of its pixels that are. Pixels are drawn from one class after the other, in turn where the prediction is wrong and
    where it is right.
    """

    def __init__(self, truth: NDArray[np.uint8], seed: int) -> None:
        self.truth = truth
        self.rng = np.random.default_rng(seed)
        self.n = 0
        self.labels = np.zeros_like(truth)
        along, across = np.meshgrid(np.arange(LENGTH) - LENGTH // 2, np.arange(THICKNESS) - THICKNESS // 2)
        self._bars = []
        for angle in np.pi * np.arange(ANGLES) / ANGLES:
            y = np.rint(along * np.sin(angle) + across * np.cos(angle)).astype(int)
            x = np.rint(along * np.cos(angle) - across * np.sin(angle)).astype(int)
            self._bars.append((y.ravel(), x.ravel()))

    def stroke(self, prediction: NDArray[np.uint8], up_to: int) -> None:
        """Paint until there are `up_to` strokes."""
        classes = np.unique(self.truth[self.truth > 0])
        while self.n < up_to:
            value = classes[self.n // 2 % len(classes)]
            wrong = self.n % 2 == 0
            of_class = self.truth == value
            wanted = of_class & ((prediction != value) if wrong else (prediction == value)) & (self.labels == 0)
            places = np.argwhere(wanted if wanted.any() else of_class)
            self._paint(places[self.rng.integers(len(places))], value)
            self.n += 1

    def _paint(self, centre: NDArray[np.int64], value: int) -> None:
        best: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
        for dy, dx in self._bars:
            y, x = centre[0] + dy, centre[1] + dx
            inside = (y >= 0) & (y < self.truth.shape[0]) & (x >= 0) & (x < self.truth.shape[1])
            y, x = y[inside], x[inside]
            fits = self.truth[y, x] == value
            if best is None or fits.sum() > best[0].size:
                best = y[fits], x[fits]
        assert best is not None
        self.labels[best] = value


def predict(stack: Stack, network: Path, sections: Sequence[int], pixel_size: float | None) -> NDArray[np.uint8]:
    """Return the labels (len(sections), Y, X) of a network."""
    from napari_drososeg.inference import PredictConfig, Predictor

    predictor = Predictor(network, PredictConfig(engine="torch", pixel_size=pixel_size))
    out = np.zeros((len(sections), *stack.shape[1:]), np.uint8)
    for result in predictor.run(stack, predictor.plan(stack, sections=sections)):
        out[list(sections).index(result.z), *result.slices] = result.labels
    return out


def mean_iou(labels: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """Return the pooled mean IoU."""
    return round(Scores.from_confusion(confusion_matrix(truth, labels, int(truth.max()))).mean_iou, 4)


def workspace_for(shift: str, folder: Path, stack: Stack) -> Workspace:
    """Return a new workspace with the classes of the cell."""
    return create_workspace(folder, stack, OWN_CLASSES if shift == OWN else DROSOPHILA_CLASSES)


def one_round(workspace: Workspace, stack: Stack, settings: RetrainSettings) -> dict[str, Any]:
    """Train a round, predict the annotated section and, untimed, the others."""
    from napari_drososeg.workspace.retraining import retrain

    *_, last = retrain(workspace, stack, replace(settings, predict=(0,)))
    return dict(last["round"])


def strokes(shift: str, start: str, folder: Path, options: argparse.Namespace, counts: Sequence[int]) -> dict[str, Any]:
    """Annotate, train, score, annotate on, as often as `counts` says."""
    stack, truth = load(shift, options.crop)
    annotator = Annotator(truth[0], options.seed)
    tested = range(1, len(truth))
    rows: dict[str, Any] = {}
    with workspace_for(shift, folder, stack) as workspace:
        if start == SCRATCH or shift == OWN:
            prediction = np.ones_like(truth[0])  # the user sees nothing; call it cytoplasm
        else:
            labels = predict(stack, Path(start), range(len(truth)), None)
            prediction = labels[0]
            rows["0"] = {"mean_iou": mean_iou(labels[1:], truth[1:])}
        settings = RetrainSettings(
            start=start,
            effort=options.effort,
            steps=options.steps,
            learning_rate=options.rate,
            loss=options.loss,
        )
        for n in counts:
            annotator.stroke(prediction, n)
            workspace.annotation.write(0, slice(None), slice(None), annotator.labels)
            found = one_round(workspace, stack, settings)
            number = found["number"]
            network = workspace.rounds.checkpoint(number)
            labels = predict(stack, network, tested, found["adapted"].get("pixel_size"))
            prediction = workspace.rounds.prediction(number, stack.shape).read(0)
            rows[str(n)] = {
                "mean_iou": mean_iou(labels, truth[1:]),
                "seconds": found["seconds"],
                "annotated_pixels": sum(found["annotated_pixels"].values()),
                **{k: found[k] for k in ("adopted", "verdict", "adapted")},
            }
            if not options.no_forest:
                rows[str(n)]["forest"] = forest(stack, truth, annotator.labels, options.seed)
            print(f"  {shift} {n}: {rows[str(n)]}", file=sys.stderr, flush=True)
            settings = replace(settings, start=None if found["adopted"] else settings.start)
    return rows


def forest(stack: Stack, truth: NDArray[np.uint8], labels: NDArray[np.uint8], seed: int) -> dict[str, float]:
    """Train a random forest of 100 trees on multi-scale features of the strokes, and score it on the other sections."""
    from skimage.feature import multiscale_basic_features
    from sklearn.ensemble import RandomForestClassifier

    def features(z: int) -> NDArray[np.float32]:
        found = multiscale_basic_features(stack.read(z), sigma_min=0.5, sigma_max=16)
        return np.asarray(found, np.float32).reshape(-1, found.shape[-1])

    begin = time.perf_counter()
    known = labels.ravel() > 0
    trees = RandomForestClassifier(n_estimators=100, n_jobs=-1, max_depth=20, random_state=seed, max_samples=None)
    trees.fit(features(0)[known], labels.ravel()[known])
    trees.predict(features(0))
    seconds = round(time.perf_counter() - begin, 2)
    found = np.stack([trees.predict(features(z)).reshape(truth.shape[1:]) for z in range(1, len(truth))])
    return {"mean_iou": mean_iou(found.astype(np.uint8), truth[1:]), "seconds": seconds}


def ceiling(shift: str, start: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train the same network with all labels of the section, for long."""
    stack, truth = load(shift, options.crop)
    with workspace_for(shift, folder, stack) as workspace:
        workspace.regions.add(0, shown=lambda _z, ys, xs: truth[0, ys, xs])
        found = one_round(workspace, stack, RetrainSettings(start=start, effort=options.ceiling_effort))
        network = workspace.rounds.checkpoint(found["number"])
        labels = predict(stack, network, range(1, len(truth)), found["adapted"].get("pixel_size"))
    return {"mean_iou": mean_iou(labels, truth[1:]), "seconds": found["seconds"]}


def ten_rounds(start: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train ten rounds on unshifted data, with six more strokes before each."""
    rows = strokes("none", start, folder, argparse.Namespace(**vars(options) | {"no_forest": True}), range(6, 61, 6))
    lost = rows["0"]["mean_iou"] - rows["60"]["mean_iou"]
    return {"rows": rows, "lost": round(lost, 4)}


def report(result: dict[str, Any]) -> str:
    """Return the Markdown page."""
    lines = [
        "# A few strokes, measured",
        "",
        f"Printed by `python benchmarks/annotation.py` on {result['date']}: {result['machine']}. Start: "
        f"{result['network']}. Section {ANNOTATED} annotated, sections {', '.join(map(str, TESTED))} scored"
        f"{', the upper left ' + str(result['crop']) + ' px of each' if result['crop'] else ''}: mean IoU "
        f"after so many strokes of {LENGTH} x {THICKNESS} px, each column going on from the network "
        f"of the one to its left ({result['effort']} effort, {result['loss']} loss). *Gap* is the part of the way from "
        f"0 strokes to the ceiling (all labels of the section, {result['ceiling_effort']} effort) that 30 strokes "
        "went; *forest* is a random forest on the same "
        "strokes; *s* the seconds of a round at 30 strokes, prediction of the visible section included. *Scratch* "
        "begins with random weights; *own classes* are four that the network does not know (neurite, membrane, "
        "mitochondrion, glia with what is outside), of the unshifted images.",
        "",
        "| images | 0 | 6 | 30 | 120 | ceiling | gap | forest 6 / 30 / 120 | s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, cell in result["cells"].items():
        rows, top = cell["rows"], cell.get("ceiling", {}).get("mean_iou")
        scores = [rows[str(n)]["mean_iou"] if str(n) in rows else None for n in (0, *STROKES)]
        known = None not in (top, scores[0], scores[2]) and top - scores[0] > GAP
        gap = f"{(scores[2] - scores[0]) / (top - scores[0]):.0%}" if known else ""
        trees = " / ".join(
            f"{rows[str(n)]['forest']['mean_iou']:.3f}" for n in STROKES if "forest" in rows.get(str(n), {})
        )
        shown = ["" if s is None else f"{s:.3f}" for s in (*scores, top)]
        seconds = rows.get("30", {}).get("seconds", "")
        lines.append(f"| {name} | {' | '.join(shown)} | {gap} | {trees} | {seconds} |")
    if "ten_rounds" in result:
        lines += ["", f"Ten rounds on unshifted data changed mean IoU by {-result['ten_rounds']['lost']:+.4f}."]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="unet", help="name or checkpoint to start from")
    parser.add_argument("--cells", nargs="*", choices=[*SHIFTS, SCRATCH, OWN, "ten"], help="all unless given")
    parser.add_argument("--crop", type=int, help="only the upper left of each section, px, to try something out")
    parser.add_argument("--effort", default="quick")
    parser.add_argument("--ceiling-effort", default="thorough")
    parser.add_argument("--no-ceiling", action="store_true")
    parser.add_argument("--no-forest", action="store_true")
    parser.add_argument("--strokes", type=int, nargs="*", default=list(STROKES))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--loss", default=RetrainSettings.loss, help="of the rounds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmark-annotation")
    options = parser.parse_args(arguments)

    from napari_drososeg.zoo import find_card

    card, computer = find_card(options.network), machine()
    start = str(card.path)
    file = options.out.with_suffix(".json")
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"cells": {}}
    result |= {
        "date": date.today().isoformat(),
        "machine": f"{computer['processor']}, {computer['cores']} cores",
        "network": f"{card.title} (sections {card.spec.training.get('sections') if card.spec else '?'}), "
        f"SHA-256 {card.sha256[:12]}",
        "effort": options.effort,
        "loss": options.loss,
        "ceiling_effort": options.ceiling_effort,
        "crop": options.crop,
    }
    for cell in options.cells or [*SHIFTS, SCRATCH, OWN, "ten"]:
        if cell in result["cells"] or (cell == "ten" and "ten_rounds" in result):
            continue
        with tempfile.TemporaryDirectory() as folder:
            if cell == "ten":
                result["ten_rounds"] = ten_rounds(start, Path(folder) / "ten", options)
            else:
                shift, begin = ("none", SCRATCH) if cell == SCRATCH else (cell, start)
                made = {"rows": strokes(shift, begin, Path(folder) / "strokes", options, options.strokes)}
                if not options.no_ceiling:
                    made["ceiling"] = ceiling(shift, begin, Path(folder) / "ceiling", options)
                result["cells"][cell] = made
        file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        options.out.with_suffix(".md").write_text(report(result), encoding="utf-8")
    print(report(result))


if __name__ == "__main__":
    main()
