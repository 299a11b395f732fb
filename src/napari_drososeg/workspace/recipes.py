"""How a round is trained: what a user can set, and what the efforts stand for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from napari_drososeg.errors import DrososegError

SCRATCH = "scratch"
"""Start that stands for random weights."""


@dataclass(frozen=True)
class Effort:
    """What one of the efforts stands for.

    Parameters
    ----------
    steps, batch, patch : int
        Number of updates, patches an update, edge of a patch in px.
    learning_rate : float
        Peak of the schedule, from a trained network.
    scratch_steps : int
        Number of updates from random weights.
    scratch_width : float
        Width of such a network. In few steps a small one learns more: it makes more of them in the same time.
    new_classes_steps : int
        Number of updates from a network of other classes.
    """

    steps: int
    batch: int
    patch: int
    learning_rate: float
    scratch_steps: int
    scratch_width: float
    new_classes_steps: int


EFFORTS: dict[str, Effort] = {
    "quick": Effort(24, 4, 128, learning_rate=3e-4, scratch_steps=160, scratch_width=0.125, new_classes_steps=100),
    "balanced": Effort(80, 6, 160, learning_rate=5e-4, scratch_steps=500, scratch_width=0.25, new_classes_steps=200),
    "thorough": Effort(300, 8, 192, learning_rate=5e-4, scratch_steps=1500, scratch_width=0.25, new_classes_steps=600),
}


def steps_of(effort: Effort, base: str) -> int:
    """Return the number of updates of a round whose classes are learnt upon `base`; see `rounds.Round`."""
    if base == SCRATCH:
        return effort.scratch_steps
    return effort.new_classes_steps if base else effort.steps


SCRATCH_NAME = "own"
"""Of networks that rounds from scratch make."""

SCRATCH_ARCHITECTURE = "unet"
SCRATCH_PIXEL_SIZE = 4.6
"""Of an image of unknown pixel size, nm; any number would do, as the image is never resampled then."""

VALIDATIONS = 4
"""How often the locked regions are scored during a round."""


BLEND = 0.7
"""Share of the trained weights in what is kept where annotation is sparse, the others being those from before. Between
the two, networks generalise better than at either end. After Wortsman et al.: Robust fine-tuning of zero-shot models.
CVPR 2022, arXiv 2109.01903."""

SPARSE = 0.1
"""Share of annotated pixels around annotation below which it is called sparse."""


@dataclass(frozen=True)
class RetrainSettings:
    """What a user can set. JSON-ready; kept with each round.

    Parameters
    ----------
    start : str, optional
        Name or checkpoint of the network to start from, or ``"scratch"``; the one in use unless given.
    effort : {"quick", "balanced", "thorough"}
        How long.
    steps : int, optional
        Instead of the effort's.
    learning_rate : float, optional
        Likewise.
    loss : str
        As `napari_drososeg.losses.LossConfig.parse` reads it.
    augmentation : str
        Name of a preset of `napari_drososeg.data.augmentation.Augmentation`.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"``.
    pixel_size : float, optional
        Of the image in nm, where its file does not say or is wrong.
    invert : bool
        Whether the image is bright on dark.
    fill_nan : float, optional
        Grey value put in place of NaN.
    predict : tuple of int
        Sections to predict right after, into the round's ``prediction``.
    seed : int
        Same seed, same round.

    Raises
    ------
    DrososegError
        If a value cannot work.
    """

    start: str | None = None
    effort: Literal["quick", "balanced", "thorough"] = "quick"
    steps: int | None = None
    learning_rate: float | None = None
    loss: str = "cross-entropy"
    augmentation: str = "mild"
    device: str = "auto"
    pixel_size: float | None = None
    invert: bool = False
    fill_nan: float | None = None
    predict: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.effort not in EFFORTS:
            raise DrososegError(f"Unknown effort '{self.effort}'; choose one of: {', '.join(EFFORTS)}.")
        for name in ("steps", "learning_rate", "pixel_size"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise DrososegError(f"The {name.replace('_', ' ')} cannot be {value}; use a number above 0.")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return asdict(self) | {"predict": list(self.predict)}
