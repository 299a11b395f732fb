"""Swin-Unet: a U-Net made of Swin transformer blocks only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from timm.layers import PatchEmbed, trunc_normal_
from timm.models.swin_transformer import SwinTransformerBlock, SwinTransformerStage, window_partition
from torch import Tensor, nn
from torch.nn import functional

from napari_drososeg.errors import DrososegError

PATCH = 4
PRETRAINED = "swin_tiny_patch4_window7_224.ms_in1k"


class WindowBlock(SwinTransformerBlock):
    """timm's Swin block with an attention mask made for each input, by operations that OpenVINO can convert."""

    def get_attn_mask(
        self,
        x: Tensor | None = None,
        device: torch.device | None = None,  # noqa: ARG002 - timm's signature
        dtype: torch.dtype | None = None,  # noqa: ARG002
    ) -> Tensor | None:
        """Return the mask (windows, tokens, tokens) for tokens x (N, h, w, C): no attention across the wrapped edge."""
        if x is None or not any(self.shift_size):
            return None
        # Along each axis, the shifted image has three regions: up to the last window, up to the seam, and behind it.
        rows, columns = (
            (torch.arange(n, device=x.device) >= n - window).to(x.dtype)
            + (torch.arange(n, device=x.device) >= n - shift).to(x.dtype)
            for n, window, shift in zip(x.shape[1:3], self.window_size, self.shift_size, strict=True)
        )
        regions = (3 * rows[:, None] + columns[None, :])[None, :, :, None]  # (1, h, w, 1)
        windows = window_partition(regions, self.window_size).flatten(1)
        return -100.0 * (windows[:, None, :] != windows[:, :, None]).to(x.dtype)


class Stage(SwinTransformerStage):
    """Patch merging where asked for, then window attention without and with shift, alternating, at one resolution."""

    def __init__(
        self,
        dim: int,
        out_dim: int,
        side: int,
        *,
        downsample: bool,
        heads: int,
        window: int,
        drop_path: Sequence[float],
    ) -> None:
        super().__init__(dim, out_dim, (side, side), 0, downsample=downsample)
        resolution = self.output_resolution
        self.blocks = nn.Sequential(
            *(
                WindowBlock(
                    out_dim,
                    resolution,
                    num_heads=heads,
                    window_size=window,
                    shift_size=window // 2 if k % 2 else 0,
                    dynamic_mask=True,
                    drop_path=rate,
                )
                for k, rate in enumerate(drop_path)
            )
        )
        self.window = min(window, *resolution)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (N, h, w, dim) to (N, h, w, out_dim), or half of both sides where merged."""
        x = self.downsample(x)
        # Padded to whole windows here: timm's block would pad after the shift, between the image and what it wraps.
        height, width = x.shape[1:3]
        x = functional.pad(x, (0, 0, 0, -width % self.window, 0, -height % self.window))
        return self.blocks(x)[:, :height, :width]


class PatchExpand(nn.Module):
    """Linear layer to factor^2 times the channels, laid out as factor x factor tokens, and layer norm.

    Parameters
    ----------
    dim_in, dim_out : int
        Channels.
    factor : int
        By which both sides grow.
    """

    def __init__(self, dim_in: int, dim_out: int, factor: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim_in, factor * factor * dim_out, bias=False)
        self.norm = nn.LayerNorm(dim_out)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (N, h, w, C) to (N, factor h, factor w, dim_out)."""
        n, height, width, _ = x.shape
        x = self.expand(x).unflatten(3, (self.factor, self.factor, -1)).permute(0, 1, 3, 2, 4, 5)
        x = x.reshape(n, height * self.factor, width * self.factor, -1)
        normed: Tensor = self.norm(x)
        return normed


class SwinUNet(nn.Module):
    """Patches of 4 px; three patch mergings and, mirrored, three patch expandings with skips; x 4; 1 x 1.

    As published it has 27,175,716 parameters for three classes, images of 256 px and windows of 8 tokens. The image is
    repeated to three channels, as published. Other sizes are padded to whole windows at each resolution.

    Parameters
    ----------
    n_classes : int
        Output channels.
    image_size : int
        Side of the training images in px, a multiple of 32. Where it leaves one window at a resolution, the windows are
        not shifted there, and made smaller if need be.
    dim : int
        Channels of the finest tokens.
    depths, heads : sequence of int
        Blocks and attention heads at the four resolutions, finest first; the decoder mirrors them.
    window : int
        Side of the windows in tokens.
    drop_path : float
        Probability of leaving out the last block in training; falls to 0 at the first.
    encoder_weights : str, optional
        ``"imagenet"`` to start from the public weights of Swin-T (MIT), downloaded through timm; with the published
        widths only.

    Raises
    ------
    DrososegError
        If `image_size` does not fit, or pretrained weights do not or cannot be had.
    """

    def __init__(
        self,
        n_classes: int,
        image_size: int = 256,
        dim: int = 96,
        depths: Sequence[int] = (2, 2, 2, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
        window: int = 8,
        drop_path: float = 0.2,
        encoder_weights: str | None = None,
    ) -> None:
        super().__init__()
        if image_size < 32 or image_size % 32 or len(depths) != 4 or len(heads) != 4:
            raise DrososegError("Swin-Unet takes image sizes that are multiples of 32, and four depths and heads.")
        dims, sides = [dim << k for k in range(4)], [image_size // PATCH >> k for k in range(4)]
        rates = [drop_path * k / max(1, sum(depths) - 1) for k in range(sum(depths))]
        split = [rates[sum(depths[:k]) : sum(depths[: k + 1])] for k in range(4)]
        self.patch_embed = PatchEmbed(
            None, PATCH, in_chans=3, embed_dim=dim, norm_layer=nn.LayerNorm, output_fmt="NHWC", strict_img_size=False
        )
        self.layers = nn.ModuleList(
            Stage(
                dims[max(0, k - 1)],
                dims[k],
                sides[max(0, k - 1)],
                downsample=k > 0,
                heads=heads[k],
                window=window,
                drop_path=split[k],
            )
            for k in range(4)
        )
        self.norm = nn.LayerNorm(dims[3])
        self.expand = nn.ModuleList(PatchExpand(dims[k + 1], dims[k], 2) for k in (2, 1, 0))
        self.reduce = nn.ModuleList(nn.Linear(2 * dims[k], dims[k]) for k in (2, 1, 0))
        self.decoder = nn.ModuleList(
            Stage(dims[k], dims[k], sides[k], downsample=False, heads=heads[k], window=window, drop_path=split[k])
            for k in (2, 1, 0)
        )
        self.decoder_norm = nn.LayerNorm(dim)
        self.last_expand = PatchExpand(dim, dim, PATCH)
        self.head = nn.Conv2d(dim, n_classes, 1, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                # Published as 0.02, which is this at 768 channels: narrow layers start too weak with it and learn late.
                trunc_normal_(module.weight, std=0.55 / math.sqrt(module.in_features))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if encoder_weights is not None:
            if (encoder_weights, dim, tuple(heads)) != ("imagenet", 96, (3, 6, 12, 24)):
                raise DrososegError("There are only imagenet weights for Swin-Unet, for the published widths.")
            self._load_pretrained(image_size, window)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 1, H, W), H and W multiples of 32, to logits (N, n_classes, H, W)."""
        x = self.patch_embed(images.expand(-1, 3, -1, -1))  # (N, H/4, W/4, 96)
        features: list[Tensor] = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        x = self.norm(features.pop())  # (N, H/32, W/32, 768)
        for expand, reduce, stage in zip(self.expand, self.reduce, self.decoder, strict=True):
            x = stage(reduce(torch.cat([expand(x), features.pop()], dim=3)))
        x = self.last_expand(self.decoder_norm(x))  # (N, H, W, 96)
        logits: Tensor = self.head(x.permute(0, 3, 1, 2))
        return logits

    def _load_pretrained(self, image_size: int, window: int) -> None:
        """Load what Swin-T shares with the encoder; its windows are interpolated to ours."""
        from napari_drososeg.models.pretrained import timm_model

        theirs = timm_model(PRETRAINED, img_size=image_size, window_size=window, num_classes=0).state_dict()
        own = self.state_dict()
        self.load_state_dict(own | {k: v for k, v in theirs.items() if k in own})
