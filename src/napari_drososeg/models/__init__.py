"""Architectures: what networks are made of. `ARCHITECTURES` lists them, `create_model` builds one."""

from napari_drososeg.models.registry import ARCHITECTURES, Architecture, create_model, find_architecture

__all__ = ["ARCHITECTURES", "Architecture", "create_model", "find_architecture"]
