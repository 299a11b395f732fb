"""The exponential moving average of the weights, which is what is validated and kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

if TYPE_CHECKING:
    from torch import Tensor, nn


class MovingAverage:
    """Average of a network's weights over the steps, statistics of its batch norms included.

    A constant decay would remember the random start, so it begins small: ``min(decay, (1 + step) / (10 + step))``.

    Parameters
    ----------
    model : torch.nn.Module
        The network; it is copied.
    decay : float
        Of the average once it is warm.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._model = AveragedModel(model, use_buffers=True, multi_avg_fn=get_ema_multi_avg_fn(0.0))

    @property
    def network(self) -> nn.Module:
        """The network with the averaged weights."""
        module: nn.Module = self._model.module
        return module

    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after update number `step`."""
        self._model.multi_avg_fn = get_ema_multi_avg_fn(min(self._decay, (1 + step) / (10 + step)))
        self._model.update_parameters(model)

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights, on the CPU."""
        tensors = self.network.state_dict().items()
        return {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors}

    def restore(self, weights: dict[str, Tensor], step: int) -> None:
        """Put back what `weights` returned after `step` updates."""
        self.network.load_state_dict(weights)
        self._model.n_averaged.fill_(step)  # the first update copies the weights; a later one must not
