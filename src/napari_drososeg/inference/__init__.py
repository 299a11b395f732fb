"""Inference: a stack and a network in, labels out, tile by tile. Importing it loads no torch."""

import sys

from napari_drososeg.inference.cache import cache_folder
from napari_drososeg.inference.child import Interrupted
from napari_drososeg.inference.config import Choice, PredictConfig, accelerators, choose
from napari_drososeg.inference.estimates import estimate_seconds
from napari_drososeg.inference.halo import measure_halo
from napari_drososeg.inference.pipeline import read_ahead, write_behind
from napari_drososeg.inference.predict import Predictor, predict
from napari_drososeg.inference.results import Result, Task
from napari_drososeg.inference.tiling import Grid, Tile, plan_tiles

# OpenVINO and NNCF send usage data where this package is found, from a forked process that lives on with our pipes and
# files open. Without it they send nothing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

__all__ = [
    "Choice",
    "Grid",
    "Interrupted",
    "PredictConfig",
    "Predictor",
    "Result",
    "Task",
    "Tile",
    "accelerators",
    "cache_folder",
    "choose",
    "estimate_seconds",
    "measure_halo",
    "plan_tiles",
    "predict",
    "read_ahead",
    "write_behind",
]
