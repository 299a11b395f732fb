"""What a manifest says of a run as a whole: with what it was made, and where."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from napari_drososeg import __version__

PACKAGES = ("torch", "openvino", "numpy", "zarr", "tifffile")
"""Packages whose versions are named."""


def run_facts(sha256: str, settings: Mapping[str, Any], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the line of a run says.

    Parameters
    ----------
    sha256 : str
        Of the network.
    settings : mapping
        What decides about the result, as the user said it.
    fixed : mapping
        What the program chose for the whole run.

    Returns
    -------
    dict
        JSON-ready; ``configuration`` is the SHA-256 of `settings` and `fixed`.
    """
    both = json.dumps([settings, fixed], sort_keys=True, ensure_ascii=False)
    return {
        "drososeg": __version__,
        "python": platform.python_version(),
        "versions": dict(_versions()),
        "host": platform.node(),
        "arguments": sys.argv,
        "sha256": sha256,
        "settings": settings,
        "fixed": fixed,
        "configuration": hashlib.sha256(both.encode()).hexdigest(),
    }


def _versions() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue
