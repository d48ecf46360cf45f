"""Faithfulness of maps: deletion, insertion, ROAD and parameter randomisation, beside baselines."""

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from workbench.gradcam.forward import Forward, Inputs, Target, differentiable, undisturbed
from workbench.gradcam.localization import centre_maps, energy_inside, points_inside
from workbench.gradcam.probe import METHODS, Probe, ProbeResult, resize
from workbench.models.inference import Activation, probabilities_of, settle

#: The side from which on an image is imputed at once.
_SMALLEST = 8


def impute(x: Tensor, keep: Tensor, tolerance: float = 1e-2, most: int = 500) -> Tensor:
    """Replace pixels by the weighted mean of their neighbours, replaced ones among them.

    The noisy linear imputation of ROAD (Rong et al. 2022, arXiv:2202.00449, Eq. 5), without the
    noise: neighbours beside a pixel weigh 1/6, at its corners 1/12. One linear system for each
    image, symmetric and positive definite, solved for the whole batch by conjugate gradients that
    start from the solution at half the resolution (cascadic multigrid).

    Parameters
    ----------
    x
        Images (sample, channel, y, x).
    keep
        (sample, y, x) bool: which pixels stay. An image that loses all of them becomes its mean.
    tolerance
        Where the residual falls below this share of that of a hole filled with the image's mean,
        the solution is taken.
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
    known = keep[:, None].to(x)
    gone = 1 - known
    # At the edges fewer neighbours share the weight.
    degree = _around(torch.ones_like(x[:1, :1]))

    def residue(values: Tensor) -> Tensor:
        return gone * (degree * values - _around(values))

    filled = torch.where(gone > 0, x.mean((2, 3), keepdim=True), x)
    r = residue(filled)
    enough = tolerance**2 * _dot(r, r)
    values = filled.clone()
    if min(x.shape[2:]) > _SMALLEST:
        share = F.avg_pool2d(known, 2, ceil_mode=True)
        means = F.avg_pool2d(known * x, 2, ceil_mode=True) / share.clamp(min=1e-6)
        means = torch.where(share > 0, means, x.mean((2, 3), keepdim=True))
        coarse = impute(means, share[:, 0] > 0, tolerance, most)
        values = torch.where(gone > 0, F.interpolate(coarse, x.shape[2:], mode="bilinear"), values)
    r = -residue(values)
    direction = r.clone()
    size = _dot(r, r)
    tiny = torch.finfo(x.dtype).tiny
    for _ in range(most):
        if (size <= enough).all():
            break
        step = residue(direction)
        rate = size / _dot(direction, step).clamp(min=tiny)
        rate = torch.where(size <= enough, 0, rate)
        values += rate * direction
        r -= rate * step
        before = size
        size = _dot(r, r)
        direction = r + size / before.clamp(min=tiny) * direction
    return torch.where(keep.any(2).any(1)[:, None, None, None], values, filled)


def _around(values: Tensor) -> Tensor:
    """The weighted sum of each pixel's eight neighbours: (1, 2, 1) along both axes, less itself."""
    padded = F.pad(values, (1, 1, 1, 1))
    across = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    return (across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]) / 12 - values / 3


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """One number for each image and channel, each of which is a system of its own."""
    return (a * b).sum((2, 3), keepdim=True)


_STAGES = 4
#: From this rank correlation on, with the upper half of the weights shuffled, a map fails.
FAILS_FROM = 0.5


def randomization(
    model: nn.Module,
    x: Inputs,
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
    expected, target = _maps(model, x, methods, layer, target)
    rows: dict[str, dict[str, float | str]] = {method: {} for method in methods}
    cascade = tqdm(_cascade(model, seed), total=_STAGES, disable=not progress, desc="randomising")
    for share, shuffled in cascade:
        maps, _ = _maps(shuffled, x, methods, layer, target)
        for method in methods:
            alike = rank_correlation(maps[method], expected[method])
            rows[method][f"{share:.0%} shuffled"] = float(alike.mean())
    for row in rows.values():
        similarity = float(row["50% shuffled"])
        row["similarity"] = similarity
        how = f"(rank correlation {similarity:.2f}) when the upper half of the weights is shuffled"
        fails = similarity >= FAILS_FROM
        row["verdict"] = f"fails: stays alike {how}" if fails else f"passes: changes {how}"
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
    model: nn.Module, x: Inputs, methods: Sequence[str], layer: str, target: Target
) -> tuple[dict[str, Tensor], Target]:
    with Probe(model, layer) as probe, warnings.catch_warnings():
        # that a map of shuffled weights is blank is an answer here
        warnings.filterwarnings("ignore", message=".*nowhere positive", category=UserWarning)
        result = probe.run(x, target)
        size = tuple(result.x.shape[2:])
        return {m: resize(result.map(m), size) for m in methods}, result.target


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


#: What stands beside the maps in every table, random maps by resolution.
BASELINES = ("random map", "centre blob", "plain gradient")
_CONFIDENCE = 0.95
_ROAD_SHARE = 0.2


@dataclass(frozen=True)
class Faithfulness:
    """The tests' results.

    Attributes
    ----------
    table
        By map: ``deletion`` (area; low is good), ``insertion`` (area; high is good), ``score``
        (insertion less deletion), ``road`` (high is good; 0 for a map that knows nothing), with
        boxes ``pointing`` and ``energy`` (shares; high is good). ``over_chance`` is by how much
        the score beats that of the same map in a random place, mean over the images, with its 95 %
        interval ``low`` to ``high``; ``verdict`` says in words what follows. With a layer,
        ``similarity`` and ``randomization`` of the parameter randomisation.
    curves
        One row for each map and share of the pixels: ``map``, ``share``, ``deletion``,
        ``insertion``, mean probabilities of the target.
    """

    table: pd.DataFrame
    curves: pd.DataFrame

    def _repr_html_(self) -> str:
        return str(self.table.style.format(precision=3).to_html())


@dataclass(frozen=True)
class _Chance:
    """The target's probability for changed images, a batch at a time."""

    forward: Forward
    x: Tensor
    target: Tensor
    activation: Activation
    batch_size: int

    def __call__(self, change: Callable[[Tensor, slice], Tensor]) -> Tensor:
        """(sample,): of what `change` makes of some images, given their place in the batch."""
        chances = []
        for start in range(0, len(self.x), self.batch_size):
            part = slice(start, start + self.batch_size)
            with undisturbed(self.forward.model):
                scores = self.forward.part(part)(change(self.x[part], part))
            rows = probabilities_of(scores.double(), self.activation)
            chances.append(rows.gather(1, self.target[part, None])[:, 0])
        return torch.cat(chances)


def faithfulness(
    model: nn.Module,
    x: Inputs,
    maps: Mapping[str, Tensor],
    *,
    target: Target = None,
    activation: Activation = "softmax",
    boxes: Tensor | Sequence[Sequence[int]] | None = None,
    layer: str | None = None,
    steps: int = 4,
    seed: int = 0,
    batch_size: int = 32,
    progress: bool = True,
) -> Faithfulness:
    """Test maps against the network, beside random maps, a centre blob and the plain gradient.

    - *Deletion* and *insertion* (Petsiuk et al. 2018, arXiv:1806.07421, section 3.2): the most
      important pixels first, give way to the image's mean colour, or come back into a blurred
      image; the area below the target's probability. Equal values come in random order.
    - *ROAD* (Rong et al. 2022, arXiv:2202.00449): pixels are replaced by linear imputation, so
      that the hole itself tells nothing; half the difference between the probability without the
      least and without the most important fifth of the pixels.
    - The *pointing game* and the *energy* inside the box, where boxes are known.
    - *Parameter randomisation* (:func:`randomization`), where `layer` is given, of the maps whose
      names are methods.

    What a map that knows nothing scores depends on how coarse and how smooth it is. Every map is
    therefore compared with itself in random places: moved around the edges, each image's by another
    step. The verdict is that of the paired differences of the
    score (Student's interval over the images); a map that beats chance is then compared with the
    centre blob. The means over the moved maps of one resolution are the rows ``random map``.

    Parameters
    ----------
    model
        Gives scores (sample, class).
    x
        As :meth:`Probe.run` takes it.
    maps
        Name to (sample, y, x) of any size, larger being more important; resampled bilinearly.
    target
        The class whose probability is followed: None for the predicted one, a number, or one for
        each image.
    activation
        What makes probabilities of the scores, as for :func:`workbench.models.predict`.
    boxes
        (sample, 4): left, top, right, bottom in pixels of `x`, right and bottom excluded.
    layer
        Of the maps that are made anew for the randomised networks.
    steps
        Points of a curve after the first.
    seed
        Of the moves, the order of equal values and the randomised weights.
    batch_size
        Images at a time.
    progress
        Show a bar.

    Raises
    ------
    ValueError
        No map was given, one is not (sample, y, x) or not finite, a box lies outside, or `steps`
        is below 1; or the network gives one score an image and `activation` is softmax.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: it must be at least 1")
    with Probe(model) as probe:
        result = probe.run(x, target)
        plain = {"plain gradient": result.map("gradient")} if differentiable(model) else {}
    if result.target is None:
        raise ValueError("faithfulness follows a class's probability: give class numbers")
    images = result.x
    activation = settle(activation, result.output)
    edges = None if boxes is None else torch.as_tensor(boxes, device=images.device)
    size = (images.shape[2], images.shape[3])
    _check_maps(maps, images)
    rows = {**maps, "centre blob": centre_maps(len(images), size).to(images), **plain}
    _located(rows["centre blob"], edges)  # refuses wrong boxes before the long work
    moved = {name: _moved(values, seed + i) for i, (name, values) in enumerate(maps.items())}
    chance = _Chance(result._forward, images, result.target, activation, batch_size)
    ends = _Ends.of(chance)
    bar = tqdm(total=len(rows) + len(moved), desc="faithfulness", disable=not progress)

    def test(values: Tensor) -> _Tested:
        tested = _test(chance, ends, resize(values.to(images), size), edges, steps, seed)
        bar.update()
        return tested

    with bar:
        tested = {name: test(values) for name, values in rows.items()}
        by_chance = {name: test(values) for name, values in moved.items()}
    table, curves = _summed_up(maps, tested, by_chance)
    if layer is not None:
        methods = [*(name for name in maps if name in METHODS), "gradient"]
        shuffled = randomization(
            model, x, methods, layer, target=result.target, seed=seed, progress=progress
        ).rename(index={"gradient": "plain gradient"}, columns={"verdict": "randomization"})
        table = table.join(shuffled[["similarity", "randomization"]])
    return Faithfulness(table, curves)


def _check_maps(maps: Mapping[str, Tensor], images: Tensor) -> None:
    if not maps:
        raise ValueError("there is no map to test")
    for name, values in maps.items():
        if name in BASELINES or name.startswith("random map"):
            raise ValueError(f"{name!r} is a baseline, which is there anyway")
        if values.ndim != 3 or len(values) != len(images) or not torch.isfinite(values).all():
            raise ValueError(
                f"map {name!r}, {tuple(values.shape)}, is not (sample, y, x) of finite values for "
                f"{len(images)} images"
            )


def _by_resolution(maps: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """The random maps' rows, and the maps that they are made of."""
    groups: dict[str, list[str]] = {}
    for name, values in maps.items():
        groups.setdefault(f"random map {values.shape[1]}×{values.shape[2]}", []).append(name)
    return groups if len(groups) > 1 else {"random map": list(maps)}


def _moved(maps: Tensor, seed: int) -> Tensor:
    """Each map moved around the edges: as coarse, smooth and sharp as before, and about nothing."""
    rng = torch.Generator().manual_seed(seed)
    y, x = (torch.randint(s, (len(maps),), generator=rng).tolist() for s in maps.shape[1:])
    return torch.stack([m.roll(pair, (0, 1)) for m, *pair in zip(maps, y, x, strict=True)])


@dataclass(frozen=True)
class _Ends:
    """The ends of all curves, which no map changes: (sample,) probabilities."""

    whole: Tensor
    emptied: Tensor
    blurred: Tensor

    @classmethod
    def of(cls, chance: _Chance) -> "_Ends":
        return cls(
            chance(lambda x, _: x), chance(lambda x, _: _mean(x)), chance(lambda x, _: _blurred(x))
        )


def _mean(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True).expand_as(x)


def _blurred(x: Tensor) -> Tensor:
    """Brought to 4×4 and back: light and colour stay, things do not."""
    return F.interpolate(F.adaptive_avg_pool2d(x, 4), size=x.shape[2:], mode="bilinear")


def deletion_areas(
    result: ProbeResult, maps: Tensor, steps: int, activation: Activation, batch_size: int = 32
) -> Tensor:
    """The area below each image's deletion curve, (sample,), for maps of the images' size."""
    if result.target is None:
        raise ValueError("deletion follows a class's probability: give class numbers")
    settled = settle(activation, result.output)
    chance = _Chance(result._forward, result.x, result.target, settled, batch_size)
    order = _order(maps, 0)

    def without(share: float) -> Tensor:
        return chance(lambda x, part: torch.where(order[part, None] < share, _mean(x), x))

    shares = [*(step / steps for step in range(steps)), math.inf]
    return _area(torch.stack([without(share) for share in shares]))


def _area(heights: Tensor) -> Tensor:
    """Below curves (point, sample) of equal steps from 0 to 1, by the trapezoidal rule."""
    return ((heights[1:] + heights[:-1]) / 2).mean(0)


_Tested = tuple[pd.DataFrame, pd.DataFrame]


def _test(
    chance: _Chance, ends: _Ends, values: Tensor, boxes: Tensor | None, steps: int, seed: int
) -> _Tested:
    """One map's measures, a row for each image, and its mean curves."""
    order = _order(values, seed)
    deletion = [ends.whole]
    insertion = [ends.blurred]
    for step in range(1, steps):
        share = step / steps
        deletion.append(
            chance(lambda x, part: torch.where(order[part, None] < share, _mean(x), x))  # noqa: B023
        )
        insertion.append(
            chance(lambda x, part: torch.where(order[part, None] < share, x, _blurred(x)))  # noqa: B023
        )
    curves = {
        "deletion": torch.stack([*deletion, ends.emptied]),
        "insertion": torch.stack([*insertion, ends.whole]),
    }
    areas = {name: _area(heights) for name, heights in curves.items()}
    without_most = chance(lambda x, part: impute(x, order[part] >= _ROAD_SHARE))
    without_least = chance(lambda x, part: impute(x, order[part] <= 1 - _ROAD_SHARE))
    measures = {
        **areas,
        "score": areas["insertion"] - areas["deletion"],
        "road": (without_least - without_most) / 2,
        **_located(values, boxes),
    }
    means = {name: heights.mean(1).tolist() for name, heights in curves.items()}
    shares = [step / steps for step in range(steps + 1)]
    rows = pd.DataFrame({name: v.double().cpu().numpy() for name, v in measures.items()})
    return rows, pd.DataFrame({"share": shares, **means})


def _summed_up(
    maps: Mapping[str, Tensor], tested: dict[str, _Tested], by_chance: dict[str, _Tested]
) -> _Tested:
    """The table of means with the verdicts, and all curves; random maps by resolution."""
    table = pd.DataFrame.from_dict(
        {name: row.mean() for name, (row, _) in tested.items()}, orient="index"
    )
    curves = {name: curve for name, (_, curve) in tested.items()}
    for name in maps:
        chances = by_chance[name][0]["score"]
        difference = _difference(tested[name][0]["score"], chances)
        blob = _difference(tested[name][0]["score"], tested["centre blob"][0]["score"])
        table.loc[name, ["over_chance", "low", "high"]] = difference
        table.loc[name, "verdict"] = _verdict(difference, blob)
    for name, group in _by_resolution(maps).items():
        same = [by_chance[member] for member in group]
        table.loc[name, same[0][0].columns] = pd.concat([row for row, _ in same]).mean()
        curves[name] = pd.concat([curve for _, curve in same]).groupby(level=0).mean()
    table = table.reindex([*maps, *_by_resolution(maps), *list(tested)[len(maps) :]])
    every = pd.concat([curve.assign(map=name) for name, curve in curves.items()])
    columns = ["map", "share", "deletion", "insertion"]
    return table.rename_axis("map"), every.reset_index(drop=True)[columns]


def _difference(mine: "pd.Series[float]", theirs: "pd.Series[float]") -> tuple[float, float, float]:
    """The mean difference over the images, and its interval; without ends for a single image."""
    pairs = mine - theirs
    mean = float(pairs.mean())
    if len(pairs) < 2:
        return mean, math.nan, math.nan
    reach = float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(pairs) - 1) * pairs.sem())
    return mean, mean - reach, mean + reach


def _verdict(chance: tuple[float, float, float], blob: tuple[float, float, float]) -> str:
    def than(difference: tuple[float, float, float], what: str) -> str:
        _, low, high = difference
        if low > 0:
            return f"better than {what}"
        return f"worse than {what}" if high < 0 else f"not distinguishable from {what}"

    if math.isnan(chance[1]):
        return "one image allows no verdict"
    text = than(chance, "chance")
    return f"{text}, {than(blob, 'the centre blob')}" if chance[1] > 0 else text


def _located(values: Tensor, boxes: Tensor | None) -> dict[str, Tensor]:
    if boxes is None:
        return {}
    return {"pointing": points_inside(values, boxes), "energy": energy_inside(values, boxes)}


def _order(values: Tensor, seed: int) -> Tensor:
    """Each pixel's place, 0 to 1, from the most to the least important; ties at random."""
    flat = values.flatten(1)
    shuffled = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(seed))
    shuffled = shuffled.to(flat.device)
    sorting = shuffled[flat[:, shuffled].argsort(dim=1, descending=True, stable=True)]
    place = torch.empty_like(flat)
    steps = torch.linspace(0, 1, flat.shape[1], device=flat.device, dtype=flat.dtype)
    return place.scatter(1, sorting, steps.expand_as(flat)).reshape(values.shape)
