"""Repeat a run, and compare what it recorded with what it had recorded before."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from workbench.batch.jobs import Job
from workbench.batch.run import run_many
from workbench.batch.run_record import RunRecord
from workbench.batch.store import find_run

TOLERANCE = 0.01


@dataclass(frozen=True)
class Difference:
    """A result that the repetition does not confirm; None where one of the runs lacks it."""

    name: str
    before: Any
    after: Any


def rerun(run: str | Path, out: str | Path = "runs") -> tuple[RunRecord, RunRecord]:
    """Repeat a run with its notebook as it is now, its parameters and its limits.

    Returns
    -------
    before, after
        The two records; the second names the first as its parent.

    Raises
    ------
    LookupError
        There is no such run.
    JobError
        The notebook no longer takes these parameters, or is gone.
    """
    before = RunRecord.load(find_run(out, str(run)))
    parameters = json.loads((before.folder / "run.json").read_bytes())["parameters"]
    job = Job(before.notebook, parameters, parent=before.id)
    (after,) = run_many([job], out=before.folder.parent, **_limits(before))
    return before, after


def _limits(record: RunRecord) -> dict[str, Any]:
    """Return what a run might take, as its configuration says; of an older run its memory."""
    try:
        content = yaml.safe_load((record.folder / "config.yaml").read_text(encoding="utf-8"))
        return dict(content["limits"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return {"memory": record.memory.limit_bytes}


def results_of(record: RunRecord) -> dict[str, Any]:
    """Return what a run recorded; nothing if it came to nothing."""
    try:
        return dict(json.loads((record.folder / "results.json").read_bytes()))
    except (OSError, ValueError):
        return {}


def differences(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    tolerance: float = TOLERANCE,
    tolerances: Mapping[str, float] | None = None,
) -> list[Difference]:
    """Return the results that differ by more than a tolerance, which is scaled to the metric.

    A number may differ by `tolerance` times its size. A share between 0 and 1 is also measured by
    what it lacks to 1, if that is less: an accuracy of 0.99 has an error of 0.01, so it may differ
    by 0.0001 at a tolerance of 0.01. Whole numbers, words and truth values have to be the same.

    Parameters
    ----------
    before, after
        What the two runs recorded.
    tolerance
        For all results.
    tolerances
        For some, by name, such as ``"quality.recall"``; 0 for the very same.

    Examples
    --------
    >>> differences({"accuracy": 0.990, "loss": 2.00}, {"accuracy": 0.985, "loss": 2.01})
    [Difference(name='accuracy', before=0.99, after=0.985)]
    """
    old, new = dict(leaves(before)), dict(leaves(after))
    found = []
    for name in {**old, **new}:
        one, other = old.get(name), new.get(name)
        allowed = next(
            (t for n, t in (tolerances or {}).items() if name == n or name.startswith(f"{n}.")),
            tolerance,
        )
        if name not in old or name not in new or not _agree(one, other, allowed):
            found.append(Difference(name, one, other))
    return found


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each single value of nested results with its dotted name.

    Examples
    --------
    >>> list(leaves({"a": {"b": 1, "c": [2, 3]}}))
    [('a.b', 1), ('a.c.0', 2), ('a.c.1', 3)]
    """
    if isinstance(value, Mapping):
        items: Any = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        yield name, value
        return
    for key, item in items:
        yield from leaves(item, f"{name}.{key}" if name else str(key))


def _agree(one: Any, other: Any, tolerance: float) -> bool:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (one, other))
    if not numbers or all(isinstance(v, int) for v in (one, other)):
        return bool(one == other)
    scale = max(abs(one), abs(other))
    if all(0 <= v <= 1 for v in (one, other)):
        scale = min(scale, max(1 - one, 1 - other))
    return bool(abs(one - other) <= tolerance * scale)
