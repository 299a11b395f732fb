"""The controls of the Evaluate widget and where they stand. What they do is in `widget`."""

from __future__ import annotations

from magicgui.widgets import CheckBox, ComboBox, PushButton
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_drososeg._widgets.controls.fields import FieldForm, button_line, column, main_button, note, progress_bar
from napari_drososeg._widgets.evaluate.score_tables import NumberTable


class EvaluateForm(FieldForm):
    """All controls of the Evaluate widget."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Labels", parent)
        self._build_choice()
        self._build_run()
        self._build_results()
        self._layout.addStretch(1)

    def _build_choice(self) -> None:
        self.labels = ComboBox(name="labels", choices=(), tooltip="The labels to evaluate. The layer is not changed.")
        self.truth = ComboBox(
            name="truth",
            choices=(),
            tooltip="The correct labels (ground truth). Pixels left unlabelled in it (0) are not counted.",
        )
        self.empty_text = note(
            "Two labels layers are needed: the labels to evaluate and the ground truth. Open your own, or segment "
            "the sample stack, which comes with its ground truth:"
        )
        self.sample_button = PushButton(
            text="Open the sample stack",
            tooltip="Adds the public Drosophila stack with its ground truth, hidden (downloaded once: 18 MB), or a "
            "synthetic one if there is no connection.",
        )
        self.in_view = CheckBox(
            name="in_view",
            text="Only the section in view",
            tooltip="Counts, and draws in the error map, only the section on screen instead of all sections.",
        )
        self.error_map = CheckBox(
            name="error_map",
            text="Show wrong pixels",
            value=True,
            tooltip="Adds a labels layer with wrong pixels in yellow. Pressing Evaluate again redraws it.",
        )
        self.coverage = note(
            visible=False, tooltip="The labels are an incomplete result; the scores cover what is stated here."
        )
        self.empty = column(self.empty_text, self.sample_button)
        self.choice = column(
            self.empty,
            self.row("labels", "Labels", self.labels),
            self.row("truth", "Truth", self.truth),
            self.in_view,
            self.error_map,
            self.coverage,
        )
        self._layout.addWidget(self.choice.native)

    def _build_run(self) -> None:
        self.run_button = main_button("Evaluate")
        self.problem = note(visible=False)
        self.progress = progress_bar("Progress of the comparison.")
        self.status = note()
        for widget in (self.run_button, self.problem, self.progress, self.status):
            self._layout.addWidget(widget.native)

    def _build_results(self) -> None:
        self.heading = note()
        self.averaged = CheckBox(
            name="averaged",
            text="Mean over sections",
            tooltip="Weights all sections equally. Unticked, all pixels are pooled: these are the numbers to quote.",
        )
        self.table = NumberTable()
        self.accuracies = note()
        self.confusion_text = note()
        self.in_pixels = CheckBox(
            name="in_pixels",
            text="In pixels",
            tooltip="Shows pixel counts instead of percentages of each true class.",
        )
        self.confusion = NumberTable()
        self.copy_button = PushButton(
            text="Copy table", tooltip="Copies both tables to the clipboard, to be pasted into a spreadsheet."
        )
        self.save_button = PushButton(
            text="Save CSV", tooltip="Writes the scores of every section to a CSV file for spreadsheets."
        )
        buttons = button_line(self.copy_button, self.save_button)
        self.results = QWidget()
        layout = QVBoxLayout(self.results)
        layout.setContentsMargins(0, 4, 0, 0)
        layout.setSpacing(4)
        parts = (self.heading, self.table, self.averaged, self.accuracies, self.confusion_text, self.confusion)
        for part in (*parts, self.in_pixels, buttons):
            layout.addWidget(part if isinstance(part, QWidget) else part.native)
        self.results.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)
        self.results.hide()
        self._layout.addWidget(self.results)
