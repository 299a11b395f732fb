"""Rounds of retraining: what is kept of each, on disk.

A round is a folder ``rounds/0001`` with its checkpoint and ``round.json``, which is written last: a folder without it
is a round that was not finished, and is not listed. ``rounds/in_use.json`` names the round whose network is in use;
the training process and the viewer may both write it, each in one piece.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from napari_drososeg.errors import DrososegError
from napari_drososeg.io import atomic
from napari_drososeg.workspace.chunks import ChunkedLabels

CHECKPOINT = "network.safetensors"
RECORD = "round.json"
START = 0
"""Number that stands for the network before the first round."""


@dataclass(frozen=True)
class Round:
    """One finished retraining.

    Parameters
    ----------
    number : int
        From 1.
    parent : str
        Name and SHA-256 of the network it started from, as in a checkpoint; ``"scratch"`` for random weights.
    settings : dict
        Of `napari_drososeg.workspace.retraining.RetrainSettings`, and what they came to.
    annotated_pixels : dict of str to int
        Pixels trained on, by class name.
    sections : tuple of int
        Those with annotation that trained.
    before, after : dict
        Scores of the parent and of the new network, see `napari_drososeg.workspace.scoring`.
    seconds : float
        Wall time.
    adopted : bool
        Whether it was put to use when it finished.
    verdict : str
        Why, or why not, in one sentence.
    stopped : bool
        Whether it was stopped before its last step.
    finished : str
        When, ISO 8601.
    adapted : dict
        What was found out about the image: ``pixel_size`` in nm where it was unknown, ``inverted``.
    base : str
        What its classes were learnt upon, where the network it started from had not learnt them before:
        ``"scratch"``, or name and SHA-256 of a network of other classes. The next round begins there again.
    """

    number: int
    parent: str
    settings: dict[str, Any]
    annotated_pixels: dict[str, int]
    sections: tuple[int, ...]
    before: dict[str, Any]
    after: dict[str, Any]
    seconds: float
    adopted: bool
    verdict: str
    stopped: bool = False
    finished: str = ""
    adapted: dict[str, Any] = field(default_factory=dict)
    base: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return asdict(self) | {"sections": list(self.sections)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Round:
        """Build one from what `to_dict` returns; keys that are not known are left out."""
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in plain.items() if k in known}
        return cls(**(values | {"sections": tuple(int(z) for z in plain["sections"])}))


class Rounds:
    """The rounds of one workspace, read from disk whenever they are asked for and have changed.

    Parameters
    ----------
    folder : Path
        ``rounds`` inside the workspace.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[Path, tuple[tuple[int, int], Round]] = {}

    def __iter__(self) -> Iterator[Round]:
        return iter(self.all())

    def __len__(self) -> int:
        return len(self.all())

    def all(self) -> list[Round]:
        """Return the finished rounds, oldest first; one whose record cannot be read is left out."""
        found = []
        for path in sorted(self.folder.glob(f"[0-9]*/{RECORD}")):
            try:
                stat = path.stat()
                state = stat.st_mtime_ns, stat.st_size
                if path not in self._read or self._read[path][0] != state:  # widgets ask several times a second
                    self._read[path] = state, Round.from_dict(json.loads(path.read_text(encoding="utf-8")))
                found.append(self._read[path][1])
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return found

    def find(self, number: int) -> Round:
        """Return one round.

        Raises
        ------
        DrososegError
            If there is none of that number.
        """
        for each in self.all():
            if each.number == number:
                return each
        raise DrososegError(f"There is no round {number}; there are {[r.number for r in self.all()]}.")

    def checkpoint(self, number: int) -> Path:
        """Return the checkpoint of a round."""
        return self.folder / f"{number:04d}" / CHECKPOINT

    def prediction(self, number: int, shape: tuple[int, int, int]) -> ChunkedLabels:
        """Return what a round predicted right after it was trained, as far as it did; (Z, Y, X)."""
        return ChunkedLabels(self.folder / f"{number:04d}" / "prediction.zarr", shape)

    @property
    def in_use(self) -> int:
        """Number of the round whose network is in use; `START` for the network before the first round."""
        try:
            number = int(json.loads((self.folder / "in_use.json").read_text(encoding="utf-8"))["round"])
        except (OSError, ValueError, KeyError, TypeError):
            return START
        return number if number == START or self.checkpoint(number).exists() else START

    def use(self, number: int) -> None:
        """Put the network of a round to use: adopt, roll back (`START` for the one before the first round).

        Raises
        ------
        DrososegError
            If there is no such round.
        """
        if number != START:
            self.find(number)
        atomic.write_bytes(self.folder / "in_use.json", json.dumps({"round": number}).encode())

    def next_number(self) -> int:
        """Return a number that no round has or had, finished or not."""
        return max((int(p.name) for p in self.folder.glob("[0-9]*") if p.name.isdecimal()), default=START) + 1

    def add(self, finished: Round) -> None:
        """Write the record of a round whose checkpoint is there; from now on it is listed."""
        text = json.dumps(finished.to_dict(), indent=1, allow_nan=False)
        atomic.write_bytes(self.folder / f"{finished.number:04d}" / RECORD, text.encode())
