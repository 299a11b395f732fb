"""Files in the viewer: the reader, the writer, samples and the dialogs that the widgets share."""
