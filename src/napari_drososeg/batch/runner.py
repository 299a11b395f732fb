"""A run: many inputs, or one volume, from what was planned to what is recorded as done."""

from __future__ import annotations

from collections.abc import Callable, Generator

from napari_drososeg.batch.areas import write_areas
from napari_drososeg.batch.outcomes import Event
from napari_drososeg.batch.plan import Item
from napari_drososeg.batch.state import BatchState
from napari_drososeg.batch.tasks import forget
from napari_drososeg.batch.work import Work


class Batch(BatchState):
    """One run: `prepare`, perhaps `preflight`, then `run`. Its parameters and attributes are those of `BatchState`."""

    def run(self, stop: Callable[[], bool] = lambda: False) -> Generator[Event, None, None]:
        """Do what is to be done.

        Closing the generator, or an exception such as KeyboardInterrupt, stops at once and leaves nothing
        half-written. Finished blocks of a volume are kept, for ``resume``.

        Parameters
        ----------
        stop : callable
            Asked between two steps; once it says True, blocks that are being made are finished and nothing else is
            begun.

        Yields
        ------
        Event
            What happens. One "finished" for each item.

        Raises
        ------
        DrososegError
            If another run writes to the same output, the scheduler does not answer, or int8 cannot be calibrated.
            What fails in one item is in its outcome, and recorded.
        """
        for outcome in self.outcomes.values():
            yield Event("finished", Item(outcome.source, outcome.target), outcome=outcome)
        if self._predictor is not None:
            with self.manifest.locked(), self.config.executor() as executor:
                try:
                    yield from Work(self, self._predictor, executor, stop).all()
                finally:
                    forget()
        if self.config.areas is not None and self.card.spec is not None:
            ordered = [self.outcomes[i.target] for i in self.job.items if i.target in self.outcomes]
            write_areas(self.config.areas, ordered, self.card.spec.classes)
