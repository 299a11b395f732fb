"""One round: from the annotation of a workspace and a network to a better network.

A generator of events, so that its caller shows progress and stops it. Whatever it needs is in the workspace folder,
and whatever it makes goes there, so it runs as well in another process; the events are JSON-ready.

=============  ===================================================================================================
event          further keys
=============  ===================================================================================================
``phase``      ``phase``: reading, adapting, training, scoring, predicting
``notice``     ``text``: what a user should know
``training``   ``step``, ``steps``, ``loss``, ``seconds``, ``seconds_left``; with locked regions now and then also
               ``mean_iou`` and ``iou`` (a list, by class)
``predicted``  ``section``: its labels are in the round's ``prediction``
``round``      ``round``: the finished round, as in ``round.json``; the last event
=============  ===================================================================================================
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_drososeg.checkpoint import NetworkSpec, save_checkpoint
from napari_drososeg.data.sections import AnnotatedSection
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference import PredictConfig, Predictor
from napari_drososeg.inference.engine import decide
from napari_drososeg.io import Stack
from napari_drososeg.training import TrainEvent, Training
from napari_drososeg.training.network import fabric as make_fabric
from napari_drososeg.training.sharing import describe
from napari_drososeg.workspace import adaptation, forest, recipes, scoring, window_inference
from napari_drososeg.workspace.folder import Workspace
from napari_drososeg.workspace.learning import train_config
from napari_drososeg.workspace.locking import FolderLock
from napari_drososeg.workspace.material import Window, read_windows
from napari_drososeg.workspace.recipes import SCRATCH, RetrainSettings
from napari_drososeg.workspace.rounds import START, Round
from napari_drososeg.workspace.starting import find_start, with_classes

Event = dict[str, Any]


def retrain(
    workspace: Workspace,
    stack: Stack,
    settings: RetrainSettings | None = None,
    *,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Learn from what is annotated, and keep the result as a round.

    Parameters
    ----------
    workspace : Workspace
        May be open for reading only.
    stack : Stack
        Its image.
    settings : RetrainSettings, optional
        How.
    stop : callable
        Asked at every step; True ends training early, keeps the best so far and finishes the round without what is
        not predicted yet. Closing the generator while it trains does the same.

    Yields
    ------
    dict
        See the top of this module.

    Raises
    ------
    DrososegError
        If nothing is annotated, another process is training in this workspace, the network's classes are others, or
        the disk is full. No round is kept then, and the one in use stays in use.
    """
    folder = workspace.rounds.folder
    folder.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(folder / ".lock", f"A round of the workspace '{workspace.folder}'")
    try:
        yield from _Retraining(workspace, stack, settings or RetrainSettings()).run(stop)
    finally:
        lock.release()


class _Retraining:
    """A round in the making; `run` does it step by step."""

    def __init__(self, workspace: Workspace, stack: Stack, settings: RetrainSettings) -> None:
        self.begin = time.perf_counter()
        self.workspace, self.stack, self.settings = workspace, stack, settings
        self.number = workspace.rounds.next_number()
        self.notices: list[str] = []
        self.adapted: dict[str, Any] = {}
        self.pixel_size = settings.pixel_size or workspace.pixel_size or stack.pixel_size
        if stack.pixel_size is None and self.pixel_size is not None:
            self.adapted["pixel_size"] = self.pixel_size  # what was said, or found out by an earlier round, stays known
        self.start = find_start(workspace, settings, self.pixel_size)
        self.spec, self.model = self.start.spec, self.start.model
        self.from_scratch = self.start.base == SCRATCH
        self.windows: list[Window] = []
        self.before: scoring.NetworkScores | None = None
        self.old_labels: list[NDArray[np.uint8]] | None = None

    def run(self, stop: Callable[[], bool]) -> Iterator[Event]:
        """Do it all; yields the events."""
        yield {"event": "phase", "phase": "reading"}
        self._read()
        yield from self._told()
        yield {"event": "phase", "phase": "adapting"}
        self._adapt()
        yield from self._told()
        training = self._training()
        yield {"event": "phase", "phase": "training"}
        steps = training.config.steps
        try:
            for event in training.run(event_every=1, validate_every=max(1, steps // recipes.VALIDATIONS)):
                yield _training_event(event, steps)
                if stop():
                    break
        except GeneratorExit:
            self._keep(training)
            raise
        yield {"event": "phase", "phase": "scoring"}
        finished = self._keep(training)
        for z in self.settings.predict:
            if stop():
                break
            yield {"event": "phase", "phase": "predicting"}
            if self._predict(z, stop):
                yield {"event": "predicted", "section": z}
        finished = replace(finished, seconds=round(time.perf_counter() - self.begin, 2))
        self.workspace.rounds.add(finished)
        yield {"event": "round", "round": finished.to_dict()}

    def _told(self) -> Iterator[Event]:
        while self.notices:
            yield {"event": "notice", "text": self.notices.pop(0)}

    @property
    def _predict_config(self) -> PredictConfig:
        said, kept = self.settings, self.workspace.settings
        fill_nan = said.fill_nan if said.fill_nan is not None else kept.get("fill_nan")
        invert = said.invert or bool(kept.get("invert"))
        return PredictConfig(said.device, "torch", pixel_size=self.pixel_size, invert=invert, fill_nan=fill_nan)

    def _read(self) -> None:
        self.windows = read_windows(self.workspace, self.stack, self.spec, self._predict_config, self.notices.append)
        if not any(w.labels.any() for w in self.windows):
            raise DrososegError("There is no annotation to train on: paint some corrections, or review a region.")
        self.counts = self.workspace.trained_pixels()  # now: painting goes on while this trains
        smallest = min(min(w.image.shape) for w in self.windows)
        self.train_config = train_config(self.settings, self.spec, self.start.base, smallest, self.number)
        self.fabric = make_fabric(self.train_config)
        self.model = self._placed(self.model)

    def _adapt(self) -> None:
        """Score the network as it is, then fit it to the image; see `napari_drososeg.workspace.adaptation`."""
        autocast, n_classes = self.fabric.autocast, len(self.spec.classes)
        if not self.start.blank:
            self.old_labels = [decide(self._probabilities(w)) for w in self.windows]
            self.before = scoring.score(self.windows, self.old_labels, n_classes)
        if self.from_scratch:
            return
        if self.start.origin is not None:
            spec, model = self.start.origin
            self._reestimate_norms(self._placed(model))
            self.model = self._placed(with_classes(spec, model, self.spec.classes))
            return
        parts = adaptation.crops([w.image for w in self.windows], [w.labels for w in self.windows])
        if adaptation.find_sign(self.model, parts, autocast, n_classes):
            self.adapted["inverted"] = True
            self.notices.append("Your annotations indicate inverted contrast; the network was adapted.")
        unknown = self.pixel_size is None
        if unknown and (factor := adaptation.find_magnification(self.model, parts, autocast, n_classes)) != 1:
            self.pixel_size = self.adapted["pixel_size"] = round(factor * self.spec.pixel_size, 3)
            self.notices.append(
                f"Your annotations suggest a pixel size of {self.pixel_size:.3g} nm; it is used from now on."
            )
            self._read()
            self.old_labels = None  # of other pixels
        self._reestimate_norms(self.model)

    def _placed(self, model: nn.Module) -> nn.Module:
        return model.to(self.fabric.device, memory_format=torch.channels_last)

    def _reestimate_norms(self, model: nn.Module) -> None:
        seen = (part for w in self.windows for part in window_inference.parts(w.image, self.spec))
        adaptation.reestimate_norms(model, seen, self.fabric.autocast)

    def _probabilities(self, window: Window) -> NDArray[np.float32]:
        return window_inference.probabilities(self.model, window.image, self.spec, self.fabric.autocast)

    def _training(self) -> Training:
        sections, validation = [], []
        for w, teacher in zip(self.windows, self._teachers(), strict=True):
            name = f"section {w.section}"
            if w.labels.any():
                sections.append(AnnotatedSection(w.image, w.labels, teacher, name))
            if w.validation.any():
                validation.append(AnnotatedSection(w.image, w.validation, None, name))
        start = None if self.from_scratch else {k: v.cpu() for k, v in self.model.state_dict().items()}
        return Training(sections, self.train_config, validation=validation, start=start)

    def _teachers(self) -> Sequence[NDArray[np.float16] | None]:
        """Return for each window what the network is held to where nothing is annotated."""
        if self.start.base:
            further = self._said_by_origin if self.start.origin is not None else None
            return forest.teach(self.windows, len(self.spec.classes), self.train_config.seed, further)
        return [self._probabilities(w).astype(np.float16) if w.labels.any() else None for w in self.windows]

    def _said_by_origin(self, window: Window) -> NDArray[np.float32]:
        assert self.start.origin is not None
        spec, model = self.start.origin
        return window_inference.probabilities(model, window.image, spec, self.fabric.autocast)

    def _keep(self, training: Training) -> Round:
        """Score what was learnt and write it down as a round; put it to use if it is better."""
        weights = training.weights()
        if self.start.base:
            self.model.load_state_dict(weights)
            if self.from_scratch:  # it saw little patches around strokes; the statistics are to be those of the image
                self._reestimate_norms(self.model)
        else:
            seen = [w.labels != 0 for w in self.windows if w.labels.any()]
            sparse = sum(s.sum() for s in seen) < recipes.SPARSE * sum(s.size for s in seen)
            adaptation.blend(self.model, weights, recipes.BLEND if sparse else 1.0)
        labels = [decide(self._probabilities(w)) for w in self.windows]
        after = scoring.score(self.windows, labels, len(self.spec.classes))
        first = self.workspace.rounds.in_use == START
        adopted, verdict = scoring.decide(self.before, after, self.spec.classes, first=first)
        scores = after.to_dict()
        if self.old_labels is not None:
            scores["drift"] = round(scoring.drift(self.windows, self.old_labels, labels), 4)
            if scores["drift"] > scoring.FAR_DRIFT and after.locked is None:
                verdict += f" Outside the annotation, {scores['drift']:.0%} of the pixels changed; please check."
        finished = Round(
            number=self.number,
            parent=self.start.parent,
            settings=self.settings.to_dict() | {"recipe": training.config.recipe()},
            annotated_pixels=self.counts,
            sections=tuple(sorted({w.section for w in self.windows if w.labels.any()})),
            before={} if self.before is None else self.before.to_dict(),
            after=scores,
            seconds=round(time.perf_counter() - self.begin, 2),
            adopted=adopted,
            verdict=verdict,
            stopped=not training.finished,
            finished=datetime.now().astimezone().isoformat(timespec="seconds"),
            adapted=self.adapted,
            base=self.start.base,
        )
        rounds = self.workspace.rounds
        save_checkpoint(rounds.checkpoint(self.number), self.model.state_dict(), self._spec(training, finished))
        rounds.add(finished)
        if adopted:
            rounds.use(self.number)
        return finished

    def _spec(self, training: Training, finished: Round) -> NetworkSpec:
        name = self.spec.name.partition("-round-")[0]
        title = self.spec.title.partition(", round ")[0]
        # trained anew, it has nothing of the round before, only of what both began with
        origin = self.spec.training.get("parent") if self.start.base and not self.start.blank else self.spec.training
        made = {
            "data": f"annotation of '{self.workspace.image.name}'",
            "sections": ", ".join(map(str, finished.sections)),
            "annotated_pixels": finished.annotated_pixels,
            **describe(training),
        }
        return replace(
            self.spec,
            name=f"{name}-round-{self.number}",
            title=f"{title}, round {self.number}",
            training=made | ({"parent": origin} if origin else {}),
            metrics=finished.after,
            parent=None if self.start.parent == SCRATCH else self.start.parent,
        )

    def _predict(self, z: int, stop: Callable[[], bool]) -> bool:
        """Predict a section into the workspace, tile by tile; False if `stop` came in between."""
        predictor = Predictor(self.workspace.rounds.checkpoint(self.number), self._predict_config)
        target = self.workspace.rounds.prediction(self.number, self.workspace.image.shape)
        for result in predictor.run(self.stack, predictor.plan(self.stack, sections=[z])):
            if stop():
                return False
            target.write(result.z, *result.slices, result.labels)
        return True


def _training_event(event: TrainEvent, steps: int) -> Event:
    plain: Event = {
        "event": "training",
        "step": event.step,
        "steps": steps,
        "loss": round(event.loss, 5),
        "seconds": round(event.seconds, 2),
        "seconds_left": round(event.seconds / event.step * (steps - event.step), 1),
    }
    if event.scores is not None:
        found = event.scores.to_dict()
        plain |= {"mean_iou": found["mean_iou"], "iou": found["iou"]}
    return plain
