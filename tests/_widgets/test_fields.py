"""What all forms share: long names, marks, heights."""

from __future__ import annotations

from typing import Any

import pytest
from magicgui.widgets import CheckBox, ComboBox, LineEdit
from qtpy.QtWidgets import QLabel

from napari_drososeg._widgets.controls.fields import (
    FieldForm,
    button_line,
    column,
    foldaway,
    note,
    progress_bar,
    show_fraction,
)
from napari_drososeg._widgets.controls.legend import Legend
from napari_drososeg._widgets.retrain.form import RetrainForm
from napari_drososeg._widgets.retrain.reviewing import own_classes
from napari_drososeg.classes import DROSOPHILA_CLASSES

LONG = "ssTEM of the ventral nerve cord, second animal, aligned"


@pytest.fixture
def form(qtbot: Any) -> FieldForm:
    """A form as narrow as it may be, on screen."""
    form = FieldForm("Labels")
    qtbot.addWidget(form)
    form.resize(320, 600)
    form.show()
    qtbot.waitUntil(form.isVisible)
    return form


def test_names_that_differ_at_their_end_look_different(form: FieldForm, qtbot: Any) -> None:
    field = ComboBox(choices=[f"{LONG} [U-Net]", f"{LONG} [SegNet]", "short"])
    form._layout.addWidget(form.row("labels", "Labels", field).native)
    qtbot.waitUntil(lambda: field.native.isVisible() and field.native.width() > 100)
    seen = []
    for name in field.choices:
        field.value = name
        seen.append(field.native.grab().toImage())
    assert seen[0] != seen[1]
    form.mark("labels", None)
    assert "short" in field.tooltip


def test_a_path_that_is_longer_than_its_field_is_in_its_tooltip(form: FieldForm) -> None:
    field = LineEdit(value=f"/data/{LONG}", tooltip="The folder.")
    form.row("source", "Input", field)
    form.mark("source", None)
    assert f"/data/{LONG}" in field.tooltip
    assert field.tooltip.endswith("The folder.")


def test_what_is_wrong_in_a_closed_part_is_marked_at_its_header(form: FieldForm) -> None:
    outside, inside = CheckBox(text="outside"), CheckBox(text="inside")
    form._layout.addWidget(form.row("out", "Out", outside).native)
    fold = foldaway(column(form.row("in", "In", inside)), "More.")
    form._layout.addWidget(fold)
    form.mark_all({"out": "It cannot."})
    assert (form.marked("out"), form.marked("in"), fold.text()) == (True, False, "▸ Advanced")
    form.mark_all({"in": "It cannot."})
    assert (form.marked("out"), form.marked("in"), fold.text()) == (False, True, "▸ ⚠ Advanced")
    fold.expand()
    assert fold.text() == "▾ ⚠ Advanced"
    form.mark_all({})
    assert fold.text() == "▾ Advanced"


def test_a_form_does_not_scroll_through_empty_space(form: FieldForm, qtbot: Any) -> None:
    notes = [note("Ten words that take two lines in a narrow form, not four. " * 2) for _ in range(8)]
    for each in notes:
        form._layout.addWidget(each.native)
    form._layout.addStretch(1)
    qtbot.wait(50)
    needed = form.widget().layout().heightForWidth(form.viewport().width())
    form.resize(320, needed + 10)
    qtbot.wait(50)
    assert form.verticalScrollBar().maximum() == 0
    form.resize(320, needed // 2)
    qtbot.wait(50)
    assert form.verticalScrollBar().maximum() > 0
    for each in notes:  # all of each text is seen
        assert each.native.height() >= each.native.heightForWidth(each.native.width())


def test_buttons_without_a_main_one_stand_at_the_left(form: FieldForm, qtbot: Any) -> None:
    from magicgui.widgets import PushButton

    buttons = [PushButton(text=text) for text in ("Copy table", "Save CSV")]
    form._layout.addWidget(button_line(*buttons).native)
    qtbot.waitUntil(lambda: buttons[1].native.isVisible() and buttons[1].native.x() > 0)
    first, second = (b.native for b in buttons)
    assert first.x() == 0
    assert second.x() - first.geometry().right() < 15


def test_steps_that_the_effort_decides_say_so(qtbot: Any) -> None:
    form = RetrainForm()
    qtbot.addWidget(form)
    assert form.steps.native.text() == "from the effort"
    form.steps.value = 300
    assert form.steps.native.text() == "300"


def test_a_bar_always_has_an_end(qtbot: Any) -> None:
    """One without is animated, which has the whole window drawn thirty times a second while something else works."""
    bar = progress_bar("How much is done.")
    qtbot.addWidget(bar.native)
    for fraction, value in ((0.256, 25), (None, 0), (1.0, 100)):
        show_fraction(bar, fraction)
        assert (bar.native.minimum(), bar.native.maximum(), bar.native.value()) == (0, 100, value)


def test_the_legend_of_other_classes_leaves_nothing_of_the_one_before(qtbot: Any) -> None:
    legend = Legend()
    qtbot.addWidget(legend)
    legend.set_classes(DROSOPHILA_CLASSES)
    before = legend.findChildren(QLabel)
    assert not any(label.isHidden() for label in before)
    legend.set_classes(own_classes("nucleus, vesicle"))
    assert all(label.isHidden() for label in before)
    assert legend.texts() == ["–", "–"]
