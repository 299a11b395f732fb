"""What every registered network must do, and the traits that make each of them what it is called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from napari_drososeg.checkpoint import NetworkSpec, load_model, save_checkpoint
from napari_drososeg.classes import DROSOPHILA_CLASSES
from napari_drososeg.data import Normalisation
from napari_drososeg.errors import DrososegError
from napari_drososeg.models import ARCHITECTURES, create_model, find_architecture
from napari_drososeg.models.padding import Padded
from napari_drososeg.models.reach import PATHS, reach_at, receptive_field

THE_ELEVEN = [
    "fcn8",
    "segnet",
    "unet",
    "r2unet",
    "attention-unet",
    "linknet",
    "pspnet",
    "fpn",
    "deeplabv3plus",
    "transunet",
    "swin-unet",
]
NARROW = {"width": 0.0625}
TINY: dict[str, dict[str, Any]] = dict.fromkeys(ARCHITECTURES, NARROW) | {
    "fcn8": {**NARROW, "fc_kernel": 3, "batch_norm": True},
    "transunet": {"image_size": 64, "width": 0.125, "layers": [1, 1, 1], "dim": 16, "depth": 2, "heads": 2},
    "swin-unet": {"image_size": 64, "dim": 8, "heads": [1, 1, 2, 2], "window": 4, "drop_path": 0.0},
}
COUNTS: list[tuple[str, dict[str, Any], int]] = [
    ("fcn8", {}, 134_276_585),
    ("fcn8", {"fc_channels": 1024, "fc_kernel": 3, "batch_norm": True}, 20_499_177),
    ("fcn16", {}, 134_282_582),
    ("fcn32", {}, 134_308_547),
    ("segnet", {}, 29_443_587),
    ("unet", {}, 28_038_723),
    ("unet", {"width": 0.5, "decoder_width": 0.25}, 4_861_059),
    ("r2unet", {}, 25_602_563),
    ("r2unet", {"recurrent_encoder": True}, 27_622_851),
    ("attention-unet", {}, 28_390_255),
    ("linknet", {}, 15_985_859),
    ("pspnet", {}, 19_706_307),
    ("fpn", {}, 16_805_955),
    ("deeplabv3plus", {}, 15_888_691),
    ("deeplabv3plus", {"separable": False}, 20_158_243),
    ("transunet", {}, 105_322_291),
    ("swin-unet", {}, 27_175_716),
]
LOCAL = [name for name, entry in ARCHITECTURES.items() if not entry.global_context]

every = pytest.mark.parametrize("name", ARCHITECTURES)
every_local = pytest.mark.parametrize("name", LOCAL)


def tiny(name: str, n_classes: int = 3, **arguments: Any) -> nn.Module:
    return create_model(name, n_classes, **(TINY[name] | arguments)).eval()


def on_meta(name: str, **arguments: Any) -> nn.Module:
    with torch.device("meta"):  # shapes without memory
        return create_model(name, 3, **arguments).network


def spec_of(name: str, arguments: dict[str, Any]) -> NetworkSpec:
    facts = find_architecture(name, **arguments)
    return NetworkSpec(
        name=name,
        title=facts.title,
        architecture=name,
        arguments=arguments,
        classes=DROSOPHILA_CLASSES,
        normalisation=Normalisation(),
        pixel_size=4.6,
        stride=facts.stride,
        receptive_field=facts.receptive_field,
        global_context=facts.global_context,
        halo=32,
        licence="CC0-1.0",
    )


def test_the_eleven_of_the_study_are_registered() -> None:
    assert [name for name, entry in ARCHITECTURES.items() if entry.variant_of is None] == THE_ELEVEN
    assert {entry.variant_of for entry in ARCHITECTURES.values()} == {None, "fcn8"}


def test_listing_them_imports_nothing_heavy() -> None:
    code = (
        "import sys, napari_drososeg.models as m; m.find_architecture('r2unet', steps=3); "
        "sys.exit(any(n in sys.modules for n in ('torch', 'segmentation_models_pytorch', 'timm')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("name", "arguments", "count"), COUNTS)
def test_the_number_of_parameters_is_exact(name: str, arguments: dict[str, Any], count: int) -> None:
    assert sum(p.numel() for p in on_meta(name, **arguments).parameters()) == count


@every
def test_any_size_in_is_the_size_out_as_logits(name: str) -> None:
    model = tiny(name)
    with torch.inference_mode():
        for batch, *size in ((1, 250, 333), (2, 64, 64), (1, 1, 1)):
            logits = model(torch.randn(batch, 1, *size))
            assert logits.shape == (batch, 3, *size)
            assert logits.isfinite().all()
            assert not torch.allclose(logits.sum(1), torch.ones(()))  # not yet through a softmax


@every
def test_a_batch_of_one_trains_every_parameter(name: str) -> None:
    model = tiny(name).train()
    loss = nn.functional.cross_entropy(model(torch.randn(1, 1, 64, 96)), torch.randint(3, (1, 64, 96)))
    loss.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        if parameter.ndim > 1:  # biases before a batch norm cancel out
            assert parameter.grad.abs().sum() > 0, parameter_name


@every
def test_a_checkpoint_gives_the_same_network_back(name: str, tmp_path: Path) -> None:
    model, spec = tiny(name), spec_of(name, TINY[name])
    path = save_checkpoint(tmp_path / "network.safetensors", model.state_dict(), spec, half=False)
    loaded_spec, loaded = load_model(path)
    image = torch.randn(1, 1, 50, 70)
    with torch.inference_mode():
        assert loaded_spec == spec
        assert torch.equal(loaded(image), model(image))


@every_local
def test_a_shift_by_the_stride_shifts_the_result(name: str) -> None:
    model = tiny(name)
    image = torch.randn(1, 1, 640, 640)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # takes the statistics of the image as they are
    with torch.inference_mode():
        model.train()(image)  # with those of nothing, deep networks give one value everywhere
        model.eval()
        here = model(image)[..., 304:336, 304:336]
        shifted = model(torch.roll(image, (32, 32), (2, 3)))[..., 336:368, 336:368]
    assert here.std((2, 3)).max() > 1e-3
    torch.testing.assert_close(here, shifted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "axis"), [*((name, "y") for name in LOCAL), ("segnet", "x")])
def test_the_stated_receptive_field_is_reached_but_not_passed(name: str, axis: str) -> None:
    """Positive weights hide nothing, so the gradient shows the whole reach."""
    facts = find_architecture(name, **TINY[name])
    reach, n = facts.receptive_field, facts.stride
    model = tiny(name, n_classes=1).double()
    for parameter_name, value in model.named_parameters():
        value.data.abs_() if "weight" in parameter_name else value.data.fill_(0.1)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):  # so that nothing far away is rounded off
            module.weight.data.div_(module.weight.data.mean() * module.weight[0].numel())

    def look(strips: torch.Tensor) -> torch.Tensor:
        """Return one pixel of each strip: in the middle across, at `centres` along."""
        logits = model(strips) if axis == "y" else model(strips.transpose(2, 3)).transpose(2, 3)
        return logits[torch.arange(len(positions)), 0, centres, n // 2]

    # Strips for each of the positions within a stride that look farthest; one stride across. Grey values rise or fall
    # along them, so that the farthest pixel of each pooling window is the one that wins.
    positions = torch.tensor(sorted(range(n), key=lambda p: -reach_at(name, p, **TINY[name]))[:3]).repeat(2)
    centres = reach + 16 + positions - (reach + 16) % n + n
    length = 2 * reach + 32 + 2 * n
    ramp = torch.linspace(0, 1, length, dtype=torch.double)
    images = torch.stack([ramp] * 3 + [1 - ramp] * 3)[:, None, :, None].repeat(1, 1, 1, n).requires_grad_()
    before = look(images)
    before.sum().backward()
    assert images.grad is not None
    distance = (torch.arange(images.shape[2]) - centres[:, None]).abs()  # (strips, along)
    worst = int(distance[images.grad[:, 0].abs().sum(2) > 0].max())
    assert reach - (31 if name == "segnet" else 0) <= worst <= reach  # a zero at each of five unpoolings
    with torch.inference_mode():  # the gradient does not see comparisons
        beyond = (distance > reach)[:, None, :, None]
        torch.testing.assert_close(look(torch.where(beyond, 3 - images, images)), before, rtol=1e-12, atol=0)


def test_the_registry_states_the_derived_receptive_fields() -> None:
    assert {n: ARCHITECTURES[n].receptive_field for n in LOCAL} == {n: receptive_field(n) for n in PATHS}
    assert all(entry.receptive_field == 0 for entry in ARCHITECTURES.values() if entry.global_context)


def test_the_receptive_field_follows_the_arguments() -> None:
    assert find_architecture("fcn8", fc_kernel=3).receptive_field == 245 - 2 * 32
    assert [find_architecture("r2unet", steps=t).receptive_field for t in (1, 2, 3)] == [180, 210, 240]
    other = find_architecture("linknet", encoder="resnet34")
    assert (other.receptive_field, other.global_context) == (0, True)


def test_padding_repeats_the_edge() -> None:
    seen = []
    padded = Padded(nn.Identity(), 16)
    padded.network.register_forward_hook(lambda *call: seen.append(call[2]))
    image = torch.randn(1, 1, 5, 7)
    assert torch.equal(padded(image), image)
    assert seen[0].shape == (1, 1, 16, 16)
    assert bool((seen[0][..., 5:, :7] == image[..., 4:, :]).all())
    assert bool((seen[0][..., 7:] == seen[0][..., 6:7]).all())


def test_an_unknown_architecture_or_argument_lists_those_there_are() -> None:
    with pytest.raises(DrososegError, match="'vgg'.*unet"):
        create_model("vgg", 3)
    with pytest.raises(DrososegError, match="U-Net does not take widht.*width, decoder_width"):
        create_model("unet", 3, widht=0.5)


@pytest.mark.parametrize("name", ["linknet", "fpn"])
def test_other_encoders_go_by_name(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, 3, encoder="resnet18")
        assert model(torch.empty(1, 1, 70, 64)).shape == (1, 3, 70, 64)
    with pytest.raises(DrososegError, match="'resnet35'.*resnet34"):
        create_model(name, 3, encoder="resnet35")
    for elsewhere in ("tu-hf-hub:owner/name", "tu-local-dir:/tmp/name"):  # which timm would fetch or read
        with pytest.raises(DrososegError, match="Unknown encoder"):
            create_model(name, 3, encoder=elsewhere)
    with pytest.raises(DrososegError, match="'resnet18'.*width"):
        create_model(name, 3, encoder="resnet18", width=0.5)
    for refused in ("tu-foo", "tu-vit_tiny_patch16_224", *(["mit_b0"] if name == "linknet" else [])):
        with pytest.raises(DrososegError, match=rf"cannot be built with encoder={refused} \([^\n]*\)\.$"):
            create_model(name, 3, encoder=refused)


@pytest.mark.parametrize("name", [n for n in THE_ELEVEN if n not in ("transunet", "swin-unet")])
def test_pretrained_weights_at_another_width_are_refused(name: str) -> None:
    with pytest.raises(DrososegError, match="full width only"):
        create_model(name, 3, encoder_weights="imagenet", **NARROW)


@pytest.mark.parametrize("name", ["transunet", "swin-unet"])
def test_pretrained_weights_for_another_size_are_refused(name: str) -> None:
    with pytest.raises(DrososegError, match="There are only imagenet"):
        create_model(name, 3, encoder_weights="imagenet", **TINY[name])


def test_a_checkpoint_that_started_from_public_weights_needs_no_download(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    arguments = {"encoder": "resnet18"}
    model = create_model("fpn", 3, **arguments)
    spec = spec_of("fpn", arguments | {"encoder_weights": "imagenet"})
    assert load_model(save_checkpoint(tmp_path / "network.safetensors", model.state_dict(), spec))[0] == spec


def test_weights_that_cannot_be_downloaded_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DrososegError, match="Could not get the imagenet weights of resnet18.*internet"):
        create_model("linknet", 3, encoder="resnet18", encoder_weights="imagenet")
