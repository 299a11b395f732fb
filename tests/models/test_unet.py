from __future__ import annotations

import pytest
import torch

from napari_drososeg.errors import DrososegError
from napari_drososeg.models import ARCHITECTURES, create_model
from napari_drososeg.models.padding import Padded

TINY = {"width": 0.0625}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_full_width_has_the_published_number_of_parameters() -> None:
    assert sum(p.numel() for p in create_model("unet", 3).parameters()) == 28_038_723


def test_the_shipped_widths_fit_their_budget() -> None:
    model = create_model("unet", 3, width=0.5, decoder_width=0.25)
    assert sum(p.numel() for p in model.parameters()) == 4_861_059


@pytest.mark.parametrize("size", [(250, 333), (64, 64), (1, 1), (17, 16)])
def test_any_size_in_is_the_size_out(size: tuple[int, int]) -> None:
    with torch.inference_mode():
        assert create_model("unet", 3, **TINY).eval()(torch.zeros(2, 1, *size)).shape == (2, 3, *size)


def test_every_parameter_gets_a_gradient() -> None:
    model = create_model("unet", 3, **TINY)
    model(torch.randn(2, 1, 64, 64)).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for n, p in model.named_parameters() if "head" in n)
    assert all(p.grad is not None for p in model.parameters())


def test_a_shift_by_the_stride_shifts_the_result() -> None:
    model = create_model("unet", 3, **TINY).eval()
    image = torch.randn(1, 1, 640, 640)
    with torch.inference_mode():
        here = model(image)[..., 304:336, 304:336]
        shifted = model(torch.roll(image, (32, 32), (2, 3)))[..., 336:368, 336:368]
    torch.testing.assert_close(here, shifted, atol=1e-5, rtol=0)


def test_the_stated_receptive_field_is_reached_but_not_passed() -> None:
    """Positive weights without max-pool winners hide nothing, so the gradient shows the whole reach."""
    model = create_model("unet", 1, **TINY).double().eval()
    for name, value in model.named_parameters():
        value.data.abs_() if "weight" in name else value.data.fill_(0.1)
    reach = ARCHITECTURES["unet"].receptive_field
    worst = 0
    for centre in range(256, 272):
        image = torch.rand(1, 1, 544, 544, dtype=torch.double, requires_grad=True)
        model(image)[0, 0, centre, centre].backward()
        assert image.grad is not None
        rows = image.grad[0, 0].abs().sum(1).nonzero()
        worst = max(worst, centre - int(rows.min()), int(rows.max()) - centre)
    assert reach - 8 <= worst <= reach


def test_padding_repeats_the_edge() -> None:
    padded = Padded(torch.nn.Identity(), 16)
    image = torch.randn(1, 1, 5, 7)
    assert torch.equal(padded(image), image)


def test_an_unknown_architecture_lists_those_there_are() -> None:
    with pytest.raises(DrososegError, match="'vgg'.*unet"):
        create_model("vgg", 3)
