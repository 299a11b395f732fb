"""The public stack: *Segmented anisotropic ssTEM dataset of neural tissue*, with its labels as three classes.

Gerhard, Funke, Martel, Cardona, Fetter; figshare 2013, doi 10.6084/m9.figshare.856713; CC BY-NC-SA 3.0
(non-commercial, share alike, cite it). Larval *Drosophila* ventral nerve cord, 4.6 x 4.6 nm pixels, sections 45 to
50 nm thick.

What is downloaded are the single files of the authors' GitHub mirror, each checked against a SHA-256 that was
computed from a copy of the data set: sections 00 to 15. Sections 16 to 19 are **not** fetched: no digest of them is
known here, and no shipped network was trained or scored on them. A folder with the whole data set shows all 20.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.classes import DROSOPHILA_CLASSES, UNLABELLED
from napari_drososeg.errors import DrososegError
from napari_drososeg.io.lazy import LazyArray
from napari_drososeg.io.reading import read_labels, read_stack
from napari_drososeg.io.stack import Stack
from napari_drososeg.io.units import VoxelSize

Progress = Callable[[int, int], None]
"""Called with the number of files that are there and the number of all."""

VOXEL_SIZE: VoxelSize = (50.0, 4.6, 4.6)
"""(z, y, x) in nm; the sections are 45 to 50 nm thick."""

BASE_URL = "https://raw.githubusercontent.com/unidesigner/groundtruth-drosophila-vnc/master/"
ATTRIBUTION = "Gerhard et al. 2013, doi 10.6084/m9.figshare.856713, CC BY-NC-SA 3.0"

CYTOPLASM = (159, 255)  # glia and extracellular space, intracellular
MEMBRANE = (0, 32, 64, 96, 128, 223)  # four directions, junctions, synapses
MITOCHONDRIA = (191,)
VNC_VALUES = frozenset((*CYTOPLASM, *MEMBRANE, *MITOCHONDRIA))
"""Label values of the data set before they are mapped to three classes."""


def _class_table() -> NDArray[np.uint8]:
    table = np.full(256, UNLABELLED, np.uint8)
    for value, originals in enumerate((CYTOPLASM, MEMBRANE, MITOCHONDRIA), start=1):
        table[list(originals)] = value
    return table


def map_vnc_labels(section: NDArray[Any]) -> NDArray[np.uint8]:
    """Map the label values of the data set to the three classes.

    Parameters
    ----------
    section : ndarray of integers, any shape
        Original values: 0, 32, 64, 96, 128, 159, 191, 223, 255.

    Returns
    -------
    ndarray of uint8
        1 cytoplasm, 2 cell membrane, 3 mitochondria.

    Raises
    ------
    DrososegError
        If another value occurs.
    """
    original = np.asarray(section)
    inside = bool(original.size == 0 or (original.min() >= 0 and original.max() <= 255))
    mapped = _class_table()[original] if inside else np.zeros(1, np.uint8)
    if (mapped == UNLABELLED).any():
        odd = original.max() if not inside else original[mapped == UNLABELLED][0]
        raise DrososegError(
            f"Label value {odd} is not one of the public Drosophila VNC data set: is this its labels folder?"
        )
    return np.asarray(mapped, np.uint8)


class _Mapped(LazyArray):
    """Labels of the data set, mapped while they are read."""

    def __init__(self, original: Stack) -> None:
        super().__init__(original.shape, np.uint8)
        self._original = original

    def read_region(self, z: int, ys: slice, xs: slice) -> NDArray[np.uint8]:
        return map_vnc_labels(self._original.read(z, ys, xs))


def read_vnc_labels(folder: str | os.PathLike[str]) -> Stack:
    """Open a folder of original label images as labels of the three classes.

    Parameters
    ----------
    folder : path
        The folder with ``labels00000000.png`` and so on.

    Returns
    -------
    Stack
        uint8 (Z, Y, X), mapped lazily, voxel size (50, 4.6, 4.6) nm.

    Raises
    ------
    DrososegError
        If it cannot be read; a value outside the data set's table is found when its section is read.
    """
    original = read_labels(folder)
    return Stack(_Mapped(original), "Drosophila VNC labels", VOXEL_SIZE, original.path, (), DROSOPHILA_CLASSES)


def drosophila_vnc(
    folder: str | os.PathLike[str] | None = None, *, progress: Progress | None = None
) -> tuple[Stack, Stack]:
    """Open the public stack with its labels; downloads it (18 MB, once) if it is nowhere on this machine.

    Parameters
    ----------
    folder : path or None
        A copy of the data set in its original layout. None takes the environment variable ``DROSOSEG_DATA``, then
        what was downloaded before, then the network.
    progress : callable or None
        Told while downloading: ``progress(files_there, files_wanted)``.

    Returns
    -------
    image : Stack
        uint8 (Z, 1024, 1024), voxel size (50, 4.6, 4.6) nm. 16 sections if downloaded; see the module's text.
    labels : Stack
        uint8 of the same shape: 1 cytoplasm, 2 cell membrane, 3 mitochondria.

    Raises
    ------
    DrososegError
        If the folder holds something else, or there is no network.
    """
    chosen = folder or os.environ.get("DROSOSEG_DATA")
    root = find_vnc(Path(chosen)) if chosen else fetch_vnc(progress=progress)
    image = read_stack(root / "stack1" / "raw")
    labels = read_vnc_labels(root / "stack1" / "labels")
    if image.shape != labels.shape:
        raise DrososegError(
            f"{root / 'stack1'} holds images of shape {image.shape} and labels of shape {labels.shape}: "
            "the copy is incomplete."
        )
    return Stack(image.data, "Drosophila VNC", VOXEL_SIZE, image.path, image.notices), labels


def find_vnc(folder: Path) -> Path:
    """Return the folder that holds ``stack1``: `folder` or one inside it.

    Raises
    ------
    DrososegError
        If there is none.
    """
    folder = folder.expanduser()
    inner = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    for root in (folder, *inner):
        if (root / "stack1" / "raw").is_dir() and (root / "stack1" / "labels").is_dir():
            return root
    raise DrososegError(
        f"{folder} does not hold the public Drosophila VNC data set (stack1/raw and stack1/labels): "
        "check DROSOSEG_DATA, or unset it to download the data."
    )


def fetch_vnc(
    cache: Path | None = None,
    *,
    base_url: str = BASE_URL,
    registry: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Download the files that are not there yet and check their SHA-256.

    Parameters
    ----------
    cache : Path or None
        Where to keep them. None: ``drosophila-vnc`` in the cache folder of the user or of ``DROSOSEG_CACHE``.
    base_url : str
        Prefix of all names.
    registry : mapping of str to str, or None
        File name to SHA-256; None is the list that comes with the package.
    progress : callable or None
        See `drosophila_vnc`.

    Returns
    -------
    Path
        `cache`, with ``stack1`` in it.

    Raises
    ------
    DrososegError
        If a file cannot be had or is not what it should be; it is not kept then.
    """
    import pooch

    where = cache or _cache_folder()
    wanted = dict(registry if registry is not None else read_registry())
    store = pooch.create(path=where, base_url=base_url, registry=wanted, retry_if_failed=1)
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")
    try:
        for n, name in enumerate(wanted):
            if progress is not None:
                progress(n, len(wanted))
            try:
                store.fetch(name, downloader=_download)
            except Exception as error:  # requests, urllib3, OSError, and ValueError for a wrong digest
                raise DrososegError(_why(name, base_url, where, error)) from error
    finally:
        logger.setLevel(level)
    if progress is not None:
        progress(len(wanted), len(wanted))
    return where


def _download(url: str, target: Any, _store: Any) -> None:
    """Download for pooch, whose own downloader leaves the connection open when the server says no."""
    import requests

    with requests.get(url, stream=True, timeout=30) as answer:
        answer.raise_for_status()
        with Path(target).open("wb") as file:
            for part in answer.iter_content(2**16):
                file.write(part)


def _why(name: str, base_url: str, where: Path, error: Exception) -> str:
    if isinstance(error, ValueError) and "hash" in str(error):
        return (
            f"{base_url}{name} is not the expected file (its SHA-256 differs), so it was not kept: try again, or set "
            "DROSOSEG_DATA to a folder with the data set (doi 10.6084/m9.figshare.856713)."
        )
    if isinstance(error, PermissionError):
        return f"{where} cannot be written: set DROSOSEG_CACHE to a folder of your own."
    return (
        f"{base_url}{name} could not be downloaded ({type(error).__name__}): connect to the internet, set "
        "DROSOSEG_DATA to a folder with the data set (doi 10.6084/m9.figshare.856713), or use the synthetic sample."
    )


def read_registry() -> dict[str, str]:
    """Return the names of the known files, as in the original layout, and their SHA-256."""
    lines = Path(__file__).with_name("vnc_registry.txt").read_text("utf-8").splitlines()
    return dict(line.split() for line in lines if line and not line.startswith("#"))


def _cache_folder() -> Path:
    import platformdirs

    cache = os.environ.get("DROSOSEG_CACHE")
    return (Path(cache) if cache else Path(platformdirs.user_cache_dir("drososeg"))) / "drosophila-vnc"
