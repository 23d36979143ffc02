"""A page as one HTML file, with plotly's script beside it or inside."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Page:
    """What a kind of page is made of.

    Parameters
    ----------
    home
        The folder with ``templates/`` (``index.html.j2`` extends ``page.html.j2``), the scripts
        and the style sheets.
    scripts, styles
        Names of files there, after those that every page has.
    """

    home: Path
    scripts: Sequence[str] = ()
    styles: Sequence[str] = ()

    def write(
        self,
        folder: str | Path,
        *,
        title: str,
        created: str,
        drawn: Mapping[str, Any],
        version: str | None = None,
        single_file: bool = False,
        **context: Any,
    ) -> Path:
        """Write ``folder/index.html``, and plotly's script beside it.

        Parameters
        ----------
        folder
            Made if it is not there.
        title, created, version
            The page's title; when it was made, as ISO 8601; of thalweg, if known.
        drawn
            What the charts draw, plain JSON without NaN; scripts find it as ``drawn``.
        single_file
            Put plotly into the page (about 5 MB) instead of beside it, so that the page alone can
            be mailed.
        **context
            What the templates use.

        Returns
        -------
        Path
            Of ``index.html``.

        Raises
        ------
        FileNotFoundError
            If plotly is not installed.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        plotly = _plotly()
        if not single_file:
            beside = folder / "plotly.min.js"
            if not beside.exists() or beside.stat().st_size != plotly.stat().st_size:
                shutil.copyfile(plotly, beside)
        page = folder / "index.html"
        # A reader who reloads while the page is made anew never sees half of it.
        unfinished = folder / f".index.{os.getpid()}.html"
        library = plotly.read_text(encoding="utf-8") if single_file else None
        shown = {"title": title, "created": created, "version": version, **context}
        html = self._render(drawn, library, shown)
        unfinished.write_text(html, encoding="utf-8", newline="\n")
        unfinished.replace(page)
        return page

    def _render(
        self, drawn: Mapping[str, Any], plotly: str | None, context: Mapping[str, Any]
    ) -> str:
        import jinja2
        from markupsafe import Markup

        from thalweg.page import style, text

        read = {"encoding": "utf-8"}
        scripts = [_HERE / "drawing.js", *(self.home / name for name in self.scripts)]
        styles = [_HERE / "page.css", *(self.home / name for name in self.styles)]
        own = "\n".join(script.read_text(**read) for script in scripts)
        inline = [_inline(part) for part in ([plotly] if plotly else []) + [own]]
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader([self.home / "templates", _HERE / "templates"]),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.globals.update(text=text, style=style, wbr=Markup("<wbr>"))
        return environment.get_template("index.html.j2").render(
            data_json=Markup(embedded_json({**drawn, "looks": style.looks()})),
            css=Markup("\n".join(sheet.read_text(**read) for sheet in styles)),
            inline=[Markup(script) for script in inline],
            beside=plotly is None,
            policy=_policy(inline),
            **context,
        )


def embedded_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in, whatever its strings hold.

    Examples
    --------
    >>> embedded_json({"name": "</script>"})
    '{"name":"\\\\u003c/script\\\\u003e"}'
    """
    written = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        written = written.replace(character, f"\\u{ord(character):04x}")
    return written


def _plotly() -> Path:
    found = importlib.util.find_spec("plotly")
    path = Path(str(found.origin)).parent / "package_data" / "plotly.min.js" if found else None
    if path is None or not path.exists():
        raise FileNotFoundError("the page needs plotly's own script: pip install plotly")
    return path


def _inline(script: str) -> str:
    # Both sequences change how HTML reads a script element; in JavaScript they only occur in
    # strings and regular expressions, where the escape means the same.
    return script.replace("</script", r"<\/script").replace("<!--", r"<\!--").replace("\r", "")


def _policy(inline: list[str]) -> str:
    # 'self' and file: admit plotly.min.js beside the page; nothing else may load or run.
    hashes = [
        "'sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() + "'"
        for script in inline
    ]
    return (
        f"default-src 'none'; script-src 'self' file: {' '.join(hashes)}; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
