"""The training core: `Training` trains a network, and fine-tunes one when it is given weights to start from.

Its generator yields an event every few steps, so that its caller shows progress and stops it at any time. What crosses
from here to inference is a checkpoint alone: `finish` makes one.
"""

from napari_drososeg.training.config import Plateau, TrainConfig, TrainEvent
from napari_drososeg.training.loop import Training
from napari_drososeg.training.network import preferred_precision
from napari_drososeg.training.preflight import find_problems, refuse
from napari_drososeg.training.schedules import one_cycle
from napari_drososeg.training.sharing import finish, inherit_licence
from napari_drososeg.training.state import Diverged

__all__ = [
    "Diverged",
    "Plateau",
    "TrainConfig",
    "TrainEvent",
    "Training",
    "find_problems",
    "finish",
    "inherit_licence",
    "one_cycle",
    "preferred_precision",
    "refuse",
]
