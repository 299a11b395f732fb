"""The command line, ``drososeg``: one module per command; nothing heavy is imported before a command runs.

To add a command, write a module with a function and register it in `napari_drososeg.cli.application`.
"""

from __future__ import annotations

from napari_drososeg.cli.application import app

__all__ = ["app"]
