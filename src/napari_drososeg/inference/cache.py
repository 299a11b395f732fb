"""The folder for what can be made again: converted networks and measured speeds."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the cache folder (environment variable ``DROSOSEG_CACHE``); it need not exist."""
    chosen = os.environ.get("DROSOSEG_CACHE")
    if chosen:
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_cache_dir("drososeg"))
