"""Pages that open from a file with no network request: their style, their charts, their writing.

What a page says is its owner's: templates that extend ``page.html.j2``, scripts that use
``drawing.js``. Every string is escaped, and a content security policy lets nothing else load or
run.
"""

from __future__ import annotations

from thalweg.page.writing import Page, embedded_json

__all__ = ["Page", "embedded_json"]
