from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_drososeg.checkpoint import load_model, load_spec, sha256
from napari_drososeg.classes import ClassTable, SegmentationClass
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference import PredictConfig, Predictor, predict
from napari_drososeg.io import Stack, as_stack
from napari_drososeg.workspace import START, Workspace, create_workspace, open_workspace, rectangle
from napari_drososeg.workspace.recipes import RetrainSettings
from napari_drososeg.workspace.retraining import retrain

Annotated = tuple[Workspace, Stack, np.ndarray]
PLAIN = PredictConfig(engine="torch", precision="f32", device="cpu")


def table(*names: str) -> ClassTable:
    return ClassTable(tuple(SegmentationClass(value, name, "#000000") for value, name in enumerate(names, start=1)))


@pytest.fixture
def settings(tiny_network: Path) -> RetrainSettings:
    return RetrainSettings(start=str(tiny_network), steps=4, learning_rate=5e-2, device="cpu")


def test_a_round_learns_what_is_annotated_and_is_adopted(annotated: Annotated, settings: RetrainSettings) -> None:
    workspace, stack, truth = annotated
    workspace.regions.add(0, shown=lambda z, ys, xs: truth[z, ys, xs])
    events = list(retrain(workspace, stack, replace(settings, steps=60, learning_rate=2e-2, predict=(1,))))
    assert [e["step"] for e in events if e["event"] == "training"] == list(range(1, 61))
    assert all(json.loads(json.dumps(e, allow_nan=False)) == e for e in events)
    done = events[-1]["round"]
    assert done["adopted"]
    assert done["after"]["annotated_right"] > done["before"]["annotated_right"]
    assert list(done["annotated_pixels"].values()) == np.bincount(truth[0].ravel())[1:].tolist()
    assert done["sections"] == [0]
    assert workspace.rounds.in_use == 1
    # On the section nobody annotated, from the checkpoint, as any other command would.
    labels = predict(stack, workspace.rounds.checkpoint(1), PLAIN)
    assert (labels[1] == truth[1]).mean() > 0.8
    kept = workspace.rounds.prediction(1, stack.shape)
    assert kept.sections == [1]
    assert (kept.read(1) == labels[1]).mean() > 0.98


def test_strokes_move_a_network_but_little(annotated: Annotated, taught: Path, settings: RetrainSettings) -> None:
    """Strokes, even wrong ones of a single class, say too little of where a network is right to make it forget that."""
    workspace, stack, truth = annotated
    workspace.annotation.write(0, slice(None), slice(None), np.zeros_like(truth[0]))
    workspace.annotation.write(0, slice(40, 43), slice(0, 12), np.full((3, 12), 3, np.uint8))  # was 1
    for _ in range(3):
        *_, last = retrain(workspace, stack, RetrainSettings(start=str(taught), steps=24, device="cpu"))
    before, after = (predict(stack, p, PLAIN)[1] for p in (taught, workspace.rounds.checkpoint(3)))
    assert (before == truth[1]).mean() > 0.9
    assert (after == truth[1]).mean() > (before == truth[1]).mean() - 0.05
    assert last["round"]["after"]["drift"] < 0.1


def test_annotation_of_round_one_still_trains_in_round_three(
    annotated: Annotated, settings: RetrainSettings, tiny_network: Path
) -> None:
    workspace, stack, truth = annotated
    list(retrain(workspace, stack, settings))
    workspace.rounds.use(1)
    for z in (1, 1):
        workspace.annotation.write(z, slice(0, 5), slice(0, 50), truth[z][:5, :50])
        list(retrain(workspace, stack, replace(settings, start=None)))
        workspace.rounds.use(len(workspace.rounds))
    first, _, third = workspace.rounds.all()
    assert first.sections == (0,)
    assert third.sections == (0, 1)
    assert sum(third.annotated_pixels.values()) == sum(first.annotated_pixels.values()) + 250
    assert first.parent == f"tiny {sha256(tiny_network)}"
    assert third.parent.startswith("tiny-round-2 ")
    spec = load_spec(workspace.rounds.checkpoint(3))
    assert (spec.name, spec.licence, spec.parent) == ("tiny-round-3", "CC0-1.0", third.parent)
    assert spec.training["parent"]["parent"]["parent"]["data"] == "none: random weights"


def test_rolling_back_and_no_such_round(annotated: Annotated, settings: RetrainSettings) -> None:
    workspace, stack, _ = annotated
    list(retrain(workspace, stack, settings))
    workspace.rounds.use(START)
    assert open_workspace(workspace.folder, write=False).rounds.in_use == START
    with pytest.raises(DrososegError, match="no round 7"):
        workspace.rounds.use(7)


def test_a_round_that_is_worse_on_the_locked_region_is_not_adopted(
    annotated: Annotated, settings: RetrainSettings
) -> None:
    workspace, stack, truth = annotated
    workspace.regions.add(1, rectangle(slice(0, 60), slice(0, 96)), shown=lambda z, y, x: truth[z, y, x], locked=True)
    workspace.regions.add(0, shown=lambda z, y, x: truth[z, y, x])
    *_, good = retrain(workspace, stack, replace(settings, steps=60, learning_rate=2e-2))
    assert good["round"]["adopted"]
    assert good["round"]["after"]["mean_iou"] > good["round"]["before"]["mean_iou"]
    # What is painted now is all wrong.
    workspace.annotation.write(0, slice(None), slice(None), truth[0] % 3 + 1)
    events = list(retrain(workspace, stack, replace(settings, start=None, steps=40)))
    bad = events[-1]["round"]
    scored = [e for e in events if "mean_iou" in e]
    assert len(scored) > 1
    assert not bad["adopted"]
    assert "Worse on the locked regions" in bad["verdict"]
    assert workspace.rounds.in_use == 1


def test_nothing_annotated_is_refused(workspace: Workspace, image: Stack, settings: RetrainSettings) -> None:
    workspace.regions.add(0, shown=lambda z, y, x: np.ones((96, 600), np.uint8)[y, x], locked=True)
    with pytest.raises(DrososegError, match="There is no annotation to train on"):
        list(retrain(workspace, image, settings))
    assert len(workspace.rounds) == 0


def test_own_classes_are_learnt_upon_what_a_network_knows_of_images(
    annotated: Annotated, taught: Path, tmp_path: Path
) -> None:
    _, stack, truth = annotated
    mine = table("bright", "dark")
    known = np.where(truth == 3, 1, 2).astype(np.uint8)
    base = f"tiny {sha256(taught)}"
    with create_workspace(tmp_path / "mine", stack, mine) as workspace:
        for y in (10, 40, 70):
            place = slice(y, y + 3), slice(10, 71)
            workspace.annotation.write(0, *place, known[0][place])
        *_, last = retrain(workspace, stack, RetrainSettings(start=str(taught), steps=20, device="cpu"))
        first = last["round"]
        assert first["adopted"]
        assert (first["base"], first["parent"], first["before"]) == (base, base, {})
        *_, last = retrain(workspace, stack, RetrainSettings(steps=20, device="cpu"))  # begins there again
        second = last["round"]
        assert second["parent"].startswith("tiny-round-1 ")
        assert second["base"] == base
        assert second["before"]
        spec = load_spec(workspace.rounds.checkpoint(2))
        assert spec.classes == mine
        assert spec.licence == load_spec(taught).licence
        assert spec.training["parent"] == load_spec(taught).training
        labels = predict(stack, workspace.rounds.checkpoint(2), PLAIN)
        assert (labels[1] == known[1]).mean() > 0.85
        # a network of its own now, which another workspace of these classes builds on
        *_, last = retrain(
            workspace, stack, RetrainSettings(start=str(workspace.rounds.checkpoint(2)), steps=2, device="cpu")
        )
        assert last["round"]["base"] == ""
        assert last["round"]["settings"]["recipe"]["distillation"] > 0


def test_a_network_that_is_gone_is_not_needed_for_own_classes(
    annotated: Annotated, taught: Path, tmp_path: Path
) -> None:
    _, stack, truth = annotated
    network = tmp_path / "passing.safetensors"
    network.write_bytes(taught.read_bytes())
    with create_workspace(tmp_path / "mine", stack, table("a", "b", "c")) as workspace:
        workspace.annotation.write(0, slice(0, 3), slice(0, 96), truth[0][:3])
        list(retrain(workspace, stack, RetrainSettings(start=str(network), steps=2, device="cpu")))
        network.unlink()
        *_, last = retrain(workspace, stack, RetrainSettings(steps=2, device="cpu"))
        assert last["round"]["number"] == 2


def test_stopping_and_closing_keep_the_best_so_far(annotated: Annotated, settings: RetrainSettings) -> None:
    workspace, stack, _ = annotated
    *_, last = retrain(workspace, stack, replace(settings, steps=500), stop=lambda: True)
    assert last["round"]["stopped"]
    run = retrain(workspace, stack, replace(settings, steps=500))
    assert next(e for e in run if e["event"] == "training")["step"] == 1
    run.close()  # type: ignore[attr-defined]
    second = workspace.rounds.find(2)
    assert second.stopped
    assert workspace.rounds.checkpoint(2).exists()
    list(retrain(workspace, stack, settings))  # and the folder is free again
    assert not workspace.rounds.find(3).stopped


def test_stopping_ends_the_prediction_after_a_round_but_not_the_round(
    annotated: Annotated, settings: RetrainSettings
) -> None:
    workspace, stack, _ = annotated
    heard: list[dict[str, Any]] = []

    def stop() -> bool:
        return {"event": "phase", "phase": "predicting"} in heard

    for event in retrain(workspace, stack, replace(settings, predict=(0, 1)), stop=stop):
        heard.append(event)
    assert [e["event"] for e in heard].count("predicted") == 0
    assert not heard[-1]["round"]["stopped"]
    assert workspace.rounds.find(1).number == 1
    assert workspace.rounds.prediction(1, stack.shape).sections == []


def test_from_scratch(annotated: Annotated) -> None:
    workspace, stack, truth = annotated
    *_, last = retrain(workspace, stack, RetrainSettings(start="scratch", steps=30, device="cpu"))
    assert last["round"]["adopted"]
    assert last["round"]["parent"] == "scratch"

    *_, last = retrain(workspace, stack, RetrainSettings(steps=30, device="cpu"))  # from nothing again, on all strokes
    assert last["round"]["parent"].startswith("own-round-1 ")
    assert last["round"]["before"]
    recipe = last["round"]["settings"]["recipe"]
    assert (recipe["encoder_rate"], recipe["freeze_norms"]) == (1.0, False)
    assert last["round"]["base"] == "scratch"

    network = workspace.rounds.checkpoint(2)  # chosen by name, as on another image: it is built on
    *_, last = retrain(workspace, stack, RetrainSettings(start=str(network), steps=2, device="cpu"))
    assert last["round"]["settings"]["recipe"]["freeze_norms"] is True
    for number in (1, 2):
        labels = predict(stack, workspace.rounds.checkpoint(number), PLAIN, sections=[1])
        assert (labels[1] == truth[1]).mean() > 0.7


def test_an_inverted_image_is_recognised_by_the_strokes(annotated: Annotated, taught: Path, tmp_path: Path) -> None:
    _, stack, truth = annotated
    inverted = as_stack(255 - np.stack([stack.read(z) for z in range(2)]), name="inverted")
    with create_workspace(tmp_path / "inverted", inverted) as workspace:
        workspace.annotation.write(0, slice(40, 43), slice(10, 71), truth[0][40:43, 10:71])
        events = list(retrain(workspace, inverted, RetrainSettings(start=str(taught), steps=2, device="cpu")))
        assert events[-1]["round"]["adapted"].get("inverted") is True
        assert any("inverted" in e["text"] for e in events if e["event"] == "notice")
        labels = predict(inverted, workspace.rounds.checkpoint(1), PLAIN, sections=[1])
    assert (labels[1] == truth[1]).mean() > 0.8


def test_what_the_workspace_says_of_the_grey_values_counts(annotated: Annotated, taught: Path, tmp_path: Path) -> None:
    _, stack, truth = annotated
    grey = 255 - np.stack([stack.read(z) for z in range(2)]).astype(np.float32)
    grey[1, 5, 5] = np.nan
    inverted = as_stack(grey, name="inverted")
    with create_workspace(tmp_path / "inverted", inverted) as workspace:
        workspace.annotation.write(0, slice(40, 43), slice(10, 71), truth[0][40:43, 10:71])
        workspace.save_settings(invert=True, fill_nan=0.0)
        settings = RetrainSettings(start=str(taught), steps=2, device="cpu", predict=(1,))
        *_, last = retrain(workspace, inverted, settings)
        assert "inverted" not in last["round"]["adapted"]  # the network is left as it is
        labels = workspace.rounds.prediction(1, workspace.image.shape).read(1, slice(None), slice(None))
    assert (labels == truth[1]).mean() > 0.8


def test_an_unknown_pixel_size_is_recognised_by_the_strokes(
    taught_textures: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    network, half, truth = taught_textures
    settings = RetrainSettings(start=str(network), steps=1, device="cpu")
    small = as_stack(half, name="half")
    with create_workspace(tmp_path / "half", small) as workspace:
        workspace.annotation.write(0, slice(None), slice(20, 30), truth[:, 20:30])
        events = list(retrain(workspace, small, settings))
        assert events[-1]["round"]["adapted"] == {"pixel_size": 9.2}
        assert any("pixel size of 9.2 nm" in e["text"] for e in events if e["event"] == "notice")
        assert events[-1]["round"]["after"]["annotated_right"] > 0.8
        workspace.rounds.use(START)
        assert workspace.pixel_size is None  # it goes with the network in use
        workspace.rounds.use(1)
        assert workspace.pixel_size == 9.2
        *_, again = retrain(workspace, small, replace(settings, start=None))
        assert again["round"]["adapted"] == {"pixel_size": 9.2}  # stays known
        *_, said = retrain(workspace, small, replace(settings, start=None, pixel_size=9.0))
        assert said["round"]["adapted"] == {"pixel_size": 9.0}  # what is said as well
    known = as_stack(half, name="half", voxel_size=(50.0, 4.6, 4.6))
    with create_workspace(tmp_path / "known", known) as workspace:
        workspace.annotation.write(0, slice(None), slice(20, 30), truth[:, 20:30])
        *_, last = retrain(workspace, known, settings)
        assert last["round"]["adapted"] == {}


def test_a_full_disk_keeps_the_rounds_there_are(
    annotated: Annotated, settings: RetrainSettings, full_disk: Callable[[], AbstractContextManager[None]]
) -> None:
    workspace, stack, _ = annotated
    list(retrain(workspace, stack, settings))
    workspace.rounds.use(1)
    with full_disk(), pytest.raises(DrososegError, match="No space left"):
        list(retrain(workspace, stack, settings))
    assert [r.number for r in workspace.rounds] == [1]
    assert workspace.rounds.in_use == 1
    list(retrain(workspace, stack, settings))
    assert [r.number for r in workspace.rounds] == [1, 3]  # a number is never given twice


TRAIN = """
import sys, json, os
from napari_drososeg.workspace import open_workspace
from napari_drososeg.workspace.recipes import RetrainSettings
from napari_drososeg.workspace.retraining import retrain
ws = open_workspace(sys.argv[1], write=False)
if sys.argv[3] == "checkpoint":  # die in the middle of writing one
    from pathlib import Path
    write = Path.write_bytes
    def half(path, content):
        if "safetensors" in path.name:
            write(path, content[: len(content) // 2])
            os.kill(os.getpid(), 9)
        return write(path, content)
    Path.write_bytes = half
settings = RetrainSettings(start=sys.argv[2], steps=6 if sys.argv[3] == "checkpoint" else 100000, device="cpu")
for event in retrain(ws, ws.stack(), settings):
    print(json.dumps(event), flush=True)
"""


@pytest.mark.parametrize("when", ["training", "checkpoint"])
def test_killed_while_training_strokes_and_finished_rounds_are_there(
    annotated: Annotated, settings: RetrainSettings, tiny_network: Path, when: str
) -> None:
    workspace, stack, truth = annotated
    list(retrain(workspace, stack, settings))
    workspace.rounds.use(1)
    before = (workspace.annotation.counts().tolist(), workspace.rounds.all())
    command = [sys.executable, "-c", TRAIN, str(workspace.folder), str(tiny_network), when]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if when == "training" and json.loads(line)["event"] == "training":
                # painted while it trains, by the process that holds the workspace
                workspace.annotation.write(1, slice(0, 3), slice(0, 9), truth[1][:3, :9])
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -9
    workspace.close()
    with open_workspace(workspace.folder, stack) as again:
        assert again.rounds.all() == before[1]
        assert again.rounds.in_use == 1
        assert load_spec(again.rounds.checkpoint(1)).name == "tiny-round-1"
        assert again.annotation.counts(0).tolist() == before[0]
        assert again.annotation.counts(1).sum() == (27 if when == "training" else 0)
        *_, last = retrain(again, stack, settings)  # nothing is left locked
        assert last["round"]["number"] in (2, 3)


def test_two_trainings_at_once_are_refused(annotated: Annotated, settings: RetrainSettings) -> None:
    workspace, stack, _ = annotated
    run = retrain(workspace, stack, settings)
    next(run)
    with pytest.raises(DrososegError, match="round of the workspace.*is open"):
        next(retrain(workspace, stack, settings))
    run.close()  # type: ignore[attr-defined]


def test_a_reviewed_region_of_a_large_section_is_read_in_windows(tmp_path: Path, tiny_network: Path) -> None:
    from napari_drososeg.workspace.material import CONTEXT, grid_for, read_windows

    pixels = np.random.default_rng(0).integers(0, 255, (1, 1500, 3000), np.uint8)
    stack = as_stack(pixels)
    with create_workspace(tmp_path / "w", stack) as workspace:
        for y, x in ((20, 30), (60, 80), (1400, 2900)):
            workspace.annotation.write(0, slice(y, y + 3), slice(x, x + 61), np.full((3, 61), 2, np.uint8))
        windows = read_windows(workspace, stack, load_spec(tiny_network), PLAIN, print)
        assert len(windows) == 2
        assert sum(int((w.labels == 2).sum()) for w in windows) == 3 * 183
        assert all(max(w.image.shape) < 2 * CONTEXT + 200 for w in windows)
        # on a grid of half the pixels
        spec = replace(load_spec(tiny_network), pixel_size=9.2)
        known = replace(stack, voxel_size=(50.0, 4.6, 4.6))
        assert grid_for(known, spec, None).network == (750, 1500)
        windows = read_windows(workspace, known, spec, PLAIN, print)
        assert sum(int((w.labels == 2).sum()) for w in windows) in range(
            3 * 30, 3 * 2 * 31 + 1
        )  # one or two rows of 61 / 2


def test_a_pixel_size_that_prediction_refuses_trains_nothing(annotated: Annotated, settings: RetrainSettings) -> None:
    workspace, stack, _ = annotated
    with pytest.raises(DrososegError, match="differs from the network's"):
        list(retrain(workspace, stack, replace(settings, pixel_size=4600.0)))
    assert not workspace.rounds.all()


def test_statistics_of_the_image_replace_those_of_the_training_data(tiny_network: Path) -> None:
    from contextlib import nullcontext

    from napari_drososeg.workspace import adaptation

    _, model = load_model(tiny_network)
    image = np.random.default_rng(0).normal(0, 1, (64, 64)).astype(np.float32)
    weights = {k: v.clone() for k, v in model.state_dict().items() if "running" not in k and "batches" not in k}
    adaptation.reestimate_norms(model, [image + 5, image], nullcontext)
    both = adaptation.norms_of(model)[0].running_mean.clone()
    adaptation.reestimate_norms(model, [image + 5], nullcontext)
    first = adaptation.norms_of(model)[0].running_mean.clone()
    adaptation.reestimate_norms(model, [image], nullcontext)
    torch.testing.assert_close(both, (first + adaptation.norms_of(model)[0].running_mean) / 2, rtol=1e-3, atol=1e-4)
    assert not model.training
    norm = adaptation.norms_of(model)[0]
    seen: list[Any] = []
    norm.register_forward_pre_hook(lambda _m, x: seen.append(x[0]))
    with torch.inference_mode():
        model(torch.from_numpy(image)[None, None])
    torch.testing.assert_close(norm.running_mean, seen[0].mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in weights.items())


def test_blending_goes_part_of_the_way(tiny_network: Path) -> None:
    from napari_drososeg.workspace import adaptation

    _, model = load_model(tiny_network)
    old = {k: v.clone() for k, v in model.state_dict().items()}
    adaptation.blend(model, {k: v + 1 for k, v in old.items()}, 0.25)
    for name, value in model.state_dict().items():
        step = 0.25 if value.is_floating_point() else 1
        torch.testing.assert_close(value, old[name] + step)


@pytest.mark.parametrize(
    ("loss", "before", "believed"),
    [
        (0.5, 0.9, True),
        (0.5, 0.6, False),  # hardly better
        (0.9, 1.5, False),  # better, but hardly better than guessing
        (0.68, 3.2, True),  # six hard strokes on an inverted section: far better, and better than guessing
        (1.2, 5.0, False),  # wrong either way
    ],
)
def test_another_sign_or_scale_is_believed_where_the_strokes_are_clear(
    loss: float, before: float, believed: bool
) -> None:
    from napari_drososeg.workspace import adaptation

    assert adaptation.believable(loss, before, 3) is believed


def test_flipping_the_sign_is_exact(tiny_network: Path) -> None:
    from napari_drososeg.workspace import adaptation

    _, model = load_model(tiny_network)
    image = torch.randn(1, 1, 48, 80)
    with torch.inference_mode():
        before = model(image)
        adaptation.flip_sign(model)
        torch.testing.assert_close(model(-image), before)


def test_suggestions_leave_out_what_is_annotated(annotated: Annotated, tiny_network: Path, taught: Path) -> None:
    from napari_drososeg.workspace import suggest as module

    workspace, stack, truth = annotated
    predictor = Predictor(tiny_network, PLAIN)
    by_doubt = list(module.suggest(workspace, stack, predictor))
    assert [s.section for s in by_doubt] == [0, 1]
    assert by_doubt[0].score < by_doubt[1].score  # strokes are on section 0
    assert 0 < by_doubt[1].score <= 1
    other = Predictor(taught, PLAIN)
    by_difference = list(module.suggest(workspace, stack, predictor, other, sections=[1]))
    labels = [predict(stack, p, PLAIN)[1] for p in (tiny_network, taught)]
    assert by_difference[0].score == pytest.approx(float((labels[0] != labels[1]).mean()), abs=1e-3)
    workspace.regions.add(1, shown=lambda z, y, x: truth[z, y, x], locked=True)
    assert next(module.suggest(workspace, stack, predictor, sections=[1])).score == 0


def test_strokes_in_the_corner_of_a_section_of_any_size(tiny_network: Path) -> None:
    from contextlib import nullcontext

    from napari_drososeg.workspace import adaptation

    image, strokes = np.zeros((520, 514), np.float32), np.zeros((520, 514), np.uint8)
    strokes[-8:, -8:-4], strokes[-8:, -4:] = 1, 2
    parts = adaptation.crops([image], [strokes])
    assert [known.shape for _, known in parts] == [(174, 172)]
    _, model = load_model(tiny_network)
    for magnification in adaptation.MAGNIFICATIONS:
        assert adaptation.stroke_loss(model, parts, nullcontext, magnification=magnification) > 0


def test_the_nearest_pixel_is_that_below_the_centre() -> None:
    from napari_drososeg.workspace.material import _nearest

    assert _nearest(10, 5, 0, 5).tolist() == [1, 3, 5, 7, 9]
    assert _nearest(5, 10, 0, 10).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert _nearest(7, 7, 2, 7).tolist() == [2, 3, 4, 5, 6]
