"""The controls of the Segment widget and where they stand. What they do is in `widget`."""

from __future__ import annotations

from magicgui.widgets import CheckBox, PushButton, RadioButtons, SpinBox, create_widget
from napari.layers import Image
from qtpy.QtWidgets import QAbstractButton, QWidget

from napari_drososeg._widgets.controls.fields import (
    button_line,
    column,
    foldaway,
    main_button,
    note,
    progress_bar,
    small,
)
from napari_drososeg._widgets.controls.legend import Legend
from napari_drososeg._widgets.controls.network_choice import NetworkChoice
from napari_drososeg._widgets.work.job import Scope

SCOPES = {
    Scope.VIEW: "what I see",
    Scope.SECTION: "this section",
    Scope.RANGE: "sections",
    Scope.STACK: "whole stack",
}


class Form(NetworkChoice):
    """All controls of the Segment widget."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(
            "Pixel size in nanometres. The image is rescaled for the network where this differs by more than 15 % "
            "from the size it was trained at; every network fails with a wrong size. The value entered here takes "
            "precedence over that of the image; 0 restores the latter. The labels are returned on the image's own "
            "grid.",
            parent,
        )
        self._build_choice()
        self._build_advanced()
        self._build_run()
        self._layout.addStretch(1)

    # ---------------------------------------------------------------- the parts

    def _build_choice(self) -> None:
        self.image = create_widget(
            annotation=Image,
            options={
                "tooltip": "The stack to segment, any image layer. The layer is not changed; the labels are added as "
                "a new layer."
            },
        )
        self.open_button = PushButton(
            text="Open",
            tooltip="Opens a file, a zarr or a folder of sections as an image layer. It is read piece by piece, so "
            "it may be larger than memory.",
        )
        self.empty_text = note("No image yet. Open a stack of sections, or try it on a sample:")
        self.sample_button = PushButton(
            text="Open the sample stack",
            tooltip="Adds the public Drosophila stack as an example, with its ground truth hidden (downloaded once: "
            "18 MB, 16 of its 20 sections), or a synthetic one if there is no connection.",
        )
        self.scope = RadioButtons(
            name="scope",
            choices=[(text, scope) for scope, text in SCOPES.items()],
            value=Scope.VIEW,
            tooltip="How much to segment. Finished parts are not segmented again, and what is on screen comes first.",
        )
        self.first = SpinBox(name="first", value=0, min=0, max=0, tooltip="First section to segment.")
        self.last = SpinBox(name="last", value=0, min=0, max=0, tooltip="Last section to segment, inclusive.")
        small(self.open_button)
        self.empty = column(self.empty_text, self.sample_button)
        self.range_row = self.row("range", "Sections", self.first, self.last)
        self.choice = column(
            self.row("image", "Image", self.image, self.open_button),
            self.empty,
            *self.network_rows(),
            self.row("scope", "Segment", self.scope),
            self.range_row,
            self.row("pixel_size", "nm/pixel", self.pixel_size),
        )
        self._layout.addWidget(self.choice.native)

    def _build_advanced(self) -> None:
        self.probabilities = CheckBox(
            name="probabilities",
            text="Probabilities",
            tooltip="Adds one hidden image layer per class with the probability at every pixel; show it with its eye "
            "in the layer list.",
        )
        self.uncertainty = CheckBox(
            name="uncertainty",
            text="Uncertainty",
            tooltip="Adds an image layer that is bright where the network is uncertain between classes (entropy, 0 "
            "to 1): the places to check first.",
        )
        self.advanced = column(*self.speed_rows(), *self.grey.rows, self.probabilities, self.uncertainty)
        self.collapsible = foldaway(self.advanced, "Device, precision, contrast, and additional result layers.")
        self._layout.addWidget(self.collapsible)

    def _build_run(self) -> None:
        self.run_button = main_button("Segment")
        self.save_button = PushButton(text="Save")
        self.copy_button = PushButton(text="Copy command")
        self.problem = note(visible=False)
        self.progress = progress_bar("Progress of this run.")
        self.status = note()
        self.keys = note(
            "Shift+Q, W, E: paint class 1, 2, 3",
            tooltip="With the labels layer selected, these keys choose the class that its brush paints. Painted "
            "pixels are kept when you segment again.",
        )
        self.legend = Legend()
        buttons = button_line(self.save_button, self.copy_button, main=self.run_button)
        for part in (buttons, self.problem, self.progress, self.status):
            self._layout.addWidget(part.native)
        self._layout.addSpacing(4)
        self._layout.addWidget(self.legend)
        self._layout.addWidget(self.keys.native)

    def scope_button(self, scope: Scope) -> QAbstractButton:
        """Return the radio button of a scope."""
        return next(b for b in self.scope.native.findChildren(QAbstractButton) if b._data == scope)
