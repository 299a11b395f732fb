"""What a run keeps on disk: its whole state, and the best weights so far. Safetensors, no pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_drososeg.data.sections import AnnotatedSection
from napari_drososeg.errors import DrososegError
from napari_drososeg.io import atomic

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

LAST = "last.safetensors"
BEST = "best.safetensors"
LOG = "log.csv"


class Diverged(DrososegError):
    """A training whose loss or weights are no longer finite."""


def digest_inputs(sections: Sequence[AnnotatedSection], start: Mapping[str, Tensor] | None = None) -> str:
    """Return a SHA-256 of what is trained on and from.

    Parameters
    ----------
    sections : sequence of AnnotatedSection
        Their images, labels and teachers count, not their names.
    start : mapping of str to Tensor, optional
        Weights.
    """
    digest = hashlib.sha256()
    for section in sections:
        for array in (section.image, section.labels, section.teacher):
            digest.update(b"none;" if array is None else f"{array.dtype.str}{array.shape};".encode())
            if array is not None:
                digest.update(array.tobytes())
    for name, value in (start or {}).items():
        digest.update(f"{name};{value.dtype}{tuple(value.shape)};".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_tensors(path: Path, parts: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]) -> None:
    """Write groups of tensors and JSON-ready facts, to a temporary name first.

    Raises
    ------
    DrososegError
        If the file cannot be written.
    """
    from safetensors.torch import save

    tensors = {
        f"{part}.{name}": value.detach().cpu().contiguous()
        for part, values in parts.items()
        for name, value in values.items()
    }
    atomic.write_bytes(path, save(tensors, metadata={k: json.dumps(v, sort_keys=True) for k, v in facts.items()}))


def load_tensors(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Raises
    ------
    DrososegError
        If it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    parts: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            facts = {k: json.loads(v) for k, v in (file.metadata() or {}).items()}
            for key in file.keys():  # noqa: SIM118 - no mapping
                part, _, name = key.partition(".")
                parts.setdefault(part, {})[name] = file.get_tensor(key)
    except (OSError, ValueError, SafetensorError) as error:
        raise DrososegError(
            f"'{path}' cannot be read as the state of a training ({error}): use another folder, or delete it."
        ) from error
    return parts, facts


def optimiser_tensors(optimiser: Optimizer) -> dict[str, Tensor]:
    """Return the tensors of an optimiser's state, named by parameter and key."""
    state = optimiser.state_dict()["state"]
    return {f"{index}.{key}": value for index, entry in state.items() for key, value in entry.items()}


def restore_optimiser(optimiser: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` returned."""
    import torch

    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".")
        like = parameters[int(index)]
        # The fused update reads plain memory: moments must lie as their weights do (channels last), which files forget.
        laid_out = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
        state.setdefault(int(index), {})[key] = laid_out
    optimiser.load_state_dict(optimiser.state_dict() | {"state": state})


class BestWeights:
    """The weights with the best mean IoU of all validations, in memory and on disk.

    Attributes
    ----------
    weights : dict of str to Tensor
        Empty before the first validation.
    facts : dict
        Their ``step`` and ``mean_iou``.
    """

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}
        self.facts: dict[str, Any] = {"step": 0, "mean_iou": -1.0}

    def beaten_by(self, mean_iou: float) -> bool:
        """Whether this score is better."""
        return mean_iou > float(self.facts["mean_iou"])

    def keep(self, step: int, mean_iou: float, weights: dict[str, Tensor], folder: Path | None) -> None:
        """Take these, and write them to the folder where there is one."""
        self.weights, self.facts = weights, {"step": step, "mean_iou": mean_iou}
        if folder is not None:
            save_tensors(folder / BEST, {"averaged": weights}, self.facts)

    def restore(self, facts: dict[str, Any], folder: Path) -> None:
        """Go on with what the folder holds.

        The file may be of a later validation than the state, if the program was stopped between writing the two. That
        validation will be found again.
        """
        self.facts = facts
        if facts["step"]:
            self.weights = load_tensors(folder / BEST)[0]["averaged"]


def diverged(step: int, learning_rate: float, folder: Path | None) -> Diverged:
    """Return the error of a training whose loss or weights are no longer finite."""
    kept = "nothing was kept, since there is no folder"
    if folder is not None:
        kept = f"the last good state and the best weights are in '{folder}'"
    return Diverged(
        f"The loss is no longer finite at step {step}: lower the learning rate ({learning_rate:g}); {kept}."
    )
