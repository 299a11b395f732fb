"""From a training to a network that can be used and given away: a checkpoint with all that its card says."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_drososeg.checkpoint import NetworkSpec, save_checkpoint
from napari_drososeg.classes import ClassTable
from napari_drososeg.data.normalisation import Normalisation, Statistics
from napari_drososeg.data.sections import AnnotatedSection
from napari_drososeg.inference.config import PredictConfig, processor_name
from napari_drososeg.inference.halo import measure_halo
from napari_drososeg.inference.tiling import align_up, global_halo
from napari_drososeg.io import as_stack, atomic
from napari_drososeg.models import find_architecture
from napari_drososeg.training.loop import Training

HALO_TILE = 512
"""Edge in px of the tiles with which the halo is measured; smaller where sections are smaller."""

HALO_SECTIONS = 4
CURVE_POINTS = 50
"""At most this many points of the validation curve are kept on the card."""


def finish(
    path: str | Path,
    training: Training,
    *,
    name: str,
    title: str,
    classes: ClassTable,
    pixel_size: float,
    licence: str,
    data: Mapping[str, Any] | None = None,
    parent: str | None = None,
    best: bool = True,
) -> Path:
    """Write the checkpoint of a training.

    Parameters
    ----------
    path : str or Path
        Ends in ``.safetensors``.
    training : Training
        Finished, or stopped.
    name, title : str
        What users type, what widgets show.
    classes : ClassTable
        What the output channels mean.
    pixel_size : float
        In-plane pixel size of the training data in nm.
    licence : str
        SPDX expression of the weights; see `inherit_licence`.
    data : mapping, optional
        What the card says about the training data, such as ``data``, ``sections`` and ``citation``.
    parent : str, optional
        Name and SHA-256 of the checkpoint it was fine-tuned from.
    best : bool
        As in `Training.weights`.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    DrososegError
        If the file cannot be written, or the weights do not fit into half precision.
    """
    config = training.config
    arguments = {k: v for k, v in config.arguments.items() if k != "encoder_weights"}
    architecture = find_architecture(config.architecture, **arguments)
    spec = NetworkSpec(
        name=name,
        title=title,
        architecture=config.architecture,
        arguments=arguments,
        classes=classes,
        normalisation=Normalisation(),
        pixel_size=pixel_size,
        stride=architecture.stride,
        receptive_field=architecture.receptive_field,
        global_context=architecture.global_context,
        halo=0,
        licence=licence,
        training={**(data or {}), **describe(training)},
        metrics=scores(training, classes, best=best),
        parent=parent,
        # tiles advance by whole strides, so that one alone could not overlap the next
        tile=max(config.patch, 2 * architecture.stride) if architecture.global_context else 0,
    )
    weights, target = training.weights(best=best), Path(path).absolute()
    trial = atomic.temporary_sibling(target)
    try:
        save_checkpoint(trial, weights, spec)
        halo = find_halo(trial, spec, training.sections)
    finally:
        atomic.remove(trial)
    return save_checkpoint(target, weights, dataclasses.replace(spec, halo=halo))


def describe(training: Training) -> dict[str, Any]:
    """Return, JSON-ready, how a network was made: recipe, curve, time and machine."""
    step = -(-len(training.curve) // CURVE_POINTS) or 1
    curve = training.curve[::-1][::step][::-1]  # from the end, which is what counts
    return {
        "recipe": training.config.recipe(),
        "steps": training.step,
        "curve": {
            key: [round(row[key], 4) for row in curve]
            for key in ("step", "loss", "validation_loss", "mean_iou")
            if curve and key in curve[0]
        },
        "minutes": round(training.seconds / 60, 1),
        "machine": f"{processor_name()}, {os.cpu_count()} cores, {training.fabric.device.type}, "
        f"torch {torch.__version__}",
    }


def scores(training: Training, classes: ClassTable, *, best: bool = True) -> dict[str, Any]:
    """Return, JSON-ready, the validation scores of the weights that are kept; nothing where none was validated."""
    rows = [row for row in training.curve if "mean_iou" in row]
    if not rows:
        return {}
    row = max(rows, key=lambda r: float(r["mean_iou"])) if best else rows[-1]
    return {
        "sections": ", ".join(s.name for s in training.validation if s.name) or f"{len(training.validation)} held out",
        "step": row["step"],
        "mean_iou": round(row["mean_iou"], 4),
        "iou": {n: v if v is None else round(v, 4) for n, v in zip(classes.names, row["iou"], strict=True)},
    }


def find_halo(checkpoint: Path, spec: NetworkSpec, sections: Sequence[AnnotatedSection]) -> int:
    """Return the default halo of a network in px: measured where its context is limited, else see `global_halo`.

    Tiles are a quarter of the sections or smaller; where that leaves no room, the halo covers the receptive field.
    """
    if spec.global_context:
        return global_halo(spec.tile, spec.stride)
    shape, _ = Counter(s.image.shape for s in sections).most_common(1)[0]
    tile = min(HALO_TILE, min(shape) // 2) // spec.stride * spec.stride
    if tile < 4 * spec.stride:
        return align_up(spec.receptive_field, spec.stride)
    alike = [s.image for s in sections if s.image.shape == shape]
    chosen = alike[:: -(-len(alike) // HALO_SECTIONS)]
    stack = as_stack(np.stack(chosen), voxel_size=(None, spec.pixel_size, spec.pixel_size))
    # They are normalised; measured again, black borders, no longer 0, would count and flatten the tissue.
    as_they_are = dict.fromkeys(range(len(chosen)), Statistics(0.0, 1.0))
    return measure_halo(checkpoint, stack, tile=tile, config=PredictConfig(engine="torch"), statistics=as_they_are)


def inherit_licence(own: str | None, parents: Sequence[str]) -> str:
    """Return the SPDX expression of weights made from data under `own` and from networks under `parents`.

    What a network was fine-tuned from keeps its licence: all of them apply together.
    """
    parts = dict.fromkeys(part for text in (own, *parents) if text for part in text.split(" AND "))
    return " AND ".join(parts) or "LicenseRef-unstated"
