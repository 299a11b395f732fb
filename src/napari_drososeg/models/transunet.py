"""TransUNet: a hybrid of ResNet-50 and a vision transformer as encoder, a convolutional decoder with skips."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from timm.layers import GroupNormAct, StdConv2dSame, trunc_normal_
from timm.models.resnetv2 import ResNetV2
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

from napari_drososeg.errors import DrososegError
from napari_drososeg.models.blocks import conv_block, scaled

PATCH = 16
DECODER_CHANNELS = (256, 128, 64, 16)
PRETRAINED = "vit_base_r50_s16_224.orig_in21k"


class HybridEncoder(nn.Module):
    """ResNet to stride 16, each pixel of which is a token of a transformer with learnt positions.

    Modules are called as in timm's hybrid transformers, whose weights fit. The image is repeated to three channels,
    as published.

    Parameters
    ----------
    image_size : int
        Side of the images in px that the positions are learnt for.
    width : float
        Fraction of ResNet-50's channels, in steps of 1/8.
    layers : sequence of int
        Blocks of the ResNet's three stages.
    dim, depth, heads : int
        Of the transformer.
    dropout : float
        Probability in the transformer.
    """

    def __init__(
        self, image_size: int, width: float, layers: Sequence[int], dim: int, depth: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        base = 8 * max(1, round(8 * width))  # 64 at full width; timm rounds channels to multiples of 8
        self.skip_channels = (8 * base, 4 * base, base)
        self.backbone = ResNetV2(
            layers=list(layers),
            channels=(4 * base, 8 * base, 16 * base),
            num_classes=0,
            global_pool="",
            in_chans=3,
            stem_chs=base,
            stem_type="same",
            preact=False,
            conv_layer=partial(StdConv2dSame, eps=1e-8),
            norm_layer=partial(GroupNormAct, num_groups=base // 2),
        )
        self.proj = nn.Conv2d(16 * base, dim, 1)
        side = image_size // PATCH
        self.pos_embed = nn.Parameter(torch.zeros(1, side * side, dim))
        self.pos_drop = nn.Dropout(dropout)
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.blocks = nn.Sequential(
            *(Block(dim, heads, qkv_bias=True, proj_drop=dropout, norm_layer=norm) for _ in range(depth))
        )
        self.norm = norm(dim)
        self.side = side
        trunc_normal_(self.pos_embed, std=0.02)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def positions(self, height: int, width: int) -> Tensor:
        """Return the learnt positions (1, side^2, dim) for a grid of tokens, interpolated: (1, height * width, dim)."""
        grid = self.pos_embed.unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)
        grid = functional.interpolate(grid, size=(height, width), mode="bilinear", align_corners=False)
        return grid.flatten(2).transpose(1, 2)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (N, 1, H, W) to features at strides 2, 4, 8 and, of the transformer, 16."""
        x = self.backbone.stem.norm(self.backbone.stem.conv(images.expand(-1, 3, -1, -1)))
        features = [x]  # (N, 64, H/2, W/2)
        x = self.backbone.stem.pool(x)
        for stage in self.backbone.stages:  # (N, 256, H/4, W/4), (N, 512, H/8, W/8), (N, 1024, H/16, W/16)
            x = stage(x)
            features.append(x)
        x = self.proj(x)
        height, width = x.shape[-2:]
        tokens = self.pos_drop(x.flatten(2).transpose(1, 2) + self.positions(height, width))
        tokens = self.norm(self.blocks(tokens))  # (N, H/16 * W/16, dim)
        return [*features[:3], tokens.transpose(1, 2).unflatten(2, (height, width))]

    def load_pretrained(self, image_size: int) -> None:
        """Load the ResNet-50 and ViT-B/16 trained on ImageNet-21k; positions are interpolated to `image_size`."""
        from napari_drososeg.models.pretrained import timm_model

        theirs = timm_model(PRETRAINED, img_size=image_size, num_classes=0).state_dict()
        theirs["pos_embed"] = theirs["pos_embed"][:, -(self.side**2) :]  # without the class token
        self.load_state_dict({own: theirs[theirs_name(own)] for own in self.state_dict()})


def theirs_name(own: str) -> str:
    """Return timm's name of one of the encoder's tensors."""
    return f"patch_embed.{own}" if own.startswith(("backbone.", "proj.")) else own


class TransUNet(nn.Module):
    """R50 + ViT-B/16 as encoder; decoder of 512, then 256-128-64-16, with skips from strides 8, 4 and 2.

    As published it has 105,322,291 parameters for three classes and images of 256 px. Other sizes interpolate the
    learnt positions. Upsampling does not align corners, unlike the published code, so that it does not depend on
    the size.

    Parameters
    ----------
    n_classes : int
        Output channels.
    image_size : int
        Side of the training images in px, a multiple of 16: the positions are learnt on a grid of this size.
    width : float
        Fraction of the channels of the ResNet, in steps of 1/8.
    decoder_width : float, optional
        Fraction of the decoder's channels; as `width` unless given.
    layers : sequence of int
        Blocks of the ResNet's three stages.
    dim, depth, heads : int
        Channels, layers and attention heads of the transformer.
    dropout : float
        Probability in the transformer.
    encoder_weights : str, optional
        ``"imagenet21k"`` to start from public weights (Apache-2.0), downloaded through timm; for the published encoder
        only.

    Raises
    ------
    DrososegError
        If `image_size` does not fit, or pretrained weights do not or cannot be had.
    """

    def __init__(
        self,
        n_classes: int,
        image_size: int = 256,
        width: float = 1.0,
        decoder_width: float | None = None,
        layers: Sequence[int] = (3, 4, 9),
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        dropout: float = 0.1,
        encoder_weights: str | None = None,
    ) -> None:
        super().__init__()
        if image_size < PATCH or image_size % PATCH or dim % heads:
            raise DrososegError(
                f"TransUNet takes image sizes that are multiples of {PATCH} and a dim that is a multiple of heads, not "
                f"{image_size}, {dim} and {heads}."
            )
        self.encoder = HybridEncoder(image_size, width, layers, dim, depth, heads, dropout)
        if encoder_weights is not None:
            if (encoder_weights, width, tuple(layers), dim, depth, heads) != (
                "imagenet21k",
                1.0,
                (3, 4, 9),
                768,
                12,
                12,
            ):
                raise DrososegError("There are only imagenet21k weights for TransUNet, for the published encoder.")
            self.encoder.load_pretrained(image_size)
        share = width if decoder_width is None else decoder_width
        channels = [scaled(c, share) for c in (512, *DECODER_CHANNELS)]
        skips = (*self.encoder.skip_channels, 0)
        self.bridge = conv_block(dim, channels[0], 1, bias=False)
        self.decoder = nn.ModuleList(
            conv_block(i + s, o, 1, bias=False).extend(conv_block(o, o, 1, bias=False))
            for i, s, o in zip(channels[:-1], skips, channels[1:], strict=True)
        )
        self.head = nn.Conv2d(channels[-1], n_classes, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 1, H, W), H and W multiples of 16, to logits (N, n_classes, H, W)."""
        *skips, x = self.encoder(images)
        x = self.bridge(x)  # (N, 512, H/16, W/16)
        for level, block in enumerate(self.decoder):
            x = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = block(torch.cat([x, skips[-1 - level]], dim=1) if level < len(skips) else x)
        logits: Tensor = self.head(x)
        return logits
