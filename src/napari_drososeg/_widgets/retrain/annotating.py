"""The annotation of one image: from strokes on any of its labels layers to its workspace, and back. No Qt here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_drososeg._widgets.layers.images import file_of
from napari_drososeg._widgets.layers.targets import Target
from napari_drososeg._widgets.retrain.keeping import LeftWorkspace, WorkspaceKeeper
from napari_drososeg._widgets.retrain.shared_layers import SharedLayers
from napari_drososeg._widgets.retrain.workspace_folder import is_workspace
from napari_drososeg.errors import DrososegError
from napari_drososeg.io import Stack, read_stack
from napari_drososeg.workspace import Workspace, create_workspace, open_workspace
from napari_drososeg.workspace.identity import ImageIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import napari
    from napari.layers import Image

    from napari_drososeg.classes import ClassTable
    from napari_drososeg.workspace import ReviewedRegion


class ImageAnnotation(SharedLayers):
    """The annotation of one image, fed by all its labels layers and shown on all of them.

    The workspace is opened if it is there, and made when there is something to keep.

    Parameters
    ----------
    viewer : napari.Viewer
        With the layers.
    image : Image
        The image layer.
    folder : Path
        Where the workspace lies, or will lie.
    classes : ClassTable
        What labels mean where there is no workspace yet.
    """

    def __init__(self, viewer: napari.Viewer, image: Image, folder: Path, classes: ClassTable) -> None:
        super().__init__(viewer, image, classes, self._open_or_create)
        self.folder = folder
        if is_workspace(folder):
            self._try(self.open)

    # ---------------------------------------------------------------- the workspace

    def _open_or_create(self) -> Workspace:
        if is_workspace(self.folder):
            return open_workspace(self.folder, self.stack)
        return create_workspace(self.folder, self._with_path(), self.classes)

    def _with_path(self) -> Stack:
        """Return the image with the file it is in, so that it can be trained on without a viewer."""
        path = file_of(self.image)
        known = path is not None and is_image(path, ImageIdentity.of(self.stack))
        return replace(self.stack, path=Path(path)) if known and path is not None else self.stack

    def close(self, later: Callable[[Callable[[], None]], None] = lambda act: act()) -> None:
        """Keep what is still to be kept, and let go of the workspace; the layers stay protected.

        Parameters
        ----------
        later : callable
            Takes the outline away: at once, or when the viewer is through with removing layers itself.
        """
        self._try(self.flush)
        workspace, self.workspace = self.workspace, None
        for painting in self.paintings:
            store = painting.target.store
            painting.target.before_forgetting = lambda: None
            if workspace is not None and isinstance(store.keeper, WorkspaceKeeper):
                store.keeper = LeftWorkspace(store.shape, store.keeper.n_classes, store.folder, workspace)
        self.paintings = []
        if self.overview is not None:
            later(self.overview.remove)
            self.overview = None
        if workspace is not None:
            workspace.close()

    # ---------------------------------------------------------------- reviewed regions

    def review(
        self, target: Target, section: int, polygon: Sequence[tuple[float, float]] = (), *, locked: bool = False
    ) -> ReviewedRegion:
        """Confirm what a layer shows in a region; see `ReviewedRegions.add`."""
        workspace, store = self.open(), target.store
        self.flush()
        region = workspace.regions.add(
            section,
            polygon,
            shown=lambda z, ys, xs: np.asarray(store.labels[store.index(z, ys, xs)]),
            locked=locked,
        )
        self._show_region(region)
        return region

    def take_back(self, region: ReviewedRegion) -> None:
        """Give a reviewed region back to the network."""
        workspace = self.open()
        self.flush()  # strokes absorbed later would bring back what was reviewed below them
        workspace.regions.remove(region.number)
        self._show_region(region)

    def lock(self, region: ReviewedRegion, locked: bool) -> None:
        """Keep a reviewed region for validation, or let it train."""
        self.open().regions.lock(region.number, locked)
        self._note(region.section)
        self.flush()

    def _show_region(self, region: ReviewedRegion) -> None:
        self._changed(region.section, region.box(self.stack.shape[1:]), by=None)
        self.flush()

    def whole_region(self, section: int) -> ReviewedRegion | None:
        """Return the region that says that a whole section is reviewed, None where there is none."""
        regions = list(self.workspace.regions) if self.workspace is not None else []
        return next((r for r in regions if r.whole and r.section == section), None)


def is_image(path: str, identity: ImageIdentity) -> bool:
    """Whether a file holds an image, as this package reads it."""
    try:
        return identity.difference(ImageIdentity.of(read_stack(path))) is None
    except (DrososegError, OSError):
        return False
