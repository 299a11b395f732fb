"""Train the default network on the public Drosophila VNC stack.

Development run, which is scored on sections it never saw, and then the weights that ship::

    DROSOSEG_DATA=... python scripts/train_default.py --train 0-11 --validate 13-15 runs/unet-00-11
    DROSOSEG_DATA=... python scripts/train_default.py --train 0-15 runs/unet-00-15 --ship

Interrupted, it resumes from the last validation when the same command is given again. The validation scores choose
nothing here: the last weights are kept, so the second run needs no held-out section.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from napari_drososeg.checkpoint import NetworkSpec, load_spec, save_checkpoint, sha256
from napari_drososeg.classes import DROSOPHILA_CLASSES
from napari_drososeg.data import Normalisation
from napari_drososeg.data.patches import AnnotatedSection, annotated_section
from napari_drososeg.inference.halo import measure_halo
from napari_drososeg.io import as_stack
from napari_drososeg.metrics import Scores
from napari_drososeg.models import find_architecture
from napari_drososeg.samples import drosophila_vnc
from napari_drososeg.training import TrainConfig, Training
from napari_drososeg.zoo import REGISTRY, read_registry

CONFIG = TrainConfig(architecture="unet", arguments={"width": 0.5, "decoder_width": 0.25})
PIXEL_SIZE = 4.6
CITATION = (
    "Gerhard, Funke, Martel, Cardona, Fetter: Segmented anisotropic ssTEM dataset of neural tissue. figshare 2013, "
    "doi 10.6084/m9.figshare.856713"
)


def parse_range(text: str) -> range:
    """Turn ``0-11`` into ``range(0, 12)``."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def load(numbers: Sequence[int]) -> list[AnnotatedSection]:
    """Read sections of the public stack with their labels."""
    stack, truth = drosophila_vnc()
    return [annotated_section(stack.read(z), truth.read(z), f"section {z:02d}") for z in numbers]


def describe(train: str, seconds: float, loss: float) -> dict[str, object]:
    """Return the part of the card that says how the weights were made."""
    return {
        "data": "larval Drosophila ventral nerve cord, ssTEM",
        "sections": train,
        "citation": CITATION,
        "licence": "CC BY-NC-SA 3.0",
        "recipe": json.loads(CONFIG.to_json()),
        "final_loss": round(loss, 4),
        "minutes": round(seconds / 60, 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
    }


def describe_scores(scores: Scores, sections: str) -> dict[str, object]:
    """Return the part of the card that says how good they are."""
    return {
        "sections": sections,
        "mean_iou": round(scores.mean_iou, 4),
        "iou": {n: round(v, 4) for n, v in zip(DROSOPHILA_CLASSES.names, scores.iou, strict=True)},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where state, log and checkpoint go")
    parser.add_argument("--train", required=True, metavar="A-B")
    parser.add_argument("--validate", metavar="A-B")
    parser.add_argument("--scores-from", type=Path, help="development checkpoint whose scores the card quotes")
    parser.add_argument("--ship", action="store_true", help="put the checkpoint into the package's zoo")
    options = parser.parse_args(arguments)

    options.folder.mkdir(parents=True, exist_ok=True)
    sections = load(parse_range(options.train))
    validation = load(parse_range(options.validate)) if options.validate else []
    training = Training(sections, CONFIG, validation=validation, state_file=options.folder / "state.safetensors")
    loss, seconds, scores = float("nan"), 0.0, None
    with (options.folder / "log.csv").open("a", newline="") as log:
        writer = csv.writer(log)
        for event in training.run():
            loss, seconds, scores = event.loss, event.seconds, event.scores or scores
            row = [event.step, f"{event.loss:.4f}", f"{event.learning_rate:.2e}", f"{event.seconds:.0f}"]
            if event.scores is not None:
                row += [f"{event.scores.mean_iou:.4f}", *(f"{v:.4f}" for v in event.scores.iou)]
            writer.writerow(row)
            log.flush()
            print(*row, flush=True)

    metrics = describe_scores(scores, options.validate) if scores is not None else {}
    if options.scores_from:
        metrics = load_spec(options.scores_from).metrics | {"note": "of the same recipe trained on sections 00-11"}
    path = finish(
        options.folder / "unet.safetensors",
        training,
        describe(options.train, seconds, loss),
        metrics,
        sections=sections,
    )
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {sha256(path)}")
    if options.ship:
        ship(path)


def finish(
    path: Path,
    training: Training,
    made: dict[str, object],
    metrics: dict[str, object],
    sections: Sequence[AnnotatedSection],
) -> Path:
    """Write the checkpoint, with the halo that its weights need."""
    unet = find_architecture(CONFIG.architecture)
    spec = NetworkSpec(
        name="unet",
        title="U-Net",
        architecture=CONFIG.architecture,
        arguments=CONFIG.arguments,
        classes=DROSOPHILA_CLASSES,
        normalisation=Normalisation(),
        pixel_size=PIXEL_SIZE,
        stride=unet.stride,
        receptive_field=unet.receptive_field,
        global_context=unet.global_context,
        halo=0,
        licence="CC-BY-NC-SA-3.0",
        training=made,
        metrics=metrics,
    )
    save_checkpoint(path, training.weights(), spec)
    images = as_stack(np.stack([s.image for s in sections[::5]]), voxel_size=(None, PIXEL_SIZE, PIXEL_SIZE))
    return save_checkpoint(path, training.weights(), replace(spec, halo=measure_halo(path, images)))


def ship(path: Path) -> None:
    """Put a checkpoint into the package, and its SHA-256 into the registry."""
    spec = load_spec(path)
    shutil.copy(path, REGISTRY.parent / path.name)
    rows = read_registry() | {
        spec.name: {"title": spec.title, "file": path.name, "sha256": sha256(path), "bytes": path.stat().st_size}
    }
    REGISTRY.write_text(json.dumps({"version": 1, "networks": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
