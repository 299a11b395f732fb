"""``python -m napari_drososeg.inference TASK CHECKPOINT FOLDER``: what `run_child` starts; no command for users."""

from __future__ import annotations

import sys
from pathlib import Path

from napari_drososeg.errors import DrososegError
from napari_drososeg.inference.conversion import cache_name, cached, convert, save


def main(task: str, checkpoint: Path, folder: Path) -> None:
    """Convert or quantise a network, and save it into a folder.

    Raises
    ------
    SystemExit
        With one line for the caller where the network or the machine cannot do it.
    """
    try:
        if task == "convert":
            model = convert(checkpoint)
        else:
            from napari_drososeg.inference.quantisation import quantise, read_patches

            exact = cached(cache_name(checkpoint), lambda place: save(convert(checkpoint), place))
            model = quantise(exact, read_patches(folder))
        save(model, folder)
    except DrososegError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
