"""An executed notebook as one HTML page: its code folded, for any screen, light or dark.

nbconvert makes it. Nothing in the page can run or fetch: there are no scripts, the notebook's own
HTML is cut down to what tables and texts need, and what has styles of its own is shown in a
sandboxed frame.
"""

import re
from functools import cache
from html import escape
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
_TAG_NAMES = """
a abbr b blockquote br caption center code col colgroup dd del details div dl dt em figcaption
figure h1 h2 h3 h4 h5 h6 hr i img kbd li mark ol p pre progress q s samp small span strong sub
summary sup table tbody td tfoot th thead tr tt u ul var
"""
_ATTRIBUTES = {
    "*": ["class", "id", "style", "title", "align", "colspan", "rowspan", "scope", "lang", "dir"],
    "a": ["href"],
    "img": ["alt", "src", "width", "height"],
    "progress": ["max", "value"],
    "ol": ["start"],
    "details": ["open"],
}
# Shown as they are only where they can change nothing around them.
_FRAMED = re.compile(r"<(?:style|svg|input|button|select|canvas|label)\b", re.IGNORECASE)
_FORBIDDEN = re.compile(r"</?(?:meta|base|link|form|object|embed|iframe|frame)\b[^>]*>", re.I)
_SCRIPT = re.compile(r"<script\b", re.IGNORECASE)
_SCRIPT_END = re.compile(r"</script\b", re.IGNORECASE)
_PANDAS_STYLE = re.compile(r"<style scoped>[^<]*</style>")
_TAG = re.compile(r"<[^>]*>")
_IMAGE = re.compile(r"<img\b[^>]*>")
_ALT = re.compile(r"""\balt=["']([^"']*)["']""")
_SRC = re.compile(r"""\bsrc=["']([^"']*)["']""")
_MATH = re.compile("\ue000(\\d+)\ue001")
_NOT_SHOWN = '<p class="note">{what}, not shown here: open the notebook to see it.</p>'


def to_html(document: Any, title: str, folder: str) -> str:
    """Return an executed notebook as one HTML page that loads nothing from elsewhere.

    Outputs that a page cannot show get words in their place; images that its texts name lie in
    `folder`.
    """
    for cell in document.cells:
        for output in cell.get("outputs", []):
            _say_what_is_not_shown(output.get("data", {}))
    resources = {"metadata": {"name": title, "path": folder}}
    html, _ = _exporter().from_notebook_node(document, resources=resources)
    return _head() + str(html[html.index("<title>") :])


def is_our_page(path: Path) -> bool:
    """Whether a page begins as ours do: what forbids all scripts stands before anything else."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(len(_head())) == _head()


@cache
def _head() -> str:
    return (TEMPLATES / "head.html").read_text(encoding="utf-8")


def _say_what_is_not_shown(data: Any) -> None:
    """Put words in place of an output that only a program of its own can show."""
    foreign = [kind for kind in data if kind.startswith("application/vnd.")]
    own = any(kind.startswith("application/vnd.workbench.") for kind in foreign)
    visible = any(kind in data for kind in _SHOWN if kind != "text/plain")
    if foreign and not own and not visible:
        name = foreign[0].removeprefix("application/vnd.").partition("+")[0]
        what = "A widget" if "widget" in name else f"An output of {escape(name)}"
        data["text/html"] = _NOT_SHOWN.format(what=what)


def safe_html(html: str) -> str:
    """Return HTML of anybody's without what runs, fetches, or reaches beyond its place."""
    html = _PANDAS_STYLE.sub("", html)
    note = ""
    if _SCRIPT.search(html):
        html = _without_scripts(html)
        note = _NOT_SHOWN.format(what="What needs scripts")
        if not _TAG.sub("", html).strip() and "<img" not in html:
            return note
    html = _FORBIDDEN.sub("", html)
    if not _FRAMED.search(html):
        return _cleaned(html) + note
    rows, lines = len(re.findall(r"<tr\b", html)), html.count("\n")
    height = min(640, 60 + 26 * rows) if rows else min(400, 120 + lines // 4)
    style = "<style>body{margin:.3rem;font:14px/1.5 system-ui,sans-serif}</style>"
    return (
        f'<iframe sandbox title="Output" style="height:{height}px" '
        f'srcdoc="{escape(style + html)}"></iframe>{note}'
    )


def _without_scripts(html: str) -> str:
    kept, at = "", 0
    while start := _SCRIPT.search(html, at):
        kept += html[at : start.start()]
        end = _SCRIPT_END.search(html, start.end())
        closed = html.find(">", end.end()) if end else -1
        if closed < 0:
            return kept
        at = closed + 1
    return kept + html[at:]


def _cleaned(html: str) -> str:
    """Return HTML of harmless elements; an image that is not in the page becomes words."""
    kept = need("bleach", extra="batch").clean(
        html,
        tags=frozenset(_TAG_NAMES.split()),
        attributes=_ATTRIBUTES,
        protocols=["http", "https", "mailto", "data"],
        css_sanitizer=_css(),
        strip=True,
    )
    return _IMAGE.sub(_shown_image, kept)


def _shown_image(match: re.Match[str]) -> str:
    tag = match[0]
    address = "".join(_SRC.findall(tag))
    if address.startswith("data:image/"):
        return tag
    words = "".join(_ALT.findall(tag))
    if "//" in address:  # the words of a badge stand for themselves
        return words
    return f'<span class="aside">{words or "an image"} (not shown here)</span>'


@cache
def _css() -> Any:
    module = need("bleach.css_sanitizer", extra="batch")
    more = {"border", "border-bottom", "border-left", "border-radius", "border-top", "display"}
    more |= {"flex-flow", "gap", "margin", "max-width", "opacity", "padding", "white-space"}
    return module.CSSSanitizer(allowed_css_properties=[*module.ALLOWED_CSS_PROPERTIES, *more])


def to_mathml(text: str, block: bool = False) -> str:
    """Return TeX as MathML, which browsers draw themselves; the text if it cannot be read."""
    plain = text.strip().strip("$").removeprefix(r"\displaystyle").strip()
    converter = need("latex2mathml.converter", extra="batch")
    try:
        return str(converter.convert(plain, display="block" if block else "inline"))
    except Exception:  # whatever it trips over in somebody's TeX
        return f"<code>{escape(text)}</code>"


def _markdown(context: Any, source: str) -> str:
    """Return Markdown as HTML, its formulas drawn."""
    formulas: list[str] = []
    renderer = _renderer_class()(
        formulas,
        escape=False,
        attachments=context.get("cell", {}).get("attachments", {}),
        embed_images=True,
        path=context["resources"]["metadata"]["path"],
        exclude_anchor_links=True,
    )
    module = need("nbconvert.filters.markdown_mistune", extra="batch")
    html = module.MarkdownWithMath(renderer=renderer).render(source)
    # Formulas are put in last: the cleaning knows no MathML.
    return _MATH.sub(lambda match: formulas[int(match[1])], safe_html(html))


@cache
def _renderer_class() -> Any:
    module = need("nbconvert.filters.markdown_mistune", extra="batch")

    class Renderer(module.IPythonRenderer):  # type: ignore[misc, name-defined]
        """Leaves a mark in place of each formula."""

        def __init__(self, formulas: list[str], **options: Any) -> None:
            super().__init__(**options)
            self.formulas = formulas

        def _mark(self, formula: str, block: bool) -> str:
            self.formulas.append(to_mathml(formula, block))
            return f"\ue000{len(self.formulas) - 1}\ue001"

        def inline_math(self, body: str) -> str:
            return self._mark(body, block=False)

        def block_math(self, body: str) -> str:
            return self._mark(body, block=True)

        def latex_environment(self, name: str, body: str) -> str:
            return self._mark(f"\\begin{{{name}}}{body}\\end{{{name}}}", block=True)

    return Renderer


@cache
def _exporter() -> Any:
    config = need("traitlets.config", extra="batch").Config()
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
        "safe_html": safe_html,
        "mathml": lambda text: to_mathml(text, block=True),
        "shown_markdown": need("jinja2", extra="batch").pass_context(_markdown),
    }
    return exporter


def _telling_line(source: str) -> str:
    """Return the first line of a cell that says what it does, to stand for the folded code."""
    lines = [line.strip() for line in source.strip().splitlines() if line.strip()]
    telling = (line for line in lines if not line.startswith(("#", "%", "import ", "from ")))
    return next(telling, lines[0])


def _colours_of_code() -> str:
    """Return the style of highlighted code, for light screens and dark ones."""
    formatter = need("pygments.formatters", extra="batch").HtmlFormatter
    light, dark = (formatter(style=name) for name in ("default", "github-dark"))
    return (
        f"{light.get_style_defs('.highlight')}\n"
        f"@media (prefers-color-scheme: dark) {{\n{dark.get_style_defs('.highlight')}\n}}"
    )
