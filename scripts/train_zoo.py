"""Train the networks of the zoo on the public Drosophila VNC stack, any or all of them, resumably.

    export DROSOSEG_DATA=...                     # or let it be downloaded
    python scripts/train_zoo.py runs             # all, the U-Net first
    python scripts/train_zoo.py runs fpn linknet --ship

Each network is trained twice, from random weights. The *development* run sees sections 00-11 and is scored on 13-15,
which is what its card says (section 12 adjoins 13 and is left out). The *final* run is what ships: a shorter cycle on
all of 00-15 from the development weights; no score chooses anything in it. On a graphics card it takes minutes, and
several networks can be trained at the same time. On two cores it takes hours; there the encoder of another network, or
an earlier state of the same, is a start that spares half of the steps (``--from``).

Interrupted, the same command goes on from the last validation. What is done is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from safetensors.torch import load_file

from napari_drososeg.checkpoint import load_model, load_spec, save_checkpoint, sha256
from napari_drososeg.classes import DROSOPHILA_CLASSES
from napari_drososeg.data.augmentation import Augmentation
from napari_drososeg.data.sections import AnnotatedSection, annotated_section
from napari_drososeg.evaluation import evaluate
from napari_drososeg.inference import PredictConfig, Predictor, predict
from napari_drososeg.inference.config import processor_name
from napari_drososeg.io import as_stack, atomic
from napari_drososeg.losses import LossConfig
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

AUGMENTATION = Augmentation.preset("medium")
"""Twelve sections are soon learnt by heart."""


@dataclass(frozen=True)
class Recipe:
    """How a network of the zoo is made.

    Parameters
    ----------
    megabytes : float
        Largest file that may ship. Together they are 95 MB.
    arguments : dict
        Of its architecture: widths that keep the file as small.
    steps : int
        Updates of the development run.
    learning_rate : float
        Its peak.
    final_steps : int
        Updates of the final run, which goes on from the development weights with a quarter of the learning rate.
    patch : int
        Edge of a patch in px.
    source : Path, optional
        Checkpoint from which the development run takes the weights that fit.
    augmentation : Augmentation
        Of the patches.
    """

    megabytes: float
    arguments: dict[str, Any]
    steps: int
    learning_rate: float
    final_steps: int
    patch: int = 256
    source: Path | None = None
    augmentation: Augmentation = AUGMENTATION


RECIPES = {
    "unet": Recipe(9.8, {"width": 0.5, "decoder_width": 0.25}, 3750, 2e-3, 850),
    "fcn8": Recipe(8.05, {"width": 0.5, "fc_channels": 256, "fc_kernel": 3, "batch_norm": True}, 3500, 1.5e-3, 780),
    "fpn": Recipe(8.05, {"width": 0.5, "decoder_width": 0.25}, 3300, 1.5e-3, 730),
    "linknet": Recipe(8.05, {"width": 0.5}, 3150, 2e-3, 670),
    "deeplabv3plus": Recipe(7.7, {"width": 0.5, "decoder_width": 0.25}, 3550, 1.5e-3, 810),
    "r2unet": Recipe(9.15, {"width": 0.5, "decoder_width": 0.25}, 2700, 1.5e-3, 630),
    "attention-unet": Recipe(9.95, {"width": 0.5, "decoder_width": 0.25}, 2850, 2e-3, 670),
    "pspnet": Recipe(8.1, {"width": 0.5, "decoder_width": 0.1875}, 3400, 1.5e-3, 750),
    "segnet": Recipe(8.35, {"width": 0.375}, 3000, 2e-3, 640),
    "transunet": Recipe(
        7.6,
        {"width": 0.5, "decoder_width": 0.5, "layers": [2, 2, 2], "dim": 192, "depth": 3, "heads": 6},
        2600,
        1e-3,
        600,
    ),
    "swin-unet": Recipe(
        10.15,
        {"dim": 48, "depths": [2, 2, 2, 1], "heads": [2, 4, 8, 16], "drop_path": 0.0},
        6000,
        1.2e-3,
        1000,
        augmentation=Augmentation(),  # the others' was not tried for as long
        # what ships had 250 final steps in batches of 4, on a processor
    ),
}
LOSS = LossConfig.parse("weighted:1,1.3,1.1")
"""Weights of the classes. What is best for the IoU is to choose a class where its probability is above J / (1 + J), J
being the IoU that is reached, not above one half: odds of 1 / J, here taken against those of cytoplasm."""


def load(numbers: Sequence[int]) -> list[AnnotatedSection]:
    """Read sections of the public stack with their labels."""
    stack, truth = drosophila_vnc()
    return [annotated_section(stack.read(z), truth.read(z), f"section {z:02d}") for z in numbers]


def described(start: Path, tensors: int) -> str:
    """Return what a run started from, for the card."""
    spec = load_spec(start)
    return f"{tensors} tensors of {spec.name}, trained on sections {spec.training['sections']}, {sha256(start)}"


def train(folder: Path, name: str, recipe: Recipe, start: Path | None, *, final: bool) -> Path:
    """Make one of the two runs of a network, or go on with it; return its checkpoint.

    Parameters
    ----------
    folder : Path
        Where the folders of the runs are.
    name : str
        The network.
    recipe : Recipe
        How it is made.
    start : Path, optional
        Checkpoint of which the weights that fit are taken; for a final run those of the development run.
    final : bool
        Whether it is the run that ships.
    """
    path = folder / f"{name}-{'00-15' if final else '00-11'}" / f"{name}.safetensors"
    config = TrainConfig(
        architecture=name,
        arguments=recipe.arguments,
        steps=recipe.steps,
        patch=recipe.patch,
        learning_rate=recipe.learning_rate,
        average=0.995,
        augmentation=recipe.augmentation,
        loss=LOSS,
    )
    if final:
        config = replace(config, steps=recipe.final_steps, learning_rate=recipe.learning_rate / 4, seed=1)
    if path.exists():
        if load_spec(path).training["recipe"] != config.recipe():
            print(f"{path} is there, made by another recipe, and kept; to train anew, name another folder.", flush=True)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = None
    if start is not None:
        weights = load_model(start)[1].state_dict()
    training = Training(
        load(ALL if final else TRAIN),
        config,
        validation=[] if final else load(VALIDATE),
        folder=path.parent,
        transfer=weights,
    )
    for event in training.run(event_every=20, validate_every=max(1, config.steps // 8)):
        scores = f"{event.scores.mean_iou:.4f}" if event.scores else ""
        print(path.parent.name, event.step, f"{event.loss:.4f}", f"{event.seconds:.0f} s", scores, flush=True)
    sections = training.sections
    made = {
        "data": "larval Drosophila ventral nerve cord, ssTEM",
        "sections": f"{sections[0].name[-2:]}-{sections[-1].name[-2:]}",
        "citation": CITATION,
        "licence": "CC BY-NC-SA 3.0",
        "start": "random" if start is None else described(start, training.transferred),
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


def measure_speed(checkpoint: Path, turns: int = 3) -> dict[str, object]:
    """Return the part of the card that says how fast a network is: the median over whole sections, and on what."""
    stack, _ = drosophila_vnc()
    predictor = Predictor(checkpoint, PredictConfig(device="cpu"))
    times = []
    for _ in range(turns + 1):
        start = time.perf_counter()
        for _ in predictor.run(stack, predictor.plan(stack, sections=[0])):
            pass
        times.append(time.perf_counter() - start)
    return {
        "megapixels_per_second": round(stack.shape[1] * stack.shape[2] / median(times[1:]) / 1e6, 2),  # 0 compiles
        "measured_on": f"{predictor.description}, {processor_name()}, {os.cpu_count()} cores",
    }


def ship(path: Path, development: Path, registry: Path = REGISTRY) -> None:
    """Put a checkpoint into the package, and its SHA-256 into the registry.

    Its card gets the scores and the curve of the development run, and the speed.
    """
    spec, made = load_spec(path), load_spec(development).training
    if path.stat().st_size > 1e6 * RECIPES[spec.name].megabytes:
        raise SystemExit(f"{path} has more than the {RECIPES[spec.name].megabytes:g} MB that may ship.")
    spec = replace(
        spec,
        training=spec.training | {"development": {key: made[key] for key in ("start", "steps", "minutes", "curve")}},
        metrics=score(development) | measure_speed(path),
    )
    shipped = save_checkpoint(registry.parent / path.name, load_file(path), spec)
    print(f"{shipped}: {spec.metrics}", flush=True)
    rows = read_registry(registry)
    rows[spec.name] = {
        "title": spec.title,
        "file": shipped.name,
        "sha256": sha256(shipped),
        "bytes": shipped.stat().st_size,
    }
    atomic.write_bytes(registry, (json.dumps({"version": 1, "networks": rows}, indent=2) + "\n").encode())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where states, logs and checkpoints go")
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"all unless named: {', '.join(RECIPES)}")
    parser.add_argument("--development", action="store_true", help="leave out the final runs")
    own = parser.add_argument_group("for the networks named, instead of what their recipes say")
    own.add_argument("--steps", type=int, metavar="N", help="updates of the development run")
    own.add_argument("--final-steps", type=int, metavar="N", help="updates of the final run")
    own.add_argument("--patch", type=int, metavar="PX", help="edge of a patch")
    own.add_argument("--learning-rate", type=float, metavar="RATE", help="its peak")
    own.add_argument("--from", type=Path, metavar="CHECKPOINT", dest="source", help="take the weights that fit")
    parser.add_argument("--ship", action="store_true", help="put the final checkpoints into the package's zoo")
    options = parser.parse_args(arguments)
    if unknown := set(options.networks) - set(RECIPES):
        parser.error(f"no such network: {', '.join(sorted(unknown))}")
    names = ("steps", "final_steps", "patch", "learning_rate", "source")
    own_values = {k: v for k in names if (v := getattr(options, k)) is not None}
    for name in options.networks or RECIPES:
        recipe = replace(RECIPES[name], **own_values)
        development = train(options.folder, name, recipe, recipe.source, final=False)
        if options.development:
            continue
        final = train(options.folder, name, recipe, development, final=True)
        print(f"{final}: {final.stat().st_size / 1e6:.2f} MB", flush=True)
        if options.ship:
            ship(final, development)


if __name__ == "__main__":
    sys.exit(main())
