"""The JSON files of a workspace: written in one piece, read with a clear message where they are damaged."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from napari_drososeg.classes import ClassTable
from napari_drososeg.errors import DrososegError
from napari_drososeg.io import atomic
from napari_drososeg.workspace.identity import ImageIdentity

FORMAT, FORMAT_VERSION = "drososeg-workspace", 1
MAIN = "workspace.json"


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


@dataclass(frozen=True)
class Description:
    """What ``workspace.json`` says.

    Parameters
    ----------
    image : ImageIdentity
        The image the workspace belongs to.
    classes : ClassTable
        What its label values mean.
    settings : dict
        What was said about the image, such as ``pixel_size`` in nm or ``invert``.
    created : str
        When, ISO 8601.
    """

    image: ImageIdentity
    classes: ClassTable
    settings: dict[str, Any] = field(default_factory=dict)
    created: str = field(default_factory=_now)

    def write(self, folder: Path) -> None:
        """Write it into the folder of a workspace."""
        plain = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "created": self.created,
            "image": self.image.to_dict(),
            "classes": self.classes.to_list(),
            "settings": self.settings,
        }
        write_json(folder / MAIN, plain)

    @classmethod
    def read(cls, folder: Path) -> Description:
        """Read it from the folder of a workspace.

        Raises
        ------
        DrososegError
            If it is missing, damaged or of a newer version.
        """
        if not (folder / MAIN).exists():
            raise DrososegError(f"There is no workspace in '{folder}': it has no {MAIN}.")
        plain = read_json(folder / MAIN)
        if plain.get("format") != FORMAT:
            raise DrososegError(f"'{folder}' is not a workspace of napari-drososeg.")
        try:
            if int(plain["version"]) > FORMAT_VERSION:
                raise DrososegError(
                    f"The workspace '{folder}' has format {plain['version']}, but this version reads up to "
                    f"{FORMAT_VERSION}: update napari-drososeg."
                )
            return cls(
                ImageIdentity.from_dict(plain["image"]),
                ClassTable.from_list(plain["classes"]),
                dict(plain.get("settings", {})),
                str(plain["created"]),
            )
        except DrososegError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(folder / MAIN, error) from error


def damaged(path: Path, reason: object) -> DrososegError:
    """Return the exception for a file that cannot be understood."""
    return DrososegError(f"'{path}' is damaged ({reason}): restore it from a backup.")


def write_json(path: Path, plain: object) -> None:
    """Write a JSON file, or leave what was there."""
    atomic.write_bytes(path, json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False).encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    DrososegError
        If it cannot be read or is none.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DrososegError(f"Cannot read '{path}': {error.strerror}.") from error
    except ValueError as error:
        raise damaged(path, error) from error
    if not isinstance(plain, dict):
        raise damaged(path, "it is not a JSON object")
    return plain
