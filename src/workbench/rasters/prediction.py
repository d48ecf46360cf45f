"""A network's answer for every pixel of a raster, group by group."""

import hashlib
import sys
import threading
from collections.abc import Callable, Set
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.rasters.formats import FileWriter, unique_partial
from workbench.rasters.mosaic import Mosaic, new_raster, warn_of_gaps
from workbench.rasters.plan_data import PlanData
from workbench.rasters.schedule import Ints, clipped
from workbench.rasters.write import OutputFolder, parts_of, write_groups

#: Pixels that go through the network at a time.
_BATCH = 2**19
#: No class has this number.
_NO_CLASS = 255
Function = Callable[[NDArray[Any]], NDArray[Any]]


class PredictionWriter(FileWriter):
    """One array a group: for each region, one after another, its pixels' answers (pixel, band)."""

    def __init__(
        self, plan: PlanData, path: Path, cores: Ints, function: Function, classes: bool
    ) -> None:
        super().__init__(plan, path)
        self._cores = cores
        self._function = function
        self._classes = classes
        self._one_at_a_time = threading.Lock()

    def write(
        self, group: int, image: NDArray[Any], valid: NDArray[np.bool_], failed: Set[int]
    ) -> list[str]:
        """Ask the network about a group's chips, and keep what it says of their cores."""
        target = self._path / f"{group:06d}.npy"
        partial = unique_partial(target)
        chips = self.members(group, image, valid, set())
        with self._one_at_a_time:
            parts = []
            for shape, some in groupby(chips, key=lambda chip: chip[1].shape):
                same = list(some)
                step = max(1, _BATCH // (shape[0] * shape[1]))
                for start in range(0, len(same), step):
                    parts += self._answers(same[start : start + step], failed)
            with partial.open("wb") as file:
                np.save(file, np.concatenate(parts))
        partial.replace(target)
        return ["" if i in failed else target.name for i in range(len(image))]

    def _answers(self, chips: list[Any], failed: Set[int]) -> list[NDArray[Any]]:
        """The cores' answers (pixel, band); pixels without data have none."""
        form = self._plan.chip_format
        pixels = np.stack([chip[..., : form.channels] for _, chip, *_ in chips])
        scores = np.asarray(self._function(pixels))
        scores = scores[..., None] if scores.ndim == 3 else scores
        if scores.shape[:3] != pixels.shape[:3] or scores.dtype.kind not in "biuf":
            raise ValueError(
                f"the network made {scores.dtype} {scores.shape} of {pixels.shape}; map() wants "
                "(sample, y, x) or (sample, y, x, class), a torch module's (sample, class, y, x)"
            )
        if self._classes:
            if scores.shape[3] > _NO_CLASS:
                raise ValueError(f"classes=True: there are {scores.shape[3]} classes, over 255")
            scores = scores.argmax(axis=3)[..., None].astype(np.uint8)
        answers = []
        for (i, chip, good, region), score in zip(chips, scores, strict=True):
            score = score.astype(np.float32) if score.dtype.kind == "f" else score.copy()
            if score.dtype.kind == "f" or self._classes:  # other whole numbers have no such value
                mask = chip[..., -1] if form.mask else None
                empty = self._plan.without_data(chip, mask) | ~good | (i in failed)
                score[empty] = _NO_CLASS if self._classes else np.nan
            col, row, width, height = self._cores[region].tolist()
            left, top = col - self._plan.boxes[region, 0], row - self._plan.boxes[region, 1]
            core = score[top : top + height, left : left + width]
            answers.append(core.reshape(-1, score.shape[2]))
        return answers


def predict_raster(
    grown: PlanData, cores: Ints, network: Any, path: Path, classes: bool, **options: Any
) -> Path:
    """Write a network's answers about the cores of regions; see `Plan.map`."""
    inside = clipped(cores, grown.raster.height, grown.raster.width)
    cores = np.stack([inside[:, 2], inside[:, 0], *(inside[:, [3, 1]] - inside[:, [2, 0]]).T], 1)
    function, name = _as_function(network)
    sha = hashlib.sha256(name.encode() + np.ascontiguousarray(cores).tobytes()).hexdigest()[:16]
    kind = f"prediction {sha}{' of classes' if classes else ''}"

    def writer(plan: PlanData, folder: Path) -> PredictionWriter:
        return PredictionWriter(plan, folder, cores, function, classes)

    def join(plan: PlanData, parts: list[Path], target: Path) -> None:
        first = np.load(parts[0], mmap_mode="r")
        nodata = np.nan if first.dtype.kind == "f" else _NO_CLASS if classes else None
        dtype = first.dtype.name.replace("bool", "uint8")
        with new_raster(target, plan.raster, first.shape[1], dtype, nodata, []) as sink:
            mosaic = Mosaic(sink, cores, "last", nodata, plan.memory)
            for group, part in enumerate(parts):
                answers = np.load(part, mmap_mode="r")
                start = 0
                for region in plan.layout.order[plan.layout.members(group)].tolist():
                    width, height = cores[region, 2:].tolist()
                    stop = start + height * width
                    mosaic.add(region, answers[start:stop].reshape(height, width, -1))
                    start = stop
        warn_of_gaps(mosaic, nodata, "last")

    folder = OutputFolder(grown.with_mask(), parts_of(path), kind)
    write_groups(folder, writer, path, join, **options)
    return path


def _as_function(network: Any) -> tuple[Function, str]:
    """A network as a function of (sample, y, x, channel), and what tells it from others."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(network, torch.nn.Module):
        if not callable(network):
            raise TypeError(f"the network must be a torch module or a function, not {network!r}")
        return network, getattr(network, "__qualname__", type(network).__qualname__)
    from workbench.models.inference import run

    def function(pixels: NDArray[Any]) -> NDArray[Any]:
        ds = xr.Dataset({"image": (("sample", "y", "x", "channel"), pixels)})
        ds = ds.assign_coords(sample=np.arange(len(pixels)))
        outputs = list(run(network, ds, len(pixels), progress=False))
        return np.asarray(torch.cat(outputs).movedim(1, -1).float().cpu())

    sha = hashlib.sha256(type(network).__qualname__.encode())
    for key, value in network.state_dict().items():
        sha.update(key.encode() + value.detach().cpu().numpy().tobytes())
    return function, sha.hexdigest()
