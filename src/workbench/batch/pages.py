"""What the HTML pages of runs share: their templates, and a run as these show it."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from workbench._extras import need
from workbench.batch.memory import draw
from workbench.batch.repetition import results_of
from workbench.batch.run_record import RunRecord
from workbench.batch.words import duration, megabytes

TEMPLATES = Path(__file__).with_name("templates")
_STAND_IN = "stand_in_for"
# run.json has all; these say most about why a result differs from another
_TELLING = ("workbench", "numpy", "pandas", "xarray", "scikit-learn", "umap-learn", "torch")


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
        "memory": draw(samples, record.memory.limit_bytes) if len(samples) > 1 else None,
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
