"""HTML pages about runs: a report that can be sent to somebody, and the list of all runs."""

import base64
import io
import json
import logging
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from workbench._extras import DISTRIBUTION, need
from workbench._units import show_seconds, show_size
from workbench.batch.html_page import TEMPLATES, is_our_page
from workbench.batch.notebook import write_text
from workbench.batch.results import BROKEN, CLAIMS
from workbench.batch.run_record import (
    FileState,
    RunRecord,
    Sample,
    largest_sample,
    read_runs,
    results_of,
)

_log = logging.getLogger("workbench.batch")
# names of results that are sizes
_BYTES = re.compile(r"(^|[_ ])bytes([_ ]|$)|[_ ]memory$")
_MARK = '<meta name="generator" content="workbench">'


def memory_chart(samples: Sequence[Sample], limit: int | None = None) -> str:
    """Return a run's memory over time, and its limit in bytes, as SVG for a page of any colours."""
    end = max(samples[-1][0], 1e-9)
    top = max([limit or 0, *(size for _, size, _ in samples)]) * 1.05 or 1
    peak = largest_sample(samples)
    points = [(s / end * 640, 90 - size / top * 90) for s, size, _ in samples]
    return _render(
        "memory.svg.j2",
        points=points,
        peak=points[samples.index(peak)],
        said=f"{show_size(peak[1])} after {peak[0]:g} s",
        end=end,
        limit=limit and show_size(limit),
        height=limit and 90 - limit / top * 90,
    ).strip()


_STAND_IN = "stand_in_for"
# run.json has all; these say most about why a result differs from another
_TELLING = (DISTRIBUTION, "numpy", "pandas", "xarray", "scikit-learn", "umap-learn", "torch")
_MOST_COPIED = 20 * 10**6


def ensure_ours(path: Path, is_ours: Callable[[str], bool] = lambda text: _MARK in text) -> None:
    """Raise FileExistsError unless a file can be written without loss: none is there, or ours."""
    if not path.exists() and not path.is_symlink():
        return
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as file:
            if is_ours(file.read(4096)):
                return
    raise FileExistsError(f"{path} is there already and was not written by workbench")


def _render(template: str, **content: Any) -> str:
    return str(_environment().get_template(template).render(**content))


def _view(record: RunRecord) -> dict[str, Any]:
    """Return a run as the templates show it."""
    results = results_of(record)
    stand_in = next((v for k, v in results.items() if k.endswith(_STAND_IN) and v), None)
    samples = record.memory.samples
    stem = Path(record.notebook).stem
    page = record.file(f"{stem}.html")
    return {
        "record": record,
        "stand_in": stand_in,
        "groups": _groups(record, results),
        "memory": memory_chart(samples, record.memory.limit_bytes) if len(samples) > 1 else None,
        "versions": _versions(record),
        "page": page if page and is_our_page(page) else None,
        "files": [file for file in record.outputs if file.name and record.file(file.path)],
    }


def _groups(record: RunRecord, results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return results and claims by the data that they are about, those of the run first."""
    groups: dict[str, dict[str, Any]] = {}
    for name, value in results.items():
        if name.endswith(_STAND_IN):
            continue
        data = record.results_on.get(name, "")
        empty: dict[str, Any] = {"data": data, "claims": {}, "scalars": {}, "tables": {}}
        group = groups.setdefault(data, empty)
        if name.partition(" on ")[0] == CLAIMS and isinstance(value, dict):
            group["claims"] = value
        elif isinstance(value, dict | list):
            group["tables"][name] = _table(value)
        else:
            group["scalars"][name] = value
    return sorted(groups.values(), key=lambda group: bool(group["data"]))


def _versions(record: RunRecord) -> dict[str, str]:
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
    environment.filters |= {"seconds": show_seconds, "size": show_size, "plain": plain}
    return environment


def _table(value: Any) -> dict[str, list[Any]]:
    """A recorded table as it is, any other mapping or list as two columns."""
    if isinstance(value, list):
        return {"columns": [], "data": list(map(list, enumerate(value)))}
    if value.keys() == {"columns", "data"}:
        return dict(value)
    return {"columns": [], "data": [list(item) for item in value.items()]}


def plain(value: Any, name: str = "") -> str:
    """Return a parameter or a result as a person reads it; `name` is that of its column.

    >>> plain(0.12345678), plain(70_000), plain([1, None]), plain({"a": 0.5})
    ('0.1235', '70,000', '1, –', 'a: 0.5')
    >>> plain(2e6, "bytes_to_decode"), plain(-1, "label")
    ('2 MB', 'none')
    """
    if isinstance(value, dict):
        return ", ".join(f"{key}: {plain(item, str(key))}" for key, item in value.items()) or "–"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item, name) for item in value) or "–"
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and value >= 0 and _BYTES.search(name):
        return show_size(round(value))
    if value == -1 and re.search(r"(^|[_ ])(label|class|cell)$", name):  # for one that is not known
        return "none"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)


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
class NotebookSummary:
    """A notebook as a report introduces it."""

    title: str
    question: str = ""
    figures: list[Figure] = field(default_factory=list)


def read_summary(record: RunRecord) -> NotebookSummary:
    """Read a run's executed notebook; of one that cannot be read only the name is known."""
    stem = Path(record.notebook).stem
    try:
        path = record.file(Path(record.notebook).name)
        cells = json.loads(path.read_bytes())["cells"] if path else []
        title, question = _beginning(cells)
        pictures = list(_pictures(cells))
        tagged = [p for p in pictures if TAG in cells[p[0]]["metadata"].get("tags", [])]
        figures = [_figure(*picture) for picture in tagged or _spread(pictures)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("%s cannot be read: %s", record.folder / f"{stem}.ipynb", error)
        return NotebookSummary(stem)
    return NotebookSummary(title or stem, question, figures)


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
    how to repeat it. Beside it lie the notebooks' own pages and the files that they registered,
    of at most 20 MB each, to which it links, so that the folder can be sent or served as it is.

    Raises
    ------
    ValueError
        There are no runs.
    OSError
        The folder cannot be written, or holds an ``index.html`` of somebody else's.

    Examples
    --------
    >>> write_report(run_many(jobs))                      # doctest: +SKIP
    PosixPath('report/index.html')
    """
    if not records:
        raise ValueError("a report is about runs, and there are none")
    to = Path(to)
    ensure_ours(to / "index.html")
    to.mkdir(parents=True, exist_ok=True)
    stems = Counter(Path(record.notebook).stem for record in records)
    runs = []
    for record in records:
        stem = Path(record.notebook).stem
        alone = stems[stem] == 1 and stem.lower() != "index"
        runs.append(_report_view(record, to, f"{stem if alone else record.id}.html"))
    page = _render("report.html.j2", runs=runs, **_summary(records, runs))
    write_text(to / "index.html", page)
    return to / "index.html"


def _report_view(record: RunRecord, to: Path, name: str) -> dict[str, Any]:
    """Return a run as the report shows it; its page and files are copied beside the report."""
    shown, summary = _view(record), read_summary(record)
    if shown["page"]:
        ensure_ours(to / name)
        shutil.copyfile(shown["page"], to / name)
    own = next((group for group in shown["groups"] if not group["data"]), None)
    named = [own["scalars"].pop(key, None) for key in ("name", "source")] if own else []
    verdicts = [verdict for group in shown["groups"] for verdict in group["claims"].values()]
    return {
        **shown,
        "title": summary.title,
        "question": summary.question,
        "figures": summary.figures,
        "data": ", ".join(filter(None, named)) or _read_data(record),
        "broken": verdicts.count(BROKEN),
        "claims": len(verdicts),
        "page": shown["page"] and quote(name),
        "files": [_copied(record, file, to) for file in shown["files"]],
        "command": _command(record),
    }


def _read_data(record: RunRecord) -> str:
    """Return what a run read, as its parameters name it."""
    data = record.parameters.get("data")
    read = dict.fromkeys(Path(file.path).name for file in record.inputs if file.name)
    return data if isinstance(data, str) and data else ", ".join(read)


def _copied(record: RunRecord, file: FileState, to: Path) -> dict[str, Any]:
    """Copy a file that is not too large; return how the report shows it."""
    shown = {"name": file.name, "size": file.size, "sha256": file.sha256, "address": None}
    path = record.file(file.path)
    if path and path.is_file() and file.size <= _MOST_COPIED:
        copy = to / "files" / record.id / file.path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        shown["address"] = quote(f"files/{record.id}/{file.path}")
    return shown


def _command(record: RunRecord) -> str:
    """Return the command that repeats a run."""
    values = (
        f"{name}={value if isinstance(value, str) else repr(value)}"
        for name, value in record.given.items()
    )
    words = ["workbench", "run", record.notebook]
    return shlex.join([*words, *(word for value in values for word in ("-p", value))])


def _summary(records: Sequence[RunRecord], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the report says of all runs together."""
    states = Counter(record.status for record in records)
    machines = {(r.python, r.platform, r.cpu_count): r for r in records}
    stand_ins = {plain(run["stand_in"]) for run in runs if run["stand_in"]}
    names = _versions(records[0]).items()
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
    """Write ``index.html`` on the latest 200 runs into their folder, and return its path.

    It loads nothing and has relative links, so that the folder can be moved. Ids in `current` are
    put on top. Raises OSError as `write_report` does.

    >>> write_index("runs")                               # doctest: +SKIP
    PosixPath('runs/index.html')
    """
    path = Path(out) / "index.html"
    ensure_ours(path)
    records = read_runs(out)
    now = [record for record in records if record.id in current]
    before = [record for record in records if record.id not in current]
    groups = [("This invocation", now), ("Earlier runs" if now else "Runs", before[:_MOST_RUNS])]
    page = _render(
        "index.html.j2",
        groups=[(title, [_index_view(record) for record in runs]) for title, runs in groups],
        left_out=max(0, len(before) - _MOST_RUNS),
        count=len(records),
    )
    write_text(path, page)
    return path


def _index_view(record: RunRecord) -> dict[str, Any]:
    shown = _view(record)
    links = {
        "HTML": shown["page"] and shown["page"].name,
        "Notebook": Path(record.notebook).name,
        "Log": "log.txt",
    }
    files = {label: name for label, name in links.items() if name and record.file(name)}
    return {
        **shown,
        "links": {label: quote(f"{record.id}/{name}") for label, name in files.items()},
        "files": [
            {"name": f.name, "size": f.size, "address": quote(f"{record.id}/{f.path}")}
            for f in shown["files"]
        ],
        "record_address": quote(f"{record.id}/run.json"),
    }
