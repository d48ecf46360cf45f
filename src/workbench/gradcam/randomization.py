"""The parameter-randomisation check: whether a map depends on what was learnt."""

import copy
from collections.abc import Iterator, Sequence

import pandas as pd
import torch
import xarray as xr
from torch import Tensor, nn
from tqdm import tqdm

from workbench.gradcam.probe import Probe
from workbench.gradcam.running import images_for
from workbench.gradcam.seen import resize
from workbench.gradcam.targets import Target

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
    cascade = tqdm(_cascade(model, seed), total=_STAGES, disable=not progress,
                   desc="randomising")  # fmt: skip
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
    dice = torch.Generator().manual_seed(seed)
    parameters = list(shuffled.parameters())[::-1]
    done = 0
    for stage in range(1, _STAGES + 1):
        until = round(len(parameters) * stage / _STAGES)
        with torch.inference_mode(False), torch.no_grad():
            for values in parameters[done:until]:
                order = torch.randperm(values.numel(), generator=dice).to(values.device)
                values.copy_(values.flatten()[order].view_as(values))
        done = until
        yield stage / _STAGES, shuffled


def _verdict(similarity: float) -> str:
    how = f"(rank correlation {similarity:.2f}) when the upper half of the weights is shuffled"
    return f"fails: stays alike {how}" if similarity >= FAILS_FROM else f"passes: changes {how}"
