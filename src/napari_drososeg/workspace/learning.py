"""How a network learns in a round: settings and effort of the user, and what the network knows already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_drososeg.data.augmentation import Augmentation
from napari_drososeg.losses import LossConfig
from napari_drososeg.training import TrainConfig
from napari_drososeg.workspace.recipes import EFFORTS, SCRATCH, RetrainSettings, steps_of

if TYPE_CHECKING:
    from napari_drososeg.checkpoint import NetworkSpec


@dataclass(frozen=True)
class Learning:
    """How a round learns, by what its network knows already.

    Parameters
    ----------
    learning_rate : float, optional
        Peak of the schedule; that of the effort unless given.
    encoder_rate : float
        Part of it for the encoder. Of a trained network that is general knowledge, which strokes must not overwrite.
    distillation : float
        Weight of staying with a teacher where nothing is annotated.
    class_patches : float
        Share of patches drawn on strokes of a class that is drawn evenly; the others are anywhere near annotation.
    """

    learning_rate: float | None
    encoder_rate: float
    distillation: float
    class_patches: float


LEARNING = Learning(None, encoder_rate=0.1, distillation=10.0, class_patches=0.75)
"""Of a network that has learnt its classes; it is its own teacher. Strokes are drawn where it is wrong, so they say too
little of where it is right: with a distillation of 1, six strokes cost 0.03 mIoU on other sections."""

LEARNING_CLASSES = Learning(1e-3, encoder_rate=0.1, distillation=3.0, class_patches=0.5)
"""Of one that has learnt others, taught by a forest; with a higher rate it forgets what it knows."""

LEARNING_ALL = Learning(1.2e-2, encoder_rate=1.0, distillation=10.0, class_patches=0.1)
"""From random weights, taught by a forest, which knows more than the strokes say."""


def train_config(settings: RetrainSettings, spec: NetworkSpec, base: str, smallest: int, number: int) -> TrainConfig:
    """Return how a round is trained.

    Parameters
    ----------
    settings : RetrainSettings
        As the user said.
    spec : NetworkSpec
        Of the network that learns.
    base : str
        What its classes are learnt upon; see `napari_drososeg.workspace.rounds.Round`.
    smallest : int
        Shortest edge in px of all windows.
    number : int
        Of the round, whose patches are others than those of the round before.
    """
    effort, scratch = EFFORTS[settings.effort], base == SCRATCH
    learning = LEARNING_ALL if scratch else LEARNING_CLASSES if base else LEARNING
    batch, patch = effort.batch, effort.patch
    if spec.tile > patch:  # only itself on such patches, of which fewer make as much work
        batch, patch = max(1, round(batch * (patch / spec.tile) ** 2)), spec.tile
    return TrainConfig(
        architecture=spec.architecture,
        arguments={k: v for k, v in spec.arguments.items() if k != "encoder_weights"},
        n_classes=len(spec.classes),
        steps=settings.steps or steps_of(effort, base),
        batch=batch,
        patch=min(patch, max(1, smallest // 16 * 16)),
        learning_rate=settings.learning_rate or learning.learning_rate or effort.learning_rate,
        augmentation=Augmentation.preset(settings.augmentation),
        seed=settings.seed + number,
        accelerator=settings.device if settings.device in ("auto", "cpu", "mps") else "cuda",
        loss=LossConfig.parse(settings.loss),
        encoder_rate=learning.encoder_rate,
        freeze_norms=not scratch,
        distillation=learning.distillation,
        class_patches=learning.class_patches,
    )
