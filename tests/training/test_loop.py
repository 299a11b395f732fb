from __future__ import annotations

import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from napari_drososeg.data.augmentation import PRESETS
from napari_drososeg.data.sections import AnnotatedSection
from napari_drososeg.errors import DrososegError
from napari_drososeg.losses import LossConfig
from napari_drososeg.training import Plateau, TrainConfig, TrainEvent, Training, one_cycle
from napari_drososeg.training.average import MovingAverage
from napari_drososeg.training.validation import validate

CONFIG = TrainConfig(
    arguments={"width": 0.0625}, steps=12, batch=2, patch=32, learning_rate=5e-3, precision="32-true", accelerator="cpu"
)
# an odd mixture of everything that has a state or draws at random
EVERYTHING = replace(
    CONFIG,
    architecture="deeplabv3plus",  # has dropout
    augmentation=PRESETS["strong"],
    loss=LossConfig.parse("class-balanced+0.5*dice"),
    schedule="plateau",
    plateau=Plateau(factor=0.5, patience=1, min_rate=1e-5, stop_after=2),
    learning_rate=2e-2,
    encoder_rate=0.5,
    class_patches=0.5,
)


def events(training: Training, *, every: int = 5) -> list[TrainEvent]:
    return list(training.run(event_every=1, validate_every=every))


def plain(events: list[TrainEvent]) -> list[TrainEvent]:
    """What must be the same again: all but the time."""
    return [replace(e, seconds=0) for e in events]


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_it_learns(section: AnnotatedSection) -> None:
    training = Training([section], replace(CONFIG, steps=60, average=0.9), validation=[section])
    found = list(training.run(event_every=20, validate_every=60))
    assert [e.step for e in found] == [20, 40, 60]
    assert found[-1].loss < 0.75 * found[0].loss
    assert found[-1].scores is not None
    assert found[-1].scores.mean_iou > 0.8
    assert found[-1].validation_loss is not None
    assert found[-1].validation_loss < 0.75
    assert found[0].seconds < found[-1].seconds


def stop_after(training: Training, step: int) -> None:
    run = training.run(event_every=1, validate_every=2)
    while next(run).step < step:
        pass
    run.close()


@pytest.mark.parametrize("config", [CONFIG, EVERYTHING], ids=["plain", "everything"])
def test_an_interrupted_run_resumes_exactly(config: TrainConfig, section: AnnotatedSection, tmp_path: Path) -> None:
    straight = Training([section], config, validation=[section], folder=tmp_path / "straight")
    expected = events(straight, every=2)

    folder = tmp_path / "broken"
    for step in (3, 6):  # each time a step after the state was saved, or at it
        stop_after(Training([section], config, validation=[section], folder=folder), step)
    resumed = Training([section], config, validation=[section], folder=folder)
    assert resumed.step == 6
    found = events(resumed, every=2)
    assert plain(found) == plain([e for e in expected if e.step > 6])
    for best in (True, False):
        wanted = straight.weights(best=best)
        assert all(torch.equal(v, wanted[k]) for k, v in resumed.weights(best=best).items())
    assert resumed.curve == straight.curve
    without_time = [[*row[:3], *row[4:]] for row in rows(folder / "log.csv")]
    assert without_time == [[*row[:3], *row[4:]] for row in rows(tmp_path / "straight" / "log.csv")]
    assert [row[0] for row in without_time[1:]] == [str(e.step) for e in expected]
    again = Training([section], config, validation=[section], folder=folder)
    assert again.finished
    assert events(again) == []
    assert len(rows(folder / "log.csv")) == len(expected) + 1


def test_the_best_weights_are_kept(section: AnnotatedSection, tmp_path: Path) -> None:
    for seed in range(5):  # the last step being the best would show nothing; where it is hangs on the processor
        folder = tmp_path / str(seed)
        config = replace(CONFIG, steps=20, learning_rate=0.05, average=0.0, schedule="plateau", seed=seed)
        training = Training([section], config, validation=[section], folder=folder)
        found = {e.step: e.scores.mean_iou for e in events(training, every=2) if e.scores}
        best = max(found, key=lambda step: found[step])
        if best < 20:
            break
    assert best < 20
    network = Training([section], config, validation=[section], start=training.weights())
    assert network.validate().scores.mean_iou == pytest.approx(found[best], abs=1e-6)
    on_disk = load_file(folder / "best.safetensors")
    assert all(torch.equal(on_disk[f"averaged.{k}"], v) for k, v in training.weights().items())
    last = training.weights(best=False)
    assert any(not torch.equal(v, last[k]) for k, v in training.weights().items())


def test_early_stopping_ends_the_run(section: AnnotatedSection, tmp_path: Path) -> None:
    still = replace(CONFIG, learning_rate=1e-30, freeze_norms=True)  # nothing is learnt: each loss is that of before
    config = replace(still, steps=50, schedule="plateau", plateau=Plateau(patience=1, stop_after=3))
    training = Training([section], config, validation=[section], folder=tmp_path)
    assert [e.step for e in events(training, every=2)][-1] == 8  # one that sets the mark, three that do not pass it
    assert training.finished
    assert Training([section], config, validation=[section], folder=tmp_path).finished


def test_a_state_of_something_else_is_refused(section: AnnotatedSection, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=1)
    events(Training([section], config, folder=tmp_path))
    with pytest.raises(DrososegError, match="other settings"):
        Training([section], CONFIG, folder=tmp_path)
    with pytest.raises(DrososegError, match="other settings"):
        Training([section], replace(config, freeze_norms=True), folder=tmp_path)
    with pytest.raises(DrososegError, match="other sections"):
        Training([replace(section, labels=section.labels.T.copy())], config, folder=tmp_path)
    folded = replace(section, image=section.image.reshape(48, 192), labels=section.labels.reshape(48, 192))
    with pytest.raises(DrososegError, match="other sections"):  # the same pixels, row after row
        Training([folded], config, folder=tmp_path)
    (tmp_path / "last.safetensors").write_bytes(b"half a file")
    with pytest.raises(DrososegError, match="cannot be read as the state"):
        Training([section], config, folder=tmp_path)


def test_a_score_stands_for_its_own_validation_sections(section: AnnotatedSection, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=1)
    events(Training([section], config, validation=[section], folder=tmp_path))
    other = replace(section, labels=section.labels[::-1, ::-1].copy())
    for validation in ([other], [section, other], []):
        with pytest.raises(DrososegError, match="other validation sections: name the same"):
            Training([section], config, validation=validation, folder=tmp_path)


def test_what_a_killed_run_left_is_removed(section: AnnotatedSection, tmp_path: Path) -> None:
    left = [tmp_path / f".{name}.0123abcd.part" for name in ("last.safetensors", "best.safetensors")]
    for path in left:
        path.write_bytes(b"half")
    Training([section], CONFIG, folder=tmp_path)
    assert not any(path.exists() for path in left)


def test_validation_is_the_same_for_sections_alone_and_together(section: AnnotatedSection) -> None:
    cut = replace(section, image=section.image[:64], labels=section.labels[:64])
    several = [section, cut, replace(cut, labels=np.zeros_like(cut.labels)), cut, section]
    training = Training([section], replace(CONFIG, steps=3))
    events(training)
    network, fabric = training.average.network, training.fabric
    seen: list[tuple[int, ...]] = []
    hook = network.register_forward_pre_hook(lambda _module, inputs: seen.append(tuple(inputs[0].shape)))
    together = validate(network, several, training.loss, 3, fabric)
    hook.remove()
    assert len(seen) == 3  # the two cuts next to each other share one pass
    assert seen[1] == (2, 1, *cut.labels.shape)
    alone = [validate(network, [s], training.loss, 3, fabric) for s in several if s.labels.any()]
    weights = [s.labels.size for s in several if s.labels.any()]
    accuracies = [a.scores.pixel_accuracy for a in alone]
    assert together.scores.pixel_accuracy == pytest.approx(np.average(accuracies, weights=weights), abs=1e-6)
    assert together.loss == pytest.approx(np.average([a.loss for a in alone], weights=weights), rel=1e-4)


def test_frozen_norms_keep_their_statistics(section: AnnotatedSection) -> None:
    for frozen in (True, False):
        training = Training([section], replace(CONFIG, steps=2, freeze_norms=frozen))
        before = {k: v.clone() for k, v in training.model.state_dict().items() if k.endswith("running_mean")}
        events(training)
        after = training.model.state_dict()
        assert before
        assert all(torch.equal(v, after[k]) for k, v in before.items()) is frozen


def test_a_loss_that_is_not_finite_stops_and_keeps_the_best(section: AnnotatedSection, tmp_path: Path) -> None:
    config = replace(CONFIG, learning_rate=1e30, warm_up=1.0, steps=200)

    class Late(Training):  # goes wrong in the seventh step
        def _update(self, batch, rate):
            return super()._update(batch, 1e-3 if self.step < 6 else 1e30)

    with pytest.raises(DrososegError, match=r"lower the learning rate.*best weights are in"):
        list(Late([section], config, validation=[section], folder=tmp_path).run(event_every=1, validate_every=2))
    for name in ("best", "last"):
        assert all(torch.isfinite(v).all() for v in load_file(tmp_path / f"{name}.safetensors").values())
    assert Training([section], config, validation=[section], folder=tmp_path).step == 6
    with pytest.raises(DrososegError, match="no folder"):
        list(Training([section], config).run(event_every=1))


def test_fine_tuning_starts_from_the_given_weights(section: AnnotatedSection) -> None:
    first = Training([section], CONFIG)
    events(first)
    again = Training([section], replace(CONFIG, seed=5), start=first.weights())
    assert all(torch.equal(v, first.weights()[k]) for k, v in again.model.module.state_dict().items())
    with pytest.raises(DrososegError, match="another network"):
        Training([section], replace(CONFIG, arguments={"width": 0.125}), start=first.weights())


def test_transfer_takes_what_fits(section: AnnotatedSection) -> None:
    source = Training([section], CONFIG).weights()
    training = Training([section], replace(CONFIG, architecture="segnet", seed=1), transfer=source)
    own = training.weights()
    taken = [k for k in own if k in source and own[k].ndim and torch.equal(own[k], source[k])]
    assert 0 < training.transferred <= len(taken) < len(own)
    assert any(".encoder." in k for k in taken)
    with pytest.raises(DrososegError, match="No weights of the network"):
        Training([section], CONFIG, transfer={"something": torch.zeros(3)})


@pytest.mark.parametrize("architecture", ["unet", "swin-unet"])
def test_the_encoder_learns_at_its_own_rate(architecture: str, section: AnnotatedSection) -> None:
    arguments = {"width": 0.0625} if architecture == "unet" else {"dim": 16, "heads": (1, 2, 4, 8), "image_size": 32}
    config = replace(CONFIG, architecture=architecture, arguments=arguments, steps=2)
    start = Training([section], config).weights()

    def moved(rate: float, *, statistics: bool = False) -> tuple[float, float]:
        training = Training([section], replace(config, encoder_rate=rate), start=start)
        events(training)
        network = training.model.module
        tensors = network.state_dict() if statistics else dict(network.named_parameters())
        change = {k: (v.detach().float() - start[k].float()).abs().max().item() for k, v in tensors.items()}
        encoder = {k for k in change if k.split(".")[1] in ("encoder", "patch_embed", "layers", "norm")}
        return max(change[k] for k in encoder), max(v for k, v in change.items() if k not in encoder)

    frozen, head = moved(0.0, statistics=True)
    assert frozen == 0
    assert head > 0
    assert 0 < moved(1e-3)[0] < 0.1 * moved(1.0)[0]


def test_distillation_holds_on_to_the_teacher(section: AnnotatedSection) -> None:
    """One class is annotated; what the others were is known from the teacher alone."""
    labels = np.where(section.labels == 1, section.labels, 0).astype(np.uint8)
    teacher = (section.labels[None] == np.arange(1, 4)[:, None, None]).astype(np.float16)
    stroke = replace(section, labels=labels, teacher=teacher)
    config = replace(CONFIG, average=0.9)
    start = Training([section], config).weights()
    scores = {}
    for weight, steps in ((0.0, 20), (1.0, 90)):
        changed = replace(config, distillation=weight, steps=steps)
        training = Training([stroke], changed, start=start, validation=[section])
        events(training, every=steps)
        scores[weight] = training.validate().scores.mean_iou
    assert scores[1.0] > 0.75
    assert scores[0.0] < 0.3


def test_big_sections_are_validated_in_windows(section: AnnotatedSection, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training([section], CONFIG, validation=[section])
    seen = []
    training.average.network.register_forward_hook(lambda _m, images, _o: seen.append(tuple(images[0].shape[2:])))
    whole = training.validate()
    assert seen == [(96, 96)]
    monkeypatch.setattr("napari_drososeg.training.validation.WINDOW", 40)
    parts = training.validate()
    assert seen[1:] == [(32, 32)] * 9
    assert parts.scores.pixels == whole.scores.pixels == 96 * 96
    assert parts.loss == pytest.approx(whole.loss, rel=0.2)


def test_validation_loss_is_the_loss(section: AnnotatedSection) -> None:
    training = Training([section], replace(CONFIG, loss=LossConfig.parse("2*cross-entropy")), validation=[section])
    with torch.inference_mode():
        logits = training.average.network.eval()(torch.from_numpy(section.image)[None, None])
    nats = torch.nn.functional.cross_entropy(logits, torch.from_numpy(section.labels).long()[None] - 1)
    assert training.validate().loss == pytest.approx(2 * nats.item(), rel=1e-4)


NO_DROPOUT = replace(
    CONFIG,
    architecture="transunet",
    arguments={
        "image_size": 32, "width": 0.125, "decoder_width": 0.0625, "layers": [1, 1, 1], "dim": 16, "depth": 1,
        "heads": 2, "dropout": 0.0,
    },
    steps=4,
    batch=4,
    learning_rate=1e-3,
)  # fmt: skip
TWO = """
import sys
from pathlib import Path
import numpy as np
import torch
from napari_drososeg.data.sections import AnnotatedSection
from napari_drososeg.training import TrainConfig, Training
torch.set_num_threads(1)
image = np.tile((np.arange(96) // 12 % 3).astype(np.float32) - 1, (96, 1))
section = AnnotatedSection(image, (image + 2).astype(np.uint8))
training = Training([section], TrainConfig(devices=2, **SETTINGS), validation=[section], folder=Path(sys.argv[1]))
losses = [e.loss for e in training.run(event_every=1, validate_every=2)]
if training.is_main:
    print(*losses, *(row["mean_iou"] for row in training.curve))
"""


@pytest.mark.timeout(320)  # seconds on a quiet machine: three times torch is imported
@pytest.mark.skipif(os.name == "nt", reason="gloo with several processes is not tested there")
def test_two_processes_train_as_one(section: AnnotatedSection, tmp_path: Path) -> None:
    alone = Training([section], NO_DROPOUT, validation=[section])
    expected = [e.loss for e in events(alone, every=2)]
    changed = {k: v for k, v in vars(NO_DROPOUT).items() if v != getattr(TrainConfig(), k)}
    script = tmp_path / "two.py"
    script.write_text(TWO.replace("SETTINGS", repr(changed)))
    run = subprocess.run(
        [sys.executable, script, tmp_path / "run"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = [float(x) for x in run.stdout.split()]
    assert len(rows(tmp_path / "run" / "log.csv")) == 5  # written once
    assert len(found) == 6
    # batch norms see half a batch in each process, so it is not exactly the same
    np.testing.assert_allclose(found[:4], expected, rtol=0.1)


def test_sections_that_only_have_a_teacher_count_with_distillation_only(section: AnnotatedSection) -> None:
    silent = replace(
        section, labels=np.zeros_like(section.labels), teacher=np.full((3, 96, 96), 1 / 3, np.float16), name="silent"
    )
    plain_run = Training([section, silent], replace(CONFIG, batch=16))
    assert plain_run.sampler(0).teacher is None
    assert plain_run.sampler(0).labels.flatten(1).any(1).all()
    batch = Training([section, silent], replace(CONFIG, batch=16, distillation=1.0)).sampler(0)
    assert batch.teacher is not None
    assert not batch.labels.flatten(1).any(1).all()


def test_each_step_has_the_rate_of_the_schedule(section: AnnotatedSection) -> None:
    config = replace(CONFIG, schedule="one-cycle", steps=6)
    found = events(Training([section], config), every=6)
    assert [e.learning_rate for e in found] == pytest.approx([one_cycle(step, config) for step in range(6)])


def test_the_average_holds_the_statistics_of_norms() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(1))
    average = MovingAverage(model, 0.5)
    images = torch.full((4, 1, 8, 8), 3.0) + torch.randn(4, 1, 8, 8)
    for step in (1, 2, 3):
        model(images)
        average.update(model, step)
    mean = average.weights()["0.running_mean"]
    assert 0 < float(mean) < float(model[0].running_mean)
