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

if TYPE_CHECKING:
    from workbench.rasters.job import Failures
    from workbench.rasters.plan import Plan

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

    def exists(self, resume: bool) -> bool:
        """Say whether an earlier run began here; refuse a folder that is not ours to go on with."""
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return False
        if not self.path.is_dir() or not (self.path / PLAN).is_file():
            raise OutputError(f"{self.path} is there and not of our making; give another path")
        if not resume:
            raise OutputError(f"{self.path} holds chips already; delete it or give another path")
        there = json.loads((self.path / PLAN).read_text())
        mine = json.loads(json.dumps(self.description))
        if differing := [key for key in mine if there.get(key) != mine[key]]:
            key = differing[0]
            what = (
                "the regions or options differ"
                if key == "fingerprint"
                else f"its {key.replace('_', ' ')} is {there.get(key)!r}, now it is {mine[key]!r}"
            )
            raise OutputError(f"{self.path} was written by another plan: {what}; give another path")
        return True

    def begin(self, skeleton: Path) -> None:
        """Make a prepared folder, at once, the output folder."""
        (skeleton / PARTS).mkdir()
        (skeleton / PLAN).write_text(json.dumps(self.description, indent=1) + "\n")
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
        done = {int(part.stem) for part in (self.path / PARTS).glob("[0-9]*.parquet")}
        return np.array([g for g in range(self.plan.layout.groups) if g not in done], np.int64)

    def commit(self, group: int, failures: "Failures", paths: list[str]) -> None:
        """Record that a group is written. From now on it is never read again."""
        target = self.path / PARTS / f"{group:06d}.parquet"
        self._replace(target, self._rows(group, failures, paths))

    def _rows(self, group: int, failures: "Failures", paths: list[str]) -> pd.DataFrame:
        members = self.plan.layout.members(group)
        regions = self.plan.layout.order[members] // self.plan.form.pieces
        errors = [failures.get(position) for position in range(members.start, members.stop)]
        table = self.plan.table.drop(columns="polygon", errors="ignore").rename_axis("sample")
        rows = table.iloc[regions].reset_index()
        rows.insert(1, "position", regions)
        stored = np.arange(members.start, members.stop)
        rows.insert(2, "stored", regions if self.plan.form.pieces > 1 else stored)
        rows.insert(3, "path", paths)
        rows["error"] = [error.reason if error else "" for error in errors]
        rows["block_row"] = [error.block[0] if error else -1 for error in errors]
        rows["block_column"] = [error.block[1] if error else -1 for error in errors]
        return rows

    def _replace(self, target: Path, rows: pd.DataFrame) -> None:
        partial = target.with_name(f".{target.name}.partial")
        rows.to_parquet(partial, index=False)
        partial.replace(target)

    def finish(self) -> pd.DataFrame:
        """Join the parts to the manifest; return it."""
        if not self.complete:
            parts = sorted((self.path / PARTS).glob("[0-9]*.parquet"))
            rows = pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)
            # of a region in pieces one that failed, if any did
            rows = rows.sort_values(["position", "error"], ascending=[True, False])
            rows = rows.drop_duplicates("position", ignore_index=True)
            self._replace(self.path / MANIFEST, rows)
        shutil.rmtree(self.path / PARTS, ignore_errors=True)
        return pd.read_parquet(self.path / MANIFEST)
