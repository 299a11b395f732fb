"""The controls of the Annotate & retrain widget and where they stand. What they do is in `retrain`."""

from __future__ import annotations

from magicgui.widgets import CheckBox, ComboBox, Container, FloatSpinBox, Label, PushButton, SpinBox, create_widget
from magicgui.widgets import ProgressBar as _ProgressBar
from napari.layers import Image
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_drososeg._widgets.fields import FieldForm, small, wrap
from napari_drososeg._widgets.legend import Legend
from napari_drososeg._widgets.rounds_table import RoundsTable
from napari_drososeg._widgets.strip import SectionStrip
from napari_drososeg._widgets.training_plot import TrainingPlot

AFTERWARDS = {"shown": "what was segmented", "section": "only what I look at", "stack": "the whole stack"}
"""What a new network predicts."""


class RetrainForm(FieldForm):
    """All controls of the Annotate & retrain widget."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Augment", parent)
        self._build_choice()
        self._build_annotation()
        self._build_advanced()
        self._build_run()
        self._build_rounds()
        self.keys = Label(
            value="Shift+Q, W, E: paint class 1, 2, 3 · Shift+R: section reviewed · Shift+N: next place to annotate · "
            "Shift+T: retrain",
            tooltip="The class keys work while the labels layer is selected, the others anywhere in the viewer.",
        )
        wrap(self.keys)
        self._layout.addWidget(self.keys.native)
        self._layout.addStretch(1)

    # ---------------------------------------------------------------- the parts

    def _build_choice(self) -> None:
        self.image = create_widget(
            annotation=Image,
            options={"tooltip": "The stack whose labels are corrected. What is annotated belongs to it and is kept "
            "in a folder beside its file."},
        )  # fmt: skip
        self.open_button = PushButton(text="Open", tooltip="Opens a file, a zarr or a folder of sections.")
        self.empty_text = Label(value="No image yet. Open a stack of sections, or try it on a sample:")
        self.sample_button = PushButton(
            text="Open the sample stack",
            tooltip="Adds the public Drosophila stack, with its true labels hidden (downloaded once: 18 MB); without "
            "a connection a synthetic one.",
        )
        self.empty = Container(widgets=[self.empty_text, self.sample_button], labels=False)
        self.labels = ComboBox(
            name="labels",
            choices=(),
            tooltip="The layer that is corrected by painting on it, and that shows the new network afterwards. "
            "All labels layers of one image share what is painted.",
        )
        self.new_button = PushButton(
            text="New",
            tooltip="Adds a labels layer: segmented by the network to start from, empty for strokes alone, or empty "
            "with classes of your own.",
        )
        self.no_labels = Label(value="No labels of this image yet. Begin with those of a network, or with none:")
        self.segment_button = PushButton(
            text="Segment this section",
            tooltip="Predicts the section on screen with the network to start from; then paint over what is wrong.",
        )
        self.empty_button = PushButton(
            text="Empty labels", tooltip="Adds a labels layer with nothing on it: a few strokes of each class train."
        )
        self.begin = Container(widgets=[self.no_labels, self.segment_button, self.empty_button], labels=False)
        self.foreign_text = Label(value="These labels are not from here. Take them over into a layer of their own:")
        self.right_button = PushButton(
            text="They are right",
            tooltip="Every labelled pixel counts as annotated and trains. The layer itself is not changed.",
        )
        self.wrong_button = PushButton(
            text="To be corrected",
            tooltip="They count as a prediction: what you paint over trains. The layer itself is not changed.",
        )
        buttons = Container(widgets=[self.right_button, self.wrong_button], layout="horizontal", labels=False)
        self.foreign = Container(widgets=[self.foreign_text, buttons], labels=False)
        self.start = ComboBox(
            name="start",
            choices=(),
            tooltip="The network that learns from what you paint. It stays as it is: each round is a new network. "
            "From scratch needs no network, but strokes of every class.",
        )
        self.choice = Container(
            widgets=[
                self.row("image", "Image", self.image, self.open_button),
                self.empty,
                self.row("labels", "Labels", self.labels, self.new_button),
                self.begin,
                self.foreign,
                self.row("start", "Start", self.start),
            ],
            labels=False,
        )
        for label in (self.empty_text, self.no_labels, self.foreign_text):
            wrap(label)
        for button in (self.open_button, self.new_button):
            small(button)
        for box in (self.choice, self.empty, self.begin, self.foreign, buttons):
            box.margins = (0, 0, 0, 0)
        self._layout.addWidget(self.choice.native)

    def _build_annotation(self) -> None:
        self.strip = SectionStrip()
        self.legend = Legend()
        self.legend.setToolTip(
            "Annotated pixels of each class that train, in all sections. Painting a class where the labels show it "
            "already changes nothing: mark such places as reviewed."
        )
        self.missing = Label(value="")
        self.reviewed = CheckBox(
            name="reviewed",
            text="Section reviewed",
            tooltip="Says that every label of the section on screen is right: all of them train, and no prediction "
            "changes them. Unticked, they are the network's again (what you painted stays).",
        )
        self.region_button = PushButton(
            text="Region",
            tooltip="Draw a rectangle or a lasso around what is right, or lock a part for validation: locked parts "
            "never train, and rounds are compared on them.",
        )
        self.outline = CheckBox(
            name="outline",
            value=True,
            text="Outline",
            tooltip="Draws an outline around everything that trains (white) or is locked for validation (yellow).",
        )
        row = Container(widgets=[self.reviewed, self.region_button, self.outline], layout="horizontal", labels=False)
        row.margins = (0, 0, 0, 0)
        small(self.region_button)
        wrap(self.missing)
        self.annotation_box = QWidget()
        column = QVBoxLayout(self.annotation_box)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        for part in (self.strip, self.legend, self.missing.native, row.native):
            column.addWidget(part)
        self._layout.addWidget(self.annotation_box)

    def _build_advanced(self) -> None:
        self.effort = ComboBox(
            name="effort",
            choices=[("quick", "quick"), ("balanced", "balanced"), ("thorough", "thorough")],
            tooltip="How long it trains: quick for round after round of corrections, thorough when the annotation is "
            "good.",
        )
        self._layout.addWidget(self.row("effort", "Effort", self.effort).native)
        self.loss = ComboBox(
            name="loss",
            choices=["class-balanced", "cross-entropy", "focal", "dice", "class-balanced+dice"],
            value="class-balanced",
            tooltip="What counts as wrong: class-balanced lets rare classes count as much as common ones; dice "
            "looks at overlap, focal at what is hard.",
        )
        self.rate = FloatSpinBox(
            name="rate",
            value=0,
            min=0,
            max=0.1,
            step=0.0001,
            tooltip="How far each step goes. Higher learns faster and forgets more; 0 takes the one of the effort.",
        )
        self.rate.native.setDecimals(5)
        self.rate.native.setSpecialValueText("of the effort")
        self.augmentation = ComboBox(
            name="augmentation",
            choices=["none", "mild", "study", "strong"],
            value="mild",
            tooltip="How much each patch is turned, stretched and changed in grey value: more helps on varied images "
            "and needs more steps.",
        )
        self.steps = SpinBox(
            name="steps",
            value=0,
            min=0,
            max=100_000,
            tooltip="Number of updates of the network; 0 takes the number of the effort.",
        )
        self.steps.native.setSpecialValueText("of the effort")
        self.afterwards = ComboBox(
            name="afterwards",
            choices=[(text, name) for name, text in AFTERWARDS.items()],
            tooltip="What the new network predicts, beginning with what you look at.",
        )
        self.folder_text = Label(value="")
        self.folder_button = PushButton(
            text="Folder", tooltip="Keeps the annotation of this image in another folder; an empty one, or a workspace."
        )
        small(self.folder_button)
        self.advanced = Container(
            widgets=[
                self.row("loss", "Loss", self.loss),
                self.row("rate", "Rate", self.rate),
                self.row("augmentation", "Augment", self.augmentation),
                self.row("steps", "Steps", self.steps),
                self.row("afterwards", "Then", self.afterwards),
                Container(widgets=[self.folder_text, self.folder_button], layout="horizontal", labels=False),
            ],
            labels=False,
        )
        self.advanced[-1].margins = (0, 0, 0, 0)
        self.advanced.margins = (6, 2, 0, 2)
        wrap(self.folder_text)
        self.collapsible = QCollapsible("▸ Advanced", expandedIcon=QIcon(), collapsedIcon=QIcon())
        self.collapsible.setDuration(0)
        self.collapsible.layout().setContentsMargins(0, 0, 0, 0)
        self.collapsible.layout().setSpacing(0)
        self.collapsible.toggleButton().setToolTip("Loss, learning rate, augmentation, steps, and where it is kept.")
        self.collapsible.addWidget(self.advanced.native)
        self.collapsible.toggled.connect(
            lambda shown: self.collapsible.setText("▾ Advanced" if shown else "▸ Advanced")
        )
        self._layout.addWidget(self.collapsible)

    def _build_run(self) -> None:
        self.run_button = PushButton(text="Retrain")
        self.next_button = PushButton(
            text="Next place",
            tooltip="Goes to where the network is least sure and nothing is annotated yet. Pressed again, to the next.",
        )
        self.copy_button = PushButton(text="Copy command")
        buttons = Container(
            widgets=[self.run_button, self.next_button, self.copy_button], layout="horizontal", labels=False
        )
        self.run_button.native.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        font = self.run_button.native.font()
        font.setBold(True)
        self.run_button.native.setFont(font)
        for button in (self.next_button, self.copy_button):
            small(button)
        self.problem = Label(value="", visible=False)
        self.progress = _ProgressBar(value=0, min=0, max=100, visible=False)
        self.progress.native.setTextVisible(False)
        self.progress.native.setMaximumHeight(8)
        self.progress.tooltip = "How much of the training, or of the prediction after it, is done."
        self.status = Label(value="")
        self.question_text = Label(value="")
        self.take_button = PushButton(
            text="Use it all the same", tooltip="Shows the new network, and starts the next round from it."
        )
        self.leave_button = PushButton(
            text="Leave it", tooltip="Goes on with the network in use. The round stays in the history."
        )
        answers = Container(widgets=[self.take_button, self.leave_button], layout="horizontal", labels=False)
        self.question = Container(widgets=[self.question_text, answers], labels=False, visible=False)
        buttons.margins = (0, 2, 0, 2)
        answers.margins = self.question.margins = (0, 0, 0, 0)
        for label in (self.problem, self.status, self.question_text):
            wrap(label)
        for part in (buttons, self.problem, self.progress, self.status, self.question):
            self._layout.addWidget(part.native)
        self.plot = TrainingPlot()
        self.plot.hide()
        self._layout.addWidget(self.plot)

    def _build_rounds(self) -> None:
        self.rounds = RoundsTable()
        self.compare_button = PushButton(
            text="Compare",
            tooltip="Shows where two selected rounds differ in the section on screen, in the class of the later one. "
            "One selected round is compared with the one in use.",
        )
        self.use_button = PushButton(text="Use", tooltip="Goes back, or forward, to the selected round.")
        self.save_button = PushButton(
            text="Save as network",
            tooltip="Puts the selected round, else the one in use, among your networks: for all widgets, and for the "
            "command line.",
        )
        buttons = Container(
            widgets=[self.compare_button, self.use_button, self.save_button], layout="horizontal", labels=False
        )
        buttons.margins = (0, 2, 0, 2)
        for button in (self.compare_button, self.use_button, self.save_button):
            small(button)
        self.history = QWidget()
        column = QVBoxLayout(self.history)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addWidget(self.rounds)
        column.addWidget(buttons.native)
        self.history.hide()
        self._layout.addWidget(self.history)
