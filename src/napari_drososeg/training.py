"""The training core: one generator that trains, and fine-tunes when it is given weights to start from.

It yields an event every few steps, so that its caller shows progress and stops it at any time. What crosses from here
to inference is a checkpoint alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from napari_drososeg.data.patches import AnnotatedSection, Augmentation, PatchSampler
from napari_drososeg.errors import DrososegError
from napari_drososeg.io import atomic
from napari_drososeg.losses import cross_entropy
from napari_drososeg.metrics import Scores, confusion_matrix
from napari_drososeg.models import create_model

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained. The whole of it is kept in the state file: a resumed run must have the same.

    Parameters
    ----------
    architecture : str
        Key of `napari_drososeg.models.ARCHITECTURES`.
    arguments : dict
        Its arguments.
    n_classes : int
        Number of classes.
    steps, batch, patch : int
        Number of updates, patches an update, edge of a patch in px.
    learning_rate, weight_decay : float
        Of AdamW; the learning rate is the peak of a one-cycle schedule.
    warm_up : float
        Fraction of the steps in which the learning rate rises.
    average : float
        Decay of the exponential moving average of the weights, which is what is validated and kept.
    augmentation : Augmentation
        Of the patches.
    seed : int
        Of the initial weights and of the patches.
    precision : {"auto", "32-true", "bf16-mixed", "16-mixed"}
        As lightning-fabric names it. ``auto`` is bf16 where the processor computes in it.
    accelerator : str
        As lightning-fabric names it.
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

    def to_json(self) -> str:
        """Return the configuration as a JSON text."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


@dataclass(frozen=True)
class TrainEvent:
    """What happened since the last event.

    Parameters
    ----------
    step : int
        Updates done.
    loss : float
        Mean training loss since the last event, in nats.
    learning_rate : float
        Of the last update.
    seconds : float
        Since the start, or the resumption, of the run.
    scores : Scores or None
        On the validation sections, of the averaged weights; None between validations.
    """

    step: int
    loss: float
    learning_rate: float
    seconds: float
    scores: Scores | None = None


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


def preferred_precision() -> str:
    """Return the precision that is fastest here without losing accuracy: bf16 where it is computed natively."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16")
    return "bf16-mixed" if native else "32-true"


def _digest(sections: Sequence[AnnotatedSection], start: dict[str, Tensor] | None) -> str:
    """Return a SHA-256 of what is trained on and from."""
    digest = hashlib.sha256()
    for section in sections:
        digest.update(section.image.tobytes())
        digest.update(section.labels.tobytes())
    for name, value in (start or {}).items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


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
    start : dict of str to Tensor, optional
        Weights to start from (fine-tuning); random otherwise.
    state_file : Path, optional
        Where the whole state is kept between events with a validation. If the file exists the run resumes from it.

    Raises
    ------
    DrososegError
        If the sections are too small, or the state file belongs to a run with another configuration.
    """

    def __init__(
        self,
        sections: Sequence[AnnotatedSection],
        config: TrainConfig,
        *,
        validation: Sequence[AnnotatedSection] = (),
        start: dict[str, Tensor] | None = None,
        state_file: Path | None = None,
    ) -> None:
        self.config = config
        self.validation = validation
        self.state_file = state_file
        self.step = 0
        self._inputs = _digest(sections, start)
        self.sampler = PatchSampler(sections, config.patch, config.batch, config.augmentation, config.seed)
        precision = preferred_precision() if config.precision == "auto" else config.precision
        self.fabric = Fabric(accelerator=config.accelerator, devices=1, precision=precision)
        for number, section in enumerate([*sections, *validation]):
            if section.labels.max(initial=0) > config.n_classes:
                raise DrososegError(
                    f"Annotated section {number} holds the label {section.labels.max()}, but there are only "
                    f"{config.n_classes} classes."
                )
        arguments = dict(config.arguments)
        if start is not None or (state_file is not None and state_file.exists()):
            arguments.pop("encoder_weights", None)  # overwritten in a moment: not worth a download
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            model = create_model(config.architecture, config.n_classes, **arguments)
        if start is not None:
            model.load_state_dict(start)
        model = model.to(memory_format=torch.channels_last)
        optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        self.model, self.optimiser = self.fabric.setup(model, optimiser)
        # A moving average with constant decay would remember the random start: it is warmed up in `_average`.
        self.averaged = AveragedModel(self.model.module, use_buffers=True, multi_avg_fn=get_ema_multi_avg_fn(0.0))
        if state_file is not None and state_file.exists():
            self._load_state(state_file)

    def run(self, *, event_every: int = 10, validate_every: int = 250) -> Iterator[TrainEvent]:
        """Train to the last step.

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
            If the loss is no longer finite; the state file still holds the last good state.
        """
        begin, losses = time.perf_counter(), []
        while self.step < self.config.steps:
            rate = one_cycle(self.step, self.config)
            losses.append(self._update(rate))
            self.step += 1
            last = self.step == self.config.steps
            validates = self.step % validate_every == 0 or last
            if not (validates or self.step % event_every == 0):
                continue
            loss = float(np.mean(losses))
            if not math.isfinite(loss):
                raise self._diverged()
            losses.clear()
            if validates:
                self._save_state()
            scores = self.validate() if validates and self.validation else None
            yield TrainEvent(self.step, loss, rate, time.perf_counter() - begin, scores)

    def _diverged(self) -> DrososegError:
        return DrososegError(
            f"The loss is no longer finite at step {self.step}: lower the learning rate "
            f"({self.config.learning_rate:g}). The state of the last validation is kept."
        )

    def _update(self, rate: float) -> float:
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        images, labels = self.sampler(self.step)
        device = self.fabric.device
        self.model.train()
        with torch.random.fork_rng():  # dropout too is a function of seed and step, so that resuming is exact
            torch.manual_seed(self.config.seed * 1_000_003 + self.step)
            logits = self.model(torch.from_numpy(images).to(device, memory_format=torch.channels_last))
        loss = cross_entropy(logits, torch.from_numpy(labels).to(device))
        self.optimiser.zero_grad()
        self.fabric.backward(loss)
        self.optimiser.step()
        self._average()
        return float(loss.detach())

    def _average(self) -> None:
        decay = min(self.config.average, (1 + self.step) / (10 + self.step))
        self.averaged.multi_avg_fn = get_ema_multi_avg_fn(decay)
        self.averaged.update_parameters(self.model.module)

    def weights(self) -> dict[str, Tensor]:
        """Return the averaged weights, as `napari_drososeg.checkpoint.save_checkpoint` takes them."""
        return {k: v.detach().cpu().contiguous() for k, v in self.averaged.module.state_dict().items()}

    def validate(self) -> Scores:
        """Score the averaged weights on the validation sections, each seen whole, pooled."""
        n = self.config.n_classes
        network = self.averaged.module.eval()
        matrix = np.zeros((n, n + 1), np.int64)
        with torch.inference_mode(), self.fabric.autocast():
            for section in self.validation:
                image = torch.from_numpy(section.image)[None, None].to(
                    self.fabric.device, memory_format=torch.channels_last
                )
                labels = network(image)[0].argmax(0).to(torch.uint8).cpu().numpy() + np.uint8(1)
                matrix += confusion_matrix(section.labels, labels, n)
        return Scores.from_confusion(matrix)

    def _save_state(self) -> None:
        if self.state_file is None:
            return
        from safetensors.torch import save

        tensors = {f"model.{k}": v for k, v in self.model.module.state_dict().items()}
        if not all(bool(torch.isfinite(v).all()) for v in tensors.values()):
            raise self._diverged()  # before the last good state is replaced
        tensors |= {f"averaged.{k}": v for k, v in self.averaged.module.state_dict().items()}
        for index, entry in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{k}": v for k, v in entry.items()}
        content = save(
            {k: v.detach().cpu().contiguous() for k, v in tensors.items()},
            metadata={"step": str(self.step), "config": self.config.to_json(), "inputs": self._inputs},
        )
        atomic.write_bytes(self.state_file, content)

    def _load_state(self, path: Path) -> None:
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            if metadata.get("config") != self.config.to_json():
                raise DrososegError(f"'{path}' is the state of a run with other settings: use another folder.")
            if metadata.get("inputs") != self._inputs:
                raise DrososegError(f"'{path}' is the state of a run on other sections: use another folder.")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        part = {
            prefix: {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            for prefix in ("model.", "averaged.", "optimiser.")
        }
        self.model.module.load_state_dict(part["model."])
        self.averaged.module.load_state_dict(part["averaged."])
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in part["optimiser."].items():
            index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": state})
        self.step = int(metadata["step"])
        # The first update of an average copies the weights; a resumed one must not.
        self.averaged.n_averaged.fill_(self.step)
