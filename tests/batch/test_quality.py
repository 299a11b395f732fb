"""Faults of sections are found, and sound sections are left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_drososeg.batch.quality import Finding, SectionMeasures, Thumbnail, find_shift, judge, measure_section
from napari_drososeg.io import as_stack, read_stack
from napari_drososeg.samples import synthetic_stack


def look(stack) -> list[Finding]:
    before, measures = None, []
    for z in range(stack.n_sections):
        now = Thumbnail(stack, z)
        measures.append(measure_section(now, before))
        before = now
    again = [SectionMeasures.from_list(m.to_list()) for m in measures]
    assert again == measures
    return judge(measures, max(stack.shape[1:]))


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return np.asarray(synthetic_stack((9, 300, 260), 4)[0].data)


@pytest.mark.parametrize("name", ["stack1/raw", "stack2/raw"])
def test_no_section_of_the_public_stacks_is_accused(vnc: Path, name: str) -> None:
    assert look(read_stack(vnc / name)) == []


def test_sound_sections_are_left_alone(sound: np.ndarray) -> None:
    assert look(as_stack(sound)) == []
    bordered = sound.copy()  # black at the borders, as alignment leaves it, more or less of it
    for z in range(9):
        bordered[z, : 10 + 9 * z] = 0
    assert look(as_stack(bordered)) == []


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda s: np.zeros_like(s[4]), [(4, "missing")]),
        (lambda s: np.full_like(s[4], 255), [(4, "missing")]),
        (lambda s: np.where(np.indices(s[4].shape)[0] < 290, 0, s[4]), [(4, "missing")]),
        (lambda s: s[3], [(4, "duplicate")]),
        (lambda s: np.clip(s[3] + np.random.default_rng(0).normal(0, 12, s[3].shape), 0, 255), [(4, "duplicate")]),
        (lambda s: np.roll(s[4], (-17, 23), (0, 1)), [(4, "shifted")]),
        (lambda s: 128 + (s[4].astype(float) - 128) * 0.35, [(4, "contrast")]),
        (lambda s: np.clip(s[4].astype(float) + 90, 0, 255), [(4, "contrast")]),
    ],
)
def test_faults_are_found_where_they_are(sound: np.ndarray, spoil, expected: list[tuple[int, str]]) -> None:
    spoilt = sound.copy()
    spoilt[4] = spoil(sound)
    found = look(as_stack(spoilt))
    assert [(f.section, f.kind) for f in found] == expected
    assert all(f.detail for f in found)


def test_the_shift_is_said_in_pixels_of_the_image(sound: np.ndarray) -> None:
    large = np.kron(sound[:1, :256, :256], np.ones((2, 4, 4), np.uint8))
    large[1] = np.roll(large[1], (64, -32), (0, 1))
    found = look(as_stack(large))
    assert [(f.section, f.kind) for f in found] == [(1, "shifted")]
    assert "(+64, -32) px" in found[0].detail


def test_phase_correlation_finds_any_shift(sound: np.ndarray) -> None:
    picture = sound[0].astype(np.float32)
    for shift in ((0, 0), (5, -9), (-60, 40)):
        assert find_shift(np.roll(picture, shift, (0, 1)), picture) == shift


def test_sections_of_other_sizes_and_not_a_number_do_no_harm() -> None:
    stack = as_stack(np.full((3, 40, 40), np.nan, np.float32))
    assert {f.kind for f in look(stack)} == {"missing"}
    assert measure_section(Thumbnail(stack, 0), Thumbnail(as_stack(np.ones((1, 9, 900))), 0)).correlation is None
