"""Between napari and our words: its layers, their undo history, and the layers that we make."""
