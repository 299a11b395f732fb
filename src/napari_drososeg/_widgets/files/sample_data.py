"""File > Open Sample > DrosoSeg."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_drososeg._widgets.files.reader import LayerTuple, image_tuple, labels_tuple


def drosophila_vnc_sample() -> list[LayerTuple]:
    """Open the public Drosophila VNC stack with its labels; downloaded once, with progress in the activity dock.

    Returns
    -------
    list of tuple
        An image layer and a labels layer.

    Raises
    ------
    DrososegError
        If it is not on this machine and cannot be downloaded.
    """
    from napari.utils import progress

    from napari_drososeg.samples import ATTRIBUTION, drosophila_vnc

    with progress(total=0, desc="Drosophila VNC stack") as bar:

        def show(there: int, wanted: int) -> None:
            if bar.total != wanted:
                bar.reset(total=wanted)
            bar.update(there - bar.n)

        image, labels = drosophila_vnc(progress=show)
    return _with_source([image_tuple(image), labels_tuple(labels)], ATTRIBUTION)


def synthetic_sample() -> list[LayerTuple]:
    """Make the synthetic stack, 8 sections of 512 x 512, with its exact truth.

    Returns
    -------
    list of tuple
        An image layer and a labels layer.
    """
    from napari_drososeg.classes import DROSOPHILA_CLASSES
    from napari_drososeg.samples import synthetic_stack

    stack, truth = synthetic_stack()
    labels = replace(stack, data=truth, name=f"{stack.name} truth", classes=DROSOPHILA_CLASSES)
    return _with_source([image_tuple(stack), labels_tuple(labels)], "synthetic, made by napari-drososeg")


def synthetic_folder() -> Path:
    """Write the sections of the synthetic stack as TIFF files into a new temporary folder.

    Returns
    -------
    Path
        The folder.
    """
    import tempfile

    import tifffile

    from napari_drososeg.samples import synthetic_stack

    folder = Path(tempfile.mkdtemp(prefix="drososeg-sample-")) / "sections"
    folder.mkdir()
    stack, _ = synthetic_stack()
    per_micrometre = 1e3 / stack.pixel_size if stack.pixel_size else 1.0
    for z in range(stack.n_sections):
        resolution = (per_micrometre, per_micrometre)
        tifffile.imwrite(
            folder / f"{z:02d}.tif", stack.read(z), imagej=True, resolution=resolution, metadata={"unit": "um"}
        )
    return folder


def _with_source(layers: list[LayerTuple], source: str) -> list[LayerTuple]:
    for _, arguments, _ in layers:
        metadata: dict[str, Any] = arguments["metadata"]
        metadata["source"] = source
    return layers
