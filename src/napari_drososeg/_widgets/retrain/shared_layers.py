"""The labels layers of one image, and the one annotation that they share. No Qt here.

Everything is done in small steps on the GUI thread: `SharedLayers.tick` is called several times a second and stops
when its time is up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from napari_drososeg._widgets.layers.history import Steps
from napari_drososeg._widgets.layers.images import stack_of, view_of
from napari_drososeg._widgets.layers.targets import Target, Targets
from napari_drososeg._widgets.retrain.keeping import WorkspaceKeeper, move_in
from napari_drososeg._widgets.retrain.overview import Overview
from napari_drososeg._widgets.retrain.painting import Painting, Part
from napari_drososeg._widgets.work.store import Keeper, OwnAnnotation, Slices
from napari_drososeg.errors import DrososegError

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

    from napari_drososeg.classes import ClassTable
    from napari_drososeg.workspace import Workspace

BUDGET = 0.012
"""Seconds of one tick that may go into work; the event loop stays free in between."""
RETRY_SECONDS = 5.0
"""Time until something that could not be kept is tried again."""


class SharedLayers:
    """Takes what is painted on any labels layer of an image into its workspace, and shows it on all of them.

    Parameters
    ----------
    viewer : napari.Viewer
        With the layers.
    image : Image
        The image layer.
    classes : ClassTable
        What labels mean where there is no workspace yet.
    make : callable
        Gives the workspace, opened or made, as soon as there is something to keep.

    Attributes
    ----------
    workspace : Workspace or None
        None while there is nothing to keep.
    overview : Overview or None
        What trains, with the workspace.
    problem : str
        Why nothing can be kept at the moment, empty where it can.
    refused : int
        Pixels painted with a label that is not a class, which were given back; whoever says so sets it to 0.
    news : int
        Grows whenever there is something new to show.
    """

    def __init__(self, viewer: napari.Viewer, image: Image, classes: ClassTable, make: Callable[[], Workspace]) -> None:
        self.viewer, self.image = viewer, image
        self.stack = stack_of(image)
        self._classes, self._make = classes, make
        self.workspace: Workspace | None = None
        self.overview: Overview | None = None
        self.problem = ""
        self.refused = 0
        self.news = 0
        self.paintings: list[Painting] = []
        self._targets = Targets(viewer)
        self._retry = 0.0

    @property
    def classes(self) -> ClassTable:
        """What labels mean: as the workspace says, once it is there."""
        return self._classes if self.workspace is None else self.workspace.classes

    def use_classes(self, classes: ClassTable) -> None:
        """Let labels mean something else, as long as there is no workspace."""
        if self.workspace is None:
            self._classes = classes

    def open(self) -> Workspace:
        """Open the workspace; make it where it is not there.

        Raises
        ------
        DrososegError
            If it is open elsewhere, belongs to another image, or cannot be written.
        """
        if self.workspace is None:
            self.workspace = self._make()
            self.overview = Overview(self.viewer, self.image, self.workspace)
            for painting in self.paintings:
                self._connect(painting)
        return self.workspace

    @property
    def section(self) -> int:
        """The one on screen."""
        return view_of(self.viewer, self.image).section

    def _try(self, act: Callable[[], object]) -> None:
        before, self.problem = self.problem, ""
        try:
            act()
        except (DrososegError, OSError) as error:
            self.problem = str(error)
            self._retry = time.monotonic() + RETRY_SECONDS
        self.news += self.problem != before

    # ---------------------------------------------------------------- layers

    def _meet(self) -> None:
        """Begin with layers that are new, and leave those that are gone."""
        here = self._targets.of_image(self.image)
        for painting in self.paintings:
            if painting.target not in here and not painting.gone:
                painting.gone = True
                painting.look(None)
        self.paintings = [p for p in self.paintings if p.target in here or p.dirty]
        for target in here:
            if all(p.target is not target for p in self.paintings):
                painting = Painting(target, Steps(target.layer))
                target.before_forgetting = painting.forget
                self.paintings.append(painting)

    def _connect(self, painting: Painting) -> None:
        """Keep what is painted on a layer in the workspace from now on, and show there what is known."""
        store, workspace = painting.target.store, self.workspace
        if workspace is None or isinstance(store.keeper, WorkspaceKeeper) or not self.fits(painting.target):
            return

        def changed(z: int, slices: Slices) -> None:
            self._changed(z, slices, by=painting)

        keeper, before = WorkspaceKeeper(workspace, changed), store.keeper
        move_in(before, keeper, workspace)
        store.keeper = keeper
        if isinstance(store.labels, np.ndarray):  # on disk that would take long: sections are looked at when on screen
            whole = slice(0, store.shape[-2]), slice(0, store.shape[-1])
            for z in range(self.stack.n_sections):
                painting.note(painting.dirty, z, whole)
        for z in sorted(workspace.sections, key=lambda z: abs(z - self.section)):
            for part in workspace.touched(z):
                painting.show(z, part)

    def look_at(self, target: Target, z: int, slices: Slices) -> None:
        """Note that a part of a layer was painted on by the program, for the user."""
        self._meet()
        for painting in self.paintings:
            if painting.target is target:
                painting.note(painting.dirty, z, slices)

    def fits(self, target: Target) -> bool:
        """Whether the labels of a layer mean what those of the workspace mean."""
        return target.classes.names == self.classes.names

    def _changed(self, z: int, slices: Slices, by: Painting | None) -> None:
        """Note that other layers no longer show what is known in a part."""
        for painting in self.paintings:
            if painting is not by and isinstance(painting.target.store.keeper, WorkspaceKeeper):
                painting.show(z, slices)
        self._note(z)

    def _note(self, z: int) -> None:
        if self.overview is not None:
            self.overview.note(z)

    # ---------------------------------------------------------------- work

    def tick(self, budget: float = BUDGET) -> bool:
        """Look, keep and show, for a little while; returns whether more is to be done.

        Parameters
        ----------
        budget : float
            Seconds.
        """
        self._meet()
        for painting in self.paintings:
            if painting.free:
                painting.look(self.section)
        if self.problem and time.monotonic() < self._retry:
            return False
        busy = True

        def work() -> None:
            nonlocal busy
            until = time.monotonic() + budget
            while (busy := self._step()) and time.monotonic() < until:
                continue

        self._try(work)
        self._refresh()
        return busy and not self.problem

    def settle(self) -> None:
        """Let what is painted by now count as shown, not as painted anew, for whatever workspace comes after this one.

        Raises
        ------
        DrososegError
            If it cannot be kept before.
        """
        self.flush()
        if self.workspace is None:
            return
        for painting in self.paintings:
            target = painting.target
            for z in self.workspace.sections:
                for box in self.workspace.touched(z):
                    target.write(z, box, np.array(target.store.labels[target.store.index(z, *box)]))

    def flush(self) -> None:
        """Do all that is to be done at once; what belongs to a stroke in progress waits.

        Raises
        ------
        DrososegError
            If it cannot be kept.
        """
        self._meet()
        for painting in self.paintings:
            if painting.free:
                painting.look(self.section)
        while self._step():
            continue
        self._refresh()

    def _step(self) -> bool:
        """Do one piece of work; False when there is none."""
        if self.workspace is None and any(_holds_painting(p.target.store.keeper) for p in self.paintings):
            self.open()
        for painting in self.paintings:
            self._connect(painting)  # one that is new, or that a full disk kept out
        free = [p for p in self.paintings if p.free]
        for painting in free:
            if painting.dirty:
                part = next(iter(painting.dirty))
                self._absorb(painting, part)
                del painting.dirty[part]  # only now: a full disk must not lose it
                return True
        for painting in free:
            if painting.stale:
                part = next(iter(painting.stale))
                z, *edges = part
                slices = slice(*edges[:2]), slice(*edges[2:])
                self._show(painting, z, slices)
                painting.stale.pop(part, None)
                painting.refresh |= z == self.section
                return True
        updated = self.overview is not None and self.overview.update(self.section)
        self.news += updated
        return updated

    def _absorb(self, painting: Painting, part: Part) -> None:
        z, *edges = part
        slices = slice(*edges[:2]), slice(*edges[2:])
        store = painting.target.store
        at = store.index(z, *slices)
        shown, written = np.asarray(store.labels[at]), np.asarray(store.written[at])
        if self.workspace is None:
            if not (shown != written).any():
                return
            self.open()
        keeper = store.keeper
        if isinstance(keeper, WorkspaceKeeper) and keeper.absorb(z, slices, shown, written):
            painting.show(z, slices)  # which puts back what is not a class

    def _show(self, painting: Painting, z: int, slices: Slices) -> None:
        """Let a part of a layer show what is known; everything on it has been absorbed."""
        store = painting.target.store
        at = store.index(z, *slices)
        shown, written = np.asarray(store.labels[at]), np.asarray(store.written[at])
        self.refused += int(np.count_nonzero((shown != written) & (shown > store.keeper.n_classes)))
        if isinstance(store.keeper, WorkspaceKeeper) and (shown != written).any():
            store.labels[at] = store.keeper.overtaken(z, slices, shown, written)
        painting.target.write(z, slices, store.predicted(z, slices))

    def _refresh(self) -> None:
        for painting in self.paintings:
            if painting.refresh and painting.free:
                painting.refresh = False
                if painting.target.layer.visible:
                    painting.target.layer.refresh(thumbnail=False, highlight=False, extent=False)
        if self.overview is not None:
            self.overview.refresh()


def _holds_painting(keeper: Keeper) -> bool:
    return isinstance(keeper, OwnAnnotation) and bool(keeper.sections)
