"""Measuring how much context a network really needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_drososeg.data.normalisation import Statistics
from napari_drososeg.inference.config import PredictConfig
from napari_drososeg.inference.predict import Predictor
from napari_drososeg.inference.tiling import align_up, global_halo
from napari_drososeg.io import Stack

SAME_LABELS = 0.9995
"""Share of labels that the default halo leaves as in the whole section, on average over those it is measured on."""


def measure_halo(
    network: str | Path,
    stack: Stack,
    *,
    tile: int = 512,
    config: PredictConfig | None = None,
    statistics: Mapping[int, Statistics] | None = None,
) -> int:
    """Find the smallest halo with which tiles agree with the whole section.

    Parameters
    ----------
    network : str or Path
        Name of a network, or its checkpoint.
    stack : Stack
        Images such as it was trained on, larger than `tile`.
    tile : int
        Part in px of each tile's edge that is written. Where sections are several times as large and prediction
        uses larger ones, there are more seams and the halo found is on the safe side.
    config : PredictConfig, optional
        Device, engine and precision; its halo and tile are not used.
    statistics : mapping of int to Statistics, optional
        Of sections, instead of measured ones, as for `Predictor.run`.

    Returns
    -------
    int
        Multiple of the network's stride, at most its receptive field, for which at least `SAME_LABELS` of the labels
        are equal. Where the context is global no halo does that: then it is a quarter of the network's own tile.
    """
    predictor = Predictor(network, config)
    spec = predictor.spec
    longest = align_up(max(stack.shape[1:]), spec.stride)
    if spec.global_context:
        return global_halo(spec.tile or tile, spec.stride)
    limit = align_up(spec.receptive_field, spec.stride)

    def labels(halo: int, edge: int) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
        predictor.config = replace(predictor.config, halo=halo, tile=edge)
        out = np.zeros(stack.shape, np.uint8)
        for result in predictor.run(stack, predictor.plan(stack), statistics=statistics):
            out[result.z, *result.slices] = result.labels
        return out

    whole = labels(0, 2 * longest)
    for halo in range(0, limit, spec.stride):
        if np.mean(labels(halo, tile + 2 * halo) == whole) >= SAME_LABELS:
            return halo
    return limit
