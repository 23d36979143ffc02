"""What a user did that `compare` cannot work with, in one sentence."""

from __future__ import annotations

import os
import traceback as _traceback

_HOUSE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class BadInput(ValueError):
    """The input of a race is wrong; the text is one sentence that says what and what to do.

    Attributes
    ----------
    traceback
        The frames of the user's own code, if it is that code that raised, else None.
    """

    def __init__(self, message: str, traceback: str | None = None) -> None:
        super().__init__(message)
        self.traceback = traceback

    def __reduce__(self) -> tuple[type[BadInput], tuple[str, str | None]]:
        return type(self), (str(self), self.traceback)


def own_traceback(error: BaseException) -> str:
    """The traceback of `error` without the frames of thalweg, so that the user's own come first."""
    shown = _traceback.TracebackException.from_exception(error)
    link: _traceback.TracebackException | None = shown
    while link is not None:
        link.stack = _traceback.StackSummary.from_list(
            [frame for frame in link.stack if not _ours(frame.filename)]
        )
        link = link.__cause__ or link.__context__
    return "".join(shown.format())


def one_line(error: BaseException) -> str:
    """``RuntimeError: the first line of the message``."""
    text = str(error).strip().split("\n", 1)[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _ours(filename: str) -> bool:
    return filename.startswith((_HOUSE, "<frozen importlib"))
