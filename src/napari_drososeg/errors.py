"""The one exception that is meant for users."""

from __future__ import annotations


class DrososegError(ValueError):
    """A failure the user can act on.

    Its message is one sentence that names the thing that is wrong (the file, the layer, the option) and the way
    out. Callers show it as it is: one line on the command line, one notification in napari.
    """
