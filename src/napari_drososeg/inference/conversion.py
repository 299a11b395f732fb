"""Checkpoints in OpenVINO's form: made once, in a process of their own, and kept in the cache folder.

They lie there under the hash of the checkpoint and the version of OpenVINO, so that predictions need no torch at all.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import openvino as ov

from napari_drososeg.checkpoint import load_model, sha256
from napari_drososeg.errors import DrososegError
from napari_drososeg.inference.cache import cache_folder
from napari_drososeg.inference.child import run_child

CONVERSION = 2
"""Part of the cache's key: raise it when the conversion below changes."""

MAX_DIFFERENCE = 2e-3
"""Largest difference of logits that a conversion may show, relative to their largest value."""

MODEL = "model.xml"


class ConversionError(DrososegError):
    """A network that OpenVINO cannot represent for images of any size."""


def version() -> str:
    """Return OpenVINO's version number, fit for a file name."""
    return str(ov.__version__).split("-")[0]


def cache_name(checkpoint: Path) -> str:
    """Return what a converted checkpoint is kept under: it changes with the weights, OpenVINO and our conversion."""
    return f"{sha256(checkpoint)[:24]}-{version()}-{CONVERSION}"


def converted(checkpoint: Path, cancelled: Callable[[], bool] | None = None) -> ov.Model:
    """Return a checkpoint as an OpenVINO model with free batch and size, from the cache or converted now.

    Parameters
    ----------
    checkpoint : Path
        The network.
    cancelled : callable, optional
        Asked while it is converted, see `run_child`.

    Raises
    ------
    ConversionError
        If OpenVINO cannot represent the network, or gives other results than torch.
    Interrupted
        If it was cancelled.
    """

    def make(folder: Path) -> None:
        try:
            run_child("convert", checkpoint, folder, cancelled)
        except DrososegError as error:
            raise ConversionError(str(error)) from error

    return cached(cache_name(checkpoint), make)


def cached(name: str, make: Callable[[Path], None]) -> ov.Model:
    """Return the model kept under `name`, or let `make` put it into a folder and keep that.

    The folder is renamed when it is complete, so that two programs starting at once, or one that is killed, leave a
    whole model or none. Where the cache cannot be written the model is used anyway.
    """
    kept = cache_folder() / "openvino" / name
    if (kept / MODEL).exists():
        try:
            return load(kept / MODEL)
        except RuntimeError:  # damaged by something else than us: make it again
            shutil.rmtree(kept, ignore_errors=True)
    with _temporary_folder(kept.parent) as folder:
        make(folder)
        try:
            folder.rename(kept)
        except OSError:  # another program was first, or the cache cannot be written
            return load(folder / MODEL, mapped=False)
    return load(kept / MODEL)


@contextmanager
def _temporary_folder(place: Path) -> Iterator[Path]:
    """Give a folder in `place`, or elsewhere if that cannot be written; removed at the end if it is still there."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".partial-", dir=place))
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="drososeg-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def load(path: Path, *, mapped: bool = True) -> ov.Model:
    """Read a model; `mapped` leaves its weights in the file, which must then stay."""
    core = ov.Core()
    if not mapped:
        core.set_property({"ENABLE_MMAP": False})
    return core.read_model(path)


def save(model: ov.Model, folder: Path) -> None:
    """Write a model into a folder."""
    ov.save_model(model, folder / MODEL, compress_to_fp16=False)


def convert(checkpoint: Path) -> ov.Model:
    """Convert a checkpoint and check the result against torch at two sizes; needs torch. See `converted`."""
    import torch

    from napari_drososeg.models.blocks import fold_upsampling

    spec, model = load_model(checkpoint)
    network = getattr(model, "network", model)  # without the padding to the stride, which tiles do not need
    stride = spec.stride
    example = torch.randn(1, 1, 8 * stride, 8 * stride, generator=torch.Generator().manual_seed(0))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing is deprecated in torch, but is what OpenVINO knows best
            folded = fold_upsampling(copy.deepcopy(network))
            result = ov.convert_model(folded, example_input=example, input=[-1, 1, -1, -1])
        compiled = ov.Core().compile_model(result, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        for height, width in ((8, 8), (6, 10)):
            images = torch.randn(2, 1, height * stride, width * stride)
            with torch.inference_mode():
                expected = network(images).numpy()
            found = compiled(images.numpy())[0]
            if not np.allclose(found, expected, rtol=0, atol=MAX_DIFFERENCE * np.abs(expected).max()):
                raise ConversionError(f"OpenVINO and torch give different results for '{spec.name}'.")
    except ConversionError:
        raise
    except Exception as error:  # OpenVINO raises its own exceptions, without a common base
        raise ConversionError(f"OpenVINO cannot convert '{spec.name}' ({str(error).splitlines()[0]}).") from error
    return result
