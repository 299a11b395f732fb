"""The napari side: the only room that knows napari, Qt or magicgui."""
