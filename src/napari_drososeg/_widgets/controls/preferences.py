"""What the user chose last time: a small JSON file in their configuration folder.

Nothing tied to one image is kept there. A damaged or unwritable file costs the memory of the choices, never a run.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def path() -> Path:
    """Where the choices lie; ``DROSOSEG_CONFIG`` names another folder."""
    import platformdirs

    folder = os.environ.get("DROSOSEG_CONFIG")
    return Path(folder or platformdirs.user_config_path("napari-drososeg")) / "choices.json"


def load(section: str) -> dict[str, Any]:
    """Choices of one widget, empty where there are none."""
    try:
        everything = json.loads(path().read_text(encoding="utf-8"))
        return dict(everything[section])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def update(section: str, choices: dict[str, Any]) -> None:
    """Keep choices of one widget beside its others; nothing is written where nothing is new."""
    before = load(section)
    after = {**before, **choices}
    if after != before:
        save(section, after)


def restore(section: str, form: object, names: Sequence[str]) -> dict[str, Any]:
    """Put choices into the fields of a form that have their names.

    Returns
    -------
    dict
        What a field does not take: a choice of an older version, or of another machine.
    """
    refused = {}
    for name, value in load(section).items():
        if name in names:
            try:
                getattr(form, name).value = value
            except (ValueError, TypeError):
                refused[name] = value
    return refused


def save(section: str, choices: dict[str, Any]) -> None:
    """Keep the choices of one widget, beside those of the others."""
    file = path()
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            everything = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(everything, dict):
                everything = {}
        except (OSError, ValueError):
            everything = {}
        everything[section] = choices
        temporary = file.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(everything, indent=1), encoding="utf-8")
        temporary.replace(file)
