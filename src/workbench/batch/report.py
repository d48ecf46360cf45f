"""The report of runs: one page that can be sent to somebody who was not there.

What the HTML pages of runs share: their templates, and a run as these show it.

What an executed notebook tells: its title, its question, its figures.

The HTML list of all runs in a folder.
"""

import base64
import io
import json
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from workbench._extras import DISTRIBUTION, need
from workbench._units import duration, megabytes, show_size
from workbench.batch.html_page import TEMPLATES
from workbench.batch.notebook import write_text
from workbench.batch.results import BROKEN
from workbench.batch.run_record import RunRecord, Sample, largest_sample
from workbench.batch.runs import read_runs, results_of, summaries

_CHART_WIDTH, _CHART_HEIGHT = 640, 90


def memory_chart(samples: Sequence[Sample], limit: int | None = None) -> str:
    """Return the course of a run's memory as an SVG picture, for a page of any colours.

    Parameters
    ----------
    samples
        Seconds, bytes and cell of each sample, in the order of time.
    limit
        Bytes; drawn as a line.

    Examples
    --------
    >>> memory_chart([(0.0, 10, 1), (1.0, 30, 1)]).startswith("<svg")
    True
    """
    end = max(samples[-1][0], 1e-9)
    top = max([limit or 0, *(size for _, size, _ in samples)]) * 1.05 or 1
    points = [
        (s / end * _CHART_WIDTH, _CHART_HEIGHT - size / top * _CHART_HEIGHT)
        for s, size, _ in samples
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    area = f"{points[0][0]:.1f},{_CHART_HEIGHT} {line} {_CHART_WIDTH},{_CHART_HEIGHT}"
    seconds, peak, _ = largest_sample(samples)
    parts = [
        f'<polygon points="{area}" fill="currentColor" opacity=".12"/>',
        f'<polyline points="{line}" fill="none" stroke="currentColor" stroke-width="1.5"/>',
        _peak_label(
            points[samples.index(largest_sample(samples))], f"{show_size(peak)} after {seconds:g} s"
        ),
        f'<text x="{_CHART_WIDTH}" y="{_CHART_HEIGHT + 14}" text-anchor="end">{end:.0f} s</text>',
        _limit_line(limit, top) if limit else "",
    ]
    said = f"memory over time: at most {show_size(peak)}, after {seconds:g} of {end:.0f} s"
    return (
        f'<svg class="memory" viewBox="0 -16 {_CHART_WIDTH} {_CHART_HEIGHT + 32}" role="img" '
        f'aria-label="{said}" font-size="12" fill="currentColor">{"".join(parts)}</svg>'
    )


def _peak_label(place: tuple[float, float], said: str) -> str:
    """Return a dot with words on the side where there is room for them."""
    x, y = place
    anchor, beside = ("end", x - 6) if x > _CHART_WIDTH / 2 else ("start", x + 6)
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="currentColor"/>'
        f'<text x="{beside:.1f}" y="{max(y - 5, 0):.1f}" text-anchor="{anchor}">{said}</text>'
    )


def _limit_line(limit: int, top: float) -> str:
    y = _CHART_HEIGHT - limit / top * _CHART_HEIGHT
    return (
        f'<line x1="0" x2="{_CHART_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" '
        f'stroke-dasharray="5 4"/><text x="0" y="{_CHART_HEIGHT + 14}">limit {show_size(limit)}, '
        "dashed</text>"
    )


_STAND_IN = "stand_in_for"
# run.json has all; these say most about why a result differs from another
_TELLING = (DISTRIBUTION, "numpy", "pandas", "xarray", "scikit-learn", "umap-learn", "torch")


def render(template: str, **content: Any) -> str:
    """Return a page made from one of the templates."""
    return str(_environment().get_template(template).render(**content))


def view(record: RunRecord) -> dict[str, Any]:
    """Return a run as the templates show it."""
    results = results_of(record)
    claims = results.pop("claims", None)
    stand_in = next((v for k, v in results.items() if k.endswith(_STAND_IN) and v), None)
    shown = {name: value for name, value in results.items() if not name.endswith(_STAND_IN)}
    samples = record.memory.samples
    return {
        "record": record,
        "stand_in": stand_in,
        "claims": claims if isinstance(claims, dict) else {},
        "scalars": {k: v for k, v in shown.items() if not isinstance(v, dict | list)},
        "tables": {k: _table(v) for k, v in shown.items() if isinstance(v, dict | list)},
        "memory": memory_chart(samples, record.memory.limit_bytes) if len(samples) > 1 else None,
        "versions": versions(record),
    }


def versions(record: RunRecord) -> dict[str, str]:
    """Return the versions of the packages that say most about a result."""
    return {name: record.packages[name] for name in _TELLING if name in record.packages}


@cache
def _environment() -> Any:
    jinja2 = need("jinja2", extra="batch")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "megabytes": megabytes, "plain": plain}
    return environment


def _table(value: Any) -> dict[str, list[Any]]:
    """A recorded table as it is, any other mapping or list as two columns."""
    if isinstance(value, list):
        return {"columns": [], "data": list(map(list, enumerate(value)))}
    if value.keys() == {"columns", "data"}:
        return dict(value)
    return {"columns": [], "data": [list(item) for item in value.items()]}


def plain(value: Any) -> str:
    """Return a parameter or a result as text.

    Examples
    --------
    >>> plain(0.12345678), plain(70_000), plain([1, None])
    ('0.1235', '70,000', '[1, null]')
    """
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return json.dumps(value, ensure_ascii=False)


_MOST_PICTURES = 4
_WIDTH = 960
#: A cell with this tag shows a main figure.
TAG = "main-figure"
_IMAGE = re.compile(r"!\[[^]]*\]\([^)]*\)")
_EMPHASIS = re.compile(r"(?<!\w)(\*\*?|__?)(\S(?:.*?\S)?)\1(?!\w)")
_LINK = re.compile(r"\[([^]]*)\]\([^)]*\)")


@dataclass
class Figure:
    """A picture in a cell's outputs."""

    cell: int
    heading: str
    alt: str
    address: str
    width: int
    height: int


@dataclass
class Story:
    """A notebook as a report introduces it."""

    title: str
    question: str = ""
    figures: list[Figure] = field(default_factory=list)

    @classmethod
    def of(cls, record: RunRecord) -> "Story":
        """Read a run's executed notebook; of one that cannot be read only the name is known."""
        path = record.folder / Path(record.notebook).name
        try:
            cells = json.loads(path.read_bytes())["cells"]
        except (OSError, ValueError, KeyError):
            return cls(Path(record.notebook).stem)
        title, question = _beginning(cells)
        pictures = list(_pictures(cells))
        tagged = [p for p in pictures if TAG in cells[p[0]]["metadata"].get("tags", [])]
        figures = [_figure(*picture) for picture in tagged or _spread(pictures)]
        return cls(title or Path(record.notebook).stem, question, figures)


def _beginning(cells: list[dict[str, Any]]) -> tuple[str, str]:
    """Return the first heading, and the first paragraph below it that is not a badge."""
    text = next(("".join(c["source"]) for c in cells if c["cell_type"] == "markdown"), "")
    title = re.search(r"^#\s+(.+)$", text, re.MULTILINE)
    paragraphs = re.split(r"\n\s*\n", text[title.end() :] if title else text)
    return _unmarked(title[1]) if title else "", next(filter(None, map(_unmarked, paragraphs)), "")


def _unmarked(text: str) -> str:
    """Return a text without Markdown: no pictures, of links their words."""
    words = _LINK.sub(r"\1", _IMAGE.sub("", " ".join(text.split())))
    # Between the marks of code everything means itself.
    parts = words.split("`")
    parts[::2] = [_EMPHASIS.sub(r"\2", part) for part in parts[::2]]
    return "".join(parts).strip()


def _pictures(cells: list[dict[str, Any]]) -> Iterator[tuple[int, str, str, bytes]]:
    """Yield index, heading, alternative text and PNG of each picture."""
    heading = ""
    for index, cell in enumerate(cells):
        if cell["cell_type"] == "markdown":
            found = re.findall(r"^#+\s+(.+)$", "".join(cell["source"]), re.MULTILINE)
            heading = _unmarked(found[-1]) if found else heading
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                alt = output["metadata"].get("image/png", {}).get("alt", "")
                yield index, heading, alt, base64.b64decode("".join(png))


def _spread(pictures: list[Any]) -> list[Any]:
    """Return a few, evenly from the first to the last."""
    if len(pictures) <= _MOST_PICTURES:
        return pictures
    return [
        pictures[round(i * (len(pictures) - 1) / (_MOST_PICTURES - 1))]
        for i in range(_MOST_PICTURES)
    ]


def _figure(cell: int, heading: str, alt: str, png: bytes) -> Figure:
    """Return a picture at a width for reading, as part of the page."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as file:
        image = file.convert("RGB")
        if image.width > _WIDTH:
            image = image.resize((_WIDTH, round(image.height * _WIDTH / image.width)))
    smaller = io.BytesIO()
    image.save(smaller, "webp", quality=88)
    data = base64.b64encode(smaller.getvalue()).decode()
    alt = alt or f"A figure from the section {heading}"
    return Figure(cell, heading, alt, f"data:image/webp;base64,{data}", *image.size)


def write_report(records: Sequence[RunRecord], to: str | Path = "report") -> Path:
    """Write ``index.html`` about runs into a folder, and return its path.

    The page loads nothing: what ran, on which data, main figures, results, times and memory, and
    how to repeat it. Beside it lie the notebooks' own pages, to which it links, so that the folder
    can be sent or served as it is.

    Parameters
    ----------
    records
        The runs, in the order in which they are shown.
    to
        The folder; pages of an earlier report in it are replaced.

    Raises
    ------
    ValueError
        There are no runs.
    OSError
        The folder cannot be written.

    Examples
    --------
    >>> write_report(run_many(jobs))                      # doctest: +SKIP
    PosixPath('report/index.html')
    """
    if not records:
        raise ValueError("a report is about runs, and there are none")
    to = Path(to)
    to.mkdir(parents=True, exist_ok=True)
    runs = [_view(record, page) for record, page in zip(records, _pages(records, to), strict=True)]
    write_text(to / "index.html", render("report.html.j2", runs=runs, **_summary(records, runs)))
    return to / "index.html"


def _pages(records: Sequence[RunRecord], to: Path) -> list[str | None]:
    """Copy the notebooks' pages; a notebook that ran more than once gets the run's id."""
    stems = Counter(Path(record.notebook).stem for record in records)
    pages: list[str | None] = []
    for record in records:
        stem = Path(record.notebook).stem
        page = record.folder / f"{stem}.html"
        name = page.name if stems[stem] == 1 else f"{record.id}.html"
        pages.append(name if page.is_file() else None)
        if page.is_file():
            shutil.copyfile(page, to / name)
    return pages


def _view(record: RunRecord, page: str | None) -> dict[str, Any]:
    shown, story = view(record), Story.of(record)
    scalars = shown["scalars"]
    named = [scalars.pop(key, None) for key in ("name", "source")]
    data = ", ".join(filter(None, named)) or str(record.parameters.get("data") or "")
    return {
        **shown,
        "title": story.title,
        "question": story.question,
        "figures": story.figures,
        "data": data or "the notebook's own data",
        "broken": sum(verdict == BROKEN for verdict in shown["claims"].values()),
        "page": page and quote(page),
        "command": _command(record),
    }


def _command(record: RunRecord) -> str:
    """Return the command that repeats a run."""
    values = (f"{name}={_typed(value)}" for name, value in record.given.items())
    words = ["workbench", "run", record.notebook]
    return shlex.join([*words, *(word for value in values for word in ("-p", value))])


def _typed(value: Any) -> str:
    """Return a value as ``-p`` reads it, which takes commas for a sweep."""
    text = value if isinstance(value, str) else repr(value)
    return repr(text) if isinstance(value, str) and "," in text else text


def _summary(records: Sequence[RunRecord], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the report says of all runs together."""
    states = Counter(record.status for record in records)
    machines = {(r.python, r.platform, r.cpu_count): r for r in records}
    stand_ins = {plain(run["stand_in"]) for run in runs if run["stand_in"]}
    names = versions(records[0]).items()
    many = len(records) > 1
    return {
        "title": f"Report on {len(records)} notebook runs" if many else runs[0]["title"],
        "started": min(record.started for record in records),
        "counts": ", ".join(f"{count} {status}" for status, count in states.most_common()),
        "seconds": sum(record.seconds or 0 for record in records),
        "peak": max(record.peak_memory_bytes or 0 for record in records),
        "stand_ins": sorted(stand_ins),
        "commit": records[0].git,
        "machines": list(machines.values()),
        "versions": ", ".join(f"{name} {version}" for name, version in names),
    }


_MOST_RUNS = 200


def write_index(out: str | Path = "runs", current: Collection[str] = ()) -> Path:
    """Write ``index.html`` into a folder of runs and return its path.

    The page stands alone, loads nothing, and links to the runs' notebooks and logs by relative
    addresses, so the folder can be moved or served as it is. It shows the latest 200 runs.

    Parameters
    ----------
    out
        The folder of runs.
    current
        Ids of the runs to put on top.

    Raises
    ------
    OSError
        The folder cannot be written.

    Examples
    --------
    >>> write_index("runs")                               # doctest: +SKIP
    PosixPath('runs/index.html')
    """
    found = [summary.id for summary in summaries(out)]
    before = [name for name in found if name not in current]
    now, earlier = (
        [_index_view(record) for record in read_runs(out, ids)]
        for ids in ([name for name in found if name in current], before[:_MOST_RUNS])
    )
    page = render(
        "index.html.j2",
        groups=[("This invocation", now), ("Earlier runs" if now else "Runs", earlier)],
        left_out=max(0, len(before) - _MOST_RUNS),
        count=len(found),
    )
    path = Path(out) / "index.html"
    write_text(path, page)
    return path


def _index_view(record: RunRecord) -> dict[str, Any]:
    stem = Path(record.notebook).stem
    links = {"HTML": f"{stem}.html", "Notebook": f"{stem}.ipynb", "Log": "log.txt"}
    present = {label: name for label, name in links.items() if (record.folder / name).is_file()}
    shown = view(record)
    if claims := shown["claims"]:
        shown["tables"]["claims"] = {"columns": [], "data": [list(item) for item in claims.items()]}
    return {
        **shown,
        "links": {label: quote(f"{record.id}/{name}") for label, name in present.items()},
        "record_address": quote(f"{record.id}/run.json"),
    }
