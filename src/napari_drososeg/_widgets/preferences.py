"""What the user chose last time: a small JSON file in their configuration folder.

Nothing tied to one image is kept there. A damaged or unwritable file costs the memory of the choices, never a run.
"""

from __future__ import annotations

import contextlib
import json
import os
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
