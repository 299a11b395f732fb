from __future__ import annotations

import pytest

from napari_drososeg.classes import DROSOPHILA_CLASSES, ClassTable, SegmentationClass
from napari_drososeg.errors import DrososegError


def test_the_table_of_the_shipped_networks() -> None:
    assert DROSOPHILA_CLASSES.names == ("cytoplasm", "cell membrane", "mitochondria")
    assert DROSOPHILA_CLASSES.colors == ("#56B4E9", "#E69F00", "#CC79A7")


def test_colours_of_a_labels_layer_leave_everything_else_transparent() -> None:
    colors = DROSOPHILA_CLASSES.color_dict()
    assert set(colors) == {None, 0, 1, 2, 3}
    assert colors[None][3] == colors[0][3] == 0
    assert colors[2] == pytest.approx((0xE6 / 255, 0x9F / 255, 0, 1))


def test_a_table_survives_json() -> None:
    assert ClassTable.from_list(DROSOPHILA_CLASSES.to_list()) == DROSOPHILA_CLASSES


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([(1, "a", "#000000"), (3, "b", "#000000")], r"\[1, 3\]"),
        ([(1, "a", "#000000"), (2, "a", "#000000")], "differ: a, a"),
        ([(1, "a", "red")], "'red'"),
        ([], r"\[\]"),
    ],
)
def test_a_bad_table_is_refused_by_name(rows: list[tuple[int, str, str]], named: str) -> None:
    with pytest.raises(DrososegError, match=named):
        ClassTable(tuple(SegmentationClass(*row) for row in rows))


def test_a_row_without_a_name_is_refused() -> None:
    with pytest.raises(DrososegError, match="'name'"):
        ClassTable.from_list([{"value": 1, "color": "#000000"}])


@pytest.mark.parametrize("value", ["x", 1.5, None, []])
def test_a_row_whose_value_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(DrososegError, match="'value'"):
        ClassTable.from_list([{"value": value, "name": "a", "color": "#000000"}])


def test_rows_that_make_no_table_are_refused_for_what_is_wrong_with_them() -> None:
    with pytest.raises(DrososegError, match="'red'"):
        ClassTable.from_list([{"value": 1, "name": "a", "color": "red"}])
