from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_drososeg.checkpoint import load_spec
from napari_drososeg.classes import DROSOPHILA_CLASSES
from napari_drososeg.data.normalisation import Normalisation
from napari_drososeg.data.sections import AnnotatedSection, annotated_section
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference import PredictConfig
from napari_drososeg.inference.reading import TileReader
from napari_drososeg.inference.tiling import Grid, plan_tiles
from napari_drososeg.io import Stack
from napari_drososeg.training import (
    Plateau,
    TrainConfig,
    TrainEvent,
    Training,
    find_problems,
    one_cycle,
    preferred_precision,
    refuse,
    sharing,
)
from napari_drososeg.training.average import MovingAverage
from napari_drososeg.training.log import TrainLog
from napari_drososeg.training.network import fabric as make_fabric
from napari_drososeg.training.schedules import ReduceOnPlateau

PLATEAU = TrainConfig(schedule="plateau", learning_rate=1e-3)


def test_one_cycle_rises_to_the_peak_and_falls_to_nothing() -> None:
    config = TrainConfig(steps=100, warm_up=0.2, learning_rate=1.0)
    rates = [one_cycle(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 25)
    assert max(rates) == rates[20] == pytest.approx(1)
    assert rates[-1] < 0.01


def test_bf16_is_chosen_where_it_is_native_on_what_is_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    # a card of before Ampere emulates it, and says yes unless it is asked for more
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert preferred_precision() == preferred_precision("cuda") == "16-mixed"
    assert preferred_precision("cpu") == "32-true"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert preferred_precision("auto") == "bf16-mixed"
    assert preferred_precision("cpu") == "32-true"
    assert make_fabric(TrainConfig(accelerator="cpu")).strategy.precision.precision == "32-true"


def test_the_study_plateau() -> None:
    schedule = ReduceOnPlateau(PLATEAU)
    rates, stopped = [], []
    for loss in (1.0, 0.9, *[0.9 - 5e-5] * 8):  # less than the smallest difference that counts for the learning rate
        schedule.validated(loss)
        rates.append(schedule.rate(0))
        stopped.append(schedule.stopped)
    assert rates == pytest.approx([1e-3] * 6 + [8e-4] * 4)  # after five that are not better
    assert stopped == [False] * 9 + [True]  # after seven that are not better than the first of the eight


def test_a_plateau_goes_no_lower_than_told() -> None:
    schedule = ReduceOnPlateau(replace(PLATEAU, plateau=Plateau(patience=1, stop_after=10**9)))
    for _ in range(100):
        schedule.validated(1.0)
    assert schedule.rate(0) == pytest.approx(1e-4)
    low = ReduceOnPlateau(replace(PLATEAU, learning_rate=1e-5, plateau=Plateau(patience=1)))
    for _ in range(3):
        low.validated(1.0)
    assert low.rate(0) == 1e-5  # not raised to the lowest


def test_a_plateau_goes_on_where_it_was() -> None:
    losses = np.random.default_rng(0).uniform(0.5, 1, 60).tolist()
    config = replace(PLATEAU, plateau=Plateau(stop_after=25))
    straight, broken = ReduceOnPlateau(config), ReduceOnPlateau(config)
    for loss in losses:
        straight.validated(loss)
        broken.validated(loss)
        state = json.loads(json.dumps(broken.state()))
        broken = ReduceOnPlateau(config)
        broken.restore(state)
        assert (broken.rate(0), broken.stopped) == (straight.rate(0), straight.stopped)


def test_the_average_forgets_its_start() -> None:
    model = torch.nn.Linear(1, 1)
    average = MovingAverage(model, 0.9)
    expected = None
    for step in range(50):
        with torch.no_grad():
            model.weight.fill_(float(step))
        average.update(model, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = float(step) if expected is None else decay * expected + (1 - decay) * step
    assert average.weights()["weight"].item() == pytest.approx(expected, rel=1e-5)
    other = MovingAverage(model, 0.9)
    other.restore(average.weights(), 50)
    for each in (average, other):
        each.update(model, 50)
    assert torch.equal(other.weights()["weight"], average.weights()["weight"])


def test_all_problems_are_named_at_once(section: AnnotatedSection) -> None:
    small = AnnotatedSection(np.zeros((20, 96), np.float32), np.full((20, 96), 7, np.uint8), name="small.tif")
    crooked = AnnotatedSection(np.zeros((96, 96), np.float32), np.zeros((96, 95), np.uint8), name="crooked.tif")
    taught = replace(section, teacher=np.zeros((2, 96, 96), np.float16), name="taught")
    two = replace(section, labels=np.where(section.labels == 3, 1, section.labels).astype(np.uint8))
    config = TrainConfig(patch=32, schedule="plateau", batch=3, devices=2)
    problems = find_problems([small, crooked, taught, two], config)
    text = "; ".join(problems)
    for part in (
        "small.tif is 20 x 96 px, smaller than a patch of 32 px",
        "small.tif contains the label 7, but there are only 3 classes",
        "crooked.tif: the image is (96, 96), its labels are (96, 95) px",
        "taught: the teacher is (2, 96, 96), not (3, 96, 96)",
        "plateau follows the validation loss",
        "a batch of 3 patches cannot be split among 2 devices",
    ):
        assert part in text
    missing = find_problems([two], TrainConfig(patch=32), classes=DROSOPHILA_CLASSES)
    assert missing == ["no pixel is labelled mitochondria (3): annotate some, or leave the class out"]
    assert find_problems([two], TrainConfig(patch=32), fresh=False) == []
    assert find_problems([section], TrainConfig(patch=32), validation=[section]) == []
    with pytest.raises(DrososegError, match=r"^Small.tif is 20 .*; .*devices: use a multiple\.$"):
        refuse(problems)


def test_one_class_is_refused(section: AnnotatedSection) -> None:
    one = replace(section, labels=np.where(section.labels == 2, 2, 0).astype(np.uint8))
    (problem,) = find_problems([one], TrainConfig(patch=32), classes=DROSOPHILA_CLASSES)
    assert problem.startswith(
        "nothing but cell membrane is labelled: 0 means unlabelled, and the background needs a cl"
    )
    assert find_problems([one], TrainConfig(patch=32), fresh=False) == []
    ones = replace(section, labels=np.ones_like(section.labels))
    for fresh in (True, False):
        (problem,) = find_problems([ones], TrainConfig(patch=32, n_classes=1), fresh=fresh)
        assert problem.startswith("there is nothing to tell class 1 from, the only class: 0 means unlabelled")


def test_a_batch_norm_needs_more_than_one_pixel(section: AnnotatedSection) -> None:
    config = TrainConfig(patch=16, batch=1)
    (problem,) = find_problems([section], config)
    assert problem.startswith("a batch of one patch of 16 px is too little for unet: use larger patches than 16 px")
    assert find_problems([section], replace(config, devices=2, batch=2)) == [problem]
    for fine in ({"batch": 2}, {"patch": 32}, {"freeze_norms": True}):
        assert find_problems([section], replace(config, **fine)) == []


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(DrososegError, match="trained on 1 x 'cuda' here .*choose the device auto or cpu"):
        make_fabric(TrainConfig(accelerator="cuda"))


def test_a_training_looks_before_it_starts(section: AnnotatedSection) -> None:
    with pytest.raises(DrososegError, match="label 3, but there are only 2"):
        Training([section], TrainConfig(patch=32, n_classes=2))
    nothing = replace(section, labels=np.zeros((96, 96), np.uint8))
    with pytest.raises(DrososegError, match="Nothing is labelled in any"):
        Training([nothing], TrainConfig(patch=32))
    with pytest.raises(DrososegError, match="nothing is labelled in the validation sections|Nothing is labelled in th"):
        Training([section], TrainConfig(patch=32), validation=[nothing])


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"schedule": "cosine"},
        {"class_patches": 2.0},
        {"encoder_rate": -1.0},
        {"patch": -8},
        {"seed": -1},
        {"seed": 2**32},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(DrososegError):
        TrainConfig(**wrong)  # type: ignore[arg-type]


def test_a_recipe_does_not_say_where() -> None:
    recipe = TrainConfig(devices=4, accelerator="cuda").recipe()
    assert recipe == TrainConfig().recipe()
    assert recipe["loss"]["terms"] == [["cross-entropy", 1.0]]
    assert json.loads(TrainConfig(devices=4).to_json())["devices"] == 4


def test_a_log_drops_what_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    with TrainLog(path, 0, 3) as log:
        for step in (10, 20, 30):
            log.write(TrainEvent(step, 1.0, 1e-3, 2.0))
    with path.open("a") as file:
        file.write("4")  # half a row
    with TrainLog(path, 20, 3) as log:
        log.write(TrainEvent(30, 0.5, 1e-3, 3.0))
    lines = path.read_text().splitlines()
    assert lines[0] == "step,loss,learning_rate,seconds,validation_loss,mean_iou,iou_1,iou_2,iou_3"
    assert [line.split(",")[:2] for line in lines[1:]] == [["10", "1"], ["20", "1"], ["30", "0.5"]]
    with TrainLog(path, 0, 3):
        pass
    assert len(path.read_text().splitlines()) == 1


def test_the_halo_is_measured_on_what_the_network_was_trained_on(
    tiny_network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []

    def look(_network: Path, stack: Stack, *, tile: int, config: PredictConfig, **more: Any) -> int:
        grid = Grid(stack.shape[1:], stack.shape[1:])
        reader = TileReader(stack, Normalisation(), config, print, more.get("statistics"))
        seen.extend(reader.read(0, t) for t in plan_tiles(grid, tile=10**4, halo=0, stride=16))
        return tile

    grey = np.random.default_rng(0).integers(90, 160, (160, 160), np.uint8)
    grey[:, :70] = 0  # where an aligned stack has nothing
    section = annotated_section(grey, np.ones_like(grey), "aligned")
    monkeypatch.setattr(sharing, "measure_halo", look)
    sharing.find_halo(tiny_network, load_spec(tiny_network), [section])
    np.testing.assert_array_equal(seen[0], section.image)


def test_a_long_curve_keeps_its_end(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    section = annotated_section(pixels, pixels % 3 + 1, "0")
    training = Training([section], TrainConfig(steps=2, patch=64, accelerator="cpu"), folder=tmp_path)
    training.curve = [{"step": float(step), "loss": 1 / step} for step in range(1, 81)]
    steps = sharing.describe(training)["curve"]["step"]
    assert steps[-1] == 80
    assert len(steps) <= sharing.CURVE_POINTS
    training.curve = []
    assert sharing.describe(training)["curve"] == {}
