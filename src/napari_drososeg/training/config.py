"""How a network is trained, and what a training says while it runs."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from napari_drososeg.data.augmentation import Augmentation
from napari_drososeg.errors import DrososegError
from napari_drososeg.losses import LossConfig
from napari_drososeg.metrics import Scores

SCHEDULES = ("one-cycle", "plateau")

LARGEST_SEED = 2**32 - 1
"""What steps and processes are multiplied with must fit into 63 bits."""

_WHERE = ("accelerator", "devices", "nodes", "strategy")
"""Fields that say where a training runs. They change no batch, so a run may be resumed elsewhere."""


@dataclass(frozen=True)
class Plateau:
    """When the learning rate is reduced, and when training stops early; the defaults are those of the reference study.

    Parameters
    ----------
    factor : float
        Factor by which the learning rate is multiplied.
    patience : int
        Number of consecutive validations without a better validation loss after which it is reduced.
    min_delta : float
        Minimum decrease of the loss that counts as an improvement for the learning rate.
    min_rate : float
        Lower bound of the learning rate.
    stop_after : int
        Number of consecutive validations without a better loss, however little better, after which training stops.
    """

    factor: float = 0.8
    patience: int = 5
    min_delta: float = 1e-4
    min_rate: float = 1e-4
    stop_after: int = 7


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained. It is kept with the state of a run: a resumed run must have the same.

    Parameters
    ----------
    architecture : str
        Key of `napari_drososeg.models.ARCHITECTURES`.
    arguments : dict
        Its arguments.
    n_classes : int
        Number of classes.
    steps, batch, patch : int
        Number of training steps (at most, with the schedule ``plateau``), patches per step, patch size in px.
    learning_rate, weight_decay : float
        Of AdamW; the learning rate is the peak of ``one-cycle``, the start of ``plateau``.
    warm_up : float
        Fraction of the steps in which the learning rate rises, of ``one-cycle``.
    average : float
        Decay of the exponential moving average of the weights, which is validated and kept; 0 turns it off.
    augmentation : Augmentation
        Of the patches.
    seed : int
        Of the initial weights and of the patches.
    precision : {"auto", "32-true", "bf16-mixed", "16-mixed"}
        As lightning-fabric names it. ``auto`` is bf16 if the device supports it.
    accelerator : str
        As lightning-fabric names it.
    loss : LossConfig
        The loss to minimise.
    schedule : {"one-cycle", "plateau"}
        Of the learning rate.
    plateau : Plateau
        Of the schedule ``plateau``, which needs validation sections.
    encoder_rate : float
        Factor of the learning rate for the encoder. 0 freezes it, statistics of its batch norms included.
    freeze_norms : bool
        Whether batch norms keep their initial statistics: those of a few small patches would be far off.
    distillation : float
        Weight of the divergence from the sections' teacher on unlabelled pixels; 0 leaves it out.
    class_patches : float
        Share of the patches that are centred on a pixel of a class drawn evenly among those that occur.
    devices, nodes : int
        Devices per node, and nodes. Each batch is split evenly.
    strategy : str
        Of several devices, as lightning-fabric names it.

    Raises
    ------
    DrososegError
        If a value is invalid.
    """

    architecture: str = "unet"
    arguments: dict[str, Any] = field(default_factory=dict)
    n_classes: int = 3
    steps: int = 1500
    batch: int = 8
    patch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warm_up: float = 0.15
    average: float = 0.99
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    precision: str = "auto"
    accelerator: str = "auto"
    loss: LossConfig = field(default_factory=LossConfig)
    schedule: Literal["one-cycle", "plateau"] = "one-cycle"
    plateau: Plateau = field(default_factory=Plateau)
    encoder_rate: float = 1.0
    freeze_norms: bool = False
    distillation: float = 0.0
    class_patches: float = 0.0
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise DrososegError(f"Unknown schedule '{self.schedule}'; choose one of: {', '.join(SCHEDULES)}.")
        for name in ("n_classes", "steps", "batch", "patch", "learning_rate", "devices", "nodes"):
            if not getattr(self, name) > 0:
                raise DrososegError(f"The {name.replace('_', ' ')} cannot be {getattr(self, name)}; use more than 0.")
        for name in ("weight_decay", "encoder_rate", "distillation"):
            if not getattr(self, name) >= 0:
                raise DrososegError(f"The {name.replace('_', ' ')} cannot be {getattr(self, name)}; use 0 or more.")
        for name in ("warm_up", "average", "class_patches"):
            if not 0 <= getattr(self, name) <= 1:
                raise DrososegError(f"The {name.replace('_', ' ')} cannot be {getattr(self, name)}; use 0 to 1.")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise DrososegError(f"The seed cannot be {self.seed}; use 0 to {LARGEST_SEED}.")

    def to_json(self) -> str:
        """Return the configuration as a JSON text."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    def recipe(self) -> dict[str, Any]:
        """Return, JSON-ready, what decides about the result: all but where it runs."""
        plain: dict[str, Any] = json.loads(self.to_json())
        return {k: v for k, v in plain.items() if k not in _WHERE}


@dataclass(frozen=True)
class TrainEvent:
    """What happened since the last event.

    Parameters
    ----------
    step : int
        Updates done.
    loss : float
        Mean training loss since the last event.
    learning_rate : float
        Of the last update.
    seconds : float
        Of training so far; the time between an interruption and the resumption does not count.
    scores : Scores or None
        On the validation sections, of the averaged weights; None between validations.
    validation_loss : float or None
        Likewise: the same loss, averaged over the labelled pixels of these sections.
    """

    step: int
    loss: float
    learning_rate: float
    seconds: float
    scores: Scores | None = None
    validation_loss: float | None = None
