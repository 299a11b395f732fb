from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision import tv_tensors

from napari_drososeg.data.augmentation import PRESETS, Augmentation, augment, sampling_grid
from napari_drososeg.errors import DrososegError

OFF = PRESETS["none"]
MOVING = {
    "rotation": replace(OFF, rotation=180),
    "zoom in": replace(OFF, zoom_in=0.5),
    "zoom out": replace(OFF, zoom_out=0.5),
    "elastic": replace(OFF, elastic=3),
    "distortion": replace(OFF, distortion=0.15),
    "all": replace(OFF, turns=True, rotation=180, zoom_in=0.3, zoom_out=0.3, elastic=2, distortion=0.1),
}
GREY = {
    "brightness": replace(OFF, brightness=0.5),
    "contrast": replace(OFF, contrast=0.5),
    "gamma": replace(OFF, gamma=0.5),
    "blur": replace(OFF, blur=2),
    "noise": replace(OFF, noise=0.5),
}


@pytest.fixture
def section() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Rings around a place off the middle, whose grey value is their label: any point tells where it came from."""
    y, x = np.mgrid[:96, :112]
    labels = (np.hypot(y - 40, x - 60) // 12 % 3 + 1).astype(np.uint8)
    return labels.astype(np.float32), labels


def apply(
    augmentation: Augmentation,
    image: NDArray[np.float32],
    labels: NDArray[np.uint8],
    seed: int = 0,
    origin: tuple[int, int] = (20, 30),
    patch: int = 48,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    transform = augment(augmentation, np.random.default_rng(seed), origin, patch)
    got = transform(tv_tensors.Image(torch.from_numpy(image)[None]), tv_tensors.Mask(torch.from_numpy(labels)[None]))
    return got[0][0].numpy(), got[1][0].numpy()


def test_nothing_is_the_window_itself(section: tuple[NDArray[np.float32], NDArray[np.uint8]]) -> None:
    image, labels = apply(OFF, *section)
    np.testing.assert_array_equal(image, section[0][20:68, 30:78])
    np.testing.assert_array_equal(labels, section[1][20:68, 30:78])


def test_turns_are_exact_and_all_eight(section: tuple[NDArray[np.float32], NDArray[np.uint8]]) -> None:
    seen = set()
    for seed in range(100):
        image, labels = apply(replace(OFF, turns=True), *section, seed=seed)
        np.testing.assert_array_equal(image, labels)
        seen.add(labels.tobytes())
    assert len(seen) == 8


@pytest.mark.parametrize("name", MOVING)
def test_labels_are_moved_with_the_image(name: str, section: tuple[NDArray[np.float32], NDArray[np.uint8]]) -> None:
    still = section[1][20:68, 30:78]
    changed = []
    for seed in range(4):
        image, labels = apply(MOVING[name], *section, seed=seed)
        inside = labels > 0
        agree = np.abs(image - labels)[inside] < 0.6  # the image is interpolated, the labels are the nearest
        assert agree.mean() > 0.85
        assert set(np.unique(labels)) <= {0, 1, 2, 3}
        changed.append((labels != still).mean())
    assert max(changed) > 0.02


@pytest.mark.parametrize("name", GREY)
def test_grey_values_change_and_labels_do_not(
    name: str, section: tuple[NDArray[np.float32], NDArray[np.uint8]]
) -> None:
    image, labels = apply(GREY[name], *section, seed=1)
    assert np.isfinite(image).all()
    assert image.dtype == np.float32
    assert not np.allclose(image, section[0][20:68, 30:78], atol=1e-3)
    np.testing.assert_array_equal(labels, section[1][20:68, 30:78])


def test_outside_is_unlabelled_and_mirrored(section: tuple[NDArray[np.float32], NDArray[np.uint8]]) -> None:
    image, labels = apply(replace(OFF, zoom_out=1), *section, seed=3, origin=(0, 0), patch=96)
    assert (labels == 0).mean() > 0.1
    assert (labels > 0).mean() > 0.3
    outside = image[labels == 0]
    assert outside.min() > 0.99  # 0 would be a border that exists in no tissue
    assert outside.max() < 3.01


def test_a_turned_patch_reads_the_context_that_is_there() -> None:
    labels = np.ones((200, 200), np.uint8)
    for seed in range(5):
        _, turned = apply(replace(OFF, rotation=180), labels.astype(np.float32), labels, seed, (76, 76))
        assert turned.all()


def test_zoom_and_rotation_are_what_they_say() -> None:
    rng = np.random.default_rng(0)
    middle = [sampling_grid(replace(OFF, zoom_in=0.5, zoom_out=0.25), rng, 65)[:, 32, :] for _ in range(300)]
    scale = np.array([np.hypot(*(g[:, -1] - g[:, 0])) / 64 for g in middle])
    assert 1 / 1.5 - 1e-4 <= scale.min() < 0.7
    assert 1.2 < scale.max() <= 1.25 + 1e-4
    steps = [np.diff(sampling_grid(replace(OFF, rotation=30), rng, 65)[:, 32, 31:33])[:, 0] for _ in range(300)]
    angles = np.degrees([np.arctan2(dy, dx) for dy, dx in steps])
    assert np.abs(angles).max() <= 30.01
    assert angles.min() < -25
    assert angles.max() > 25


def test_distortion_is_radial_and_never_folds() -> None:
    rng = np.random.default_rng(2)
    line = np.linspace(-32, 32, 65)
    for _ in range(20):
        grid = sampling_grid(replace(OFF, distortion=0.16), rng, 65)
        np.testing.assert_allclose(grid[0] * line[None, :], grid[1] * line[:, None], atol=1e-3)  # same direction
        assert abs(grid[1, 32, -1] / 32 - 1) <= 0.16 + 1e-5
        assert (np.diff(np.diagonal(grid[0])) > 0).all()


def test_the_generator_alone_decides(section: tuple[NDArray[np.float32], NDArray[np.uint8]]) -> None:
    strong = PRESETS["strong"]
    first = apply(strong, *section, seed=5)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = apply(strong, *section, seed=5)
    np.testing.assert_array_equal(first[0], again[0])
    assert torch.equal(torch.get_rng_state(), before)
    assert not np.array_equal(apply(strong, *section, seed=6)[0], first[0])


def test_presets_by_name() -> None:
    assert Augmentation.preset("mild") == Augmentation()
    assert not Augmentation.preset("mild").resamples
    assert Augmentation.preset("study").zoom_in == 0.5
    with pytest.raises(DrososegError, match="mild, medium, strong, study"):
        Augmentation.preset("wild")


def test_some_patches_may_stay_as_they_are(section: tuple[NDArray[np.float32], NDArray[np.uint8]]) -> None:
    half = replace(PRESETS["none"], rotation=180.0, resampled=0.5)
    as_is = apply(PRESETS["none"], *section, seed=0)[0]
    same = [np.array_equal(apply(half, *section, seed=seed)[0], as_is) for seed in range(40)]
    assert 10 <= sum(same) <= 30
    assert not replace(half, resampled=0.0).resamples
    # all: nothing is drawn for it, so older runs go on with the patches they had
    whole = replace(half, resampled=1.0)
    assert not any(np.array_equal(apply(whole, *section, seed=seed)[0], as_is) for seed in range(10))


@pytest.mark.parametrize(
    "wrong", [{"noise": -1.0}, {"resampled": 1.5}, {"rotation": float("nan")}, {"distortion": 0.5}]
)
def test_impossible_strengths_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(DrososegError, match=next(iter(wrong))):
        Augmentation(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", MOVING)
def test_labels_lie_under_their_pixels(name: str, axis: int) -> None:
    """Along a ramp an interpolated pixel says exactly where it came from, and its label the pixel nearest to that."""
    ramp = np.broadcast_to(np.arange(96, dtype=np.float32)[:, None], (96, 112)) if axis == 0 else np.broadcast_to(
        np.arange(112, dtype=np.float32), (96, 112)
    )  # fmt: skip
    for seed in range(4):
        image, labels = apply(MOVING[name], ramp.copy(), (ramp + 1).astype(np.uint8), seed=seed)
        inside = labels > 1  # the first row is mirrored into what lies outside
        assert inside.mean() > 0.3
        away = image[inside] - (labels[inside].astype(np.float32) - 1)
        assert np.percentile(np.abs(away), 99) < 0.52
        assert abs(away.mean()) < 0.1
