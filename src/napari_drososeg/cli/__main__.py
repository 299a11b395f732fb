"""``python -m napari_drososeg.cli``: the command line where the ``drososeg`` script is not on the path."""

from napari_drososeg.cli import app

if __name__ == "__main__":
    app()
