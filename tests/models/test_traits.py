"""What makes each network the one it is called after."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from napari_drososeg.models import create_model
from napari_drososeg.models.blocks import UpBlock, fold_upsampling

NARROW = {"width": 0.0625}


def network(name: str, **arguments: Any) -> Any:
    return create_model(name, 3, **arguments).eval().network


def on_meta(name: str, **arguments: Any) -> Any:
    with torch.device("meta"):  # shapes without memory
        return network(name, **arguments)


def run(model: nn.Module, image: Tensor) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model(image)
        return logits


# --- SegNet


def test_unpooling_puts_every_maximum_back_to_its_place() -> None:
    from napari_drososeg.models.segnet import pool, unpool

    x = torch.randn(2, 3, 12, 20).relu()  # with equal values: the zeros
    values, index = pool(x)
    restored = unpool(values, index)
    expected, places = nn.functional.max_pool2d(x, 2, return_indices=True)
    assert torch.equal(values, expected)
    assert torch.equal(restored, nn.functional.max_unpool2d(expected, places, 2))
    assert torch.equal(pool(restored)[0], values)
    spread = unpool(torch.ones_like(values), index)
    assert torch.equal(nn.functional.avg_pool2d(spread, 2), torch.full_like(values, 0.25))  # one of each four


def test_segnet_uses_the_stored_indices(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_drososeg.models import segnet

    model, image = network("segnet", **NARROW), torch.randn(1, 1, 64, 64)
    before = run(model, image)
    pool = segnet.pool
    monkeypatch.setattr(segnet, "pool", lambda x: (pool(x)[0], 3 - pool(x)[1]))
    assert (run(model, image) - before).abs().max() > 1e-3


# --- FCN


def test_fcn_adds_the_scores_of_finer_pools() -> None:
    model, image = network("fcn8", **NARROW), torch.randn(1, 1, 64, 64)
    before = run(model, image)
    for name in ("pool4", "pool3"):
        with torch.no_grad():
            for parameter in model.pool_scores[name].parameters():
                parameter.zero_()
        after = run(model, image)
        assert (after - before).abs().max() > 1e-3
        before = after
    assert set(network("fcn16", **NARROW).pool_scores) == {"pool4"}
    assert set(network("fcn32", **NARROW).pool_scores) == set()


def test_fcn_starts_with_bilinear_upsampling() -> None:
    from napari_drososeg.models.fcn import upsampling

    x = torch.randn(1, 2, 6, 6)
    with torch.inference_mode():
        found = upsampling(2, 8)(x)
    expected = nn.functional.interpolate(x, scale_factor=8.0, mode="bilinear", align_corners=False)
    torch.testing.assert_close(found[..., 8:-8, 8:-8], expected[..., 8:-8, 8:-8])


# --- R2U-Net


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_r2unet_shares_its_weights_over_steps(steps: int) -> None:
    from napari_drososeg.models.r2unet import RecurrentConv

    model = network("r2unet", steps=steps, **NARROW)
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for p in on_meta("r2unet", **NARROW).parameters()
    )
    model.train()
    run(model, torch.randn(1, 1, 32, 32))
    recurrent = [m for m in model.modules() if isinstance(m, RecurrentConv)]
    assert len(recurrent) == 8
    assert all(int(m.conv[1].num_batches_tracked) == steps + 1 for m in recurrent)


def test_a_recurrent_encoder_has_vgg16s_shape() -> None:
    model = network("r2unet", recurrent_encoder=True, **NARROW)
    assert [len(stage.body) for stage in model.encoder.stages] == [2, 2, 3, 3, 3]
    assert run(model, torch.randn(1, 1, 32, 32)).shape == (1, 3, 32, 32)


# --- Attention U-Net


def test_open_gates_make_the_plain_unet() -> None:
    gated, plain = network("attention-unet", **NARROW), network("unet", **NARROW)
    plain.load_state_dict({k: v for k, v in gated.state_dict().items() if not k.startswith("gates.")})
    image = torch.randn(1, 1, 64, 64)
    assert (run(gated, image) - run(plain, image)).abs().max() > 1e-3
    for gate in gated.gates:
        torch.nn.init.constant_(gate.psi[1].bias, torch.inf)
    assert torch.equal(run(gated, image), run(plain, image))


def test_gates_weigh_between_nothing_and_all() -> None:
    from napari_drososeg.models.attention_unet import AttentionGate

    alpha = AttentionGate(8, 12).alpha(torch.randn(2, 8, 9, 7), torch.randn(2, 12, 9, 7))
    assert alpha.shape == (2, 1, 9, 7)
    assert 0 < alpha.min() < alpha.max() < 1


# --- PSPNet and DeepLabv3+


@pytest.mark.parametrize("name", ["pspnet", "deeplabv3plus"])
def test_pooling_carries_context_across_the_whole_image(name: str) -> None:
    model, image = network(name, **NARROW), torch.randn(1, 1, 64, 1600)
    changed = image.clone()
    changed[..., -32:] += 5
    assert (run(model, image) - run(model, changed))[..., :32].abs().max() > 0


# --- TransUNet


def test_transunet_learns_a_position_for_each_token() -> None:
    model = on_meta("transunet")
    assert model.encoder.pos_embed.shape == (1, 256, 768)
    assert len(model.encoder.blocks) == 12


def test_positions_are_interpolated_for_other_sizes_only() -> None:
    from napari_drososeg.models.transunet import HybridEncoder

    encoder = HybridEncoder(64, 0.125, (1, 1, 1), 16, 1, 2, 0.0)
    assert torch.equal(encoder.positions(4, 4), encoder.pos_embed)
    assert encoder.positions(5, 7).shape == (1, 35, 16)


# --- Swin-Unet


def test_swin_has_a_bias_for_each_offset_within_a_window() -> None:
    model = on_meta("swin-unet")
    blocks = [block for stage in (*model.layers, *model.decoder) for block in stage.blocks]
    assert len(blocks) == 14
    for block in blocks:
        assert block.attn.relative_position_bias_table.shape == (15**2, block.attn.num_heads)
    assert [b.shift_size for b in blocks[:8]] == [(0, 0), (4, 4)] * 3 + [(0, 0), (0, 0)]


def test_the_attention_mask_is_timms() -> None:
    from timm.models.swin_transformer import SwinTransformerBlock

    from napari_drososeg.models.swin_unet import WindowBlock

    arguments: dict[str, Any] = {"num_heads": 1, "window_size": 4, "shift_size": 2}
    ours, theirs = (cls(8, (12, 8), **arguments) for cls in (WindowBlock, SwinTransformerBlock))
    assert torch.equal(ours.get_attn_mask(torch.zeros(1, 12, 8, 8)), theirs.attn_mask)
    ours.load_state_dict(theirs.state_dict())
    ours.dynamic_mask = True
    tokens = torch.randn(2, 12, 8, 8)
    torch.testing.assert_close(run(ours, tokens), run(theirs, tokens))


# --- what OpenVINO has no ready operation for


@pytest.mark.filterwarnings("ignore")  # tracing is deprecated in torch, but is what OpenVINO knows best
@pytest.mark.parametrize(
    ("name", "arguments"),
    [("segnet", NARROW), ("swin-unet", {"image_size": 32, "dim": 4, "heads": (1, 1, 1, 1), "window": 2})],
)
def test_networks_of_our_own_operations_convert_with_any_size(name: str, arguments: dict[str, Any]) -> None:
    ov = pytest.importorskip("openvino")
    model = network(name, **arguments)
    converted = ov.convert_model(model, example_input=torch.randn(1, 1, 64, 64), input=[-1, 1, -1, -1])
    compiled = ov.Core().compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    image = torch.randn(2, 1, 96, 160)
    torch.testing.assert_close(torch.from_numpy(compiled(image.numpy())[0]), run(model, image), atol=1e-4, rtol=1e-4)


# --- pretrained encoders: names and shapes fit, so that what is downloaded can be loaded


def shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}


def test_imagenet_weights_of_vgg16_fit_in_their_order() -> None:
    from segmentation_models_pytorch.encoders import get_encoder

    with torch.device("meta"):
        theirs = get_encoder("vgg16_bn", in_channels=1).state_dict()
    own = on_meta("unet").encoder.state_dict()
    assert list(shapes(own).values()) == list(shapes(theirs).values())
    assert [name.rsplit(".")[-1] for name in own] == [name.rsplit(".")[-1] for name in theirs]


def test_timms_hybrid_transformer_fits_transunet() -> None:
    import timm

    from napari_drososeg.models.transunet import PRETRAINED, theirs_name

    with torch.device("meta"):
        theirs = shapes(timm.create_model(PRETRAINED, img_size=256, num_classes=0).state_dict())
    own = shapes(on_meta("transunet").encoder.state_dict())
    positions = own.pop("pos_embed")
    assert theirs["pos_embed"] == (1, positions[1] + 1, positions[2])  # theirs has a class token
    assert {theirs_name(name): shape for name, shape in own.items()}.items() <= theirs.items()


def test_timms_swin_fits_the_encoder_of_swin_unet() -> None:
    import timm

    from napari_drososeg.models.swin_unet import PRETRAINED

    with torch.device("meta"):
        theirs = shapes(timm.create_model(PRETRAINED, img_size=256, window_size=8, num_classes=0).state_dict())
    own = shapes(on_meta("swin-unet").state_dict())
    encoder = {name: shape for name, shape in own.items() if name.startswith(("patch_embed.", "layers."))}
    assert len(encoder) > 100
    assert encoder.items() <= theirs.items()


def test_folded_upsampling_is_the_same_function_with_fewer_multiplications() -> None:
    torch.manual_seed(0)
    block = UpBlock(6, 5).eval()
    block[1].running_mean.uniform_(-1, 1)
    small = torch.randn(2, 6, 9, 7)
    folded = fold_upsampling(nn.ModuleList([block]))[0]
    assert isinstance(folded[0], nn.ConvTranspose2d)
    with torch.inference_mode():
        torch.testing.assert_close(folded(small), block(small), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["unet", "attention-unet", "r2unet"])
def test_networks_with_folded_upsampling_give_the_same(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, 3, width=0.0625).eval()
    image = torch.randn(1, 1, 48, 32)
    with torch.inference_mode():
        expected = model(image)
        folded = fold_upsampling(model)
        torch.testing.assert_close(folded(image), expected, atol=1e-4, rtol=1e-4)
    assert sum(isinstance(m, nn.ConvTranspose2d) for m in folded.modules()) == 4
