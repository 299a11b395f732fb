"""The reference study's training protocol, as printed, on as many sections as there are labels for.

Sections are cut into tiles of 256 x 256 px that do not overlap; 230 / 58 / 32 of 320 become training, validation and
test tiles at random, here in proportion. Batches of four, at most 300 epochs, learning rate 1e-3, ReduceLROnPlateau on
the validation loss, early stopping, best weights kept, focal loss with alpha 0.25 and gamma 2, flips, rotation, zoom.
What is ours: AdamW without weight decay for the study's unnamed optimiser, random initial weights, grey values
normalised by section, an epoch of as many tiles drawn at random as there are, weights chosen by the mIoU on the
validation tiles, and, but for ``--full-width``, the reduced widths of the zoo.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_drososeg.classes import DROSOPHILA_CLASSES
from napari_drososeg.data import measure, normalise
from napari_drososeg.data.augmentation import Augmentation
from napari_drososeg.data.sections import AnnotatedSection
from napari_drososeg.losses import LossConfig
from napari_drososeg.metrics import Scores, confusion_matrix
from napari_drososeg.models import create_model
from napari_drososeg.training import TrainConfig, Training

TILE = 256
SPLIT = (230, 58, 32)
BATCH = 4
SEED = 0


def split_tiles(images: NDArray[np.uint8], truth: NDArray[np.uint8]) -> list[list[AnnotatedSection]]:
    """Cut sections (Z, Y, X) into tiles and deal them out: training, validation, test."""
    tiles = [
        AnnotatedSection(pixels[y : y + TILE, x : x + TILE], labels[y : y + TILE, x : x + TILE])
        for image, labels in zip(images, truth, strict=True)
        for pixels in [normalise(image, measure(image))]
        for y in range(0, image.shape[0] - TILE + 1, TILE)
        for x in range(0, image.shape[1] - TILE + 1, TILE)
    ]
    order = np.random.default_rng(SEED).permutation(len(tiles))
    ends = np.rint(np.cumsum(SPLIT) / sum(SPLIT) * len(tiles)).astype(int)
    return [[tiles[k] for k in part] for part in np.split(order, ends[:-1])]


def train_and_score(
    name: str,
    arguments: dict[str, Any],
    sections: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    folder: Path | None,
    epochs: int,
    minutes: float = math.inf,
) -> dict[str, Any]:
    """Train one network by the protocol, or go on with it, and score its best weights on the test tiles.

    Without a folder nothing is kept to go on with.
    """
    train, validation, test = split_tiles(*sections)
    epoch = -(-len(train) // BATCH)
    config = TrainConfig(
        architecture=name,
        arguments=arguments,
        steps=epochs * epoch,
        batch=BATCH,
        patch=TILE,
        learning_rate=1e-3,
        weight_decay=0.0,
        average=0.0,
        augmentation=Augmentation.preset("study"),
        loss=LossConfig(terms=(("focal", 1.0),), gamma=2.0, alpha=(0.25,)),
        schedule="plateau",
        seed=SEED,
    )
    training = Training(train, config, validation=validation, folder=folder and folder / f"{epochs}-epochs")
    for event in training.run(event_every=epoch, validate_every=epoch):
        found = f"{event.scores.mean_iou:.4f}" if event.scores else ""
        print(f"{name}: epoch {event.step // epoch}, loss {event.loss:.4f}, {found}", file=sys.stderr, flush=True)
        if training.seconds > 60 * minutes:
            break
    ended = f"the limit of {epochs} epochs" if training.finished else f"the limit of {minutes:g} minutes"
    each = score(name, arguments, training.weights(), test)
    return {
        "averaged": Scores.mean_of(map(Scores.from_confusion, each)).to_dict(),
        "pooled": Scores.from_confusion(sum(each)).to_dict(),
        "epochs": training.step // epoch,
        "allowed": epochs,
        "stopped": "early stopping" if training.schedule.stopped else ended,
        "tiles": [len(train), len(validation), len(test)],
        "arguments": arguments,
        "seed": SEED,
        "minutes": round(training.seconds / 60, 1),
        "parameters": sum(w.numel() for w in training.model.parameters()),
    }


@torch.inference_mode()
def score(
    name: str, arguments: dict[str, Any], weights: dict[str, torch.Tensor], tiles: list[AnnotatedSection]
) -> list[NDArray[np.int64]]:
    """Return the confusion matrices of the tiles, each seen alone, in float32."""
    model = create_model(name, len(DROSOPHILA_CLASSES), **arguments).eval()
    model.load_state_dict(weights)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device)
    each = []
    for tile in tiles:
        logits = model(torch.from_numpy(np.ascontiguousarray(tile.image))[None, None].to(device))
        labels = (logits[0].argmax(0).cpu().numpy() + 1).astype(np.uint8)
        each.append(confusion_matrix(tile.labels, labels, len(DROSOPHILA_CLASSES)))
    return each
