"""An executed notebook as one HTML page: its code folded, for any screen, light or dark."""

import re
from functools import cache
from pathlib import Path
from typing import Any

from workbench._extras import need

TEMPLATES = Path(__file__).with_name("templates")
# What a page shows of an output that comes in several forms, the best first.
_SHOWN = [
    "text/html",
    "text/markdown",
    "image/svg+xml",
    "text/latex",
    "image/png",
    "image/jpeg",
    "text/plain",
]
_FAR_IMAGE = re.compile(r"""<img\b[^>]*\bsrc=["']?(?:https?:)?//[^>]*>""", re.IGNORECASE)
_ALT = re.compile(r"""\balt=["']([^"']*)["']""", re.IGNORECASE)


def to_html(document: Any, title: str) -> str:
    """Return an executed notebook as one HTML page that loads nothing from elsewhere."""
    resources = {"metadata": {"name": title, "path": "."}}
    html, _ = _exporter().from_notebook_node(document, resources=resources)
    return str(html)


@cache
def _exporter() -> Any:
    config = need("traitlets.config", extra="batch").Config()
    # without widgets, which need scripts from elsewhere: their pictures are shown
    config.NbConvertBase.display_data_priority = _SHOWN
    exporter = need("nbconvert.exporters.html", extra="batch").HTMLExporter(
        template_name="basic",
        extra_template_paths=[str(TEMPLATES)],
        template_file="notebook.html.j2",
        embed_images=True,
        exclude_anchor_links=True,
        config=config,
    )
    exporter.environment.globals["colours_of_code"] = _colours_of_code()
    exporter.environment.filters |= {
        "telling_line": _telling_line,
        "without_far_images": _without_far_images,
    }
    return exporter


def _telling_line(source: str) -> str:
    """Return the first line of a cell that says what it does, to stand for the folded code."""
    lines = [line.strip() for line in source.strip().splitlines() if line.strip()]
    telling = (line for line in lines if not line.startswith(("#", "%", "import ", "from ")))
    return next(telling, lines[0])


def _without_far_images(html: str) -> str:
    """Put the words of images that lie on the web, such as badges, in their place."""
    return _FAR_IMAGE.sub(lambda tag: "".join(_ALT.findall(tag[0])), html)


def _colours_of_code() -> str:
    """Return the style of highlighted code, for light screens and dark ones."""
    formatter = need("pygments.formatters", extra="batch").HtmlFormatter
    light, dark = (formatter(style=name) for name in ("default", "github-dark"))
    return (
        f"{light.get_style_defs('.highlight')}\n"
        f"@media (prefers-color-scheme: dark) {{\n{dark.get_style_defs('.highlight')}\n}}"
    )
