"""`read_stack` and `read_labels`: any supported path to a lazy stack."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from napari_drososeg.errors import DrososegError
from napari_drososeg.io.folder import SECTION_SUFFIXES, natural_key, open_image, open_sections, section_files
from napari_drososeg.io.stack import Stack
from napari_drososeg.io.zarr_stack import MissingChunks, is_zarr, open_zarr

PathLike = str | os.PathLike[str]


def read_stack(path: PathLike | Sequence[PathLike]) -> Stack:
    """Open a stack lazily.

    Parameters
    ----------
    path : path or sequence of paths
        A folder of TIFF or PNG sections (in natural order), a TIFF file (multi-page, ImageJ, OME), a PNG file, an
        OME-Zarr image (0.4, 0.5) or a zarr array (v2, v3). Several paths are the sections of one stack.

    Returns
    -------
    Stack
        (Z, Y, X), the file's own values; a single image is a stack of one section. Colour becomes grey and
        white-is-zero files are inverted, both with a notice. NaN is passed on; `predict` refuses or fills it.
        Labels written by this package come as they are, with `classes` set.

    Raises
    ------
    DrososegError
        In one sentence that names the file: it does not exist, is empty, damaged, shorter than it declares, no
        image, has time points or channels, or its sections differ in size. Damage inside compressed data and
        missing zarr chunks are found when they are read. Missing chunks are an error unless the environment
        variable ``DROSOSEG_MISSING_CHUNKS`` is ``fill``.
    """
    if os.environ.get("DROSOSEG_MISSING_CHUNKS") == "fill":
        return _read(path, indices=False, missing_chunks="fill")
    return _read(path, indices=False, missing_chunks="error")


def read_labels(path: PathLike | Sequence[PathLike]) -> Stack:
    """Open labels lazily, with the same reader.

    Parameters
    ----------
    path : path or sequence of paths
        As for `read_stack`. Palette images give their indices. Where some chunks of a zarr are missing,
        nothing is labelled.

    Returns
    -------
    Stack
        Of an integer dtype.

    Raises
    ------
    DrososegError
        As `read_stack`, and if the values are not integers or the image is in colour.
    """
    stack = _read(path, indices=True, missing_chunks="fill")
    if stack.dtype.kind not in "ui":
        raise DrososegError(f"{path} contains values of type {stack.dtype}; labels are whole numbers: is it an image?")
    if any("colour" in n for n in stack.notices):
        raise DrososegError(f"{path} is a colour image; labels need one number for each pixel, as in a palette PNG.")
    return stack


def _read(path: PathLike | Sequence[PathLike], *, indices: bool, missing_chunks: MissingChunks) -> Stack:
    try:
        return _open(path, indices=indices, missing_chunks=missing_chunks)
    except OSError as error:  # one of many may be at fault
        raise DrososegError(f"{error.filename or path} cannot be read: {error.strerror or error}.") from error


def _open(path: PathLike | Sequence[PathLike], *, indices: bool, missing_chunks: MissingChunks) -> Stack:
    if not isinstance(path, (str, os.PathLike)):
        paths = sorted((Path(p).expanduser() for p in path), key=natural_key)
        if len(paths) > 1:
            for p in paths:
                if p.is_dir():
                    raise DrososegError(f"{p} is a folder; the sections of one stack are files: open it by itself.")
                _check_file(p)
            return open_sections(paths, name=paths[0].parent.name, path=paths[0].parent, indices=indices)
        if not paths:
            raise DrososegError("No path was given: name a file or a folder.")
        path = paths[0]
    where = Path(path).expanduser()
    if is_zarr(where):
        return open_zarr(where, missing_chunks=missing_chunks)
    if where.is_dir():
        return open_sections(section_files(where), name=where.resolve().name, path=where, indices=indices)
    _check_file(where)
    return open_image(where, indices=indices)


def _check_file(path: Path) -> None:
    if not path.exists():
        raise DrososegError(f"{path} does not exist: check the name.")
    if path.suffix.lower() not in SECTION_SUFFIXES:
        raise DrososegError(f"{path} is not a TIFF, PNG or zarr file; export it from your program as TIFF.")
