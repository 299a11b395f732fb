"""The engine that runs wherever torch does: CUDA, MPS and processors without OpenVINO."""

from __future__ import annotations

import threading
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_drososeg.inference.engine import Output

WORKSPACE_FACTOR = 5.0
"""Memory at the fullest moment over the size of the largest activation: its input, its output, what skip
connections keep, and the buffers of convolutions. An estimate on the safe side; what it misses, the retreat from
memory that ran out catches."""

_AUTOCAST = {"bf16": torch.bfloat16, "f16": torch.float16}


class TorchEngine:
    """A torch network, channels last, in half precision where asked.

    Parameters
    ----------
    model : torch.nn.Module
        (N, 1, H, W) -> logits (N, C, H, W), in evaluation mode. Moved to `device`.
    device : str
        ``"cpu"``, ``"cuda:0"``, ``"mps"``.
    precision : str
        ``"f32"``, ``"bf16"`` or ``"f16"``.
    stride : int
        The network's stride, for measuring its memory.
    threads : int, optional
        Threads on the processor, for all of torch in this program.
    """

    def __init__(
        self, model: nn.Module, device: str, precision: str, *, stride: int, threads: int | None = None
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._device = torch.device(device)
        self._autocast = _AUTOCAST.get(precision)
        self._model = model.to(self._device, memory_format=torch.channels_last)
        self._lock = threading.Lock()  # a predictor may be shared by threads; one network runs at a time
        self.on_cpu = self._device.type == "cpu"
        self.bytes_per_pixel = self._measure_memory(max(64, 4 * stride))

    @torch.inference_mode()
    def _measure_memory(self, edge: int) -> float:
        """Find the largest activation of a small image by hooks."""
        largest = 0

        def look(_module: nn.Module, _inputs: Any, output: Any) -> None:
            nonlocal largest
            if isinstance(output, Tensor):
                largest = max(largest, output.numel() * output.element_size())

        hooks = [m.register_forward_hook(look) for m in self._model.modules() if not list(m.children())]
        try:
            self._logits(np.zeros((1, 1, edge, edge), np.float32))
        finally:
            for hook in hooks:
                hook.remove()
        return WORKSPACE_FACTOR * largest / edge**2

    def _logits(self, images: NDArray[np.float32]) -> Tensor:
        x = torch.from_numpy(images)
        if self._device.type == "cuda":
            x = x.pin_memory()
        x = x.to(self._device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        if self._autocast is None:
            # cuDNN would multiply float32 with 10 bits of mantissa (TF32): not what was asked for.
            cudnn = torch.backends.cudnn
            with cudnn.flags(enabled=True, benchmark=cudnn.benchmark, allow_tf32=False):
                return cast("Tensor", self._model(x))
        with torch.autocast(self._device.type, self._autocast):
            return cast("Tensor", self._model(x))

    @torch.inference_mode()
    def infer(self, images: NDArray[np.float32], output: Output) -> NDArray[Any]:
        """Run the network; see `napari_drososeg.inference.engine.Engine`."""
        with self._lock:
            logits = self._logits(images)
            result = logits.float().softmax(1) if output == "probabilities" else self._decide(logits)
            if self._device.type == "cuda":  # into pinned memory, so that the copy is a direct transfer
                pinned = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
                pinned.copy_(result, non_blocking=True)
                torch.cuda.synchronize(self._device)
                return cast("NDArray[Any]", pinned.numpy())
            return cast("NDArray[Any]", result.cpu().contiguous().numpy())

    def _decide(self, logits: Tensor) -> Tensor:
        """Class decision on the device: one byte a pixel comes back instead of C floats."""
        if not self.on_cpu:
            return (logits.argmax(1) + 1).to(torch.uint8)
        best, labels = logits[:, 0], torch.ones(logits[:, 0].shape, dtype=torch.uint8)
        for k in range(1, logits.shape[1]):  # torch's own argmax over channels is four times slower on processors
            labels.masked_fill_(logits[:, k] > best, k + 1)
            best = torch.maximum(best, logits[:, k])
        return labels
