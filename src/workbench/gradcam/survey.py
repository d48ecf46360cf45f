"""Maps of a whole dataset: mean maps by class, energy in boxes, deletion, the strangest images."""

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional as F

from workbench.gradcam.faithfulness import deletion_areas
from workbench.gradcam.forward import Target
from workbench.gradcam.localization import energy_inside
from workbench.gradcam.probe import Probe, resize
from workbench.models.inference import Activation, batches

#: The finest maps that are kept of every image.
_FINEST = 28
_SPREAD = 1.5


def survey(
    model: nn.Module,
    ds: xr.Dataset,
    layer: str,
    *,
    method: str = "gradcam",
    target: Target = None,
    boxes: np.ndarray | xr.DataArray | None = None,
    deletion_steps: int = 0,
    activation: Activation = "softmax",
    batch_size: int = 32,
    progress: bool = True,
) -> xr.Dataset:
    """Explain every image of a dataset, a batch at a time, and sum up what the network looks at.

    Of each image only its map is kept, at most 28×28 numbers.

    Parameters
    ----------
    model, layer, method, activation
        As :class:`Probe` and :meth:`ProbeResult.map` take them.
    ds
        An image dataset; dask-backed images are loaded a batch at a time.
    target
        None for the predicted class, a number for all, or one for each image, ``ds["label"]``.
    boxes
        (sample, 4): left, top, right, bottom in pixels, right and bottom excluded.
    deletion_steps
        Points of the deletion curve; each costs a forward pass. 0 leaves deletion out.
    batch_size
        Images at a time.
    progress
        Show a bar.

    Returns
    -------
    xarray.Dataset
        By ``sample``, with the ids of `ds`, so that ``ds.merge`` joins it: ``target`` and
        ``predicted`` (class numbers), ``probability`` of the target, ``strangeness`` (1 less the
        cosine of the map with the mean map of the other images of its class; NaN for the only
        one), ``energy`` (the map's share in the box) and ``box_share`` (the box's in the image,
        what a map that knows nothing has), ``deletion`` (area; low is good). By ``class``:
        ``n``, ``class_map`` (class, y, x), the mean of the maps, each divided by its sum, and
        ``class_deletion``.

    Raises
    ------
    ValueError
        As :meth:`Probe.run`; or there is not one box for each image.
    """
    n = ds.sizes["sample"]
    edges = None if boxes is None else torch.as_tensor(np.asarray(boxes))
    if edges is not None and edges.shape != (n, 4):
        raise ValueError(f"boxes of shape {tuple(edges.shape)} for {n} images: they are (n, 4)")
    chosen = None if target is None or callable(target) else np.broadcast_to(np.asarray(target), n)
    rows: list[pd.DataFrame] = []
    kept: list[Tensor] = []
    start = 0
    for batch in batches(ds, batch_size, progress):
        part = slice(start, start + len(batch))
        start = part.stop
        with Probe(model, layer, activation=activation) as probe:
            result = probe.run(batch, target if chosen is None else chosen[part])
            maps = result.map(method, signed=True).relu().float().cpu()
        if result.target is None:
            raise ValueError("a survey sums up by class: give class numbers as the target")
        probability = result.probabilities
        row = {
            "target": result.target,
            "predicted": probability.argmax(1),
            "probability": probability.gather(1, result.target[:, None])[:, 0],
        }
        size = (batch.shape[2], batch.shape[3])
        if edges is not None:
            row["energy"] = energy_inside(resize(maps, size), edges[part])
        if deletion_steps:
            fine = resize(maps, size).to(result.x)
            row["deletion"] = deletion_areas(result, fine, deletion_steps, activation)
        rows.append(pd.DataFrame({name: v.cpu().numpy() for name, v in row.items()}))
        grid = (min(maps.shape[1], _FINEST), min(maps.shape[2], _FINEST))
        kept.append(F.adaptive_avg_pool2d(maps, grid))
    table = pd.concat(rows, ignore_index=True)
    if edges is not None:
        left, top, right, bottom = edges.double().unbind(1)
        area = float(size[0] * size[1])
        table["box_share"] = ((right - left) * (bottom - top) / area).numpy()
    return _summed_up(table, torch.cat(kept), model, ds, probability.shape[1])


def _summed_up(
    table: pd.DataFrame, maps: Tensor, model: nn.Module, ds: xr.Dataset, classes: int
) -> xr.Dataset:
    shares = (maps / maps.sum((1, 2), keepdim=True).clamp(min=1e-12)).flatten(1)
    target = torch.from_numpy(table["target"].to_numpy())
    counts = torch.bincount(target, minlength=classes)
    sums = torch.zeros(classes, shares.shape[1]).index_add_(0, target, shares)
    others = sums[target] - shares  # their direction is that of their mean
    alike = F.cosine_similarity(shares, others, dim=1)
    table["strangeness"] = torch.where(counts[target] > 1, 1 - alike, torch.nan).numpy()
    means = (sums / counts[:, None]).reshape(classes, *maps.shape[1:])
    names = getattr(model, "classes", None)
    known = names is not None and len(names) == classes
    summary = xr.Dataset(
        {name: ("sample", table[name].to_numpy()) for name in table},
        coords={"class": list(names) if known and names else np.arange(classes)},
    )
    summary["n"] = ("class", counts.numpy())
    summary["class_map"] = (("class", "map_y", "map_x"), means.numpy())
    if "deletion" in table:
        by_class = table.groupby("target")["deletion"].mean().reindex(range(classes))
        summary["class_deletion"] = ("class", by_class.to_numpy())
    return summary.assign_coords(sample=ds["sample"]) if "sample" in ds.coords else summary


def suspects(summary: xr.Dataset, labels: xr.DataArray | np.ndarray) -> pd.DataFrame:
    """Images that may be right for the wrong reason, as the review takes them.

    Parameters
    ----------
    summary
        What :func:`survey` returns.
    labels
        (sample,): the given class numbers, ``ds["label"]``.

    Returns
    -------
    pandas.DataFrame
        Indexed by ``sample``, worst first, for ``labels.review(ds, table)``: ``score`` in [0, 1],
        by how much less of the map lies in the box than a map that knows nothing has there, or,
        without boxes, the strangeness; ``given``, ``suggested`` (the predicted class);
        ``is_issue``: the answer is the label, and the map has less energy in the box than chance,
        or a strangeness that lies 1.5 quartile ranges above the upper quartile.
    """
    given = np.asarray(labels)
    predicted = summary["predicted"].values
    if "energy" in summary:
        share = summary["box_share"].values
        score = np.clip(1 - summary["energy"].values / share, 0, 1)
        odd = score > 0
    else:
        score = np.nan_to_num(summary["strangeness"].values)
        low, high = np.quantile(score, [0.25, 0.75])
        odd = score > high + _SPREAD * (high - low)
    table = pd.DataFrame(
        {"score": score, "given": given, "suggested": predicted},
        index=pd.Index(summary["sample"].values, name="sample"),
    )
    table["is_issue"] = odd & (predicted == given)
    return table.sort_values(["is_issue", "score"], ascending=False, kind="stable")
