"""With ``--json`` stdout holds the JSON and nothing else, whatever the user's problem prints."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO


@contextlib.contextmanager
def stdout_kept_clean(wanted: bool) -> Iterator[tuple[TextIO, TextIO]]:
    """Where the answer goes, and where progress goes.

    If `wanted`, all that is printed inside the block, by this process or by its workers, goes to
    stderr; only what is written to the first stream reaches stdout.
    """
    if not wanted:
        yield sys.stdout, sys.stdout
        return
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(_duplicate(sys.stdout))
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield out, sys.stderr


@contextlib.contextmanager
def _duplicate(stream: TextIO) -> Iterator[TextIO]:
    """The stream under a new descriptor, the old one leading to stderr: workers inherit that."""
    try:
        descriptor = stream.fileno()
    except (OSError, AttributeError, ValueError):  # not a file, as under a test runner
        yield stream
        return
    stream.flush()
    kept = os.dup(descriptor)
    os.dup2(2, descriptor)
    try:
        with os.fdopen(os.dup(kept), "w", encoding="utf-8") as out:
            yield out
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)


def as_strict_json(summary: Mapping[str, Any]) -> str:
    """JSON without the NaN and Infinity that other languages refuse."""
    return json.dumps(summary, indent=2, allow_nan=False)
