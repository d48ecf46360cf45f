"""Which labels are probably wrong."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from workbench._extras import need
from workbench.embeddings.collisions import duplicates
from workbench.embeddings.outliers import outliers
from workbench.embeddings.votes import votes_of
from workbench.labels.inputs import Source, class_numbers, load_probabilities, same_length


def find_issues(
    labels: ArrayLike | xr.DataArray,
    probabilities: Source,
    neighbors: xr.Dataset | None = None,
) -> pd.DataFrame:
    """Rank the samples by how probably their given label is wrong, and cut.

    Parameters
    ----------
    labels
        int (sample,): the given class numbers.
    probabilities
        (sample, class): what a model that did not see the sample holds of it, as
        :func:`out_of_fold` returns it, or anything that :func:`load_probabilities` takes.
    neighbors
        A graph over features, as :func:`workbench.embeddings.neighbors` returns it.

    Returns
    -------
    pandas.DataFrame
        One row a sample, worst first, indexed by ``sample``: ``given``, ``suggested``,
        ``self_confidence``, ``normalized_margin`` and ``cleanlab_flag`` (cleanlab's),
        ``neighbor_vote`` (-1 for none), ``ood_score`` (NaN without neighbours),
        ``duplicate_group`` (-1 for none), ``score`` in [0, 1] and ``is_issue``.

    Examples
    --------
    >>> found = find_issues([0, 0, 1, 1], [[.9, .1], [.8, .2], [.1, .9], [.7, .3]])
    >>> int(found.index[0])
    3
    """
    found = load_probabilities(probabilities)
    given = class_numbers(labels, found.sizes["class"])
    same_length(given, found, "probabilities")
    p = np.asarray(found.values, dtype=np.float64)
    rank = need("cleanlab.rank", extra="labels")
    suggested = p.argmax(axis=1)
    margin = rank.get_normalized_margin_for_each_label(given, p)
    table = {
        "given": given,
        "suggested": suggested,
        "self_confidence": rank.get_self_confidence_for_each_label(given, p),
        "normalized_margin": margin,
        "cleanlab_flag": need("cleanlab.filter", extra="labels").find_label_issues(given, p),
        **_around(given, neighbors),
        "score": 1 - margin,
        "is_issue": suggested != given,
    }
    index = pd.Index(_ids(labels, found, neighbors), name="sample")
    return pd.DataFrame(table, index=index).sort_values("score", ascending=False, kind="stable")


def _ids(*sources: Any) -> NDArray[Any]:
    """The samples' ids, from the first source that has them."""
    for source in sources:
        if isinstance(source, xr.DataArray | xr.Dataset) and "sample" in source.coords:
            return np.asarray(source["sample"].values)
    return np.arange(len(np.asarray(sources[0])))


def _around(given: NDArray[np.int64], neighbors: xr.Dataset | None) -> dict[str, NDArray[Any]]:
    """What the neighbour graph says of each sample."""
    if neighbors is None:
        none = np.full(len(given), -1, dtype=np.int64)
        return {
            "neighbor_vote": none,
            "ood_score": np.full(len(given), np.nan, dtype=np.float32),
            "duplicate_group": none,
        }
    same_length(given, neighbors, "neighbours")
    return {
        "neighbor_vote": votes_of(given, neighbors["index"].values),
        "ood_score": outliers(neighbors)["isolation"].values,
        "duplicate_group": duplicates(neighbors).values,
    }
