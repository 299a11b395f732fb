"""Images and annotations on their way into a network."""

from napari_drososeg.data.normalisation import Normalisation, Statistics, measure, normalise

__all__ = ["Normalisation", "Statistics", "measure", "normalise"]
