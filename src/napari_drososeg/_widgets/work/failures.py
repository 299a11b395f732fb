"""How a failure is said."""

from napari.utils.notifications import notification_manager, show_error

from napari_drososeg.errors import DrososegError


def say_failure(error: Exception) -> None:
    """One notification: our own errors and the system's as a sentence, others with napari's traceback button."""
    if isinstance(error, DrososegError | OSError):
        show_error(str(error))
    else:
        notification_manager.receive_error(type(error), error, error.__traceback__)
