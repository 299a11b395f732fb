from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_drososeg.data.sections import annotated_section, read_sections, section_name
from napari_drososeg.errors import DrososegError
from napari_drososeg.io import as_stack, read_stack


def test_bad_pairs_are_refused_by_name() -> None:
    with pytest.raises(DrososegError, match="section 03"):
        annotated_section(np.zeros((4, 4)), np.zeros((4, 5), np.uint8), "section 03")
    with pytest.raises(DrososegError, match="NaN"):
        annotated_section(np.full((4, 4), np.nan), np.zeros((4, 4), np.uint8), "section 03")
    with pytest.raises(DrososegError, match="0 to 255"):
        annotated_section(np.zeros((4, 4)), np.full((4, 4), 258), "section 03")


def test_reading_goes_past_what_is_wrong_and_names_it() -> None:
    images = as_stack(np.random.default_rng(0).integers(1, 255, (4, 8, 8)).astype(np.uint8), name="mine")

    def labels(z: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        if z == 1:
            raise DrososegError("labels01.png is truncated.")
        return np.ones((8, 8 if z != 2 else 7), np.uint8)

    sections, problems = read_sections(images, labels, range(5))
    assert [s.name for s in sections] == ["section 0 of 'mine'", "section 3 of 'mine'"]
    assert abs(float(sections[0].image.mean())) < 1e-5
    assert len(problems) == 3
    assert "labels01.png is truncated" in problems[0]
    assert "section 2 of 'mine': the image is (8, 8), its labels are (8, 7)" in problems[1]
    assert problems[2] == "there is no section 4: 'mine' has 4"


def test_labels_that_end_before_the_images_are_named() -> None:
    images = as_stack(np.random.default_rng(0).integers(1, 255, (2, 8, 8)).astype(np.uint8), name="mine")
    labels = as_stack(np.ones((1, 8, 8), np.uint8))
    sections, problems = read_sections(images, labels.read, range(2))
    assert len(sections) == 1
    assert problems == ["section 1 of 'mine' has no labels: name sections that have both"]


def test_a_section_with_a_file_of_its_own_is_called_so(tmp_path: Path) -> None:
    for z in range(3):
        tifffile.imwrite(tmp_path / f"s{z + 8}.tif", np.full((8, 8), z, np.uint8))
    assert section_name(read_stack(tmp_path), 1) == "section 1 (s9.tif)"
    tifffile.imwrite(tmp_path / "all.tif", np.zeros((3, 8, 8), np.uint8), photometric="minisblack")
    assert section_name(read_stack(tmp_path / "all.tif"), 1) == "section 1 of 'all'"
