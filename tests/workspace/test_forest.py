from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from napari_drososeg.inference.tiling import Grid
from napari_drososeg.workspace import forest
from napari_drososeg.workspace.material import Window, tile_at


def window(image: np.ndarray, labels: np.ndarray) -> Window:
    height, width = image.shape
    tile = tile_at(Grid(image.shape, image.shape), (0, height, 0, width))
    return Window(0, tile, image, labels, np.zeros_like(labels))


@pytest.fixture
def halves() -> tuple[np.ndarray, np.ndarray]:
    """Noise that is fine on the left and coarse on the right, of the same grey values; and which is which."""
    rng = np.random.default_rng(0)
    image = rng.normal(0, 1, (64, 96)).astype(np.float32)
    image[:, 48:] = np.kron(rng.normal(0, 1, (16, 12)), np.ones((4, 4)))
    truth = np.ones(image.shape, np.uint8)
    truth[:, 48:] = 3
    return image, truth


def test_a_forest_tells_textures_apart_from_a_stroke_each(halves: tuple[np.ndarray, np.ndarray]) -> None:
    image, truth = halves
    strokes = np.zeros_like(truth)
    strokes[20:23, 5:35], strokes[40:43, 60:90] = 1, 3
    (found,) = forest.teach([window(image, strokes)], 3, seed=0)
    assert found is not None
    assert (found.shape, found.dtype) == ((3, 64, 96), np.float16)
    np.testing.assert_allclose(found.astype(np.float32).sum(0), 1, atol=2e-3)
    assert not found[1].any()  # nothing of class 2 is annotated
    assert (found.argmax(0) + 1 == truth).mean() > 0.75
    (again,) = forest.teach([window(image, strokes)], 3, seed=0)
    np.testing.assert_array_equal(found, again)


def test_of_very_much_only_a_part_is_taught(
    halves: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, truth = halves
    nothing = np.zeros_like(truth)
    monkeypatch.setattr(forest, "MOST_PIXELS", image.size)
    most = truth.copy()
    most[0, 0] = 0
    # what is annotated beyond still counts
    found = forest.teach([window(image, nothing), window(image, most)], 3, seed=0)
    assert found[1] is None
    assert found[0] is not None
    assert (found[0].argmax(0) + 1 == truth).mean() > 0.95


def test_a_class_that_is_rare_in_the_image_is_found_less_often_than_in_the_strokes(
    halves: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    truth = np.ones((96, 96), np.uint8)
    truth[:, 88:] = 2
    image = rng.normal(truth, 1).astype(np.float32)
    strokes = np.zeros_like(truth)
    strokes[20:40, 5:13], strokes[50:70, 88:] = 1, 2  # as much of either
    (found,) = forest.teach([window(image, strokes)], 2, seed=0)
    monkeypatch.setattr(forest, "_weighed", lambda probabilities, _weights: probabilities)
    (unweighed,) = forest.teach([window(image, strokes)], 2, seed=0)
    assert found is not None
    assert unweighed is not None
    share, share_unweighed = (float((p[1] > p[0]).mean()) for p in (found, unweighed))
    assert 0 < share < 0.8 * share_unweighed


def test_what_another_network_says_helps(halves: tuple[np.ndarray, np.ndarray]) -> None:
    image, truth = halves
    strokes = np.zeros_like(truth)
    strokes[20:23, 5:35], strokes[40:43, 60:90] = 1, 3
    (alone,) = forest.teach([window(image, strokes)], 3, seed=0)
    told = (truth == 3).astype(np.float32)[None]
    (found,) = forest.teach([window(image, strokes)], 3, 0, lambda _window: told)
    assert alone is not None
    assert found is not None
    assert (found.argmax(0) + 1 == truth).mean() > (alone.argmax(0) + 1 == truth).mean() + 0.05


def test_of_very_many_annotated_pixels_each_tree_draws_some(
    halves: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, truth = halves
    drawn: list[int] = []
    fit = RandomForestClassifier.fit

    def count(self: RandomForestClassifier, x: np.ndarray, y: np.ndarray) -> RandomForestClassifier:
        drawn.append(self.max_samples)
        return fit(self, x, y)

    monkeypatch.setattr(RandomForestClassifier, "fit", count)
    monkeypatch.setattr(forest, "MOST_SAMPLES", 500)
    most = truth.copy()
    most[0, 0] = 0
    (found,) = forest.teach([window(image, most)], 3, seed=0)
    assert found is not None
    assert (found.argmax(0) + 1 == truth).mean() > 0.85
    assert drawn == [500]
    assert forest.teach([window(image, truth)], 3, seed=0) == [None]  # nothing is left to teach
    assert len(drawn) == 1
