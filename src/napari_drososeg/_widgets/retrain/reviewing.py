"""What is annotated, as Annotate and retrain shows and changes it: new labels, reviewed and locked regions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QApplication, QFileDialog, QInputDialog, QLineEdit, QMenu, QMessageBox, QWidget

from napari_drososeg._widgets.layers.classes import classes_in
from napari_drososeg._widgets.layers.targets import Target
from napari_drososeg._widgets.retrain.annotating import ImageAnnotation
from napari_drososeg._widgets.retrain.choice import RetrainChoice
from napari_drososeg._widgets.retrain.copying import LabelsCopier
from napari_drososeg._widgets.retrain.regions import LASSO, RECTANGLE, Polygon, RegionDrawer
from napari_drososeg._widgets.retrain.workspace_folder import FOLDER_KEY, is_workspace
from napari_drososeg._widgets.work.failures import say_failure
from napari_drososeg.classes import ClassTable, SegmentationClass
from napari_drososeg.errors import DrososegError
from napari_drososeg.workspace import copy_workspace

if TYPE_CHECKING:
    import napari

    from napari_drososeg.workspace import ReviewedRegion

COLORS = ("#56B4E9", "#E69F00", "#CC79A7", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#999999")
"""Of classes of one's own: Okabe-Ito, which colour-blind people can tell apart."""


class Reviewing(RetrainChoice):
    """The form with what can be said about pixels."""

    def __init__(self, viewer: napari.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(viewer, parent)
        self.drawer = RegionDrawer(viewer, self)
        self.copier = LabelsCopier(viewer, self)

    def connect_reviewing(self) -> None:
        """Connect the controls."""
        self.new_button.clicked.connect(lambda: self._popup(self.new_menu(), self.new_button))
        self.region_button.clicked.connect(self._region_pressed)
        self.empty_button.clicked.connect(lambda: self.new_labels())
        self.right_button.clicked.connect(lambda: self.copy_labels(right=True))
        self.wrong_button.clicked.connect(lambda: self.copy_labels(right=False))
        self.copier.changed.connect(self._look_later)
        self.folder_button.clicked.connect(self._ask_folder)
        self.reviewed.changed.connect(self._reviewed_clicked)
        self.strip.chosen.connect(self.go_to)

    # ---------------------------------------------------------------- what is shown

    def show_annotation(self) -> None:
        """Show what is annotated: strip, counts, warning, and whether the section on screen is reviewed."""
        annotation, target = self.annotation, self.target
        self.annotation_box.setVisible(annotation is not None)
        if annotation is None:
            return
        overview, section = annotation.overview, annotation.section
        sections = overview.sections if overview is not None else {}
        self.strip.show_sections(annotation.stack.n_sections, section, sections)
        trains = overview.trains if overview is not None else np.zeros(256, np.int64)
        self.legend.set_classes(annotation.classes)
        self.legend.set_texts([f"{trains[c.value]:,} px" if trains[c.value] else "none" for c in annotation.classes])
        missing = [c.name for c in annotation.classes if not trains[c.value]]
        locked = int(overview.locked.sum()) if overview is not None else 0
        lines = []
        if trains.any() and missing:
            lines.append(f"⚠ Nothing annotated yet: {', '.join(missing)}. The network may forget it.")
        if locked:
            lines.append(f"{locked:,} pixels are locked for validation.")
        elif trains.any():
            lines.append("No region is locked for validation: rounds are judged by the annotated pixels alone.")
        self.missing.value, self.missing.visible = "\n".join(lines), bool(lines)
        usable = target is not None and annotation.fits(target) and not annotation.problem
        self.reviewed.enabled = self.region_button.enabled = usable
        region = annotation.whole_region(section)
        with self.reviewed.changed.blocked():
            self.reviewed.value = region is not None
        self.reviewed.text = "Section locked" if region is not None and region.locked else "Section reviewed"
        self.region_button.text = "Cancel" if self.drawer.drawing else "Region"
        if overview is not None:
            if overview.deleted:
                self.outline.value = False
            overview.show(bool(self.outline.value))

    def go_to(self, section: int) -> None:
        """Show a section."""
        image = self._image
        if image is not None and image.ndim == 3:
            world = image.data_to_world((section, 0, 0))
            self.viewer.dims.set_point(self.viewer.dims.ndim - 3, float(world[0]))

    # ---------------------------------------------------------------- labels to paint on

    def new_menu(self) -> QMenu:
        """Make the menu of labels that can be added."""
        menu = QMenu(self)
        menu.setToolTipsVisible(True)
        self._entry(menu, "Segmented by the start network", self.segment_button.native.click)
        self._entry(menu, "Empty", self.new_labels)
        self._entry(menu, "Empty, with other classes…", self._ask_classes)
        return menu

    def new_labels(self, classes: ClassTable | None = None) -> Target | None:
        """Add an empty labels layer and choose it."""
        annotation = self.annotation
        if annotation is None:
            return None
        if classes is not None and annotation.workspace is None:
            annotation.use_classes(classes)
        target = self.targets.add(annotation.image, "", "annotation", classes or annotation.classes)
        self._choose(target)
        return target

    def _choose(self, target: Target) -> None:
        self.reset_choices()
        self.labels.value = target.layer
        target.layer.selected_label = 1
        self.viewer.layers.selection.active = target.layer

    def _ask_classes(self) -> None:
        names, said = QInputDialog.getText(
            self, "Classes", "Names of the classes, separated by commas:", QLineEdit.EchoMode.Normal, "one, two"
        )
        if said:
            try:
                self.new_labels(own_classes(names))
            except DrososegError as error:
                say_failure(error)

    def copy_labels(self, *, right: bool) -> Target | None:
        """Begin to copy the chosen labels layer, which is not ours, into one of ours, and choose that.

        Parameters
        ----------
        right : bool
            Whether its labels count as annotated; else they are a prediction to be corrected.
        """
        annotation, layer = self.annotation, self.labels.value
        if annotation is None or layer is None or self.copier.busy:
            return None
        classes = classes_in(layer.metadata) or annotation.classes
        if annotation.workspace is None:
            annotation.use_classes(classes)
        target = self.targets.add(annotation.image, "", "annotation" if right else layer.name, classes)
        alive = lambda: self.annotations.get(annotation.image) is annotation  # noqa: E731
        self.copier.start(layer, annotation, target, right=right, alive=alive)
        self._choose(target)
        return target

    def problems(self) -> dict[str, str]:
        """See `RetrainChoice.problems`."""
        found = super().problems()
        if self.copier.busy:
            found["labels"] = "Labels are being copied; cancel this in the activity dock at the bottom."
        return found

    # ---------------------------------------------------------------- reviewed regions

    def toggle_reviewed(self) -> None:
        """Say that the section on screen is right, or take that back."""
        if self.reviewed.enabled:
            self.reviewed.value = not self.reviewed.value

    def _reviewed_clicked(self, wanted: bool) -> None:
        annotation = self.annotation
        if annotation is None:
            return
        region = annotation.whole_region(annotation.section)
        if wanted and region is None:
            self.review(annotation.section)
        elif not wanted and region is not None:
            self._act(lambda: annotation.take_back(region))

    def review(self, section: int, polygon: Polygon | None = None, *, locked: bool = False) -> None:
        """Mark a region as reviewed; the whole section unless given."""
        annotation, target = self.annotation, self.target
        if annotation is not None and target is not None:
            self._act(lambda: annotation.review(target, section, polygon or (), locked=locked))

    def _act(self, act: Callable[[], object]) -> None:
        QApplication.processEvents()  # the click is shown first
        try:
            act()
        except (DrososegError, OSError) as error:
            say_failure(error)
        self.altered.emit()

    def _region_pressed(self) -> None:
        if self.drawer.drawing:
            self.drawer.cancel()
            self.altered.emit()
        else:
            self._popup(self.region_menu(), self.region_button)

    def region_menu(self) -> QMenu:
        """Make the menu of what can be said about parts of the section on screen."""
        menu = QMenu(self)
        menu.setToolTipsVisible(True)
        for text, mode, locked in (
            ("Draw a rectangle around correct labels", RECTANGLE, False),
            ("Draw a lasso around correct labels", LASSO, False),
            ("Draw a rectangle to lock for validation", RECTANGLE, True),
            ("Draw a lasso to lock for validation", LASSO, True),
        ):
            self._entry(menu, text, lambda mode=mode, locked=locked: self.draw(mode, locked=locked))
        annotation = self.annotation
        if annotation is None:
            return menu
        section = annotation.section
        menu.addSeparator()
        if annotation.whole_region(section) is None:
            self._entry(menu, "Lock this section for validation", lambda: self.review(section, locked=True))
        workspace = annotation.workspace
        for region in workspace.regions if workspace is not None else []:
            if region.section == section:
                self._region_entries(menu, annotation, region)
        return menu

    def _region_entries(self, menu: QMenu, annotation: ImageAnnotation, region: ReviewedRegion) -> None:
        kind = "whole section" if region.whole else f"{len(region.polygon)} corners"
        state = "locked" if region.locked else "reviewed"
        inner = menu.addMenu(f"Region {region.number} ({kind}, {state})")
        text = "Use it for training" if region.locked else "Lock it for validation"
        self._entry(inner, text, lambda: self._act(lambda: annotation.lock(region, not region.locked)))
        self._entry(inner, "Let predictions change it again", lambda: self._act(lambda: annotation.take_back(region)))

    def draw(self, mode: str, *, locked: bool) -> None:
        """Let a region be drawn, which is reviewed, or locked, as soon as it is there."""
        annotation = self.annotation
        if annotation is None:
            return
        what = "locked for validation" if locked else "reviewed"
        self.drawer.begin(
            annotation.image,
            mode,
            f"Draw the region to be {what}",
            lambda section, polygon: self.review(section, polygon, locked=locked),
        )
        self.altered.emit()

    # ---------------------------------------------------------------- where it is kept

    def _ask_folder(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Folder for the annotation of this image")
        annotation = self.annotation
        if not chosen or annotation is None or Path(chosen) == annotation.folder:
            return
        folder, along = Path(chosen), QMessageBox.StandardButton.No
        if annotation.workspace is not None and not is_workspace(folder):
            buttons = QMessageBox.StandardButton
            along = QMessageBox.question(
                self,
                "Folder for the annotation of this image",
                f"Copy the present annotation and its rounds to {folder.name}? Otherwise a new one begins there.",
                buttons.Yes | buttons.No | buttons.Cancel,
            )
        if along != QMessageBox.StandardButton.Cancel:
            self.use_folder(folder, along=along == QMessageBox.StandardButton.Yes)

    def use_folder(self, folder: Path, *, along: bool = False) -> None:
        """Keep the annotation of this image in another folder.

        Parameters
        ----------
        folder : Path
            Of a workspace, or empty.
        along : bool
            Whether the present annotation and its rounds are copied there before; else they stay where they are.
        """
        image, before = self._image, self.annotation
        if image is None:
            return
        if before is not None and before.workspace is not None and before.folder != folder:
            try:
                if along:
                    before.flush()
                    copy_workspace(before.folder, folder)
                    self.outcome = f"The annotation was copied to {folder}, where it goes on."
                else:
                    before.settle()
                    self.outcome = (
                        f"The annotation is now that in {folder.name}. What was painted before stays in "
                        f"{before.folder}, and is no longer used for training here."
                    )
            except (DrososegError, OSError) as error:
                say_failure(error)
                return
        image.metadata[FOLDER_KEY] = str(folder)
        if before is not None:
            self.annotations.pop(image).close()
        self._open_annotation()
        self.load_networks()
        self.altered.emit()

    # ---------------------------------------------------------------- menus

    @staticmethod
    def _entry(menu: QMenu, text: str, act: Callable[[], Any]) -> None:
        menu.addAction(text).triggered.connect(lambda *_: act())

    @staticmethod
    def _popup(menu: QMenu, button: Any) -> None:
        menu.popup(button.native.mapToGlobal(button.native.rect().bottomLeft()))


def own_classes(names: str) -> ClassTable:
    """Make a class table of names separated by commas."""
    found = [name.strip() for name in names.split(",") if name.strip()]
    return ClassTable(
        tuple(SegmentationClass(i, name, COLORS[(i - 1) % len(COLORS)]) for i, name in enumerate(found, start=1))
    )
