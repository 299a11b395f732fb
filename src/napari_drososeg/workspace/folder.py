"""The workspace of one image: a folder that keeps what a person said about it, and what was learnt from that."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_drososeg.classes import DROSOPHILA_CLASSES, ClassTable
from napari_drososeg.errors import DrososegError
from napari_drososeg.io import Stack, atomic, read_stack
from napari_drososeg.workspace.annotation import Tracker, merge
from napari_drososeg.workspace.chunks import ChunkedLabels
from napari_drososeg.workspace.copies import ImageCopy
from napari_drososeg.workspace.documents import MAIN, Description
from napari_drososeg.workspace.identity import ImageIdentity
from napari_drososeg.workspace.locking import FolderLock
from napari_drososeg.workspace.regions import ReviewedRegions
from napari_drososeg.workspace.rounds import START, Rounds

SUFFIX = ".drososeg"


def default_folder(path: str | Path) -> Path:
    """Return the folder of the workspace of the image at `path`: beside it."""
    path = Path(path).resolve()
    return path.with_name(path.name + SUFFIX)


class Workspace:
    """An open workspace. Everything it is told is on the disk when the call returns.

    Use `create_workspace` or `open_workspace`. The process that paints holds it open for writing; others, such as a
    training process, open it with ``write=False`` and see what was on disk at that time.

    Attributes
    ----------
    folder : Path
        Where it lies.
    description : Description
        What ``workspace.json`` says; `image`, `classes` and `settings` are parts of it.
    annotation : ChunkedLabels
        What was painted: 0 nothing, else the class.
    reviewed : ChunkedLabels
        The labels that were confirmed, in reviewed regions.
    regions : ReviewedRegions
        These regions.
    rounds : Rounds
        Of retraining.
    copy : ImageCopy
        Sections of an image that is in no file.
    """

    def __init__(self, folder: Path, *, write: bool) -> None:
        self.folder = folder
        self._lock = FolderLock(folder / ".lock", f"The workspace '{folder}'") if write else None
        try:
            self.description = Description.read(folder)
            self.annotation, self.reviewed = (
                ChunkedLabels(folder / f"{name}.zarr", self.image.shape, owned=write)
                for name in ("annotation", "reviewed")
            )
            self.regions = ReviewedRegions(folder / "regions.json", self.reviewed)
        except BaseException:
            self.close()
            raise
        self.rounds = Rounds(folder / "rounds")
        self.copy = ImageCopy(folder, self.image)

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes have it; may be called twice."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def image(self) -> ImageIdentity:
        """The image it belongs to."""
        return self.description.image

    @property
    def classes(self) -> ClassTable:
        """What the label values mean."""
        return self.description.classes

    @property
    def settings(self) -> dict[str, Any]:
        """What was said about the image; see `save_settings`."""
        return self.description.settings

    def tracker(self) -> Tracker:
        """Make what takes painting on one labels layer into the annotation; one for each layer of the image."""
        return Tracker(self.annotation, self.reviewed, len(self.classes))

    def merge(self, z: int, ys: slice, xs: slice, prediction: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return what a layer is to show in a region, given the prediction (h, w) of any network."""
        return merge(prediction, self.reviewed.read(z, ys, xs), self.annotation.read(z, ys, xs))

    def labels(self, z: int, ys: slice = slice(None), xs: slice = slice(None)) -> NDArray[np.uint8]:
        """Return what is known in a region: painted or reviewed labels (h, w); 0 where nothing is."""
        annotation = self.annotation.read(z, ys, xs)
        return merge(np.zeros_like(annotation), self.reviewed.read(z, ys, xs), annotation)

    def locked(self, z: int, ys: slice = slice(None), xs: slice = slice(None)) -> NDArray[np.bool_]:
        """Return which pixels (h, w) of a region are kept for validation."""
        ys, xs = (slice(*s.indices(n)) for s, n in zip((ys, xs), self.image.shape[1:], strict=True))
        return self.regions.locked(z, ys, xs)

    def training_labels(self, z: int, ys: slice = slice(None), xs: slice = slice(None)) -> NDArray[np.uint8]:
        """Return the labels (h, w) that train: those known, but for locked regions."""
        return np.where(self.locked(z, ys, xs), np.uint8(0), self.labels(z, ys, xs))

    @property
    def sections(self) -> list[int]:
        """Sections of which anything is known, in order."""
        return sorted({*self.annotation.sections, *self.reviewed.sections})

    def touched(self, z: int) -> list[tuple[slice, slice]]:
        """Return the boxes (y, x) of section `z` outside which nothing is known: chunks of the arrays."""
        keys = sorted({*self.annotation.keys(z), *self.reviewed.keys(z)})
        return [self.annotation.box(key) for key in keys]

    def trained_pixels(self, z: int | None = None) -> dict[str, int]:
        """Count the pixels that train, by class name.

        Parameters
        ----------
        z : int, optional
            Section; all unless given.
        """
        total = np.zeros(256, np.int64)
        for section in self.sections if z is None else [z]:
            for ys, xs in self.touched(section):
                total += np.bincount(self.training_labels(section, ys, xs).ravel(), minlength=256)
        return {c.name: int(total[c.value]) for c in self.classes}

    def check(self, stack: Stack) -> None:
        """Make sure that a stack is the image of this workspace.

        Raises
        ------
        DrososegError
            If it is another one; names the difference and the way out.
        """
        difference = self.image.difference(ImageIdentity.of(stack))
        if difference is not None:
            raise DrososegError(
                f"The workspace '{self.folder}' belongs to a different image than '{stack.name}': {difference}. Open "
                "the image it was made for, or choose another folder for this one."
            )

    def save_settings(self, **settings: Any) -> None:
        """Keep what was said about the image, such as ``pixel_size`` in nm or ``invert``, as JSON-ready values."""
        if self._lock is None:
            raise DrososegError(f"The workspace '{self.folder}' is open read-only.")
        self.description = replace(self.description, settings=self.settings | settings)
        self.description.write(self.folder)

    def stack(self, path: str | Path | None = None) -> Stack:
        """Open the image.

        Parameters
        ----------
        path : path, optional
            Where it is now. Unless given it is where it was, or else what was copied to `copy`.

        Raises
        ------
        DrososegError
            If it cannot be found or is another one.
        """
        source = path or self.image.path
        if source is None or not Path(source).exists():
            if path is None and (copied := self.copy.stack()) is not None:
                return copied
            where = "not in a file" if source is None else f"no longer at '{source}'"
            raise DrososegError(f"The image of the workspace '{self.folder}' is {where}: give its location (--image).")
        stack = read_stack(source)
        self.check(stack)
        return stack if stack.pixel_size is not None else replace(stack, voxel_size=self.image.voxel_size)

    @property
    def pixel_size(self) -> float | None:
        """Pixel size of the image in nm: as set, as in its file, or as the round in use found out; None if unknown."""
        if (chosen := self.settings.get("pixel_size")) is not None:
            return float(chosen)
        _, y, x = self.image.voxel_size
        if y is not None and x is not None:
            return (y + x) / 2
        in_use = self.rounds.in_use
        found = None if in_use == START else self.rounds.find(in_use).adapted.get("pixel_size")
        return None if found is None else float(found)


def create_workspace(folder: str | Path, stack: Stack, classes: ClassTable = DROSOPHILA_CLASSES) -> Workspace:
    """Make the workspace of an image, and open it for writing.

    Parameters
    ----------
    folder : path
        Where; it must not exist yet, or be empty.
    stack : Stack
        The image.
    classes : ClassTable
        What the values of its labels will mean.

    Returns
    -------
    Workspace

    Raises
    ------
    DrososegError
        If something else is in the folder, or it cannot be written to.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(p.name != ".lock" for p in folder.iterdir())):
        raise DrososegError(f"'{folder}' exists and is not a workspace: choose another folder.")
    Description(ImageIdentity.of(stack), classes).write(folder)
    return Workspace(folder, write=True)


def copy_workspace(source: str | Path, target: str | Path) -> Path:
    """Copy a workspace with all that it holds; it may be open, but not be written to meanwhile.

    Parameters
    ----------
    source : path
        Its folder.
    target : path
        A folder that does not exist yet, or is empty.

    Returns
    -------
    Path
        `target`.

    Raises
    ------
    DrososegError
        If something is in the folder, or it cannot be written to; then nothing is left behind.
    """
    source, target = Path(source), Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DrososegError(f"'{target}' is not empty: choose an empty folder, or a workspace.")
    if source.resolve() in target.resolve().parents:
        raise DrososegError(f"'{target}' lies inside '{source}', which would be copied into itself: choose another.")
    with atomic.replacing(target) as temporary:
        shutil.copytree(source, temporary, ignore=shutil.ignore_patterns(".lock", "*.part"))
    return target


def open_workspace(folder: str | Path, stack: Stack | None = None, *, write: bool = True) -> Workspace:
    """Open a workspace.

    Parameters
    ----------
    folder : path
        Where it lies.
    stack : Stack, optional
        The image; checked to be the one it belongs to.
    write : bool
        Whether it is painted in; only one process at a time can.

    Returns
    -------
    Workspace

    Raises
    ------
    DrososegError
        If there is none, it is open in another process, belongs to another image, is damaged or of a newer version.
    """
    folder = Path(folder)
    if not (folder / MAIN).exists():  # said before a lock is left in a folder of something else
        raise DrososegError(f"There is no workspace in '{folder}': it has no {MAIN}.")
    workspace = Workspace(folder, write=write)
    try:
        if stack is not None:
            workspace.check(stack)
    except BaseException:
        workspace.close()
        raise
    return workspace
