"""The learning rate, step by step."""

from __future__ import annotations

import math
from typing import Any, Protocol

from napari_drososeg.training.config import TrainConfig


class Schedule(Protocol):
    """What a training asks about its learning rate."""

    @property
    def stopped(self) -> bool:
        """Whether training ends before its last step."""

    def rate(self, step: int) -> float:
        """Return the learning rate of an update."""

    def validated(self, loss: float) -> None:
        """Take note of a validation loss."""

    def state(self) -> dict[str, Any]:
        """Return, JSON-ready, what `restore` needs to go on."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""


def create_schedule(config: TrainConfig) -> Schedule:
    """Return the schedule a configuration names."""
    return OneCycle(config) if config.schedule == "one-cycle" else ReduceOnPlateau(config)


def one_cycle(step: int, config: TrainConfig) -> float:
    """Return the learning rate of an update: a rise from 1/25 to the peak, then down to 1/1000 of it, by cosines.

    After Smith and Topin: Super-convergence. 2018, arXiv 1708.07120.
    """
    rise = max(1.0, config.warm_up * config.steps)
    if step < rise:
        low, high, phase = 1 / 25, 1.0, step / rise
    else:
        low, high, phase = 1.0, 1e-3, (step - rise) / max(1.0, config.steps - rise)
    return config.learning_rate * (low + (high - low) * (1 - math.cos(math.pi * phase)) / 2)


class OneCycle:
    """`one_cycle`, which knows the number of steps and looks at no validation."""

    stopped = False

    def __init__(self, config: TrainConfig) -> None:
        self._config = config

    def rate(self, step: int) -> float:
        """Return the learning rate of an update."""
        return one_cycle(step, self._config)

    def validated(self, loss: float) -> None:
        """Do nothing."""

    def state(self) -> dict[str, Any]:
        """Return nothing: the step says it all."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Do nothing."""


class ReduceOnPlateau:
    """Lower the learning rate where the validation loss no longer falls, and stop where that does not help.

    Counts as Keras's ``ReduceLROnPlateau`` and ``EarlyStopping`` do, which the reference study names, each with the
    best loss that it has seen: the former overlooks gains of less than ``min_delta`` and counts anew after each
    reduction, the latter takes any gain.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._plateau = config.plateau
        self._rate = config.learning_rate
        self._best_by_far, self._best = math.inf, math.inf
        self._since_better_by_far, self._since_better = 0, 0

    @property
    def stopped(self) -> bool:
        """Whether no validation was better for too long."""
        return self._since_better >= self._plateau.stop_after

    def rate(self, step: int) -> float:  # noqa: ARG002 - of the protocol
        """Return the learning rate."""
        return self._rate

    def validated(self, loss: float) -> None:
        """Take note of a validation loss."""
        if loss < self._best:
            self._best, self._since_better = loss, 0
        else:
            self._since_better += 1
        if loss < self._best_by_far - self._plateau.min_delta:
            self._best_by_far, self._since_better_by_far = loss, 0
            return
        self._since_better_by_far += 1
        if self._since_better_by_far >= self._plateau.patience:
            # a rate that starts below the lowest one stays
            self._rate = min(self._rate, max(self._plateau.min_rate, self._rate * self._plateau.factor))
            self._since_better_by_far = 0

    def state(self) -> dict[str, Any]:
        """Return rate, best losses and counts."""
        return {
            "rate": self._rate,
            "best": None if math.isinf(self._best) else [self._best_by_far, self._best],
            "counts": [self._since_better_by_far, self._since_better],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._rate = state["rate"]
        self._best_by_far, self._best = state["best"] or (math.inf, math.inf)
        self._since_better_by_far, self._since_better = state["counts"]
