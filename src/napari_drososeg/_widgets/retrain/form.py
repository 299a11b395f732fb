"""The controls of the Annotate and retrain widget and where they stand. What they do is in `widget`."""

from __future__ import annotations

from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox, PushButton, create_widget
from napari.layers import Image
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_drososeg._widgets.controls.fields import (
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
from napari_drososeg._widgets.controls.grey_values import GreyFields
from napari_drososeg._widgets.controls.legend import Legend
from napari_drososeg._widgets.retrain.rounds_table import RoundsTable
from napari_drososeg._widgets.retrain.strip import SectionStrip
from napari_drososeg._widgets.retrain.training_plot import TrainingPlot
from napari_drososeg.workspace.recipes import RetrainSettings

AFTERWARDS = {"shown": "what was segmented", "section": "only this section", "stack": "the whole stack"}
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
            options={"tooltip": "The stack whose labels are corrected. Its annotation is kept in a folder beside its "
            "file."},
        )  # fmt: skip
        self.open_button = PushButton(text="Open", tooltip="Opens a file, a zarr or a folder of sections.")
        self.empty_text = note("No image yet. Open a stack of sections, or try it on a sample:")
        self.sample_button = PushButton(
            text="Open the sample stack",
            tooltip="Adds the public Drosophila stack, with its ground truth hidden (downloaded once: 18 MB), or a "
            "synthetic one if there is no connection.",
        )
        self.empty = column(self.empty_text, self.sample_button)
        self.labels = ComboBox(
            name="labels",
            choices=(),
            tooltip="The layer you correct by painting on it; it also shows the prediction of the new network. All "
            "labels layers of an image share the painted pixels.",
        )
        self.new_button = PushButton(
            text="New",
            tooltip="Adds a labels layer: segmented by the start network, empty for strokes alone, or empty with "
            "classes of your own.",
        )
        self.no_labels = note(
            "No labels for this image yet. Begin with the prediction of a network, or with empty labels:"
        )
        self.segment_button = PushButton(
            text="Segment this section",
            tooltip="Predicts the section on screen with the start network; then paint over what is wrong.",
        )
        self.empty_button = PushButton(
            text="Empty labels",
            tooltip="Adds an empty labels layer: a few strokes of each class are enough to begin with.",
        )
        self.begin = column(self.no_labels, self.segment_button, self.empty_button)
        self.foreign_text = note("These labels were not made by this plugin. Copy them into a new layer:")
        self.right_button = PushButton(
            text="As annotation",
            tooltip="For correct labels: every labelled pixel counts as annotated and is used for training. The "
            "layer itself is not changed.",
        )
        self.wrong_button = PushButton(
            text="As prediction",
            tooltip="For labels to be corrected: only what you paint over them is used for training. The layer "
            "itself is not changed.",
        )
        self.foreign = column(self.foreign_text, line(self.right_button, self.wrong_button))
        self.start = ComboBox(
            name="start",
            choices=(),
            tooltip="The network that learns from your annotations. It is not changed: each round makes a new "
            "network. From scratch needs no network, but strokes of every class.",
        )
        self.start_text = note(visible=False)
        self.nm = FloatSpinBox(
            name="nm",
            value=0,
            min=0,
            max=100_000,
            step=0.1,
            tooltip="Pixel size of the image, which is scaled to the size the network was trained at. The value "
            "entered here takes precedence over that of the image; 0 restores the latter. Where neither is known, "
            "the first round estimates it from your annotations.",
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
            "Annotated pixels of each class used for training, in all sections. Painting a class where the labels "
            "already show it changes nothing: mark such places as reviewed."
        )
        self.missing = note()
        self.reviewed = CheckBox(
            name="reviewed",
            text="Section reviewed",
            tooltip="Confirms that every label of the section on screen is correct: all of them are used for "
            "training, and no prediction changes them. Unticked, predictions may change them again (painted pixels "
            "stay). A section that is locked for validation is not used for training.",
        )
        self.region_button = PushButton(
            text="Region",
            tooltip="Draw a rectangle or a lasso around correct labels, or lock a part for validation: locked parts "
            "are never used for training, and rounds are compared on them.",
        )
        self.outline = CheckBox(
            name="outline",
            value=True,
            text="Outline",
            tooltip="Draws an outline around everything that is used for training (white) or locked for validation "
            "(yellow).",
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
            tooltip="Training effort: quick for round after round of corrections, thorough when the annotation is "
            "good.",
        )
        self._layout.addWidget(self.row("effort", "Effort", self.effort).native)
        self.loss = ComboBox(
            name="loss",
            choices=["cross-entropy", "class-balanced", "focal", "dice", "class-balanced+dice"],
            value=RetrainSettings.loss,
            tooltip="Loss function: class-balanced lets rare classes count as much as common ones; dice measures "
            "overlap, focal emphasises what is hard.",
        )
        self.rate = FloatSpinBox(
            name="rate",
            value=0,
            min=0,
            max=0.1,
            step=0.0001,
            tooltip="Learning rate. Higher learns faster and forgets more; 0 uses that of the effort.",
        )
        self.rate.native.setDecimals(5)
        self.rate.native.setSpecialValueText("from the effort")
        self.augmentation = ComboBox(
            name="augmentation",
            choices=["none", "mild", "medium", "strong", "study"],
            value="mild",
            tooltip="How strongly each patch is rotated, stretched and changed in grey value: more helps on varied "
            "images and needs more steps.",
        )
        self.steps = FloatSpinBox(  # that of whole numbers cannot show a word for 0
            name="steps",
            value=0,
            min=0,
            max=100_000,
            step=10,
            tooltip="Number of training steps; 0 uses that of the effort.",
        )
        self.steps.native.setDecimals(0)
        self.steps.native.setSpecialValueText("from the effort")
        self.afterwards = ComboBox(
            name="afterwards",
            choices=[(text, name) for name, text in AFTERWARDS.items()],
            tooltip="What the new network predicts, beginning with what is on screen.",
        )
        self.grey = GreyFields()
        self.folder_text = note()
        self.folder_button = PushButton(
            text="Folder",
            tooltip="Uses another folder for the annotation of this image: an empty one, to which the present one can "
            "be copied, or a workspace, which is continued. The choice holds until the image is closed: make it again "
            "next time.",
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
            tooltip="Goes to where the network is least certain and nothing is annotated yet. Press again for the "
            "next one.",
        )
        self.copy_button = PushButton(text="Copy command")
        self.problem = note(visible=False)
        self.progress = progress_bar("Progress of the training, or of the prediction after it.")
        self.status = note()
        self.question_text = note()
        self.take_button = PushButton(
            text="Use anyway", tooltip="Shows the new network, and starts the next round from it."
        )
        self.leave_button = PushButton(
            text="Keep current network", tooltip="Continues with the network in use. The round stays in the history."
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
        self.use_button = PushButton(text="Use", tooltip="Switches back, or forward, to the selected round.")
        self.save_button = PushButton(
            text="Save as network",
            tooltip="Adds the selected round, else the one in use, to your networks: for all widgets, and for the "
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
