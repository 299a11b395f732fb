"""Reading the values of options."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_drososeg.cli.options import check_choice, parse_block, parse_halo, parse_roi, parse_sections
from napari_drososeg.errors import DrososegError


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0-3", [0, 1, 2, 3]), ("3,5", [3, 5]), ("7", [7]), ("5, 0-2", [5, 0, 1, 2]), ("4-4", [4])],
)
def test_sections(text: str, expected: list[int]) -> None:
    assert parse_sections(text) == expected


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "1..3", "1,,2", "3-1", "1,0-2", "0-99999999999"])
def test_sections_that_cannot_be_read(text: str) -> None:
    with pytest.raises(DrososegError, match=r"sections"):
        parse_sections(text)


@given(st.lists(st.integers(0, 500), min_size=1, unique=True))
def test_any_list_of_sections_comes_back(sections: list[int]) -> None:
    assert parse_sections(",".join(map(str, sections))) == sections


def test_roi() -> None:
    assert parse_roi(None) is None
    assert parse_roi("0:512, 256:768") == (slice(0, 512), slice(256, 768))
    for text in ("0:512", "5:5,0:1", "0-5,0-5", "9:3,0:4"):
        with pytest.raises(DrososegError, match="region"):
            parse_roi(text)


def test_block() -> None:
    assert parse_block(None) is None
    assert parse_block("16, 2048,2048") == (16, 2048, 2048)
    for text in ("16", "0,0,0", "1,0,1024", "1,2,-3"):
        with pytest.raises(DrososegError, match="is not a block size"):
            parse_block(text)


def test_halo() -> None:
    assert parse_halo("exact") == "exact"
    assert parse_halo("96") == 96
    for text in ("-1", "none", "1.5"):
        with pytest.raises(DrososegError, match="not a halo"):
            parse_halo(text)


def test_choices_are_named() -> None:
    with pytest.raises(DrososegError, match=r"--format jpg is not known; choose a, b or c\."):
        check_choice("--format", "jpg", ("a", "b", "c"))
