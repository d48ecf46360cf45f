"""What can go wrong while data is loaded, by name, and warnings that point at the reader's line."""

import sys
import warnings
from pathlib import Path

_PACKAGE = str(Path(__file__).parent)


class DataNotFoundError(FileNotFoundError):
    """The data is in none of the places that were looked at."""


class BadDataError(ValueError):
    """The data is there and is not what it should be."""


class BadImageError(BadDataError):
    """One image cannot be read. ``where`` is its path or, where it has none, its row."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        # the default would call __init__ with the joined message, in another process
        return type(self), (self.where, self.reason)


class StandInWarning(UserWarning):
    """A bundled substitute was loaded in place of the data that was asked for."""


class SkippedWarning(UserWarning):
    """Some of the data was left out, or came back blank."""


def warn(message: str, category: type[Warning] = SkippedWarning) -> None:
    """Warn of the line outside of this package that called it."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
