"""A small fully convolutional network that finds objects, and how boxes come out of its maps.

A heat map a class says where objects are centred, four more maps how far their edges are (Zhou et
al. 2019, arXiv:1904.07850; Tian et al. 2019, arXiv:1904.01355).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from workbench._extras import need
from workbench._samples import unit_range
from workbench.datasets.boxes import CORNERS, as_table, boxes_of, image_of, image_sizes
from workbench.datasets.detections import merge_detections
from workbench.models.augmentation import Recipe, jitter, warp
from workbench.models.resnet import Block

STRIDE = 4
#: Edges are told in units of so many pixels, on a logarithmic scale.
_UNIT = 8.0
#: Peaks of an image that become boxes.
_MOST = 300


class FCN(nn.Module):
    """Find objects in images of any size.

    Parameters
    ----------
    classes
        What there is to find.
    channels
        Of the images.
    size
        Pixels of the longer side that images are brought to, whole.
    widths
        Channels at a half, a quarter, an eighth and a sixteenth of the image's size.
    mean, std
        Of each image channel in the training set.

    Examples
    --------
    >>> FCN(["cat"])(torch.rand(2, 3, 64, 96)).shape
    torch.Size([2, 5, 16, 24])
    """

    template = "fcn"
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        classes: Sequence[str],
        channels: int = 3,
        size: int = 320,
        widths: Sequence[int] = (16, 32, 64, 96),
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.classes, self.size, self.in_channels = list(classes), size, channels
        self.config = {"channels": channels, "size": size, "widths": list(widths)}
        self.register_buffer("mean", torch.tensor(mean or [0.5] * channels).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std or [0.25] * channels).view(1, -1, 1, 1))
        half, quarter, eighth, sixteenth = widths
        self.stem = nn.Sequential(
            nn.Conv2d(channels, half, 3, 2, padding=1, bias=False), nn.BatchNorm2d(half), nn.ReLU()
        )
        self.layer1 = Block(half, quarter, stride=2)
        self.layer2 = Block(quarter, eighth, stride=2)
        self.layer3 = Block(eighth, sixteenth, stride=2)
        self.layer4 = Block(sixteenth, sixteenth, stride=1)
        self.side1 = nn.Conv2d(quarter, quarter, 1)
        self.side2 = nn.Conv2d(eighth, quarter, 1)
        self.side4 = nn.Conv2d(sixteenth, quarter, 1)
        self.head = nn.Sequential(
            nn.Conv2d(quarter, quarter, 3, padding=1, bias=False),
            nn.BatchNorm2d(quarter),
            nn.ReLU(),
        )
        self.maps = nn.Conv2d(quarter, len(self.classes) + 4, 1)
        # at first nothing is anywhere: sigmoid(-4.6) = .01
        bias = torch.tensor([-4.6] * len(self.classes) + [0.0] * 4)
        self.maps.bias = nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (sample, channel, y, x) to (sample, class + 4, y / 4, x / 4).

        Probabilities that an object of the class is centred here, and the distances in pixels to
        its left, upper, right and lower edge; in training their logits and logarithms.
        """
        quarter = self.layer1(self.stem((x - self.mean) / self.std))
        eighth = self.layer2(quarter)
        top = self.side4(self.layer4(self.layer3(eighth)))
        eighth = self.side2(eighth) + _enlarged(top, eighth)
        maps: Tensor = self.maps(
            self.head(F.relu(self.side1(quarter) + _enlarged(eighth, quarter)))
        )
        if self.training:
            return maps
        heat, edges = maps[:, :-4].sigmoid(), maps[:, -4:].clamp(max=6).exp() * _UNIT
        return torch.cat([heat, edges], 1)


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="nearest")


def fitted(ds: xr.Dataset, size: int | tuple[int, int]) -> tuple[Tensor, NDArray[np.float64]]:
    """Full-size images, each brought whole to a longer side of `size`, and by what factor.

    uint8 (sample, channel, y, x), padded right and below to one size, a multiple of 16; or to
    `size` itself where it is (height, width).
    """
    own = image_sizes(ds)
    factor = (
        (np.array(size) / own).min(axis=1) if isinstance(size, tuple) else size / own.max(axis=1)
    )
    shapes = np.ceil(own * factor[:, None] - 1e-6).astype(int)
    height, width = (-(-int(side) // 16) * 16 for side in shapes.max(axis=0))
    if isinstance(size, tuple):
        height, width = size
    images = torch.zeros((len(factor), ds.sizes["channel"], height, width), dtype=torch.uint8)
    for row, (h, w) in enumerate(shapes):
        pixels = unit_range(image_of(ds, row, int(max(h, w)))).transpose(2, 0, 1)
        small = F.interpolate(torch.from_numpy(pixels)[None], (int(h), int(w)), mode="area")
        images[row, :, :h, :w] = (small[0] * 255).round().to(torch.uint8)
    return images, factor


def targets(
    boxes: Tensor, label: Tensor, sample: Tensor, shape: tuple[int, int, int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """What the maps should be for boxes (box, 4) of classes (box,) on images (box,) of a batch.

    `shape` is (sample, class, y, x) of the heat maps. An object is a Gaussian of a sixth of its
    sides about its middle (Liu et al. 2020, arXiv:1909.00700); near it the edges' distances are
    asked for, and weigh as much as the Gaussian.
    """
    n, classes, height, width = shape
    heat = torch.zeros(shape)
    edges, weight = torch.zeros(n, 4, height, width), torch.zeros(n, 1, height, width)
    y, x = torch.arange(height).view(-1, 1), torch.arange(width).view(1, -1)
    for i in range(n):
        mine = sample == i
        if not mine.any():
            continue
        box, kind = boxes[mine] / STRIDE, label[mine]
        middle = (box[:, :2] + box[:, 2:]) / 2
        spread = ((box[:, 2:] - box[:, :2]) / 6).clamp(min=0.4)
        left, top = (middle.floor()[:, axis, None, None] for axis in (0, 1))
        wide, high = (spread[:, axis, None, None] for axis in (0, 1))
        bump = torch.exp(-((x - left) ** 2 / (2 * wide**2) + (y - top) ** 2 / (2 * high**2)))
        for k in range(classes):
            if (kind == k).any():
                heat[i, k] = bump[kind == k].amax(0)
        best, which = bump.max(0)
        weight[i, 0] = best * (best > 0.3)
        at = box[which].permute(2, 0, 1)
        centre = torch.stack([(x + 0.5).expand(height, -1), (y + 0.5).expand(-1, width)])
        edges[i] = torch.cat([centre - at[:2], at[2:] - centre]) * STRIDE
    return heat, (edges.clamp(min=1) / _UNIT).log(), weight


def decode(maps: Tensor, stride: float, threshold: float) -> list[NDArray[np.float64]]:
    """Boxes of each image: (box, 6) of corners in the network's pixels, score and class number."""
    heat, edges = maps[:, :-4], maps[:, -4:]
    peak = heat * (F.max_pool2d(heat, 3, 1, 1) == heat) * (heat >= threshold)
    found = []
    for scores, distance in zip(peak.float().cpu(), edges.float().cpu(), strict=True):
        best, at = scores.flatten().topk(min(_MOST, scores.numel()))
        at = at[best > 0]
        kind, row, column = np.unravel_index(at.numpy(), tuple(scores.shape))
        left, top, right, bottom = distance[:, row, column].numpy()
        x, y = (column + 0.5) * stride, (row + 0.5) * stride
        score = best[best > 0].numpy()
        corners = [x - left, y - top, x + right, y + bottom]
        found.append(np.stack([*corners, score, kind], axis=1).astype(np.float64))
    return found


def detect(
    model: nn.Module,
    ds: xr.Dataset,
    classes: Sequence[str],
    size: int | tuple[int, int],
    *,
    threshold: float = 0.3,
    iou: float = 0.5,
    batch_size: int = 16,
    progress: bool = True,
) -> pd.DataFrame:
    """The table of boxes that a network finds, in pixels of the full-size images.

    The network gives the maps of an :class:`FCN`, or, as torchvision's detectors do, a dict of
    ``boxes``, ``labels`` and ``scores`` for each image.
    """
    parameter = next(model.parameters(), torch.empty(0))
    limits = image_sizes(ds)
    tables = []
    with tqdm(total=ds.sizes["sample"], unit="image", disable=not progress) as bar:
        for start in range(0, ds.sizes["sample"], batch_size):
            part = ds.isel(sample=slice(start, start + batch_size))
            images, factor = fitted(part, size)
            with torch.no_grad():
                output = model(images.to(parameter.device).to(parameter.dtype) / 255)
            stride = 0.0 if isinstance(output, list) else images.shape[-1] / output.shape[-1]
            found = (
                [_listed(one, threshold) for one in output]
                if isinstance(output, list)
                else decode(output, stride, threshold)
            )
            for row, boxes in enumerate(found):
                edge = np.tile(limits[start + row, ::-1], 2)
                boxes[:, :4] = (boxes[:, :4] / factor[row]).clip(0, edge)
                boxes = boxes[(boxes[:, :2] < boxes[:, 2:4]).all(axis=1)]
                merged = merge_detections(boxes[:, :4], boxes[:, 4], iou, label=boxes[:, 5]).boxes
                names = [classes[int(k)] for k in merged["label"]]
                sample = part["sample"].values[row]
                tables.append(merged[[*CORNERS, "score"]].assign(sample=sample, label=names))
            bar.update(len(found))
    return as_table(pd.concat(tables, ignore_index=True).assign(source=type(model).__name__), ds)


def _listed(one: dict[str, Tensor], threshold: float) -> NDArray[np.float64]:
    values = torch.cat([one["boxes"], one["scores"][:, None], one["labels"][:, None]], 1)
    return values[one["scores"] >= threshold].double().cpu().numpy()


def objects_of(ds: xr.Dataset, boxes: pd.DataFrame | None = None) -> pd.DataFrame:
    """The boxes of a dataset's samples: those given, else its own, else those around its masks.

    An object of a ``mask`` (sample, y, x), -1 for background, is a connected part of one class.
    """
    table = boxes_of(ds) if boxes is None else boxes
    if boxes is None and table.empty and "mask" in ds:
        table = _around_masks(ds)
    own: pd.DataFrame = table[table["sample"].isin(ds["sample"].values)]
    return own


def _around_masks(ds: xr.Dataset) -> pd.DataFrame:
    ndimage = need("scipy.ndimage", extra="images")
    masks = ds["mask"].transpose("sample", "y", "x").values
    scales = np.tile((image_sizes(ds) / masks.shape[1:])[:, ::-1], 2)
    names = np.asarray(ds.coords.get("class", range(int(masks.max()) + 1)), dtype=np.str_)
    rows = []
    for sample, mask, scale in zip(ds["sample"].values, masks, scales, strict=True):
        for number in np.unique(mask[mask >= 0]):
            for y, x in ndimage.find_objects(ndimage.label(mask == number)[0]):
                corners = scale * (x.start, y.start, x.stop, y.stop)
                rows.append([sample, *corners, str(names[number])])
    return as_table(pd.DataFrame(rows, columns=["sample", *CORNERS, "label"]), ds)


class Scenes:
    """Images with boxes as training takes them: in batches, changed at random, with targets."""

    def __init__(self, model: FCN, ds: xr.Dataset, boxes: pd.DataFrame, recipe: Recipe) -> None:
        table = as_table(boxes, ds)
        if strange := sorted(set(table["label"]) - set(model.classes)):
            known = ", ".join(model.classes)
            raise ValueError(f"boxes are labelled {strange[0]!r}, the network knows {known}")
        self.images, factor = fitted(ds, model.size)
        self.classes, self.recipe = len(model.classes), recipe
        row = pd.Index(ds["sample"].values).get_indexer(table["sample"])
        at = table[CORNERS].to_numpy() * factor[row, None]
        self.sample = torch.from_numpy(row)
        self.boxes = torch.from_numpy(at).float()
        self.label = torch.tensor([model.classes.index(name) for name in table["label"]])

    def __len__(self) -> int:
        return len(self.images)

    @staticmethod
    def loss(maps: Tensor, wanted: tuple[Tensor, ...]) -> Tensor:
        """Focal loss of the heat maps (Zhou et al. 2019, Eq. 1), smooth L1 of log distances."""
        heat, edges, weight = (each.to(maps.device) for each in wanted)
        logit = maps[:, :-4]
        p, there = logit.sigmoid(), heat == 1
        found = there * (1 - p) ** 2 * F.logsigmoid(logit)
        nothing = ~there * (1 - heat) ** 4 * p**2 * F.logsigmoid(-logit)
        focal = -(found + nothing).sum() / there.sum().clamp(min=1)
        off = F.smooth_l1_loss(maps[:, -4:], edges, reduction="none", beta=0.1)
        return focal + (off * weight).sum() / weight.sum().clamp(min=1)

    def epoch(self, rng: torch.Generator | None, _mix: bool) -> Iterator[tuple[Tensor, Any]]:
        """Images from 0 to 1 and targets; in order and unchanged without a generator."""
        n, _, height, width = self.images.shape
        order = torch.arange(n) if rng is None else torch.randperm(n, generator=rng)
        for chosen in torch.split(order, self.recipe.batch_size):
            images = self.images[chosen]
            place = torch.full((n,), -1)
            place[chosen] = torch.arange(len(chosen))
            mine = torch.isin(self.sample, chosen)
            boxes, sample = self.boxes[mine], place[self.sample][mine]
            if rng is not None:
                matrix = jitter(len(chosen), height, width, self.recipe, rng, whole=True)
                images = warp(images, matrix)
                boxes = moved(boxes, matrix[sample])
                if self.recipe.color:
                    drawn = torch.rand(len(chosen), images.shape[1], 1, 1, generator=rng)
                    images = (images + self.recipe.color * (2 * drawn - 1)).round().clamp(0, 255)
            boxes = boxes.clamp(min=0).minimum(torch.tensor([width, height] * 2))
            inside = (boxes[:, 2:] - boxes[:, :2] > 1).all(1)
            shape = (len(chosen), self.classes, height // STRIDE, width // STRIDE)
            wanted = targets(boxes[inside], self.label[mine][inside], sample[inside], shape)
            yield images.float() / 255, wanted


def moved(boxes: Tensor, matrix: Tensor) -> Tensor:
    """Boxes (box, 4) under maps (box, 2, 3): the boxes around their mapped corners."""
    corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]
    there = corners @ matrix[:, :, :2].mT + matrix[:, None, :, 2]
    return torch.cat([there.amin(1), there.amax(1)], 1)
