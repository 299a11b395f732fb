"""The controls of the Annotate and retrain widget and where they stand. What they do is in `retrain`."""

from __future__ import annotations

from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox, PushButton, create_widget
from napari.layers import Image
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_drososeg._widgets.fields import (
    FieldForm,
    button_line,
    column,
    foldaway,
    line,
    main_button,
    note,
    progress_bar,
    small,
)
from napari_drososeg._widgets.grey_values import GreyFields
from napari_drososeg._widgets.legend import Legend
from napari_drososeg._widgets.rounds_table import RoundsTable
from napari_drososeg._widgets.strip import SectionStrip
from napari_drososeg._widgets.training_plot import TrainingPlot

AFTERWARDS = {"shown": "what was segmented", "section": "only what I look at", "stack": "the whole stack"}
"""What a new network predicts."""


class RetrainForm(FieldForm):
    """All controls of the Annotate and retrain widget."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Augment", parent)
        self._build_choice()
        self._build_annotation()
        self._build_advanced()
        self._build_run()
        self._build_rounds()
        self.keys = note(
            "Shift+Q, W, E: paint class 1, 2, 3 · Shift+R: section reviewed · Shift+N: next place to annotate · "
            "Shift+T: retrain",
            tooltip="The class keys work while the labels layer is selected, the others anywhere in the viewer.",
        )
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
        self.empty_text = note("No image yet. Open a stack of sections, or try it on a sample:")
        self.sample_button = PushButton(
            text="Open the sample stack",
            tooltip="Adds the public Drosophila stack, with its true labels hidden (downloaded once: 18 MB); without "
            "a connection a synthetic one.",
        )
        self.empty = column(self.empty_text, self.sample_button)
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
        self.no_labels = note("No labels of this image yet. Begin with those of a network, or with none:")
        self.segment_button = PushButton(
            text="Segment this section",
            tooltip="Predicts the section on screen with the network to start from; then paint over what is wrong.",
        )
        self.empty_button = PushButton(
            text="Empty labels", tooltip="Adds a labels layer with nothing on it: a few strokes of each class train."
        )
        self.begin = column(self.no_labels, self.segment_button, self.empty_button)
        self.foreign_text = note("These labels are not from here. Take them over into a layer of their own:")
        self.right_button = PushButton(
            text="They are right",
            tooltip="Every labelled pixel counts as annotated and trains. The layer itself is not changed.",
        )
        self.wrong_button = PushButton(
            text="To be corrected",
            tooltip="They count as a prediction: what you paint over trains. The layer itself is not changed.",
        )
        self.foreign = column(self.foreign_text, line(self.right_button, self.wrong_button))
        self.start = ComboBox(
            name="start",
            choices=(),
            tooltip="The network that learns from what you paint. It stays as it is: each round is a new network. "
            "From scratch needs no network, but strokes of every class.",
        )
        self.start_text = note(visible=False)
        self.nm = FloatSpinBox(
            name="nm",
            value=0,
            min=0,
            max=100_000,
            step=0.1,
            tooltip="How large a pixel of the image is: networks see it as large as what they were trained on. What "
            "you type goes before what the image says; 0 takes it back. Where neither says it, the first round finds "
            "it out from what you paint.",
        )
        self.nm.native.setSpecialValueText("unknown")
        self.nm_row = self.row("pixel_size", "nm/pixel", self.nm)
        for button in (self.open_button, self.new_button):
            small(button)
        self.choice = column(
            self.row("image", "Image", self.image, self.open_button),
            self.nm_row,
            self.empty,
            self.row("labels", "Labels", self.labels, self.new_button),
            self.begin,
            self.foreign,
            self.row("start", "Start", self.start),
            self.start_text,
        )
        self._layout.addWidget(self.choice.native)

    def _build_annotation(self) -> None:
        self.strip = SectionStrip()
        self.legend = Legend()
        self.legend.setToolTip(
            "Annotated pixels of each class that train, in all sections. Painting a class where the labels show it "
            "already changes nothing: mark such places as reviewed."
        )
        self.missing = note()
        self.reviewed = CheckBox(
            name="reviewed",
            text="Section reviewed",
            tooltip="Says that every label of the section on screen is right: all of them train, and no prediction "
            "changes them. Unticked, they are the network's again (what you painted stays). A section that is locked "
            "for validation does not train.",
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
        small(self.region_button)
        row = line(self.reviewed, self.region_button, self.outline)
        self.annotation_box = QWidget()
        layout = QVBoxLayout(self.annotation_box)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for part in (self.strip, self.legend, self.missing.native, row.native):
            layout.addWidget(part)
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
        self.steps = FloatSpinBox(  # that of whole numbers cannot show a word for 0
            name="steps",
            value=0,
            min=0,
            max=100_000,
            step=10,
            tooltip="Number of updates of the network; 0 takes the number of the effort.",
        )
        self.steps.native.setDecimals(0)
        self.steps.native.setSpecialValueText("of the effort")
        self.afterwards = ComboBox(
            name="afterwards",
            choices=[(text, name) for name, text in AFTERWARDS.items()],
            tooltip="What the new network predicts, beginning with what you look at.",
        )
        self.grey = GreyFields()
        self.folder_text = note()
        self.folder_button = PushButton(
            text="Folder",
            tooltip="Keeps the annotation of this image in another folder: an empty one, or a workspace. The choice "
            "holds until the image is closed: make it again the next time.",
        )
        small(self.folder_button)
        self.advanced = column(
            self.row("loss", "Loss", self.loss),
            self.row("rate", "Rate", self.rate),
            self.row("augmentation", "Augment", self.augmentation),
            self.row("steps", "Steps", self.steps),
            self.row("afterwards", "Then", self.afterwards),
            *self.grey.rows,
            line(self.folder_text, self.folder_button),
        )
        self.collapsible = foldaway(self.advanced, "Loss, learning rate, augmentation, steps, grey values, folder.")
        self._layout.addWidget(self.collapsible)

    def _build_run(self) -> None:
        self.run_button = main_button("Retrain")
        self.next_button = PushButton(
            text="Next place",
            tooltip="Goes to where the network is least sure and nothing is annotated yet. Pressed again, to the next.",
        )
        self.copy_button = PushButton(text="Copy command")
        self.problem = note(visible=False)
        self.progress = progress_bar("How much of the training, or of the prediction after it, is done.")
        self.status = note()
        self.question_text = note()
        self.take_button = PushButton(
            text="Use it all the same", tooltip="Shows the new network, and starts the next round from it."
        )
        self.leave_button = PushButton(
            text="Leave it", tooltip="Goes on with the network in use. The round stays in the history."
        )
        self.question = column(self.question_text, line(self.take_button, self.leave_button), visible=False)
        buttons = button_line(self.next_button, self.copy_button, main=self.run_button)
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
        buttons = button_line(self.compare_button, self.use_button, self.save_button)
        self.history = QWidget()
        layout = QVBoxLayout(self.history)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.rounds)
        layout.addWidget(buttons.native)
        self.history.hide()
        self._layout.addWidget(self.history)
