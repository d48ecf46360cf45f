"""Targets beyond classification: regions, boxes, likeness and numbers that a map can explain."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from workbench.models.inference import scores_of

Score = Callable[[Any], Tensor]


def segmentation_target(class_: int, region: Any = None) -> Score:
    """The mean score of a class over a region of each image, of a network that labels pixels.

    Parameters
    ----------
    class_
        Its number.
    region
        bool (y, x) or (sample, y, x), brought to the output's size; by default where the network
        says the class.

    Raises
    ------
    ValueError
        The output is not (sample, class, y, x) or a dict with such an ``out``, as torchvision's
        are; or the region of an image is empty.

    Examples
    --------
    >>> output = {"out": torch.eye(2)[None, None].repeat(1, 3, 1, 1)}
    >>> segmentation_target(1, np.array([[True, False], [False, False]]))(output)
    tensor([1.])
    """

    def score(output: Any) -> Tensor:
        planes = output.get("out") if isinstance(output, Mapping) else output
        if not isinstance(planes, Tensor) or planes.ndim != 4:
            raise ValueError("the output is not (sample, class, y, x), nor a dict with such 'out'")
        if region is None:
            where = planes.argmax(1) == class_
        else:
            mask = torch.as_tensor(np.asarray(region), device=planes.device).to(planes)
            mask = mask.reshape(-1, 1, *mask.shape[-2:])
            where = F.adaptive_max_pool2d(mask, planes.shape[2:])[:, 0].expand(len(planes), -1, -1)
            where = where > 0
        sizes = where.sum((1, 2))
        if (sizes == 0).any():
            raise ValueError(
                f"the region of image {int((sizes == 0).nonzero()[0])} is empty: class {class_} is "
                "said nowhere in it; give a region"
            )
        return (planes[:, class_] * where).sum((1, 2)) / sizes

    return score


def detection_target(box: Any, class_: int | None = None) -> Score:
    """The score of the detection nearest to a box, times how well the two boxes overlap.

    Parameters
    ----------
    box
        (4,) or (sample, 4): left, top, right, bottom in pixels.
    class_
        Only detections of this class count; by default all.

    Returns
    -------
    callable
        Of a detector's output, a list with ``boxes``, ``scores`` and ``labels`` of each image, as
        torchvision's are. Where nothing overlaps the score is 0.
    """

    def score(output: Any) -> Tensor:
        wanted = torch.as_tensor(np.asarray(box)).reshape(-1, 4)
        best = []
        for detections, one in zip(output, wanted.expand(len(output), 4), strict=True):
            boxes = detections["boxes"]
            values = detections["scores"] * _overlap(boxes, one.to(boxes))
            if class_ is not None:
                values = values[detections["labels"] == class_]
            best.append(values.max() if len(values) else detections["scores"].sum() * 0)
        return torch.stack(best)

    return score


def _overlap(boxes: Tensor, one: Tensor) -> Tensor:
    """Intersection over union of boxes (box, 4) with one box."""
    sides = (torch.minimum(boxes[:, 2:], one[2:]) - torch.maximum(boxes[:, :2], one[:2])).clamp(0)
    both = sides.prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (one[2:] - one[:2]).prod()
    return both / (areas - both)


def regression_target(index: int = 0) -> Score:
    """One of the numbers that a network returns for each image, (sample,) or (sample, number)."""
    return lambda output: (
        scores_of(output) if scores_of(output).ndim == 1 else scores_of(output)[:, index]
    )


def similarity_target(vector: Any) -> Score:
    """The cosine of each image's vector with that of another image.

    Parameters
    ----------
    vector
        (feature,) or (sample, feature), such as a row of :func:`workbench.models.activations`.

    Returns
    -------
    callable
        Of the output of a :class:`workbench.models.Embedder`, (sample, feature).

    Examples
    --------
    Why is an image near its neighbour in a graph?

    >>> from workbench import datasets, gradcam, models
    >>> ds = datasets.load("photos", n=2)
    >>> embedder = models.Embedder(models.load("cifar10"))
    >>> one, other = models.activations(embedder.model, ds, progress=False).values
    >>> with gradcam.Probe(embedder, "model.layer3") as probe:
    ...     maps = probe.run(ds, similarity_target(np.stack([other, one]))).map("layercam")
    >>> maps.shape
    torch.Size([2, 8, 8])
    """

    def score(output: Tensor) -> Tensor:
        other = torch.as_tensor(np.asarray(vector)).to(output)
        return F.cosine_similarity(output, other.reshape(-1, other.shape[-1]), dim=1)

    return score
