"""Checkpoints: one safetensors file that holds the weights and everything needed to use them.

The header of the file carries a JSON text under the key ``drososeg``: the `NetworkSpec`. No pickle is read or
written, so loading a file runs no code from it. Reading a spec does not import torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_drososeg.classes import ClassTable
from napari_drososeg.data.normalisation import Normalisation
from napari_drososeg.errors import DrososegError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FORMAT_VERSION = 1
HEADER_KEY = "drososeg"
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format

# What can go wrong in JSON that anybody may have written; DrososegError is a ValueError and is let through first.
_MALFORMED = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError)
_TEXTS = ("name", "title", "architecture", "licence")


@dataclass(frozen=True)
class NetworkSpec:
    """Everything about a trained network but its weights.

    Parameters
    ----------
    name : str
        Short name, such as ``"unet"``; what users type.
    title : str
        What the widgets show.
    architecture : str
        Key of `napari_drososeg.models.ARCHITECTURES`.
    arguments : dict
        Arguments of `napari_drososeg.models.create_model`.
    classes : ClassTable
        What the output channels mean.
    normalisation : Normalisation
        How the grey values are prepared.
    pixel_size : float
        In-plane pixel size of the training data in nm.
    stride, receptive_field : int
        As in `napari_drososeg.models.Architecture`, in px.
    global_context : bool
        Likewise.
    halo : int
        Default halo in px, a multiple of `stride`: the smallest with at least 99.95 % of the labels equal to those of
        the whole section, measured once for these weights, on sections that they were trained on.
    licence : str
        SPDX expression of the weights.
    training : dict
        Data, sections, recipe and cite-as text, for the card.
    metrics : dict
        Scores, for the card.
    parent : str or None
        Name and SHA-256 of the checkpoint it was fine-tuned from.
    version : int
        Version of this format.
    tile : int
        Edge in px of what a network with global context sees at once: that of the patches it was trained on, since its
        context is then as large as it was in training, or two strides. 0 where any size will do.
    """

    name: str
    title: str
    architecture: str
    arguments: dict[str, Any]
    classes: ClassTable
    normalisation: Normalisation
    pixel_size: float
    stride: int
    receptive_field: int
    global_context: bool
    halo: int
    licence: str
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    parent: str | None = None
    version: int = FORMAT_VERSION
    tile: int = 0

    def to_json(self) -> str:
        """Return the spec as a JSON text."""
        plain = dataclasses.asdict(self) | {"classes": self.classes.to_list()}
        return json.dumps(plain, ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> NetworkSpec:
        """Build a spec from what `to_json` returns; keys that are not known are left out.

        Raises
        ------
        DrososegError
            If the text is not a spec or was written by a newer version.
        """
        try:
            plain = json.loads(text)
            if plain["version"] > FORMAT_VERSION:
                raise DrososegError(
                    f"This network was saved in format {plain['version']}, but this version reads up to "
                    f"{FORMAT_VERSION}: update napari-drososeg."
                )
            known = {f.name for f in dataclasses.fields(cls)}
            values = {k: v for k, v in plain.items() if k in known}
            values["classes"] = ClassTable.from_list(plain["classes"])
            values["normalisation"] = Normalisation(**plain["normalisation"])
            if wrong := [k for k in _TEXTS if not isinstance(values[k], str)]:
                raise TypeError(f"its {wrong[0]} is not text")
            return cls(**values)
        except DrososegError:
            raise
        except _MALFORMED as error:
            raise DrososegError(f"The description inside this network is not valid ({error}).") from error


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits, read once for each state of the file."""
    stat = Path(path).stat()
    return _sha256(Path(path), stat.st_ino, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=256)
def _sha256(path: Path, _inode: int, _mtime_ns: int, _n_bytes: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_checkpoint(path: str | Path, state: dict[str, Tensor], spec: NetworkSpec, *, half: bool = True) -> Path:
    """Write a checkpoint: to a temporary name, synced, renamed.

    Parameters
    ----------
    path : str or Path
        Ends in ``.safetensors``. An existing file is replaced only once the new one is safely on disk.
    state : dict of str to Tensor
        ``model.state_dict()``.
    spec : NetworkSpec
        Its description.
    half : bool
        Whether floating point tensors are stored in half precision (float16), which halves the file and changes
        fewer labels than bf16 inference does.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    DrososegError
        If a tensor is not finite or does not fit into half precision, or the file cannot be written.
    """
    import torch
    from safetensors.torch import save

    from napari_drososeg.io import atomic

    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        tensor = value.detach().cpu().contiguous()
        if half and tensor.is_floating_point():
            tensor = tensor.to(torch.float16)
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            what = "too large for half precision" if bool(torch.isfinite(value).all()) else "not finite"
            raise DrososegError(f"The weights '{name}' are {what}; '{path}' was not written.")
        tensors[name] = tensor
    return atomic.write_bytes(Path(path), save(tensors, metadata={HEADER_KEY: spec.to_json()}))


def copy_checkpoint(source: str | Path, target: str | Path, spec: NetworkSpec) -> Path:
    """Write a checkpoint with the same weights and another description, as `save_checkpoint` does; needs no torch.

    Parameters
    ----------
    source : str or Path
        A valid checkpoint.
    target : str or Path
        Ends in ``.safetensors``. An existing file is replaced only once the new one is safely on disk.
    spec : NetworkSpec
        Its description.

    Returns
    -------
    Path
        `target`.
    """
    from napari_drososeg.io import atomic

    content = Path(source).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = {**header["__metadata__"], HEADER_KEY: spec.to_json()}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format wants its tensors aligned
    return atomic.write_bytes(Path(target), struct.pack("<Q", len(text)) + text + content[8 + length :])


def load_spec(path: str | Path) -> NetworkSpec:
    """Read the description of a network from its checkpoint, without its weights and without torch.

    Raises
    ------
    DrososegError
        If the file is missing, truncated, no safetensors file, or none of ours.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                raise DrososegError(f"'{path}' is not a network: it is not a safetensors file, or is truncated.")
            header = json.loads(file.read(length))
        expected = (
            8 + length + max((int(v["data_offsets"][1]) for k, v in header.items() if k != "__metadata__"), default=0)
        )
        text = (header.get("__metadata__") or {}).get(HEADER_KEY)
    except DrososegError:
        raise
    except OSError as error:
        raise DrososegError(f"Cannot read the network '{path}': {error.strerror or error}.") from error
    except _MALFORMED as error:
        raise DrososegError(f"'{path}' is not a network: its safetensors header is damaged.") from error
    if size != expected:
        raise DrososegError(
            f"The network '{path}' is damaged: {size} bytes where {expected} were written. Copy it again."
        )
    if text is None:
        raise DrososegError(f"'{path}' is a safetensors file, but was not written by napari-drososeg.")
    return NetworkSpec.from_json(text)


def load_model(path: str | Path) -> tuple[NetworkSpec, torch.nn.Module]:
    """Read a checkpoint.

    Returns
    -------
    spec : NetworkSpec
        Its description.
    model : torch.nn.Module
        In evaluation mode, float32, on the CPU; see `napari_drososeg.models.create_model`.

    Raises
    ------
    DrososegError
        As `load_spec`; also if weights and description do not belong together.
    """
    from safetensors.torch import load_file

    from napari_drososeg.models import create_model

    spec = load_spec(path)
    try:
        # Where training started from public weights, these are not needed again: all weights are in this file.
        arguments = {k: v for k, v in spec.arguments.items() if k != "encoder_weights"}
        model = create_model(spec.architecture, len(spec.classes), **arguments)
        model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()})
    except DrososegError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise DrososegError(f"The weights in '{path}' do not fit its description ({reason}).") from error
    return spec, model.float().eval()
