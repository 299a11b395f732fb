"""What a card says of a network to people."""

from __future__ import annotations

from dataclasses import replace

import pytest

from napari_drososeg.checkpoint import load_spec
from napari_drososeg.training import TrainConfig
from napari_drososeg.zoo import find_network
from napari_drososeg.zoo.facts import facts


def test_a_shipped_card_says_data_recipe_curve_scores_and_speed() -> None:
    said = dict(facts(load_spec(find_network("unet"))))
    assert said["trained on"] == "larval Drosophila ventral nerve cord, ssTEM, sections 00-15"
    assert said["licence of the data"] == "CC BY-NC-SA 3.0"
    for part in ("loss weighted 1, 1.3, 1.1", "batch 8", "patch 256", "rotation 180"):
        assert part in said["recipe"]
    for part in ("steps in", "mean IoU 0.", "validation loss 0."):
        assert part in said["development run"]
    assert "sections 13-15" in said["mean IoU"]
    assert [part.rpartition(" ")[0] for part in said["IoU"].split(", ")] == [
        "cytoplasm",
        "cell membrane",
        "mitochondria",
    ]
    assert "Mpx/s (CPU, OpenVINO" in said["speed"]


def test_what_a_recipe_leaves_at_nothing_is_not_said(tiny_network) -> None:
    spec = load_spec(tiny_network)
    recipe = TrainConfig(schedule="plateau", average=0.0).recipe()
    said = dict(facts(replace(spec, training={"recipe": recipe}, metrics={})))["recipe"]
    assert "loss cross-entropy" in said
    assert "stop after 7" in said  # of the plateau
    for part in ("average", "blur", "class patches", "architecture"):
        assert part not in said


@pytest.mark.parametrize(
    ("training", "metrics", "expected"),
    [
        ({}, {}, {}),
        ({"annotated_pixels": 12}, {}, {"annotated pixels": "12"}),
        ({}, {"iou": {"glia": 0.5, "cytoplasm": None}}, {"IoU": "cytoplasm none, glia 0.5"}),
        ({"steps": 3, "start": "random", "curve": {"step": [1, 3], "loss": [2.0, 1.0]}}, {},
         {"training": "3 steps from random weights; loss 2 to 1"}),
    ],
)  # fmt: skip
def test_any_record_can_be_told(tiny_network, training, metrics, expected) -> None:
    assert dict(facts(replace(load_spec(tiny_network), training=training, metrics=metrics))) == expected
