"""The controls of the Batch widget and where they stand. What they do is in `batch`."""

from __future__ import annotations

import os

from magicgui.widgets import CheckBox, ComboBox, Container, FloatSpinBox, Label, LineEdit, PushButton, SpinBox
from magicgui.widgets import ProgressBar as _ProgressBar
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QSizePolicy, QWidget
from superqt import QCollapsible

from napari_drososeg._widgets.fields import small, wrap
from napari_drososeg._widgets.file_table import FileTable
from napari_drososeg._widgets.legend import Legend
from napari_drososeg._widgets.network_choice import AVERAGE_TOOLTIP, AVERAGES, NetworkChoice

FORMATS = {
    "TIFF with colours": "tiff",
    "OME-TIFF": "ome-tiff",
    "OME-Zarr, for large stacks": "ome-zarr",
    "PNG with colours": "png",
}


class BatchForm(NetworkChoice):
    """All controls of the Batch widget."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Precision", parent)
        self._build_input()
        self._build_output()
        self._build_advanced()
        self._build_run()
        self.choice = [self.inputs, self.outputs, self.advanced]

    # ---------------------------------------------------------------- the parts

    def _build_input(self) -> None:
        self.source = LineEdit(
            name="source",
            tooltip="The folder whose images are segmented, or one image. They are only read.",
        )
        self.source_button = PushButton(text="…", tooltip="Chooses the folder, or a single file.")
        self.empty_text = Label(value="Choose a folder of images above. To see how it goes without images of your own:")
        self.sample_button = PushButton(
            text="Make a sample folder",
            tooltip="Draws eight synthetic sections into a new temporary folder and puts it in above.",
        )
        self.files = ComboBox(
            name="files",
            choices=[("one stack each", False), ("sections of one stack", True)],
            tooltip="Whether every file is a stack of its own and gets labels of its own, or all files of the folder "
            "are the sections of one stack, in the order of the numbers in their names.",
        )
        self.pattern = LineEdit(
            name="pattern",
            value="*",
            tooltip="Only files with such names are taken: * stands for any letters, ? for one. *.tif takes all TIFFs.",
        )
        self.subfolders = CheckBox(
            name="subfolders",
            text="subfolders",
            tooltip="Takes files in folders below as well; the labels get the same folders.",
        )
        self.network = ComboBox(
            name="network",
            choices=(),
            tooltip="The trained network that decides the class of every pixel. Networks differ in what they were "
            "trained on: choose one whose images look like yours.",
        )
        self.info_button = PushButton(text="i", tooltip="Everything known about this network.")
        self.card_text = Label(value="")
        self.empty = Container(widgets=[self.empty_text, self.sample_button], labels=False)
        self.inputs = Container(
            widgets=[
                self.row("source", "Input", self.source, self.source_button),
                self.empty,
                self.row("files", "Files", self.files),
                self.row("pattern", "Pattern", self.pattern, self.subfolders),
                self.row("network", "Network", self.network, self.info_button),
                self.card_text,
            ],
            labels=False,
        )
        for label in (self.empty_text, self.card_text):
            wrap(label)
        for button in (self.source_button, self.info_button):
            small(button)
        self.inputs.margins = self.empty.margins = (0, 0, 0, 0)
        self._layout.addWidget(self.inputs.native)

    def _build_output(self) -> None:
        self.output = LineEdit(
            name="output",
            tooltip="The folder that the labels go to; it is made if it is missing. The record of the run lies in it.",
        )
        self.output_button = PushButton(text="…", tooltip="Chooses the folder.")
        self.form = ComboBox(
            name="form",
            choices=list(FORMATS.items()),
            tooltip="TIFF and PNG show in class colours in any program, OME-TIFF keeps the voxel size best, OME-Zarr "
            "is for stacks larger than memory: it is made block by block, and finished blocks survive a stop.",
        )
        self.areas = CheckBox(
            name="areas",
            text="area table",
            value=True,
            tooltip="Writes how much of each class there is, per file and section, as a CSV file beside the labels: "
            "pixels, µm², share, and µm³ of whole stacks.",
        )
        self.probabilities = CheckBox(
            name="probabilities",
            text="probabilities",
            tooltip="Writes the probability of every class at every pixel to a zarr beside the labels; for one stack "
            "at a time. It takes 2 bytes a pixel and class.",
        )
        self.existing = ComboBox(
            name="existing",
            choices=[("keep, do the rest", False), ("make all again", True)],
            tooltip="What happens to labels that are there. Keeping goes by the record, also after a crash: what it "
            "says is done is not done again. Making all again replaces files of the same names.",
        )
        self.outputs = Container(
            widgets=[
                self.row("output", "Output", self.output, self.output_button),
                self.row("form", "Format", self.form),
                self.row("areas", "Also", self.areas, self.probabilities),
                self.row("existing", "If done", self.existing),
            ],
            labels=False,
        )
        self.outputs.margins = (0, 0, 0, 0)
        small(self.output_button)
        self.summary = Label(value="")
        wrap(self.summary)
        self._layout.addWidget(self.outputs.native)
        self._layout.addWidget(self.summary.native)

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
            choices=["default", "exact"],
            tooltip="How much is read around each tile: default leaves at least 99.95 % of the labels as they would be "
            "without tiles, exact all of them and takes longer.",
        )
        self.pixel_size = FloatSpinBox(
            name="pixel_size",
            value=0,
            min=0,
            max=100_000,
            step=0.1,
            tooltip="Width of a pixel in nanometres, for all files. 0 takes what each file says of itself, and the "
            "network's own size where it says nothing. A wrong size makes every network fail.",
        )
        self.pixel_size.native.setSpecialValueText("as the files say")
        self.workers = SpinBox(
            name="workers",
            value=0,
            min=0,
            max=os.cpu_count() or 1,
            tooltip="Helping processes on this machine. More than one pays where there are many cores; each needs "
            "memory of its own. One that dies is replaced. 0 works without.",
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
            tooltip="Pixels without a value (NaN, infinity) are taken as this grey value. Unticked, a file with such "
            "pixels fails.",
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
        self.check_sections = CheckBox(
            name="check_sections",
            text="Look for odd sections first",
            value=True,
            tooltip="Lists sections that are missing (black or white), repeated, shifted or of another contrast, "
            "before predicting. They are predicted as they are. Reads every image once more.",
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
                self.row("pixel_size", "nm/pixel", self.pixel_size),
                self.row("workers", "Workers", self.workers),
                self.invert,
                fill_row,
                self.check_sections,
            ],
            labels=False,
        )
        self.advanced.margins = (6, 2, 0, 2)
        self.collapsible = QCollapsible("▸ Advanced", expandedIcon=QIcon(), collapsedIcon=QIcon())
        self.collapsible.setDuration(0)
        self.collapsible.layout().setContentsMargins(0, 0, 0, 0)
        self.collapsible.layout().setSpacing(0)
        self.collapsible.toggleButton().setToolTip("Device, precision, pixel size, contrast, workers.")
        self.collapsible.addWidget(self.advanced.native)
        self.collapsible.toggled.connect(
            lambda shown: self.collapsible.setText("▾ Advanced" if shown else "▸ Advanced")
        )
        self._layout.addWidget(self.collapsible)

    def _build_run(self) -> None:
        self.run_button = PushButton(text="Run")
        self.record_button = PushButton(text="Record")
        self.copy_button = PushButton(text="Copy command")
        buttons = Container(
            widgets=[self.run_button, self.record_button, self.copy_button], layout="horizontal", labels=False
        )
        buttons.margins = (0, 2, 0, 2)
        self.run_button.native.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        font = self.run_button.native.font()
        font.setBold(True)
        self.run_button.native.setFont(font)
        for button in (self.record_button, self.copy_button):
            small(button)
        self.problem = Label(value="", visible=False)
        self.progress = _ProgressBar(value=0, min=0, max=100, visible=False)
        self.progress.native.setTextVisible(False)
        self.progress.native.setMaximumHeight(8)
        self.progress.tooltip = "How much of this run is done."
        self.status = Label(value="")
        self.detail = Label(value="", visible=False, tooltip="All that is known about the chosen file.")
        for label in (self.problem, self.status, self.detail):
            wrap(label)
        self.table = FileTable()
        self.table.setToolTip("A double click opens image and labels in the viewer. Ctrl+C copies the chosen lines.")
        self.legend = Legend()
        for part in (buttons, self.problem, self.progress, self.status):
            self._layout.addWidget(part.native)
        self._layout.addWidget(self.table, 1)
        for part in (self.detail.native, self.legend):
            self._layout.addWidget(part)
        self._layout.addStretch(0)  # takes the room of the table while there is none
