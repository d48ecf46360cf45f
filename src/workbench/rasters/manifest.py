"""The folder that chips are written to: whose it is, what is done, and what failed.

``plan.json`` tells that the folder is ours and of which plan; it is there before anything else.
``manifest/00007.parquet`` appears, whole, once group 7 is written. When all are, their rows become
``manifest.parquet`` in the table's order and the parts go. So whatever is listed is there, and a
run that was killed at any moment finds out what is left to do.
"""

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from workbench.rasters.errors import OutputError
from workbench.rasters.layout import Ints
from workbench.rasters.manifest_file import FACTS, write_manifest

if TYPE_CHECKING:
    from workbench.rasters.job import Failures
    from workbench.rasters.plans import Plan

PLAN, MANIFEST, PARTS = "plan.json", "manifest.parquet", "manifest"


class Place:
    """An output folder of one plan in one format."""

    def __init__(self, plan: "Plan", path: str | os.PathLike[str], form: str) -> None:
        self.plan, self.format = plan, form
        self.path = Path(path).expanduser().absolute()

    @property
    def description(self) -> dict[str, Any]:
        """What must agree for a run to go on where another one stopped."""
        plan = self.plan
        return {
            "made_by": "workbench.rasters",
            "format": self.format,
            "raster": plan.raster.path,
            "raster_state": list(plan.raster.state or ()),
            "regions": len(plan.table),
            "memory": plan.memory,
            "bands": plan.bands,
            "size": [plan.form.height, plan.form.width],
            "resampling": plan.form.resampling,
            "fill": repr(plan.form.fill),
            "fingerprint": plan.fingerprint,
        }

    def exists(self, resume: bool, retry_failed: bool) -> bool:
        """Say whether an earlier run began here; refuse a folder that is not ours to go on with."""
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return False
        if not self.path.is_dir() or not (self.path / PLAN).is_file():
            raise OutputError(f"{self.path} is there and not of our making; give another path")
        if not resume:
            raise OutputError(f"{self.path} holds chips already; delete it or give another path")
        there = json.loads((self.path / PLAN).read_text())
        mine = json.loads(json.dumps(self.description))
        differing = [key for key in mine if there.get(key) != mine[key]]
        if differing == ["raster_state"] and retry_failed:
            return True
        if differing:
            raise OutputError(_refusal(self.path, differing[0], there, mine))
        return True

    def reopen(self) -> None:
        """Count the groups in which regions failed as missing, and the raster as it is now as ours.

        At any moment the folder is either as it was, or one that a run goes on with.
        """
        if self.complete:
            rows = pd.read_parquet(self.path / MANIFEST, columns=["position", *FACTS])
            if not (rows["error"] != "").any():
                return
            self._split(rows)
        failed = [part for part in self._parts() if (pd.read_parquet(part)["error"] != "").any()]
        self._describe(self.path)
        (self.path / MANIFEST).unlink(missing_ok=True)
        for part in failed:
            part.unlink()

    def _split(self, rows: pd.DataFrame) -> None:
        """Make the parts again of a whole manifest."""
        partial = self.path / f".{PARTS}.partial"
        for folder in (partial, self.path / PARTS):
            shutil.rmtree(folder, ignore_errors=True)
        partial.mkdir()
        for group in range(self.plan.layout.groups):
            regions = self._regions(group)
            part = rows.iloc[regions].reset_index(drop=True)
            part.to_parquet(partial / f"{group:06d}.parquet", index=False)
        partial.replace(self.path / PARTS)

    def begin(self, skeleton: Path) -> None:
        """Make a prepared folder, at once, the output folder."""
        (skeleton / PARTS).mkdir()
        self._describe(skeleton)
        if self.path.exists():
            self.path.rmdir()
        skeleton.replace(self.path)

    def skeleton(self) -> Path:
        """An empty folder beside the output, in which to prepare it."""
        path = self.path.with_name(f".{self.path.name}.partial")
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    @property
    def complete(self) -> bool:
        """Whether everything is written."""
        return (self.path / MANIFEST).is_file()

    def missing(self) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """The groups that are still to be written, ascending."""
        done = {int(part.stem) for part in self._parts()}
        return np.array([g for g in range(self.plan.layout.groups) if g not in done], np.int64)

    def commit(self, group: int, failures: "Failures", paths: list[str]) -> None:
        """Record that a group is written. From now on it is never read again."""
        start = self.plan.layout.members(group).start
        errors = [failures.get(start + i) for i in range(len(paths))]
        rows = pd.DataFrame(
            {
                "position": self._regions(group),
                "path": paths,
                "error": [error.reason if error else "" for error in errors],
                "block_row": [error.block[0] if error else -1 for error in errors],
                "block_column": [error.block[1] if error else -1 for error in errors],
            }
        )
        target = self.path / PARTS / f"{group:06d}.parquet"
        partial = target.with_name(f".{target.name}.partial")
        rows.to_parquet(partial, index=False)
        partial.replace(target)

    def finish(self) -> Path:
        """Join the parts to the manifest, if that is not done; return its path."""
        target = self.path / MANIFEST
        if not self.complete:
            partial = target.with_name(f".{target.name}.partial")
            write_manifest(self.plan, self._parts(), partial)
            partial.replace(target)
        shutil.rmtree(self.path / PARTS, ignore_errors=True)
        return target

    def _parts(self) -> list[Path]:
        return sorted((self.path / PARTS).glob("[0-9]*.parquet"))

    def _regions(self, group: int) -> Ints:
        """Rows of the table that a group's units belong to."""
        layout = self.plan.layout
        return layout.order[layout.members(group)] // self.plan.form.pieces

    def _describe(self, folder: Path) -> None:
        partial = folder / f".{PLAN}.partial"
        partial.write_text(json.dumps(self.description, indent=1) + "\n")
        partial.replace(folder / PLAN)


def _refusal(path: Path, key: str, there: dict[str, Any], mine: dict[str, Any]) -> str:
    what = f"its {key.replace('_', ' ')} is {there.get(key)!r}, now it is {mine[key]!r}"
    if key == "fingerprint":
        what = "the regions or options differ"
    advice = "give another path"
    if key == "raster_state":
        advice += ", or retry_failed=True if the raster was only repaired"
    return f"{path} was written by another plan: {what}; {advice}"
