"""How a plan's work is divided: into units that are read, groups, and threads."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from workbench.rasters import crop
from workbench.rasters.form import Form
from workbench.rasters.georeference import Raster
from workbench.rasters.job import Job, Settings
from workbench.rasters.layout import Ints, Layout, make_grid, make_layout
from workbench.rasters.reading import Reading
from workbench.rasters.schedule import Schedule


@dataclass(frozen=True, eq=False)
class Division:
    """The part of a plan that says who reads what; see `Plan` for its attributes."""

    raster: Raster
    table: pd.DataFrame
    skipped: pd.DataFrame
    form: Form
    bands: list[int]
    memory: int
    decoder: str
    boxes: Ints = field(repr=False)
    reading: Reading = field(repr=False)

    @property
    def mask(self) -> bool:
        """Whether the raster's own mask is read too."""
        return self.form.mask

    @cached_property
    def whole(self) -> bool:
        """Whether every region fills its chip with pixels of the raster."""
        form, raster, box = self.form, self.raster, self.boxes.T
        same = form.pieces == 1 and not form.resampled and "polygon" not in self.table
        return same and bool(
            (box[2] == form.width).all()
            and (box[3] == form.height).all()
            and (box[:2] >= 0).all()
            and (box[0] + box[2] <= raster.width).all()
            and (box[1] + box[3] <= raster.height).all()
        )

    @cached_property
    def units(self) -> Ints:
        """Boxes that are read at a time: the regions', or pieces of them where they are large."""
        form, boxes = self.form, self.reading.boxes
        if form.pieces == 1:
            return boxes
        units = np.repeat(boxes, form.pieces, axis=0)
        first = np.tile(np.arange(form.pieces) * form.rows, len(boxes))
        height = np.clip(units[:, 3] - first, 0, form.rows)
        units[:, 1] += first
        units[:, 3] = height
        return units

    def slot(self, unit: int) -> Any:
        """Where in the array of all chips a unit's pixels go."""
        form = self.form
        if form.pieces == 1:
            return unit
        first = unit % form.pieces * form.rows
        return unit // form.pieces, slice(first, first + form.rows)

    @cached_property
    def layout(self) -> Layout:
        """Units in the order in which they are read."""
        form = self.form
        grid = make_grid(self.reading.raster, form.pixel_bytes, self.memory)
        largest = int((self.units[:, 2] * self.units[:, 3]).max())
        chip = max(largest, form.rows * form.width) * (form.pixel_bytes + 1)
        if form.pieces > 1:  # a shard is a piece, so that none is written by two
            chip = self.memory
        return make_layout(grid, self.units, chip, form.pixel_bytes, self.memory)

    def job(self, schedule: Schedule, group: int) -> Job:
        """One group's work, complete in itself."""
        members = self.layout.members(group)
        units = self.layout.order[members]
        rows = units // self.form.pieces
        polygons = None
        if "polygon" in self.table:
            polygons = self.reading.polygons(self.table["polygon"].iloc[rows])
        boxes, exact = self.units[units], self.reading.exact(rows)
        settings = Settings(self.reading.raster, self.bands, self.form, self.layout.grid,
                            self.decoder)  # fmt: skip
        return Job(settings, group, members.start, schedule.share(group), boxes,
                   self.layout.inside(members), boxes if exact is None else exact,
                   polygons)  # fmt: skip

    def schedule(self, groups: Ints | None = None) -> Schedule:
        """Who decodes which cell, if these groups are to be read; all by default."""
        groups = np.arange(self.layout.groups) if groups is None else groups
        return Schedule(self.layout, groups, self.form.pixel_bytes, self.memory)

    def threads(self) -> int:
        """Threads that fit into the memory: each holds a group's chips, encoded ones, and cells."""
        return max(1, min(crop.cores(), int(self.memory / 2 // self.thread_bytes)))

    @property
    def thread_bytes(self) -> int:
        """What a thread takes at most."""
        cell, size = self.layout.grid.cell, self.layout.size
        group = size * self.form.rows * self.form.width * (self.form.pixel_bytes + 1)
        return 2 * group + 2 * cell[0] * cell[1] * self.form.pixel_bytes
