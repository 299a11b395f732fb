"""The parts of the Annotate and retrain widget that need no viewer: words, times, commands, files, the process."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from napari.components import ViewerModel
from typer.main import get_command

from napari_drososeg._widgets.controls import preferences
from napari_drososeg._widgets.controls.grey_values import GreyValues
from napari_drososeg._widgets.files.writer import classes_of
from napari_drososeg._widgets.layers.targets import Targets
from napari_drososeg._widgets.retrain import round_difference, training_run
from napari_drososeg._widgets.retrain.repainting import Repainter, predict_config
from napari_drososeg._widgets.retrain.reviewing import own_classes
from napari_drososeg._widgets.retrain.round_difference import Pair, RoundComparer, _differences
from napari_drososeg._widgets.retrain.round_networks import card_of, save_as_network
from napari_drososeg._widgets.retrain.rounds_table import rows, score_words
from napari_drososeg._widgets.retrain.strip import cells
from napari_drososeg._widgets.retrain.training_process import TrainingProcess
from napari_drososeg._widgets.retrain.training_run import Stage, TrainingRun, image_file
from napari_drososeg._widgets.retrain.training_state import (
    TrainingState,
    arguments,
    command_line,
    expected_seconds,
    known_speed,
    remember_speed,
)
from napari_drososeg._widgets.retrain.workspace_folder import folder_of
from napari_drososeg._widgets.work.worker import Control
from napari_drososeg.checkpoint import load_model
from napari_drososeg.cli import app
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference import PredictConfig, predict
from napari_drososeg.io import as_stack, read_stack
from napari_drososeg.samples import synthetic_stack
from napari_drososeg.workspace import START, Round, create_workspace
from napari_drososeg.workspace.chunks import ChunkedLabels
from napari_drososeg.workspace.recipes import EFFORTS, RetrainSettings
from napari_drososeg.zoo import find_card, find_network


@given(st.integers(1, 5000), st.integers(2, 400))
def test_cells_hold_each_section_once(n: int, width: int) -> None:
    found = cells(n, width)
    assert [z for first, last in found for z in range(first, last)] == list(range(n))
    assert len(found) <= max(1, width // 2)


def a_round(number: int, **changes: Any) -> Round:
    made = Round(
        number=number,
        parent="unet " + "0" * 64,
        settings={"effort": "quick"},
        annotated_pixels={"cytoplasm": 1000, "cell membrane": 234},
        sections=(1,),
        before={"annotated_right": 0.5},
        after={"annotated_right": 0.75},
        seconds=12.3,
        adopted=True,
        verdict="Better.",
    )
    return replace(made, **changes)


def test_the_history_in_words() -> None:
    worse = {"before": {"mean_iou": 0.81, "annotated_right": 1.0}, "after": {"mean_iou": 0.8, "annotated_right": 1.0}}
    found = rows([a_round(1), a_round(2, adopted=False, stopped=True, **worse)], in_use=1)
    assert [cells for _, cells, _ in found] == [
        ["0", "right 50", "–", "–", ""],
        ["1", "right 50 → 75", "1,234", "12 s", "● in use"],
        ["2", "IoU 81.0 → 80.0", "1,234", "12 s", "not used"],
    ]
    assert "Stopped" in found[2][2]
    assert "unet" in found[1][2]
    assert score_words({}, {}) == "–"


def trained(steps: int = 10, seconds: float = 20.0) -> TrainingState:
    state = TrainingState()
    state.take({"event": "phase", "phase": "training"})
    for step in range(1, steps + 1):
        event = {"event": "training", "step": step, "steps": steps, "loss": 1 / step, "seconds": seconds * step / steps}
        more = {"mean_iou": 0.5, "iou": [0.4, None]} if step == 5 else {}
        state.take(event | more | {"seconds_left": seconds * (1 - step / steps)})
    return state


def test_a_round_tells_how_it_goes() -> None:
    state = TrainingState()
    assert state.fraction is None
    state = trained(steps=10)
    assert state.fraction == 1
    assert state.losses[:2] == [(1, 1.0), (2, 0.5)]
    assert state.scores == [(5, 0.5, [0.4, None])]
    assert "step 10 of 10" in state.words
    assert "50.0 % mean IoU" in state.words
    state.take({"event": "notice", "text": "Inverted."})
    state.take({"event": "phase", "phase": "scoring"})
    assert state.words.startswith("Scoring")
    assert state.fraction is None
    state.take({"event": "round", "round": {"number": 1}})
    assert state.round == {"number": 1}
    assert state.notices == ["Inverted."]


def test_times_are_remembered_and_grow_with_the_work() -> None:
    def expected(network: str, *arguments: Any) -> float | None:
        return expected_seconds(known_speed(network), *arguments)

    settings = RetrainSettings(start="unet")
    state = trained(EFFORTS["quick"].steps)
    assert expected("unet", "", "quick", None) is None
    remember_speed("unet", settings, state, 25.0)
    assert expected("unet", "", "quick", None) is None  # it did not finish
    state.take({"event": "round", "round": {"number": 1, "base": ""}})
    preferences.save("retrain", {"effort": "balanced"})
    remember_speed("unet-round-3", settings, state, 25.0)
    assert expected("unet", "", "quick", None) == pytest.approx(25)
    assert expected("unet-round-7", "", "quick", 2 * EFFORTS["quick"].steps) == pytest.approx(45)
    assert expected("fpn", "", "quick", None) is None
    more = EFFORTS["quick"].new_classes_steps / EFFORTS["quick"].steps
    assert expected("unet", "unet", "quick", None) == pytest.approx(5 + 20 * more)
    assert preferences.load("retrain")["effort"] == "balanced"


def test_the_command_is_one_the_command_line_knows() -> None:
    settings = RetrainSettings(
        start="scratch", effort="thorough", steps=7, learning_rate=0.001, loss="dice", pixel_size=9.2, predict=(3, 4)
    )
    words = arguments(Path("/data/my stack.tif.drososeg"), settings, "/data/my stack.tif")
    command = get_command(app).commands["fine-tune"]  # type: ignore[attr-defined]
    values = command.make_context("fine-tune", words[1:]).params
    assert values["workspace"] == Path("/data/my stack.tif.drososeg")
    assert values["start"] == "scratch"
    assert (values["effort"], values["steps"], values["learning_rate"]) == ("thorough", 7, 0.001)
    assert (values["loss"], values["pixel_size"], values["predict"]) == ("dice", 9.2, "3,4")
    assert values["augmentation"] == RetrainSettings().augmentation
    text = command_line(Path("/data/my stack.tif.drososeg"), RetrainSettings(), None)
    assert text == "drososeg fine-tune --workspace '/data/my stack.tif.drososeg' --effort quick"


def test_classes_of_ones_own() -> None:
    table = own_classes(" nucleus, vesicle ,")
    assert table.names == ("nucleus", "vesicle")
    assert table.colors[0] != table.colors[1]
    with pytest.raises(DrososegError, match="differ"):
        own_classes("a, a")


def test_labels_by_hand_are_saved_with_their_classes() -> None:
    viewer = ViewerModel()
    image = viewer.add_image(np.zeros((3, 16, 16), np.uint8), name="em")
    target = Targets(viewer).add(image, "", "annotation", own_classes("nucleus, vesicle"))
    assert classes_of({"metadata": target.layer.metadata}).names == ("nucleus", "vesicle")


def test_a_round_becomes_a_network(tiny_network: Path) -> None:
    path = save_as_network(tiny_network, "My Network, v2")
    assert find_network("my-network-v2") == path
    spec, model = load_model(path)
    old_spec, old_model = load_model(tiny_network)
    assert (spec.name, spec.title) == ("my-network-v2", "My Network, v2")
    assert replace(spec, name=old_spec.name, title=old_spec.title) == old_spec
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), old_model.parameters(), strict=True))
    with pytest.raises(DrososegError, match="already"):
        save_as_network(tiny_network, "my network v2")
    with pytest.raises(DrososegError, match="letters"):
        save_as_network(tiny_network, "?!")


def test_the_network_before_the_first_round(tmp_path: Path, tiny_network: Path, stack: np.ndarray) -> None:
    with create_workspace(tmp_path / "ws", as_stack(stack)) as workspace:
        rounds = workspace.rounds
        with pytest.raises(DrososegError, match="scratch"):
            card_of(rounds, START)
        rounds.checkpoint(1).parent.mkdir(parents=True)
        shutil.copy(tiny_network, rounds.checkpoint(1))
        rounds.add(a_round(1, parent="tiny 1234"))
        assert card_of(rounds, 1).path == rounds.checkpoint(1)
        assert card_of(rounds, START).name == "tiny"
        rounds.add(a_round(1, parent="scratch"))
        with pytest.raises(DrososegError, match="scratch"):
            card_of(rounds, START)


def test_rounds_of_two_architectures_are_compared_as_each_predicts(tiny_network: Path, global_network: Path) -> None:
    preferences.save("segment", {"device": "cpu", "engine": "torch", "precision": "f32"})
    stack = as_stack(synthetic_stack((1, 200, 230), 5)[0].data)
    cards = find_card(global_network), find_card(tiny_network)
    assert cards[0].spec is not None
    assert cards[1].spec is not None
    configs = tuple(predict_config(card.spec, 4.6, GreyValues()) for card in cards)
    (found,) = _differences(stack, Pair((1, 2), cards, configs, 0), Control())
    config = PredictConfig("cpu", "torch", "f32", pixel_size=4.6)
    first, second = (predict(stack, path, config)[0] for path in (global_network, tiny_network))
    np.testing.assert_array_equal(found, np.where(first == second, 0, second))


def test_a_prediction_that_was_stopped_on_the_way_is_finished(tmp_path: Path, tiny_network: Path) -> None:
    card = find_card(tiny_network)
    viewer = ViewerModel()
    image = viewer.add_image(np.zeros((3, 600, 40), np.uint8), name="em")
    assert card.spec is not None
    target = Targets(viewer).get(image, card.spec)
    known = ChunkedLabels(tmp_path / "prediction.zarr", (3, 600, 40))
    known.write(0, slice(None), slice(None), np.full((600, 40), 2, np.uint8))
    known.write(1, slice(0, 550), slice(None), np.full((550, 40), 2, np.uint8))
    repainter = Repainter(viewer)
    begun: list[Any] = []
    repainter.runner.start = lambda job, *_: begun.append(job)  # type: ignore[method-assign]
    repainter.start(target, card, PredictConfig("cpu", "torch", "f32"), (0, 1), known)
    while repainter.waiting:
        repainter._tick()
    assert np.count_nonzero(np.asarray(target.layer.data) == 2) == (600 + 550) * 40
    assert target.done.sections((600, 40)) == [0]
    assert target.layer.metadata["drososeg"]["network"] == card.name
    assert begun[0].sections == (0, 1)  # of which the runner leaves out what is done


@pytest.mark.parametrize("limit", [2**30, 100])
@pytest.mark.parametrize("shape", [(32, 40), (1, 32, 40), (2, 32, 40)])
def test_the_same_comparison_goes_into_the_same_layer(
    shape: tuple[int, ...], limit: int, tiny_network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(round_difference, "IN_MEMORY_BYTES", limit)
    card = find_card(tiny_network)
    viewer = ViewerModel()
    comparer = RoundComparer(viewer)
    plain = PredictConfig()
    comparer.image = viewer.add_image(np.zeros(shape), name="em")
    comparer._pair = Pair((1, 2), (card, card), (plain, plain), 0)
    for share in (1.0, 0.0):
        comparer._take(np.full((32, 40), int(share), np.uint8))
        assert comparer._share == share
    assert len(viewer.layers) == 2
    assert comparer.layer is not None
    assert not comparer.layer.data.any()


def test_the_workspace_of_an_image_without_a_file_is_found_under_any_name(stack: np.ndarray) -> None:
    viewer = ViewerModel()
    image = viewer.add_image(stack, name="day 1: a/b")
    folder = folder_of(image)
    assert folder.name.startswith("day 1_ a_b-")
    create_workspace(folder, as_stack(stack)).close()
    image.name = "renamed"
    assert folder_of(image) == folder
    other = viewer.add_image(stack[:, :90], name="renamed")
    assert folder_of(other) != folder


def test_another_process_can_read_the_image(tmp_path: Path, stack: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "em.tif", stack, photometric="minisblack")
    file = read_stack(tmp_path / "em.tif")
    with create_workspace(tmp_path / "a", file) as workspace:
        assert image_file(file, workspace, None, [1]) is None
    with create_workspace(tmp_path / "b", as_stack(stack)) as workspace:
        assert image_file(as_stack(stack), workspace, str(tmp_path / "em.tif"), [1]) == tmp_path / "em.tif"
        tifffile.imwrite(tmp_path / "em.tif", 255 - stack, photometric="minisblack")  # no longer what is on screen
        assert image_file(as_stack(stack), workspace, str(tmp_path / "em.tif"), [1]) is None
        copied = workspace.stack()
        np.testing.assert_array_equal(copied.read(1), stack[1])


def test_what_an_earlier_press_has_prepared_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, qtbot: Any, tmp_path: Path
) -> None:
    begun: list[list[str]] = []

    def begin(words: list[str]) -> Any:
        begun.append(words)
        raise DrososegError("That will do.")

    monkeypatch.setattr(training_run, "TrainingProcess", begin)
    run, go = TrainingRun(), [Event(), Event()]
    ended: list[Any] = []
    run.finished.connect(ended.append)

    def image(number: int) -> Path:
        assert go[number].wait(60)
        return tmp_path / str(number)

    for number in (0, 1):
        run.start(tmp_path, RetrainSettings(), partial(image, number), "em")
        if number == 0:
            run.stop()
    go[0].set()
    qtbot.wait(300)
    assert run.busy
    assert not begun
    go[1].set()
    qtbot.waitUntil(lambda: not run.busy, timeout=60_000)
    assert str(tmp_path / "1") in begun[0]
    assert ended == [None, "That will do."]


def test_the_activity_dock_cancels_while_the_image_is_made_ready(qtbot: Any, tmp_path: Path) -> None:
    run, go = TrainingRun(), Event()
    ended: list[Any] = []
    run.finished.connect(ended.append)

    def image() -> None:
        go.wait(60)

    run.start(tmp_path, RetrainSettings(), image, "em")
    assert run._bar._bar is not None
    run._bar._bar.cancel()
    try:
        qtbot.waitUntil(lambda: not run.busy, timeout=20_000)
    finally:
        go.set()
    assert ended == [None]


def test_a_process_that_does_not_stop_is_ended_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_run, "PATIENCE", -1.0)
    run, process = TrainingRun(), MagicMock(over=False)
    process.events.return_value = []
    process.close.return_value = "The training process was killed, perhaps because memory ran out."
    run.stage, run._process, run._begin = Stage.TRAINING, process, time.monotonic()
    ended: list[Any] = []
    run.finished.connect(ended.append)
    run.stop()
    run._poll()
    process.kill.assert_called_once()
    assert not run.busy
    assert "did not stop" in ended[0]


def test_an_image_that_cannot_be_prepared_ends_the_round(qtbot: Any, tmp_path: Path) -> None:
    def image() -> Path:
        raise RuntimeError("of a library")

    run = TrainingRun()
    ended: list[Any] = []
    run.finished.connect(ended.append)
    run.start(tmp_path, RetrainSettings(), image, "em")
    qtbot.waitUntil(lambda: bool(ended), timeout=20_000)
    assert ended == ["of a library"]


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    process = TrainingProcess(["fine-tune", "--workspace", str(tmp_path), "--json"])
    until = time.monotonic() + 120
    while not process.over and time.monotonic() < until:
        time.sleep(0.05)
    assert process.events() == []
    assert "There is no workspace" in (process.close() or "")
    killed = TrainingProcess(["--help"])
    killed.kill()
    while not killed.over:
        time.sleep(0.01)
    assert "process was killed" in (killed.close() or "")
