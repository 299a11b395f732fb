"""What a card says of a network to people."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from napari_drososeg.checkpoint import load_spec
from napari_drososeg.losses import LossConfig
from napari_drososeg.training import TrainConfig
from napari_drososeg.zoo import find_network
from napari_drososeg.zoo.facts import facts


def test_a_shipped_card_says_data_recipe_curve_scores_and_speed() -> None:
    said = dict(facts(load_spec(find_network("unet"))))
    assert said["trained on"] == "larval Drosophila ventral nerve cord, ssTEM, sections 00-15"
    assert said["licence of the data"] == "CC BY-NC-SA 3.0"
    for part in ("loss weighted (weights 1, 1.3, 1.1)", "batch 8", "patch 256", "rotation 180"):
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


def test_what_a_recipe_does_not_use_is_not_said(tiny_network: Path) -> None:
    spec = load_spec(tiny_network)
    loss = LossConfig.parse("focal:1,2,3:gamma=1+0.5*dice")
    recipe = TrainConfig(schedule="plateau", average=0.0, encoder_rate=0.0, loss=loss).recipe()
    said = dict(facts(replace(spec, training={"recipe": recipe}, metrics={})))["recipe"]
    assert said.startswith("loss focal + 0.5 dice (alpha 1, 2, 3, gamma 1);")
    assert "stop after 7" in said  # of the plateau
    assert "encoder rate 0" in said  # it is frozen
    assert "seed 0" in said
    for part in ("average", "blur", "class patches", "architecture"):
        assert part not in said
    assert "weights 1, 1.3" in dict(facts(replace(spec, training={"recipe": {
        "loss": {"terms": [["weighted", 1.0]], "class_weights": [1, 1.3]}}}, metrics={})))["recipe"]  # fmt: skip


def test_a_round_says_what_it_began_with_in_one_line(tiny_network: Path) -> None:
    before = {"steps": 9, "curve": {"step": [1, 9], "loss": [2.0, 1.0]}, "recipe": TrainConfig().recipe()}
    said = dict(facts(replace(load_spec(tiny_network), training={"steps": 3, "parent": before}, metrics={})))
    assert said == {"training": "3 steps", "before that": "9 steps; loss 2 to 1"}


@pytest.mark.parametrize(
    ("training", "metrics", "expected"),
    [
        ({}, {}, {}),
        ({"annotated_pixels": 12}, {}, {"annotated pixels": "12"}),
        ({"recipe": "by hand", "sections": "1"}, {}, {"recipe": "by hand", "sections": "1"}),
        ({"curve": {"loss": []}}, {}, {}),
        ({"steps": 3, "start": "random", "curve": [1]}, {}, {"training": "3 steps from random weights; 1"}),
        ({}, {"mean_iou": "0.8", "sections": "2"}, {"mean IoU": "0.8 (sections 2)"}),
        ({}, {"iou": {"glia": 0.5, "mitochondria": 0.25, "cytoplasm": None}},
         {"IoU": "cytoplasm none, mitochondria 0.25, glia 0.5"}),
        ({}, {"iou": [0.5, 0.25, None]}, {"IoU": "cytoplasm 0.5, cell membrane 0.25, mitochondria none"}),
        ({}, {"iou": [0.5]}, {"IoU": "0.5"}),
        ({}, {"annotated_right": 0.9}, {"annotated right": "0.9"}),
    ],
)  # fmt: skip
def test_any_record_can_be_told(
    tiny_network: Path, training: dict[str, Any], metrics: dict[str, Any], expected: dict[str, str]
) -> None:
    assert dict(facts(replace(load_spec(tiny_network), training=training, metrics=metrics))) == expected
