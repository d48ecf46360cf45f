"""Faithfulness of maps: deletion, insertion, ROAD and parameter randomisation, beside baselines."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from workbench.gradcam.forward import Target, images_for, logits, undisturbed
from workbench.gradcam.localization import centre_maps, energy_inside, points_inside, random_maps
from workbench.gradcam.probe import METHODS, Probe, resize

#: ROAD's weights of a pixel's neighbours: 1/6 beside it, 1/12 at its corners.
_WEIGHTS = ((1 / 12, 1 / 6, 1 / 12), (1 / 6, 0.0, 1 / 6), (1 / 12, 1 / 6, 1 / 12))


def impute(x: Tensor, keep: Tensor, tolerance: float = 1e-4, most: int = 2000) -> Tensor:
    """Replace pixels by the weighted mean of their neighbours, replaced ones among them.

    The noisy linear imputation of ROAD (Rong et al. 2022, arXiv:2202.00449, Eq. 5), without the
    noise. One linear system for each image, symmetric and positive definite, solved for the whole
    batch at once by conjugate gradients on the images' device.

    Parameters
    ----------
    x
        Images (sample, channel, y, x).
    keep
        (sample, y, x) bool: which pixels stay. An image that loses all of them becomes its mean.
    tolerance
        Where the residual falls below this share of the first one, the solution is taken.
    most
        Steps after which it is taken anyway.

    Examples
    --------
    >>> x = torch.arange(5.0).expand(1, 1, 5, 5).clone()
    >>> keep = torch.ones(1, 5, 5, dtype=torch.bool)
    >>> keep[0, 2, 2], x[0, 0, 2, 2] = False, 99.0
    >>> round(impute(x, keep)[0, 0, 2, 2].item(), 3)
    2.0
    """
    gone = (~keep)[:, None].to(x)
    weights = torch.tensor(_WEIGHTS, dtype=x.dtype, device=x.device)[None, None]
    # At the edges fewer neighbours share the weight.
    degree = _around(torch.ones_like(x[:1, :1]), weights)

    def residue(values: Tensor) -> Tensor:
        return gone * (degree * values - _around(values, weights))

    start = torch.where(gone > 0, x.mean((2, 3), keepdim=True), x)
    found = start.clone()
    r = -residue(found)
    direction, size = r.clone(), _dot(r, r)
    enough = tolerance**2 * size
    for _ in range(most):
        if (size <= enough).all():
            break
        step = residue(direction)
        rate = size / _dot(direction, step).clamp(min=torch.finfo(x.dtype).tiny)
        rate = torch.where(size <= enough, 0, rate)
        found += rate * direction
        r -= rate * step
        before, size = size, _dot(r, r)
        direction = r + size / before.clamp(min=torch.finfo(x.dtype).tiny) * direction
    return torch.where(keep.any(2).any(1)[:, None, None, None], found, start)


def _around(values: Tensor, weights: Tensor) -> Tensor:
    n, channels, height, width = values.shape
    flat = values.reshape(n * channels, 1, height, width)
    return F.conv2d(flat, weights, padding=1).reshape(values.shape)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """One number for each image and channel, each of which is a system of its own."""
    return (a * b).sum((2, 3), keepdim=True)


_STAGES = 4
#: From this rank correlation on, with the upper half of the weights shuffled, a map fails.
FAILS_FROM = 0.5


def randomization(
    model: nn.Module,
    x: Tensor | xr.Dataset,
    methods: Sequence[str],
    layer: str,
    *,
    target: Target = None,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Compare maps of the trained network with maps of networks whose weights are shuffled.

    Adebayo et al. 2018 (arXiv:1810.03292, section 4), cascading: weights are randomised from the
    output downwards, a quarter of the parameters at a time. A map that stays what it was while all
    that knows of classes is gone does not show what the network has learnt, however sharp it
    looks: it is an edge detector, which falls only with the first layers. The verdict is therefore
    taken with the upper half shuffled. The values of each parameter are shuffled, which keeps
    their distribution; the model itself is copied.

    Parameters
    ----------
    model, x, target
        As :meth:`Probe.run` takes them; the target is that of the trained network throughout.
    methods
        Names out of ``METHODS``.
    layer
        Of the maps that are a layer's.
    seed
        Of the shuffling.
    progress
        Show a bar.

    Returns
    -------
    pandas.DataFrame
        By method: the rank correlation (Spearman) with the trained network's maps after each
        stage, mean over the images; ``similarity``, that of the upper half; ``verdict`` in words.
        A map that has become constant is not correlated: 0.
    """
    images = images_for(model, x)
    expected, target = _maps(model, images, methods, layer, target)
    rows: dict[str, dict[str, float | str]] = {method: {} for method in methods}
    cascade = tqdm(_cascade(model, seed), total=_STAGES, disable=not progress, desc="randomising")
    for share, shuffled in cascade:
        found, _ = _maps(shuffled, images, methods, layer, target)
        for method in methods:
            alike = rank_correlation(found[method], expected[method])
            rows[method][f"{share:.0%} shuffled"] = float(alike.mean())
    for row in rows.values():
        similarity = float(row["50% shuffled"])
        row["similarity"] = similarity
        row["verdict"] = _verdict(similarity)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("map")


def rank_correlation(one: Tensor, other: Tensor) -> Tensor:
    """Spearman's correlation of maps (sample, y, x), one number for each sample.

    Examples
    --------
    >>> a = torch.rand(1, 4, 4)
    >>> rank_correlation(a, a.exp()).item()
    1.0
    """
    a, b = (_centred_ranks(m.flatten(1)) for m in (one, other))
    below = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(below > 0, (a * b).sum(1) / below.clamp(min=1e-12), 0)


def _centred_ranks(values: Tensor) -> Tensor:
    """Ranks less their mean, equal values sharing theirs."""
    ordered = values.sort(1).values.contiguous()
    values = values.contiguous()
    low, high = (torch.searchsorted(ordered, values, right=r) for r in (False, True))
    ranks = (low + high).double()
    return ranks - ranks.mean(1, keepdim=True)


def _maps(
    model: nn.Module, x: Tensor, methods: Sequence[str], layer: str, target: Target
) -> tuple[dict[str, Tensor], Target]:
    size = (x.shape[2], x.shape[3])
    with Probe(model, layer) as probe:
        seen = probe.run(x, target)
        return {m: resize(seen.map(m), size) for m in methods}, seen.target


def _cascade(model: nn.Module, seed: int) -> Iterator[tuple[float, nn.Module]]:
    """Copies of the model, more of it shuffled each time, from its last parameter upwards."""
    shuffled = copy.deepcopy(model)
    rng = torch.Generator().manual_seed(seed)
    parameters = list(shuffled.parameters())[::-1]
    done = 0
    for stage in range(1, _STAGES + 1):
        until = round(len(parameters) * stage / _STAGES)
        with torch.inference_mode(False), torch.no_grad():
            for values in parameters[done:until]:
                order = torch.randperm(values.numel(), generator=rng).to(values.device)
                values.copy_(values.flatten()[order].view_as(values))
        done = until
        yield stage / _STAGES, shuffled


def _verdict(similarity: float) -> str:
    how = f"(rank correlation {similarity:.2f}) when the upper half of the weights is shuffled"
    return f"fails: stays alike {how}" if similarity >= FAILS_FROM else f"passes: changes {how}"


#: What every table shows beside the maps that it was asked about.
BASELINES = ("random map", "centre blob", "plain gradient")
Chance = Callable[[Tensor], Tensor]
_ROAD_SHARES = (0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class Faithfulness:
    """The tests' results.

    Attributes
    ----------
    table
        By map: ``deletion`` (area; low is good), ``insertion`` (area; high is good), ``road``
        (high is good; 0 for a map that knows nothing), with boxes ``pointing`` and ``energy``
        (shares; high is good), with a layer ``similarity`` and ``verdict`` of the parameter
        randomisation.
    curves
        One row for each map and share of the pixels: ``map``, ``share``, ``deletion``,
        ``insertion``, mean probabilities of the target.
    """

    table: pd.DataFrame
    curves: pd.DataFrame

    def _repr_html_(self) -> str:
        return str(self.table.style.format(precision=3).to_html())


def faithfulness(
    model: nn.Module,
    x: Tensor | xr.Dataset,
    maps: Mapping[str, Tensor],
    *,
    target: Target = None,
    boxes: Tensor | Sequence[Sequence[int]] | None = None,
    layer: str | None = None,
    steps: int = 16,
    seed: int = 0,
    progress: bool = True,
) -> Faithfulness:
    """Test maps against the network, beside a random map, a centre blob and the plain gradient.

    - *Deletion* and *insertion* (Petsiuk et al. 2018, arXiv:1806.07421, section 3.2): the most
      important pixels first, give way to the image's mean colour, or come back into a blurred
      image; the area below the target's probability. Equal values come in random order.
    - *ROAD* (Rong et al. 2022, arXiv:2202.00449): pixels are replaced by linear imputation, so
      that the hole itself tells nothing; half the difference between the probability without the
      least and without the most important pixels, mean of 20, 40, 60 and 80 %.
    - The *pointing game* and the *energy* inside the box, where boxes are known.
    - *Parameter randomisation* (:func:`randomization`), where `layer` is given, of the maps whose
      names are methods.

    Parameters
    ----------
    model
        Gives logits (sample, class).
    x
        Images (sample, channel, y, x), or an image dataset.
    maps
        Name to (sample, y, x) of any size, larger being more important; resampled bilinearly.
    target
        The class whose probability is followed: None for the predicted one, a number, or one for
        each image.
    boxes
        (sample, 4): left, top, right, bottom in pixels of `x`, right and bottom excluded.
    layer
        Of the maps that are made anew for the randomised networks.
    steps
        Points of a curve after the first.
    seed
        Of the random map, the order of equal values and the randomised weights.
    progress
        Show a bar.

    Raises
    ------
    ValueError
        No map was given, one is not (sample, y, x) or not finite, a box lies outside, or `steps`
        is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: it must be at least 1")
    images = images_for(model, x)
    with Probe(model) as probe:
        seen = probe.run(images, target)
        plain = seen.map("gradient")
    if seen.target is None:
        raise ValueError("faithfulness follows a class's probability: give class numbers")
    every = {**_checked(maps, images), **_baselines(maps, images, seed), "plain gradient": plain}
    edges = None if boxes is None else torch.as_tensor(boxes, device=images.device)
    _located(plain, edges)  # refuses wrong boxes before the long work
    chance = partial(_chance, model, seen.target)
    bar = tqdm(every.items(), desc="faithfulness", disable=not progress)
    found = {name: _test(chance, images, values, edges, steps, seed) for name, values in bar}
    table = pd.DataFrame.from_dict({name: row for name, (row, _) in found.items()}, orient="index")
    if layer is not None:
        methods = [*(name for name in every if name in METHODS), "gradient"]
        shuffled = randomization(
            model, images, methods, layer, target=seen.target, seed=seed, progress=progress
        ).rename(index={"gradient": "plain gradient"})
        table = table.join(shuffled[["similarity", "verdict"]])
    curves = pd.concat([curve.assign(map=name) for name, (_, curve) in found.items()])
    columns = ["map", "share", "deletion", "insertion"]
    return Faithfulness(table.rename_axis("map"), curves.reset_index(drop=True)[columns])


def _test(
    chance: Chance, x: Tensor, values: Tensor, boxes: Tensor | None, steps: int, seed: int
) -> tuple[dict[str, float], pd.DataFrame]:
    """One map's row of the table, and its curves."""
    order = _order(values, seed)
    curves = _curves(chance, x, order, steps)
    row = {
        "deletion": _area(curves["deletion"]),
        "insertion": _area(curves["insertion"]),
        "road": _road(chance, x, order),
        **_located(values, boxes),
    }
    return row, curves


def _checked(maps: Mapping[str, Tensor], images: Tensor) -> dict[str, Tensor]:
    """The maps at the images' resolution."""
    if not maps:
        raise ValueError("there is no map to test")
    found = {}
    for name, values in maps.items():
        if name in BASELINES:
            raise ValueError(f"{name!r} is a baseline, which is there anyway")
        if values.ndim != 3 or len(values) != len(images) or not torch.isfinite(values).all():
            raise ValueError(
                f"map {name!r}, {tuple(values.shape)}, is not (sample, y, x) of "
                f"finite values for {len(images)} images"
            )
        found[name] = resize(values.to(images), (images.shape[2], images.shape[3]))
    return found


def _baselines(maps: Mapping[str, Tensor], images: Tensor, seed: int) -> dict[str, Tensor]:
    """The random map is as coarse as the coarsest map."""
    n, size = len(images), (images.shape[2], images.shape[3])
    coarsest = min((tuple(m.shape[1:]) for m in maps.values()), key=math.prod)
    noise = random_maps(n, size, (coarsest[0], coarsest[1]), seed)
    return {"random map": noise.to(images), "centre blob": centre_maps(n, size).to(images)}


def _located(values: Tensor, boxes: Tensor | None) -> dict[str, float]:
    if boxes is None:
        return {}
    hits, energy = points_inside(values, boxes), energy_inside(values, boxes)
    return {"pointing": float(hits.float().mean()), "energy": float(energy.mean())}


def _chance(model: nn.Module, target: Tensor, x: Tensor) -> Tensor:
    """The target's probability for each image."""
    with undisturbed(model):
        found = logits(model(x)).softmax(1)
    return found[torch.arange(len(x), device=found.device), target]


def _order(values: Tensor, seed: int) -> Tensor:
    """Each pixel's place, 0 to 1, from the most to the least important; ties at random."""
    flat = values.flatten(1)
    shuffled = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(seed))
    shuffled = shuffled.to(flat.device)
    sorting = shuffled[flat[:, shuffled].argsort(dim=1, descending=True, stable=True)]
    place = torch.empty_like(flat)
    steps = torch.linspace(0, 1, flat.shape[1], device=flat.device, dtype=flat.dtype)
    return place.scatter(1, sorting, steps.expand_as(flat)).reshape(values.shape)


def _curves(chance: Chance, x: Tensor, order: Tensor, steps: int) -> pd.DataFrame:
    """The mean probability while pixels go and while they come back."""
    mean = x.mean((2, 3), keepdim=True).expand_as(x)
    # Brought to 4×4 and back: light and colour stay, things do not.
    blurred = F.interpolate(F.adaptive_avg_pool2d(x, 4), size=x.shape[2:], mode="bilinear")
    rows = []
    for step in range(steps + 1):
        first = (order < step / steps if step < steps else order >= 0)[:, None]
        rows.append(
            {
                "share": step / steps,
                "deletion": float(chance(torch.where(first, mean, x)).mean()),
                "insertion": float(chance(torch.where(first, x, blurred)).mean()),
            }
        )
    return pd.DataFrame(rows)


def _area(heights: "pd.Series[float]") -> float:
    """Below a curve over shares from 0 to 1 in equal steps, by the trapezoidal rule."""
    values = heights.to_numpy()
    return float((values[1:] + values[:-1]).mean() / 2)


def _road(chance: Chance, x: Tensor, order: Tensor) -> float:
    found = [
        chance(impute(x, order <= 1 - share)) - chance(impute(x, order >= share))
        for share in _ROAD_SHARES
    ]
    return float(torch.stack(found).mean() / 2)
