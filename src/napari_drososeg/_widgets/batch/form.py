"""The controls of the Batch widget and where they stand. What they do is in `widget`."""

from __future__ import annotations

import os

from magicgui.widgets import CheckBox, ComboBox, LineEdit, PushButton, SpinBox
from qtpy.QtWidgets import QWidget

from napari_drososeg._widgets.batch.file_table import FileTable
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

FORMATS = {
    "TIFF with colours": "tiff",
    "OME-TIFF": "ome-tiff",
    "OME-Zarr, for large stacks": "ome-zarr",
    "PNG with colours": "png",
}


class BatchForm(NetworkChoice):
    """All controls of the Batch widget."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(
            "Pixel size in nanometres, for all files. 0 uses the size given in each file, or the network's own where "
            "the file gives none. Every network fails with a wrong size.",
            parent,
        )
        self._build_input()
        self._build_output()
        self._build_advanced()
        self._build_run()
        self.choice = [self.inputs, self.outputs, self.advanced]

    # ---------------------------------------------------------------- the parts

    def _build_input(self) -> None:
        self.source = LineEdit(
            name="source",
            tooltip="The folder of images to segment, or a single image. Input files are never changed.",
        )
        self.source_button = PushButton(text="…", tooltip="Selects the folder or a single file.")
        self.empty_text = note("Choose a folder of images above. To try it without images of your own:")
        self.sample_button = PushButton(
            text="Make a sample folder",
            tooltip="Creates eight synthetic sections in a new temporary folder and selects it above.",
        )
        self.files = ComboBox(
            name="files",
            choices=[("one stack each", False), ("sections of one stack", True)],
            tooltip="Whether every file is a separate stack with its own labels, or all files in the folder are the "
            "sections of one stack, ordered by the numbers in their names.",
        )
        self.pattern = LineEdit(
            name="pattern",
            value="*",
            tooltip="Only files whose names match are used: * stands for any characters, ? for a single one. *.tif "
            "selects all TIFF files.",
        )
        self.subfolders = CheckBox(
            name="subfolders",
            text="subfolders",
            tooltip="Includes files in subfolders; the labels are written to the same subfolders.",
        )
        small(self.source_button)
        self.empty = column(self.empty_text, self.sample_button)
        self.inputs = column(
            self.row("source", "Input", self.source, self.source_button),
            self.empty,
            self.row("files", "Files", self.files),
            self.row("pattern", "Pattern", self.pattern, self.subfolders),
            *self.network_rows(),
        )
        self._layout.addWidget(self.inputs.native)

    def _build_output(self) -> None:
        self.output = LineEdit(
            name="output",
            tooltip="The folder the labels are written to; it is created if missing. It also holds the record of the "
            "run.",
        )
        self.output_button = PushButton(text="…", tooltip="Selects the folder.")
        self.form = ComboBox(
            name="form",
            choices=list(FORMATS.items()),
            tooltip="TIFF and PNG show class colours in any program, OME-TIFF keeps the voxel size best, OME-Zarr is "
            "for stacks larger than memory: it is written block by block, and finished blocks survive a stop.",
        )
        self.areas = CheckBox(
            name="areas",
            text="area table",
            value=True,
            tooltip="Writes the area of each class, per file and section, to a CSV file beside the labels: pixels, "
            "µm², share, and µm³ for whole stacks.",
        )
        self.probabilities = CheckBox(
            name="probabilities",
            text="probabilities",
            tooltip="Writes the probability of every class at every pixel, one zarr per file, to a folder beside the "
            "labels. It takes 2 bytes per pixel and class.",
        )
        self.overlays = CheckBox(
            name="overlays",
            text="overlays",
            tooltip="Writes pictures for visual inspection: the image with the class colours half-transparent over "
            "it, one PNG per section, in a folder beside the labels. Where labels are done, only the pictures are "
            "drawn.",
        )
        self.existing = ComboBox(
            name="existing",
            choices=[("keep, do the rest", False), ("redo all", True)],
            tooltip="What to do with existing labels. Keeping follows the record, also after a crash: what it lists "
            "as done is not done again. Redo all replaces files of the same names.",
        )
        small(self.output_button)
        self.outputs = column(
            self.row("output", "Output", self.output, self.output_button),
            self.row("form", "Format", self.form),
            self.row("areas", "Also", self.areas),  # a line each, as each may be one that cannot work
            self.row("overlays", "", self.overlays),
            self.row("probabilities", "", self.probabilities),
            self.row("existing", "If done", self.existing),
        )
        self.summary = note()
        self._layout.addWidget(self.outputs.native)
        self._layout.addWidget(self.summary.native)

    def _build_advanced(self) -> None:
        self.pixel_size.native.setSpecialValueText("as in the files")
        self.workers = SpinBox(
            name="workers",
            value=0,
            min=0,
            max=os.cpu_count() or 1,
            tooltip="Additional worker processes on this machine. More than one helps on machines with many cores; "
            "each needs its own memory. A worker that dies is replaced. 0 runs without workers.",
        )
        self.check_sections = CheckBox(
            name="check_sections",
            text="Check for unusual sections first",
            value=True,
            tooltip="Lists sections that are missing (black or white), repeated, shifted or of different contrast "
            "before predicting. They are predicted as they are. This reads every image once more.",
        )
        self.advanced = column(
            *self.speed_rows(),
            self.row("pixel_size", "nm/pixel", self.pixel_size),
            self.row("workers", "Workers", self.workers),
            *self.grey.rows,
            self.check_sections,
        )
        self.collapsible = foldaway(self.advanced, "Device, precision, pixel size, contrast, workers.")
        self._layout.addWidget(self.collapsible)

    def _build_run(self) -> None:
        self.run_button = main_button("Run")
        self.record_button = PushButton(text="Record")
        self.copy_button = PushButton(text="Copy command")
        self.problem = note(visible=False)
        self.progress = progress_bar("Progress of this run.")
        self.status = note()
        self.detail = note(visible=False, tooltip="Details of the selected file.")
        self.table = FileTable()
        self.table.setToolTip(
            "A double click opens the image and its labels in the viewer. Ctrl+C copies the selected rows."
        )
        self.legend = Legend()
        buttons = button_line(self.record_button, self.copy_button, main=self.run_button)
        for part in (buttons, self.problem, self.progress, self.status):
            self._layout.addWidget(part.native)
        self._layout.addWidget(self.table, 1)
        for part in (self.detail.native, self.legend):
            self._layout.addWidget(part)
        self._layout.addStretch(0)  # takes the room of the table while there is none
