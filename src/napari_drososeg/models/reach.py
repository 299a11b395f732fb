"""How far a pixel's result looks, derived layer by layer: interval arithmetic from one output pixel to the image.

Along one axis a layer's output pixels [low, high] depend on an interval of its input. Followed back through all paths
to the image, from every position within one stride, the farthest end gives the one-sided receptive field in px.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Interval = tuple[int, int]

VGG16_CONVOLUTIONS = (2, 2, 3, 3, 3)
"""3 x 3 convolutions of each stage; `napari_drososeg.models.vgg` imports torch, this module must not."""


def widen(interval: Interval, pixels: int) -> Interval:
    """Undo convolutions that reach `pixels` to either side."""
    return interval[0] - pixels, interval[1] + pixels


def pooled(interval: Interval) -> Interval:
    """Undo a pooling by two."""
    return 2 * interval[0], 2 * interval[1] + 1


def repeated(interval: Interval) -> Interval:
    """Undo nearest-neighbour upsampling, or unpooling, by two."""
    return interval[0] // 2, interval[1] // 2


def transposed(interval: Interval, factor: int) -> Interval:
    """Undo a transposed convolution of stride `factor`, kernel twice that and padding half of it."""
    low, high = interval[0] + factor // 2, interval[1] + factor // 2
    return -((2 * factor - 1 - low) // factor), high // factor


def encoded(interval: Interval, level: int, convolutions: tuple[int, ...] = VGG16_CONVOLUTIONS) -> Interval:
    """Undo the encoder, from its feature at stride 2**`level` to the image."""
    for k in range(level, -1, -1):
        interval = widen(interval, convolutions[k])
        if k:
            interval = pooled(interval)
    return interval


def four_up(at: Interval, merge: int = 2, convolutions: tuple[int, ...] = VGG16_CONVOLUTIONS) -> list[Interval]:
    """Follow U-Net's paths; `merge` convolutions after each concatenation, one after each upsampling."""
    paths = []
    for level in range(4):
        at = widen(at, merge)
        paths.append(encoded(at, level, convolutions))
        at = repeated(widen(at, 1))
    return [*paths, encoded(at, 4, convolutions)]


def recurrent(at: Interval, steps: int = 2, recurrent_encoder: bool = False, **_: Any) -> list[Interval]:
    """Follow R2U-Net's paths: a recurrent convolution reaches `steps` + 1 px."""
    times = steps + 1 if recurrent_encoder else 1
    return four_up(at, 2 * (steps + 1), tuple(times * n for n in VGG16_CONVOLUTIONS))


def segnet(at: Interval, **_: Any) -> list[Interval]:
    """Follow SegNet's paths: through the values, and through the indices, which compare pixels of the encoder."""
    paths = []
    for level in range(5):
        at = repeated(widen(at, VGG16_CONVOLUTIONS[level]))
        paths.append(encoded(pooled(at), level))
    return paths


def fcn(at: Interval, finest: int = 8, fc_kernel: int = 7, **_: Any) -> list[Interval]:
    """Follow FCN's paths through the pooled features."""
    at = transposed(at, finest)
    paths = []
    for pool in {8: (3, 4), 16: (4,), 32: ()}[finest]:
        paths.append(encoded(pooled(at), pool - 1))
        at = transposed(at, 2)
    return [*paths, encoded(pooled(widen(at, fc_kernel // 2)), 4)]


def linknet(at: Interval, **_: Any) -> list[Interval]:
    """Follow LinkNet's paths."""
    paths = []
    for level in range(1, 5):
        at = transposed(at, 2)
        paths.append(encoded(at, level))
    return [*paths, encoded(pooled(transposed(at, 2)), 4)]


PATHS: dict[str, Callable[..., list[Interval]]] = {
    "fcn8": fcn,
    "fcn16": lambda at, **arguments: fcn(at, finest=16, **arguments),
    "fcn32": lambda at, **arguments: fcn(at, finest=32, **arguments),
    "segnet": segnet,
    "unet": lambda at, **_: four_up(at),
    "r2unet": recurrent,
    "attention-unet": lambda at, **_: four_up(at),  # gates are 1 x 1
    "linknet": linknet,
}
"""Architectures without global context; every value takes an output interval and the network's arguments."""


def reach_at(architecture: str, pixel: int, **arguments: Any) -> int:
    """Return how far the result at one pixel looks, in px."""
    ends = PATHS[architecture]((pixel, pixel), **arguments)
    return max(max(pixel - low, high - pixel) for low, high in ends)


def receptive_field(architecture: str, **arguments: Any) -> int:
    """Return the one-sided receptive field in px of an architecture without global context on VGG16."""
    return max(reach_at(architecture, pixel, **arguments) for pixel in range(32))  # no stride is larger
