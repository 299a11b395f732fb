"""The training itself: one generator that trains, and fine-tunes when it is given weights to start from."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_drososeg.data.patches import Batch, PatchSampler
from napari_drososeg.data.prefetch import Prefetch, threads_for
from napari_drososeg.data.sections import AnnotatedSection
from napari_drososeg.errors import DrososegError
from napari_drososeg.io import atomic
from napari_drososeg.losses import Loss, distillation
from napari_drososeg.models import find_architecture
from napari_drososeg.training import network, state
from napari_drososeg.training.average import MovingAverage
from napari_drososeg.training.config import TrainConfig, TrainEvent
from napari_drososeg.training.log import TrainLog
from napari_drososeg.training.preflight import class_counts, find_problems, refuse
from napari_drososeg.training.schedules import create_schedule
from napari_drososeg.training.validation import Validation, validate

if TYPE_CHECKING:
    from torch import Tensor

SAVE_EVERY = 300.0
"""Seconds after which the state is saved at the next event, also without a validation."""


class Training:
    """A run of training: its network, its optimiser and how far it is.

    Parameters
    ----------
    sections : sequence of AnnotatedSection
        What is trained on.
    config : TrainConfig
        How.
    validation : sequence of AnnotatedSection
        Sections to score, which are never trained on.
    start : mapping of str to Tensor, optional
        All weights to start from (fine-tuning); random otherwise.
    transfer : mapping of str to Tensor, optional
        Weights of another network: tensors whose name and shape fit are taken, the others stay random.
    folder : Path, optional
        Where ``last.safetensors`` (the whole state), ``best.safetensors`` (the best weights) and ``log.csv`` are kept.
        If it holds a state the run resumes from it, exactly.

    Attributes
    ----------
    step : int
        Updates done.
    seconds : float
        Of training so far.
    curve : list of dict
        What was found every `validate_every` steps: ``step``, ``loss`` and, where there are validation sections,
        ``validation_loss``, ``mean_iou`` and ``iou`` (of each class).
    transferred : int
        Number of tensors taken from `transfer`.

    Raises
    ------
    DrososegError
        If something cannot work (all of it is named), or the folder belongs to a run of other settings or sections.
    """

    def __init__(
        self,
        sections: Sequence[AnnotatedSection],
        config: TrainConfig,
        *,
        validation: Sequence[AnnotatedSection] = (),
        start: Mapping[str, Tensor] | None = None,
        transfer: Mapping[str, Tensor] | None = None,
        folder: Path | None = None,
    ) -> None:
        refuse(find_problems(sections, config, validation=validation, fresh=start is None))
        self.config, self.sections, self.validation, self.folder = config, sections, validation, folder
        self.step, self.seconds, self.transferred = 0, 0.0, 0
        self.curve: list[dict[str, Any]] = []
        self.loss = Loss(config.loss, class_counts(sections, config.n_classes))
        self.schedule = create_schedule(config)
        self.fabric = network.fabric(config)
        # without distillation a teacher is dead weight, and sections that have nothing else are left out
        self.sampler = PatchSampler(
            sections if config.distillation else [dataclasses.replace(s, teacher=None) for s in sections],
            config.patch,
            config.batch,
            config.augmentation,
            config.seed,
            class_patches=config.class_patches,
            rank=self.fabric.global_rank,
            ranks=self.fabric.world_size,
        )
        resumes = folder is not None and (folder / state.LAST).exists()
        model = network.build(config, pretrained=start is None and not resumes)
        if start is not None:
            network.load_start(model, start)
        if transfer is not None:
            self.transferred = network.transfer_weights(model, transfer)
        model = model.to(memory_format=torch.channels_last)
        self._frozen = network.encoder_of(model) if config.encoder_rate == 0 else []
        if config.freeze_norms:
            self._frozen += network.norms_of(model)
        optimiser = torch.optim.AdamW(
            network.parameter_groups(model, config.encoder_rate),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,  # one pass over the weights
        )
        self.model, self.optimiser = self.fabric.setup(model, optimiser)
        self.average = MovingAverage(self.model.module, config.average)
        self.best = state.BestWeights()
        self._inputs = {
            "inputs": state.digest_inputs(sections, start if transfer is None else transfer),
            "validation": state.digest_inputs(validation),
        }
        if folder is not None and self.is_main:
            for name in (state.LAST, state.BEST):
                atomic.remove_leftovers(folder / name)  # of a run that was killed while it saved
        if folder is not None and resumes:
            self._load_state(folder)

    @property
    def is_main(self) -> bool:
        """Whether this process is the one of several that writes and speaks."""
        return bool(self.fabric.is_global_zero)

    @property
    def finished(self) -> bool:
        """Whether there is nothing more to do."""
        return self.step >= self.config.steps or self.schedule.stopped

    def run(self, *, event_every: int = 10, validate_every: int = 250) -> Generator[TrainEvent]:
        """Train to the end; closing the generator stops.

        Parameters
        ----------
        event_every : int
            Steps between events.
        validate_every : int
            Steps between validations; at these the state is saved as well.

        Yields
        ------
        TrainEvent

        Raises
        ------
        DrososegError
            If the disk is full or, as `Diverged`, the loss is no longer finite; the folder still holds the last good
            state and the best weights.
        """
        losses: list[Tensor] = []
        begin = time.perf_counter() - self.seconds
        saved = time.perf_counter()
        path = self.folder / state.LOG if self.folder is not None and self.is_main else None
        with (
            Prefetch(self.sampler, self.config.steps, threads_for(self.fabric.device.type)) as batches,
            TrainLog(path, self.step, self.config.n_classes) as log,
        ):
            while not self.finished:
                rate = self.schedule.rate(self.step)
                losses.append(self._update(batches(self.step), rate))
                self.step += 1
                validates = self.step % validate_every == 0 or self.step == self.config.steps
                if not (validates or self.step % event_every == 0):
                    continue
                loss = self._mean(losses)
                losses.clear()
                found = self.validate() if validates and self.validation else None
                self.seconds = time.perf_counter() - begin
                scored = (None, None) if found is None else (found.scores, found.loss)
                event = TrainEvent(self.step, loss, rate, self.seconds, *scored)
                if validates:
                    self._note(event)
                log.write(event)
                if validates or time.perf_counter() - saved > SAVE_EVERY:
                    self._save_state()
                    saved = time.perf_counter()
                yield event

    def _update(self, batch: Batch, rate: float) -> Tensor:
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        device = self.fabric.device
        self.model.train()
        for module in self._frozen:
            module.eval()
        # Dropout too is a function of seed, step and rank, so that resuming is exact.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed((self.config.seed * 1_000_003 + self.step) * 1_009 + self.fabric.global_rank)
            logits = self.model(batch.images.to(device, memory_format=torch.channels_last))
        labels = batch.labels.to(device)
        loss = self.loss(logits, labels)
        if self.config.distillation and batch.teacher is not None:
            loss = loss + self.config.distillation * distillation(logits, labels, batch.teacher.to(device))
        self.optimiser.zero_grad()
        self.fabric.backward(loss)
        self.optimiser.step()
        self.average.update(self.model.module, self.step)
        return loss.detach()

    def _mean(self, losses: Sequence[Tensor]) -> float:
        mean = torch.stack(list(losses)).mean()
        if self.fabric.world_size > 1:
            mean = self.fabric.all_reduce(mean, reduce_op="mean")
        loss = float(mean)  # waits for the device: once an event, not once a step
        if not math.isfinite(loss):
            raise self._diverged()
        return loss

    def _diverged(self) -> state.Diverged:
        return state.diverged(self.step, self.config.learning_rate, self.folder)

    def _note(self, event: TrainEvent) -> None:
        """Add a row to the curve; where it is validated, tell the schedule and keep the weights if they are best."""
        row: dict[str, Any] = {"step": event.step, "loss": event.loss}
        if event.scores is not None and event.validation_loss is not None:
            row |= {"validation_loss": event.validation_loss, "mean_iou": event.scores.mean_iou}
            row["iou"] = event.scores.to_dict()["iou"]  # None, not NaN, for a class that is not there
            if not math.isfinite(event.validation_loss):
                raise self._diverged()
            self.schedule.validated(event.validation_loss)
            if self.best.beaten_by(event.scores.mean_iou):
                folder = self.folder if self.is_main else None
                self.best.keep(event.step, event.scores.mean_iou, self.average.weights(), folder)
        self.curve.append(row)

    def validate(self) -> Validation:
        """Score the averaged weights on the validation sections, pooled."""
        found = None
        if self.is_main:
            config = self.config
            # A network with global context is only itself on what is as large as its patches.
            context = find_architecture(config.architecture, **config.arguments).global_context
            window = config.patch if context else None
            found = validate(
                self.average.network, self.validation, self.loss, config.n_classes, self.fabric, window=window
            )
        if self.fabric.world_size > 1:
            found = self.fabric.broadcast(found)
        assert found is not None
        return found

    def weights(self, *, best: bool = True) -> dict[str, Tensor]:
        """Return the averaged weights, as `napari_drososeg.checkpoint.save_checkpoint` takes them.

        Parameters
        ----------
        best : bool
            Whether those with the best mean IoU of all validations are wanted; where there was none, and without
            `best`, it is the last ones.
        """
        return dict(self.best.weights) if best and self.best.weights else self.average.weights()

    def _save_state(self) -> None:
        if self.folder is None:
            return
        model = self.model.module.state_dict()
        if not all(bool(torch.isfinite(v).all()) for v in model.values()):
            raise self._diverged()  # before the last good state is replaced, and on every rank, or the others wait
        if not self.is_main:
            return
        parts = {
            "model": model,
            "averaged": self.average.network.state_dict(),
            "optimiser": state.optimiser_tensors(self.optimiser),
        }
        facts = {
            "step": self.step,
            "seconds": self.seconds,
            "recipe": self.config.recipe(),
            **self._inputs,
            "schedule": self.schedule.state(),
            "best": self.best.facts,
            "curve": self.curve,
            "precision": self.fabric.strategy.precision.state_dict(),  # the loss scale of fp16
        }
        state.save_tensors(self.folder / state.LAST, parts, facts)

    def _load_state(self, folder: Path) -> None:
        path = folder / state.LAST
        parts, facts = state.load_tensors(path)
        if facts.get("recipe") != self.config.recipe():
            raise DrososegError(f"'{path}' is the state of a run with other settings: use another folder.")
        if facts.get("inputs") != self._inputs["inputs"]:
            raise DrososegError(f"'{path}' is the state of a run on other sections: use another folder.")
        if facts.get("validation") != self._inputs["validation"]:  # its best score would stand for these
            raise DrososegError(
                f"'{path}' is the state of a run with other validation sections: name the same, or use another folder."
            )
        self.model.module.load_state_dict(parts["model"])
        state.restore_optimiser(self.optimiser, parts.get("optimiser", {}))
        self.schedule.restore(facts["schedule"])
        self.fabric.strategy.precision.load_state_dict(facts["precision"])
        self.step, self.seconds, self.curve = facts["step"], facts["seconds"], facts["curve"]
        self.best.restore(facts["best"], folder)
        self.average.restore(parts["averaged"], self.step)
