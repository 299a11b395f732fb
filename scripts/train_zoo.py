"""Train the networks of the zoo on the public Drosophila VNC stack, any or all of them, resumably.

    export DROSOSEG_DATA=...                     # or let it be downloaded
    python scripts/train_zoo.py runs             # all, the U-Net first
    python scripts/train_zoo.py runs fpn linknet --ship

Each network is trained twice. The *development* run sees sections 00-11 and is scored on 13-15, which is what its card
says (section 12 adjoins 13 and is left out). The *final* run is what ships: a short cycle on all of 00-15 from the
development weights or, for the U-Net, its whole schedule anew; no score chooses anything in it. The networks on the
same VGG16 encoder start from that of the U-Net's development run, where the study may start from ImageNet's.

Interrupted, the same command goes on from the last validation. What is done is not done again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from napari_drososeg.checkpoint import load_model, load_spec, save_checkpoint, sha256
from napari_drososeg.classes import DROSOPHILA_CLASSES
from napari_drososeg.data.sections import AnnotatedSection, annotated_section
from napari_drososeg.evaluation import evaluate
from napari_drososeg.inference import PredictConfig, predict
from napari_drososeg.io import as_stack, atomic
from napari_drososeg.models import ARCHITECTURES
from napari_drososeg.samples import drosophila_vnc
from napari_drososeg.training import TrainConfig, Training
from napari_drososeg.training.sharing import finish
from napari_drososeg.zoo import REGISTRY, read_registry

TRAIN, VALIDATE, ALL = range(12), range(13, 16), range(16)
PIXEL_SIZE = 4.6
CITATION = (
    "Gerhard, Funke, Martel, Cardona, Fetter: Segmented anisotropic ssTEM dataset of neural tissue. figshare 2013, "
    "doi 10.6084/m9.figshare.856713"
)


@dataclass(frozen=True)
class Recipe:
    """How a network of the zoo is made.

    Parameters
    ----------
    arguments : dict
        Of its architecture: widths that keep all eleven under 95 MB together.
    steps : int
        Updates of the development run.
    learning_rate : float
        Its peak.
    final_steps : int
        Updates of the final run, which goes on from the development weights with a quarter of the learning rate;
        0 to train anew instead, as the development run.
    encoder_from : str
        Network whose encoder it starts from; empty to start at random.
    small_steps : int
        Updates on patches of half the edge before the development run, each at a quarter of the cost: what has no
        encoder to start from learns the textures there, and only what needs context on whole patches.
    batch : int
        Patches of an update.
    """

    arguments: dict[str, Any]
    steps: int
    learning_rate: float = 1e-3
    final_steps: int = 60
    encoder_from: str = "unet"
    small_steps: int = 0
    batch: int = 8


RECIPES = {
    "unet": Recipe({"width": 0.5, "decoder_width": 0.25}, 1500, learning_rate=2e-3, final_steps=0, encoder_from=""),
    "fcn8": Recipe({"width": 0.5, "fc_channels": 256, "fc_kernel": 3, "batch_norm": True}, 250, final_steps=100),
    "fpn": Recipe({"width": 0.5, "decoder_width": 0.25}, 350, final_steps=100),
    "linknet": Recipe({"width": 0.5}, 350, final_steps=100),
    "deeplabv3plus": Recipe({"width": 0.5, "decoder_width": 0.25}, 350, final_steps=100),
    "r2unet": Recipe({"width": 0.5, "decoder_width": 0.25}, 300),
    "attention-unet": Recipe({"width": 0.5, "decoder_width": 0.25}, 200),
    "pspnet": Recipe({"width": 0.5, "decoder_width": 0.1875}, 200),
    "segnet": Recipe({"width": 0.375}, 400, learning_rate=2e-3, encoder_from=""),
    "transunet": Recipe(
        {"width": 0.5, "decoder_width": 0.5, "layers": [2, 2, 2], "dim": 192, "depth": 3, "heads": 6},
        200, final_steps=40, encoder_from="", small_steps=1200,
    ),
    "swin-unet": Recipe(
        {"dim": 48, "depths": [2, 2, 2, 1], "heads": [2, 4, 8, 16], "drop_path": 0.0},
        400, learning_rate=1.2e-3, final_steps=100, encoder_from="", small_steps=4000, batch=4,
    ),
}  # fmt: skip
"""In the order in which they are trained: what others start from comes first."""
BUDGET = 95_000_000
"""Bytes of all checkpoints together."""


def load(numbers: Sequence[int]) -> list[AnnotatedSection]:
    """Read sections of the public stack with their labels."""
    stack, truth = drosophila_vnc()
    return [annotated_section(stack.read(z), truth.read(z), f"section {z:02d}") for z in numbers]


def encoder_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a checkpoint's encoder."""
    return {k: v for k, v in load_model(checkpoint)[1].state_dict().items() if ".encoder." in k}


def run(training: Training) -> dict[str, torch.Tensor]:
    """Train to the end, saying how it goes; return the last weights."""
    for event in training.run(validate_every=100):
        scores = f"{event.scores.mean_iou:.4f}" if event.scores else ""
        print(training.folder, event.step, f"{event.loss:.4f}", f"{event.seconds:.0f} s", scores, flush=True)
    return training.weights(best=False)


def train(folder: Path, name: str, start: Path | None, *, final: bool) -> Path:
    """Make one of the two runs of a network, or go on with it; return its checkpoint."""
    path = folder / f"{name}-{'00-15' if final else '00-11'}" / f"{name}.safetensors"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    recipe = RECIPES[name]
    config = TrainConfig(
        architecture=name,
        arguments=recipe.arguments,
        steps=recipe.steps,
        batch=recipe.batch,
        learning_rate=recipe.learning_rate,
    )
    weights: dict[str, dict[str, torch.Tensor]] = {}
    if final and start is not None:
        config = replace(config, steps=recipe.final_steps, learning_rate=recipe.learning_rate / 4, seed=1)
        weights = {"start": load_model(start)[1].state_dict()}
    elif start is not None:
        weights = {"transfer": encoder_of(start)}
    sections, validation = load(ALL if final else TRAIN), [] if final else load(VALIDATE)
    before = {}
    if not final and recipe.small_steps:
        small = replace(config, steps=recipe.small_steps, patch=config.patch // 2)
        training = Training(sections, small, folder=path.parent / "small", **weights)
        weights = {"start": run(training)}
        config = replace(config, learning_rate=recipe.learning_rate / 2)
        minutes = round(training.seconds / 60, 1)
        before = {"before": f"{small.steps} steps on patches of {small.patch} px, {minutes} minutes"}
    training = Training(sections, config, validation=validation, folder=path.parent, **weights)
    if training.transferred != len(weights.get("transfer", ())):
        raise SystemExit(f"The encoder of {name} is not that of {start}.")
    run(training)
    made = {
        "data": "larval Drosophila ventral nerve cord, ssTEM",
        "sections": f"{sections[0].name[-2:]}-{sections[-1].name[-2:]}",
        "citation": CITATION,
        "licence": "CC BY-NC-SA 3.0",
        "start": "random" if start is None else f"{'' if final else 'encoder of '}{start.stem}, {sha256(start)}",
        **before,
    }
    return finish(
        path,
        training,
        name=name,
        title=ARCHITECTURES[name].title,
        classes=DROSOPHILA_CLASSES,
        pixel_size=PIXEL_SIZE,
        licence="CC-BY-NC-SA-3.0",
        data=made,
        best=False,  # the last weights: choosing by validation would flatter the scores
    )


def score(development: Path) -> dict[str, object]:
    """Return the part of the card that says how good a network is: its development run, predicting as users do."""
    stack, truth = drosophila_vnc()
    images = as_stack(np.stack([stack.read(z) for z in VALIDATE]), voxel_size=(None, PIXEL_SIZE, PIXEL_SIZE))
    labels = predict(images, development, PredictConfig(device="cpu"))
    scores = evaluate(as_stack(labels), as_stack(np.stack([truth.read(z) for z in VALIDATE]))).pooled
    return {
        "sections": f"{VALIDATE[0]:02d}-{VALIDATE[-1]:02d}",
        "mean_iou": round(scores.mean_iou, 4),
        "iou": {n: round(v, 4) for n, v in zip(DROSOPHILA_CLASSES.names, scores.iou, strict=True)},
        "note": "of the development run, trained on sections 00-11",
    }


def ship(path: Path, development: Path) -> None:
    """Put a checkpoint into the package, with the scores of its development run, and its SHA-256 into the registry."""
    shipped = REGISTRY.parent / path.name
    spec = replace(load_spec(path), metrics=score(development))
    save_checkpoint(shipped, load_file(path), spec)
    print(f"{shipped}: {spec.metrics}", flush=True)
    rows = read_registry() | {
        spec.name: {
            "title": spec.title,
            "file": shipped.name,
            "sha256": sha256(shipped),
            "bytes": shipped.stat().st_size,
        }
    }
    total = sum(int(str(row["bytes"])) for row in rows.values())
    if total > BUDGET:
        raise SystemExit(f"All networks together would be {total} bytes, more than {BUDGET}.")
    atomic.write_bytes(REGISTRY, (json.dumps({"version": 1, "networks": rows}, indent=2) + "\n").encode())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where states, logs and checkpoints go")
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"all unless named: {', '.join(RECIPES)}")
    parser.add_argument("--ship", action="store_true", help="put the final checkpoints into the package's zoo")
    options = parser.parse_args(arguments)
    if unknown := set(options.networks) - set(RECIPES):
        parser.error(f"no such network: {', '.join(sorted(unknown))}")
    for name in options.networks or RECIPES:
        recipe = RECIPES[name]
        encoder = train(options.folder, recipe.encoder_from, None, final=False) if recipe.encoder_from else None
        development = train(options.folder, name, encoder, final=False)
        final = train(options.folder, name, development if recipe.final_steps else None, final=True)
        print(f"{final}: {final.stat().st_size / 1e6:.2f} MB", flush=True)
        if options.ship:
            ship(final, development)


if __name__ == "__main__":
    sys.exit(main())
