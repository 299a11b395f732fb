"""The controls of the Segment widget and where they stand. What they do is in `segment`."""

from __future__ import annotations

from magicgui.widgets import (
    CheckBox,
    ComboBox,
    Container,
    FloatSpinBox,
    Label,
    PushButton,
    RadioButtons,
    SpinBox,
    create_widget,
)
from magicgui.widgets import ProgressBar as _ProgressBar
from napari.layers import Image
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import (
    QAbstractButton,
    QSizePolicy,
    QWidget,
)
from superqt import QCollapsible

from napari_drososeg._widgets.fields import small, wrap
from napari_drososeg._widgets.job import Scope
from napari_drososeg._widgets.legend import Legend
from napari_drososeg._widgets.network_choice import AVERAGE_TOOLTIP, AVERAGES, NetworkChoice

SCOPES = {
    Scope.VIEW: "what I see",
    Scope.SECTION: "this section",
    Scope.RANGE: "sections",
    Scope.STACK: "whole stack",
}


class Form(NetworkChoice):
    """All controls of the Segment widget."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Precision", parent)
        self._build_choice()
        self._build_advanced()
        self._build_run()
        self._layout.addStretch(1)

    # ---------------------------------------------------------------- the parts

    def _build_choice(self) -> None:
        self.image = create_widget(
            annotation=Image,
            options={
                "tooltip": "The stack to segment, any image layer. Its layer is not changed; the labels come "
                "as a layer of their own."
            },
        )
        self.open_button = PushButton(
            text="Open",
            tooltip="Opens a file, a zarr or a folder of sections as an image layer. It is read piece by piece, so "
            "it may be larger than memory.",
        )
        self.empty_text = Label(value="No image yet. Open a stack of sections, or try it on a sample:")
        self.sample_button = PushButton(
            text="Open the sample stack",
            tooltip="Adds the public Drosophila stack to try this on, with its true labels hidden (downloaded once: "
            "18 MB, 16 of its 20 sections); without a connection a synthetic one.",
        )
        self.network = ComboBox(
            name="network",
            choices=(),
            tooltip="The trained network that decides the class of every pixel. Networks differ in what they were "
            "trained on: choose one whose images look like yours.",
        )
        self.info_button = PushButton(text="i", tooltip="Everything known about this network.")
        self.card_text = Label(value="")
        self.scope = RadioButtons(
            name="scope",
            choices=[(text, scope) for scope, text in SCOPES.items()],
            value=Scope.VIEW,
            tooltip="How much is segmented. What is done already is not done again, and what you look at comes first.",
        )
        self.first = SpinBox(name="first", value=0, min=0, max=0, tooltip="First section that is segmented.")
        self.last = SpinBox(name="last", value=0, min=0, max=0, tooltip="Last section that is segmented, included.")
        self.pixel_size = FloatSpinBox(
            name="pixel_size",
            value=0,
            min=0,
            max=100_000,
            step=0.1,
            tooltip="Width of a pixel in nanometres. The image is rescaled for the network where this differs by "
            "more than 15 % from what it was trained at; a wrong size makes every network fail. "
            "The labels come back on the image's own pixels.",
        )
        self.empty = Container(widgets=[self.empty_text, self.sample_button], labels=False)
        self.range_row = self.row("range", "Sections", self.first, self.last)
        self.choice = Container(
            widgets=[
                self.row("image", "Image", self.image, self.open_button),
                self.empty,
                self.row("network", "Network", self.network, self.info_button),
                self.card_text,
                self.row("scope", "Segment", self.scope),
                self.range_row,
                self.row("pixel_size", "nm/pixel", self.pixel_size),
            ],
            labels=False,
        )
        for label in (self.empty_text, self.card_text):
            wrap(label)
        for button in (self.open_button, self.info_button):
            small(button)
        self.choice.margins = self.empty.margins = (0, 0, 0, 0)
        self._layout.addWidget(self.choice.native)

    def _build_advanced(self) -> None:
        self.device = ComboBox(
            name="device",
            choices=["auto", "cpu"],  # graphics cards are added once they are found
            tooltip="What computes: auto takes the graphics card where there is one that works. Changes the speed, "
            "and labels only in rare pixels.",
        )
        self.engine = ComboBox(
            name="engine",
            choices=["auto", "openvino", "torch"],
            tooltip="The software that computes: auto takes OpenVINO on a CPU, which is several times faster there.",
        )
        self.precision = ComboBox(
            name="precision",
            choices=["auto", "f32", "bf16", "f16", "int8"],
            tooltip="How exactly it computes: f32 is the reference; bf16, f16 and int8 are faster and change a few "
            "pixels in a thousand.",
        )
        self.halo = ComboBox(
            name="halo",
            choices=[("default", "default"), ("exact", "exact")],
            tooltip="How much is read around each tile: default leaves at least 99.95 % of the labels as they would be "
            "without tiles, exact all of them and takes longer.",
        )
        self.orientations = ComboBox(name="orientations", choices=AVERAGES, tooltip=AVERAGE_TOOLTIP)
        self.invert = CheckBox(
            name="invert",
            text="Invert grey values",
            tooltip="For images whose membranes are bright: grey values are turned round for the network only.",
        )
        self.fill = CheckBox(
            name="fill",
            text="Fill NaN with",
            tooltip="Pixels without a value (NaN, infinity) are taken as this grey value. Unticked, an image with "
            "such pixels is refused.",
        )
        self.fill_value = FloatSpinBox(
            name="fill_value",
            value=0,
            min=-1e9,
            max=1e9,
            step=0.1,
            enabled=False,
            tooltip="The grey value that NaN pixels are taken as.",
        )
        self.probabilities = CheckBox(
            name="probabilities",
            text="Probabilities",
            tooltip="Adds one hidden image layer for each class with the probability of every pixel; show it with "
            "its eye in the layer list.",
        )
        self.uncertainty = CheckBox(
            name="uncertainty",
            text="Uncertainty",
            tooltip="Adds an image layer that is bright where the network hesitates between classes (entropy, 0 to 1): "
            "the places to check first.",
        )
        fill_row = Container(widgets=[self.fill, self.fill_value], layout="horizontal", labels=False)
        fill_row.margins = (0, 0, 0, 0)
        self.advanced = Container(
            widgets=[
                self.row("device", "Device", self.device),
                self.row("engine", "Engine", self.engine),
                self.row("precision", "Precision", self.precision),
                self.row("halo", "Halo", self.halo),
                self.row("orientations", "Average", self.orientations),
                self.invert,
                fill_row,
                self.probabilities,
                self.uncertainty,
            ],
            labels=False,
        )
        self.advanced.margins = (6, 2, 0, 2)
        self.collapsible = QCollapsible("▸ Advanced", expandedIcon=QIcon(), collapsedIcon=QIcon())
        self.collapsible.setDuration(0)
        self.collapsible.layout().setContentsMargins(0, 0, 0, 0)
        self.collapsible.layout().setSpacing(0)
        self.collapsible.toggleButton().setToolTip("Device, precision, contrast, and further layers of results.")
        self.collapsible.addWidget(self.advanced.native)
        self.collapsible.toggled.connect(
            lambda shown: self.collapsible.setText("▾ Advanced" if shown else "▸ Advanced")
        )
        self._layout.addWidget(self.collapsible)

    def _build_run(self) -> None:
        self.run_button = PushButton(text="Segment")
        self.save_button = PushButton(text="Save")
        self.copy_button = PushButton(text="Copy command")
        buttons = Container(
            widgets=[self.run_button, self.save_button, self.copy_button], layout="horizontal", labels=False
        )
        self.run_button.native.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        for button in (self.save_button, self.copy_button):
            small(button)
        self.problem = Label(value="", visible=False)
        self.progress = _ProgressBar(value=0, min=0, max=100, visible=False)
        self.progress.native.setTextVisible(False)
        self.progress.native.setMaximumHeight(8)
        self.progress.tooltip = "How much of this run is done."
        self.status = Label(value="")
        self.keys = Label(
            value="Shift+Q, W, E: paint class 1, 2, 3",
            tooltip="With the labels layer selected, these keys choose what its brush paints. What you paint is kept "
            "when you segment again.",
        )
        for label in (self.problem, self.status, self.keys):
            wrap(label)
        self.legend = Legend()
        font = self.run_button.native.font()
        font.setBold(True)
        self.run_button.native.setFont(font)
        buttons.margins = (0, 2, 0, 2)
        self._layout.addWidget(buttons.native)
        for label in (self.problem, self.progress, self.status):
            self._layout.addWidget(label.native)
        self._layout.addSpacing(4)
        self._layout.addWidget(self.legend)
        self._layout.addWidget(self.keys.native)

    def scope_button(self, scope: Scope) -> QAbstractButton:
        """Return the radio button of a scope."""
        return next(b for b in self.scope.native.findChildren(QAbstractButton) if b._data == scope)
