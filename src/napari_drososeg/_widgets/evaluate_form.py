"""The controls of the Evaluate widget and where they stand. What they do is in `evaluate`."""

from __future__ import annotations

from magicgui.widgets import CheckBox, ComboBox, Container, Label, PushButton
from magicgui.widgets import ProgressBar as _ProgressBar
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_drososeg._widgets.fields import FieldForm, small, wrap
from napari_drososeg._widgets.score_tables import NumberTable


class EvaluateForm(FieldForm):
    """All controls of the Evaluate widget."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Labels", parent)
        self._build_choice()
        self._build_run()
        self._build_results()
        self._layout.addStretch(1)

    def _build_choice(self) -> None:
        self.labels = ComboBox(name="labels", choices=(), tooltip="The labels to judge. The layer is not changed.")
        self.truth = ComboBox(
            name="truth",
            choices=(),
            tooltip="The labels that are right. Pixels that it leaves unlabelled (0) are not counted.",
        )
        self.empty_text = Label(
            value="To compare, two labels layers are needed: labels to judge and true ones. Open your own, or segment "
            "the sample stack, which has its true labels with it:"
        )
        self.sample_button = PushButton(
            text="Open the sample stack",
            tooltip="Adds the public Drosophila stack with its true labels, hidden (downloaded once: 18 MB); without "
            "a connection a synthetic one.",
        )
        self.in_view = CheckBox(
            name="in_view",
            text="Only the section in view",
            tooltip="Counts, and draws in the error map, the section on screen alone instead of all sections.",
        )
        self.error_map = CheckBox(
            name="error_map",
            text="Show wrong pixels",
            value=True,
            tooltip="Adds a labels layer in which wrong pixels are yellow. Pressing Evaluate again draws it anew.",
        )
        self.empty = Container(widgets=[self.empty_text, self.sample_button], labels=False)
        self.choice = Container(
            widgets=[
                self.empty,
                self.row("labels", "Labels", self.labels),
                self.row("truth", "Truth", self.truth),
                self.in_view,
                self.error_map,
            ],
            labels=False,
        )
        self.choice.margins = self.empty.margins = (0, 0, 0, 0)
        wrap(self.empty_text)
        self._layout.addWidget(self.choice.native)

    def _build_run(self) -> None:
        self.run_button = PushButton(text="Evaluate")
        font = self.run_button.native.font()
        font.setBold(True)
        self.run_button.native.setFont(font)
        self.problem = Label(value="", visible=False)
        self.progress = _ProgressBar(value=0, min=0, max=100, visible=False)
        self.progress.native.setTextVisible(False)
        self.progress.native.setMaximumHeight(8)
        self.progress.tooltip = "How much of the sections is compared."
        self.status = Label(value="")
        for widget in (self.run_button, self.problem, self.progress, self.status):
            self._layout.addWidget(widget.native)
        for label in (self.problem, self.status):
            wrap(label)

    def _build_results(self) -> None:
        self.heading = Label(value="")
        self.averaged = CheckBox(
            name="averaged",
            text="Mean over sections",
            tooltip="Lets every section count the same. Unticked, all pixels are counted together: the numbers "
            "to quote.",
        )
        self.table = NumberTable()
        self.accuracies = Label(value="")
        self.confusion_text = Label(value="")
        self.in_pixels = CheckBox(
            name="in_pixels",
            text="In pixels",
            tooltip="Shows how many pixels of every true class carry which label, instead of per cent of the class.",
        )
        self.confusion = NumberTable()
        self.copy_button = PushButton(
            text="Copy table", tooltip="Puts both tables on the clipboard, to be pasted into a spreadsheet."
        )
        self.save_button = PushButton(
            text="Save CSV", tooltip="Writes the scores of every section to a file that spreadsheets open."
        )
        buttons = Container(widgets=[self.copy_button, self.save_button], layout="horizontal", labels=False)
        buttons.margins = (0, 2, 0, 2)
        self.results = QWidget()
        column = QVBoxLayout(self.results)
        column.setContentsMargins(0, 4, 0, 0)
        column.setSpacing(4)
        parts = (self.heading, self.table, self.averaged, self.accuracies, self.confusion_text, self.confusion)
        for part in (*parts, self.in_pixels, buttons):
            column.addWidget(part if isinstance(part, QWidget) else part.native)
        for label in (self.heading, self.accuracies, self.confusion_text):
            wrap(label)
        for button in (self.copy_button, self.save_button):
            small(button)
        self.results.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)
        self.results.hide()
        self._layout.addWidget(self.results)
