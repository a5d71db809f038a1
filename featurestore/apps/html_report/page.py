"""The page: the template filled with a report, and the policy that lets nothing but its own parts in."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.apps.html_report.charts import meter
from featurestore.apps.html_report.parts import Kind, Report
from featurestore.formatting import human_bytes, human_seconds
from featurestore.system import shown

if TYPE_CHECKING:
    from jinja2 import Environment

LOOKS = {
    "text": "text",
    "muted": "text note",
    "image": "text",
    "name": "name",
    "code": "name",
    "time": "name",
}  # classes of cells; others have numbers
TEMPLATES = Path(__file__).parent / "templates"


def render(report: Report) -> str:
    """Return a report as HTML. All texts are escaped, but for the SVG of `charts`, which has escaped them itself."""
    style, script = (read_template(name) for name in ("report.css", "report.js"))
    return (
        make_environment()
        .get_template("report.html.j2")
        .render(report=report, style=style, script=script, policy=content_policy(style, script))
    )


@cache  # compiling the templates takes longer than to fill them
def make_environment(*folders: Path, image_address: Callable[[str], str] | None = None) -> Environment:
    """Return what fills the templates of this folder, and of others; it escapes what they are filled with.

    Args:
        folders: of more templates.
        image_address: of the page of an image; None where images have none.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(cell=cell_text, plain=plain_value, look=lambda kind: LOOKS.get(kind, "number"))
    environment.globals.update(meter=meter, shown=shown, image_address=image_address)
    return environment


def read_template(name: str, folder: Path = TEMPLATES) -> str:
    """Return the text of a style sheet, a script or a template."""
    return (folder / name).read_text(encoding="utf-8")


def content_policy(style: str, script: str, *, live: bool = False) -> str:
    """Return a Content-Security-Policy under which only this style, this script and embedded pictures are used.

    A ``live`` page may also ask its own server: for pictures, by its forms and by its script.
    """
    own = "'self'" if live else "'none'"
    pictures = "'self' data:" if live else "data:"
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src {pictures}; "
        f"base-uri 'none'; form-action {own}" + ("; connect-src 'self'" if live else "")
    )


def cell_text(value: Any, kind: Kind) -> str:
    """Return a value of a table for people."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if kind == "number":
        return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}".removesuffix(".0")
    if kind == "bytes":
        return human_bytes(value)
    if kind == "seconds":
        return human_seconds(value)
    if kind == "share":
        return f"{value:.3%}"
    return shown(str(value))


def plain_value(value: Any) -> str:
    """Return a number for programs."""
    return "" if value is None else str(value)


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
