"""A form in a scroll area: lines of a title and controls, marks for those that cannot work, and what all forms have."""

from __future__ import annotations

from magicgui.widgets import ComboBox, Container, Label, LineEdit, ProgressBar, PushButton
from magicgui.widgets.bases import Widget
from qtpy.QtCore import QEvent, QObject, Qt, Signal
from qtpy.QtGui import QCloseEvent, QIcon
from qtpy.QtWidgets import (
    QComboBox,
    QFrame,
    QLabel,
    QScrollArea,
    QSizePolicy,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_drososeg._widgets.work.leaving import when_destroyed

MARK = "⚠ "


class Life:
    """Whether a widget is at its end; outlives the Qt object, for what comes back from threads afterwards."""

    over = False


class FieldForm(QScrollArea):
    """A column of fields, usable at a width of 320 px; taller windows show all, lower ones scroll.

    Parameters
    ----------
    widest : str
        Longest title of a field: all titles are as wide, so that the fields line up.

    Signals
    -------
    closing
        It is closed.
    undocked
        napari takes it out of its dock, which does not close it.
    """

    closing = Signal()
    undocked = Signal()

    def __init__(self, widest: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMinimumWidth(320)
        body = QWidget()
        self._layout = QVBoxLayout(body)
        self._layout.setContentsMargins(6, 6, 6, 6)
        self._layout.setSpacing(4)
        self._widest = widest
        self._fields: dict[str, tuple[str, Label, Widget, str]] = {}
        self.setWidget(body)
        life = self._life = Life()
        when_destroyed(self, lambda: setattr(life, "over", True))

    @property
    def _closed(self) -> bool:
        return self._life.over

    def closeEvent(self, event: QCloseEvent | None) -> None:
        """Say so, before it is closed."""
        self.closing.emit()
        super().closeEvent(event)

    def event(self, event: QEvent | None) -> bool:
        """Say when it has been taken out of its dock."""
        if event is not None and event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.undocked.emit()
        return bool(super().event(event))

    def row(self, name: str, title: str, *widgets: Widget) -> Container:
        """Make a line of the form: title, then controls. The first control carries the mark's reason."""
        label = Label(value=title)
        width = label.native.fontMetrics().horizontalAdvance(f"{MARK}{self._widest}") + 14
        label.native.setFixedWidth(width)
        row = line(label, *widgets, name=f"{name}_row")
        for widget in widgets:
            narrow(widget)
        self._fields[name] = (title, label, widgets[0], widgets[0].tooltip or "")
        return row

    def mark(self, name: str, reason: str | None) -> None:
        """Mark a field as one that cannot work (or needs a look), or take the mark away.

        The mark is a sign before its label and the reason in its tooltip; never a colour alone.
        """
        title, label, field, tip = self._fields[name]
        label.value = f"{MARK}{title}" if reason else title
        chosen = ""  # which may be longer than its field
        if isinstance(field, ComboBox):
            chosen = field.current_choice
        elif isinstance(field, LineEdit):
            chosen = field.value
        lines = [reason, chosen, tip]
        field.tooltip = label.tooltip = "\n\n".join(line for line in lines if line)

    def mark_all(self, problems: dict[str, str]) -> None:
        """Mark the fields that cannot work, and take the marks of others away.

        The header of the advanced part carries the mark as well where one of its fields does, as it may be closed.
        """
        for name in self.fields:
            self.mark(name, problems.get(name))
        for fold in self.findChildren(QCollapsible):
            mark_fold(fold, any(fold.isAncestorOf(self._fields[name][2].native) for name in problems))

    def marked(self, name: str) -> bool:
        """Whether a field is marked."""
        return self._fields[name][1].value.startswith(MARK)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields that can be marked."""
        return tuple(self._fields)


def column(*widgets: Widget, visible: bool = True) -> Container:
    """Put widgets one below the other, without margins."""
    made = Container(widgets=widgets, labels=False, visible=visible)
    made.margins = (0, 0, 0, 0)
    return made


def line(*widgets: Widget, name: str = "") -> Container:
    """Put widgets side by side, without margins."""
    made = Container(widgets=widgets, layout="horizontal", labels=False, name=name)
    made.margins = (0, 0, 0, 0)
    return made


def button_line(*buttons: PushButton, main: PushButton | None = None) -> Container:
    """Put buttons side by side, as wide as their texts; `main` comes first and takes the rest of the width.

    Without `main` they stand at the left.
    """
    for button in buttons:
        small(button)
    made = line(*buttons) if main is None else line(main, *buttons)
    made.margins = (0, 2, 0, 2)
    if main is None:
        made.native.layout().addStretch(1)
    return made


def main_button(text: str) -> PushButton:
    """Make the one big button of a form."""
    button = PushButton(text=text)
    button.native.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    font = button.native.font()
    font.setBold(True)
    button.native.setFont(font)
    return button


def note(value: str = "", *, visible: bool = True, tooltip: str = "") -> Label:
    """Make a text that takes as many lines as it needs."""
    label = Label(value=value, visible=visible, tooltip=tooltip)
    wrap(label)
    return label


def progress_bar(tooltip: str) -> ProgressBar:
    """Make a thin bar that counts to 100, hidden at first."""
    bar = ProgressBar(value=0, min=0, max=100, visible=False, tooltip=tooltip)
    bar.native.setTextVisible(False)
    bar.native.setMaximumHeight(8)
    return bar


def show_fraction(bar: ProgressBar, fraction: float | None) -> None:
    """Show how much is done; an empty bar where that is not known.

    Qt's bar without an end is a picture that moves: for each of them, thirty a second, the whole window is put together
    anew, a quarter of a core where that is done in software, while a network is loaded or a training begins.
    """
    bar.value = 0 if fraction is None else int(100 * fraction)


def foldaway(content: Container, tooltip: str) -> QCollapsible:
    """Hide the advanced part of a form, without margins so far, behind a button; closed at first."""
    content.margins = (6, 2, 0, 2)
    made = QCollapsible("▸ Advanced", expandedIcon=QIcon(), collapsedIcon=QIcon())
    made.setDuration(0)
    made.layout().setContentsMargins(0, 0, 0, 0)
    made.layout().setSpacing(0)
    made.toggleButton().setToolTip(tooltip)
    made.addWidget(content.native)
    made.toggled.connect(lambda: mark_fold(made, MARK in made.text()))
    return made


def mark_fold(fold: QCollapsible, marked: bool) -> None:
    """Mark the header of an advanced part, or take its mark away."""
    fold.setText(f"{'▾' if fold.isExpanded() else '▸'} {MARK if marked else ''}Advanced")


def narrow(combo: Widget) -> None:
    """Let a combo be narrower than its longest choice, so that long layer names do not widen the window."""
    native = combo.native
    if isinstance(native, QComboBox):
        native.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        native.setMinimumContentsLength(6)
        native.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        native.installEventFilter(MiddleCut(native))
        native.view().setTextElideMode(Qt.TextElideMode.ElideMiddle)


class MiddleCut(QObject):
    """Draws a combo with its choice cut in the middle where it is too long.

    Qt cuts off the end without a sign, and there ``image [network]`` says what tells one labels layer from another.
    """

    def eventFilter(self, combo: QObject | None, event: QEvent | None) -> bool:
        """See Qt."""
        if event is None or event.type() != QEvent.Type.Paint or not isinstance(combo, QComboBox):
            return False
        option = QStyleOptionComboBox()
        combo.initStyleOption(option)
        field = QStyle.SubControl.SC_ComboBoxEditField
        style = combo.style()
        room = style.subControlRect(QStyle.ComplexControl.CC_ComboBox, option, field, combo).width() - 2
        cut = combo.fontMetrics().elidedText(option.currentText, Qt.TextElideMode.ElideMiddle, room)
        option.currentText = cut
        painter = QStylePainter(combo)
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)
        painter.end()
        return True


def small(button: Widget) -> None:
    """Let a button be as wide as its text."""
    button.native.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
    width = button.native.fontMetrics().horizontalAdvance(button.native.text()) + 20
    button.native.setMinimumWidth(width)


def wrap(label: Widget) -> None:
    """Let a text take as many lines as it needs, and be copied."""
    native = label.native
    if isinstance(native, QLabel):
        native.setWordWrap(True)
        native.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        # not Minimum: its least height would be that of a narrow column, and the form would scroll through empty space
        policy = QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        policy.setHeightForWidth(True)
        native.setSizePolicy(policy)
