"""What is known of a round while it is trained, and how long rounds take on this machine. No Qt here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from napari_drososeg._widgets.controls import preferences
from napari_drososeg._widgets.work.job import duration, shell_line
from napari_drososeg.workspace.recipes import EFFORTS, SCRATCH, SCRATCH_NAME, Effort, RetrainSettings, steps_of

SECTION = "retrain"
"""Of the remembered choices."""

PHASES = {
    "preparing": "Preparing the image",
    "starting": "Starting",
    "reading": "Reading the annotation",
    "adapting": "Fitting the network to the image",
    "training": "Training",
    "scoring": "Scoring the new network",
    "predicting": "Predicting what is on screen",
}


@dataclass
class TrainingState:
    """A round in the making, as its events tell it.

    Attributes
    ----------
    losses : list of (int, float)
        Step and loss.
    scores : list of (int, float, list of float or None)
        Step, mean IoU and IoU of each class on the locked regions.
    round : dict or None
        The finished round, as in ``round.json``.
    """

    phase: str = "preparing"
    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    seconds_left: float | None = None
    losses: list[tuple[int, float]] = field(default_factory=list)
    scores: list[tuple[int, float, list[float | None]]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    round: dict[str, Any] | None = None

    def take(self, event: dict[str, Any]) -> None:
        """Take an event of `napari_drososeg.workspace.retraining`."""
        kind = event.get("event")
        if kind == "phase":
            self.phase = event["phase"]
        elif kind == "notice":
            self.notices.append(event["text"])
        elif kind == "training":
            self.step, self.steps, self.seconds = event["step"], event["steps"], event["seconds"]
            self.seconds_left = event["seconds_left"]
            self.losses.append((event["step"], event["loss"]))
            if event.get("mean_iou") is not None:
                self.scores.append((event["step"], event["mean_iou"], event["iou"]))
        elif kind == "round":
            self.round = event["round"]

    @property
    def fraction(self) -> float | None:
        """Part of the training that is done; None before it begins and after it has ended."""
        return self.step / self.steps if self.phase == "training" and self.steps else None

    @property
    def words(self) -> str:
        """What goes on, in plain words."""
        text = PHASES.get(self.phase, self.phase)
        if self.phase != "training" or not self.steps:
            return f"{text} …"
        left = f", {duration(self.seconds_left)} left" if self.seconds_left and self.step < self.steps else ""
        score = f" · {100 * self.scores[-1][1]:.1f} % mean IoU on the locked regions" if self.scores else ""
        return f"{text}: step {self.step} of {self.steps}{left}{score}"


# ---- time


def work_of(effort: Effort, steps: int | None, base: str) -> int:
    """Pixels that a round trains on, over all its updates."""
    return (steps or steps_of(effort, base)) * effort.batch * effort.patch**2


def kind_of(network: str) -> str:
    """Return what shares a speed: a network and all rounds that come from it."""
    kind = network.partition("-round-")[0]
    return SCRATCH if kind == SCRATCH_NAME else kind


def remember_speed(network: str, settings: RetrainSettings, state: TrainingState, wall: float) -> None:
    """Keep how long a round took, from the press to the end (`wall`, seconds), for the next estimate."""
    if state.step < 5 or state.round is None:
        return
    done = work_of(EFFORTS[settings.effort], settings.steps, state.round["base"]) * state.step / state.steps
    speeds = dict(preferences.load(SECTION).get("speeds") or {})
    speeds[kind_of(network)] = {"per_pixel": state.seconds / done, "fixed": max(0.0, wall - state.seconds)}
    preferences.update(SECTION, {"speeds": speeds})


def known_speed(network: str) -> dict[str, float] | None:
    """Return what `remember_speed` has kept of a network on this machine, None for nothing."""
    speeds = preferences.load(SECTION).get("speeds")
    return speeds.get(kind_of(network)) if isinstance(speeds, dict) else None


def expected_seconds(speed: dict[str, float] | None, base: str, effort: str, steps: int | None) -> float | None:
    """How long a round will take on this machine; None where none was trained from its network yet.

    Parameters
    ----------
    speed : dict or None
        As `known_speed` gives it for the network that it starts from.
    base : str
        What its classes are learnt upon; see `napari_drososeg.workspace.rounds.Round`.
    effort : str
        How long it trains.
    steps : int or None
        Instead of the effort's.
    """
    if speed is None:
        return None
    try:
        pixels = work_of(EFFORTS[effort], steps, base)
        return float(speed["fixed"]) + float(speed["per_pixel"]) * pixels
    except (KeyError, TypeError, ValueError):
        return None


# ---- the command


def arguments(folder: Path, settings: RetrainSettings, image: str | Path | None) -> list[str]:
    """Command-line arguments that train a round.

    Parameters
    ----------
    folder : Path
        Of the workspace.
    settings : RetrainSettings
        How; only what differs from the defaults is said.
    image : str, Path or None
        Where the image is, if not where the workspace says.
    """
    words = ["fine-tune", "--workspace", str(folder)]
    if image is not None:
        words += ["--image", str(image)]
    default = asdict(RetrainSettings())
    for name, value in asdict(settings).items():
        option = "--" + {"start": "from"}.get(name, name.replace("_", "-"))
        if name == "effort" or value != default[name]:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += [option] if value is True else [option, text]
    return words


def command_line(folder: Path, settings: RetrainSettings, image: str | Path | None) -> str:
    """Command that trains the same round without a screen."""
    return shell_line(["drososeg", *arguments(folder, settings, image)])
