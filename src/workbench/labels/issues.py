"""Label issues of a single-label dataset: ranked, cut, and summed up by class."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from workbench._extras import need
from workbench._samples import same_samples
from workbench.embeddings.graph import duplicates, outliers, votes_of
from workbench.labels.noise_models import NoiseMixture, fit_noise, smoothed
from workbench.labels.probabilities import (
    BLOCK,
    Labels,
    Source,
    aligned,
    blocks,
    load_probabilities,
    named_labels,
)

#: A class with fewer labels than this share of the median class is named.
RARE = 0.1
PAIRS = 10
#: The models of the noise are fitted on so many samples, or so many a class.
FITTED_ON = 5_000
FITTED_ON_CLASS = 100
MOST_FITTED_ON = 20_000
COLUMNS = (
    "given",
    "suggested",
    "self_confidence",
    "normalized_margin",
    "cleanlab_flag",
    "neighbor_vote",
    "ood_score",
    "duplicate_group",
    "score",
    "is_issue",
)


def imbalances(given: NDArray[np.int64], predicted: NDArray[np.int64]) -> list[str]:
    """Classes that are never given, never predicted, or far rarer than the others."""
    counts = np.bincount(given, minlength=len(predicted))
    median = float(np.median(counts[counts > 0]))
    found = [f"class {k} is never given" for k in np.flatnonzero(counts == 0)]
    found += [
        f"class {k} is given {counts[k]} times and never predicted"
        for k in np.flatnonzero((predicted == 0) & (counts > 0))
    ]
    found += [
        f"class {k} has {counts[k]} labels, the median class {median:.0f}: what is said of it is "
        "uncertain"
        for k in np.flatnonzero((counts > 0) & (counts < RARE * median))
    ]
    return found


def find_issues(
    labels: Labels,
    probabilities: Source,
    neighbors: xr.Dataset | None = None,
    *,
    classes: Sequence[str] | None = None,
    verified: pd.Series | None = None,
    opinions: Sequence[Any] = (),
    seed: int = 0,
) -> pd.DataFrame:
    """Rank the samples by how probably their given label is wrong, and cut.

    Two models of the noise are fitted and weighed against each other. *By class*: the label was
    drawn from the true class's row of a transition matrix, which is estimated together with the
    sharpness of the probabilities by maximum likelihood. *Absorbed*: the probabilities have learnt
    the errors, or these lie on hard images as an annotator's do; then issues are where another
    class is more probable than the given one or, of heavy noise from one class to another, where
    the probabilities themselves look like another class's row. The evidence for the first is how
    surely it names its errors, also among the samples with the most confident predictions.
    ``score`` mixes both; the cut lies between that of the largest expected F1 and one half.

    Assumptions: the probabilities are of samples that their model did not see; most labels of
    each class are right; the noise is mostly of one kind. Probabilities alone cannot tell the
    errors of a weak model from those of an annotator on the same hard images: there the cut trusts
    the model. ``docs/benchmarks.md`` names the cells of the study in which a rival's cut is better.

    Parameters
    ----------
    labels
        int (sample,): the given class numbers; or the dataset that holds them, or categories.
    probabilities
        (sample, class): what a model that did not see the sample holds of it, as
        :func:`out_of_fold` returns it, or anything that :func:`load_probabilities` takes. dask
        arrays, memory maps and ``.npy`` files are read in blocks.
    neighbors
        A graph over features, as :func:`workbench.embeddings.neighbors` returns it. Probabilities
        and graph are put into the order of the labels by their sample ids.
    classes
        The classes' names in the order of their numbers, where the labels do not carry them.
        Named columns of `probabilities` are matched by name.
    verified
        What people said of some samples, by sample id: bool, whether the label is wrong, or the
        right class numbers, -1 for none. :func:`recut` says how the cut follows them.
    opinions
        Other signs of wrong labels, of which the mean rank, together with that of the score,
        decides the order: probabilities (sample, class) of other models, scores (sample,) that are
        high where a label is suspicious, such as those of training dynamics, and graphs, for the
        share of the neighbours that carry another label. How many are flagged stays.
    seed
        Fixes the samples on which the models are fitted, where there are more than 5,000 (or 100
        a class, up to 20,000).

    Returns
    -------
    pandas.DataFrame
        One row a sample, worst first, indexed by ``sample``:

        ``given``, ``suggested``: class numbers; where ``is_issue``, the best other class.
        ``self_confidence``, ``normalized_margin``: cleanlab's, low is bad.
        ``cleanlab_flag``: cleanlab's default filter; above 8 million probabilities its filter in
        batches, which keeps to one threshold.
        ``neighbor_vote``: the class of most neighbours, -1 for none.
        ``ood_score``: how lonely the sample is, about 1 inside a cluster and larger outside
        (:func:`workbench.embeddings.outliers`); NaN without neighbours.
        ``duplicate_group``: the group of near-duplicates, -1 for none.
        ``score``: in [0, 1], high is bad. ``is_issue``: the score is above the cut.

        ``attrs``, in plain numbers, lists and dicts: ``n_errors`` with ``n_errors_low`` and
        ``n_errors_high`` (what the accounts allow, widened by chance: it held the truth in 95% of
        the study's cells, 81% with annotator noise, and may be as wide as the number itself),
        ``threshold``, ``class_noise_evidence`` (0: absorbed, 1: by class), ``temperature``,
        ``classes``, their number, ``noisiest_pairs`` (``true``, ``given``, ``expected`` samples)
        and ``warnings`` on classes.

    Raises
    ------
    ValueError
        Labels that are no class of the probabilities, other samples or other names of classes,
        or probabilities that are none (see :func:`load_probabilities`).

    Examples
    --------
    >>> found = find_issues([0, 0, 1, 1], [[.9, .1], [.8, .2], [.1, .9], [.7, .3]])
    >>> int(found.index[0]), found.columns[-2:].tolist()
    (3, ['score', 'is_issue'])
    """
    given, found = aligned(labels, probabilities, classes)
    ids = _ids(labels, found, neighbors)
    if neighbors is not None:
        named = xr.DataArray(ids, coords={"sample": ids}, dims="sample")
        neighbors = same_samples(neighbors, named, ("the neighbours", "labels"))
    with ThreadPoolExecutor(1) as pool:
        # NumPy lets go of the interpreter's lock, so that the two share the cores. cleanlab
        # stays in this thread: its warnings can only be silenced for all threads at once.
        scoring = pool.submit(_scored, found, given, seed)
        flags = _cleanlab_flags(found, given)
        around = _around(given, neighbors)
    columns, attrs = scoring.result()
    if opinions:
        signs = [_suspicion(own, given, ids, attrs["classes"]) for own in opinions]
        _reorder(columns, signs, attrs["threshold"])
    table = {"given": given, **columns, "cleanlab_flag": flags, **around}
    order = np.argsort(-table["score"], kind="stable")
    index = pd.Index(ids[order], name="sample")
    frame = pd.DataFrame({name: table[name][order] for name in COLUMNS}, index=index)
    frame.attrs.update(attrs)
    if verified is None:
        return frame
    from workbench.labels.verified import recut

    return recut(frame, verified)


def _suspicion(
    opinion: Any, given: NDArray[np.int64], ids: NDArray[Any], classes: int
) -> NDArray[np.float64]:
    """An opinion as one number a sample, high where the label is suspicious."""
    named = xr.DataArray(given, coords={"sample": ids}, dims="sample")
    if isinstance(opinion, xr.Dataset) and "index" in opinion:
        graph = same_samples(opinion, named, ("an opinion's neighbours", "labels"))
        return np.asarray((given[graph["index"].values] != given[:, None]).mean(axis=1))
    if isinstance(opinion, pd.Series):
        opinion = xr.DataArray(opinion, dims="sample", coords={"sample": opinion.index.to_numpy()})
    if np.ndim(opinion) == 1:
        score = same_samples(opinion, named, ("an opinion", "labels"))
        return np.asarray(score, dtype=np.float64)
    _, found = aligned(named, load_probabilities(opinion))
    if found.sizes["class"] != classes:
        raise ValueError(f"an opinion has {found.sizes['class']} classes, the others {classes}")
    return np.concatenate([1 - p[np.arange(len(p)), given[rows]] for rows, p in blocks(found)])


def _reorder(
    columns: dict[str, NDArray[Any]], signs: list[NDArray[np.float64]], threshold: float
) -> None:
    """Give the scores, which stay as they are, to the samples in the order of the mean rank."""
    for sign in signs:
        if np.isnan(sign).any():
            raise ValueError(f"an opinion holds NaN for {np.isnan(sign).sum()} samples")
    ranks = [pd.Series(sign).rank().to_numpy() for sign in (columns["score"], *signs)]
    order = np.argsort(np.mean(ranks, axis=0), kind="stable")
    score = np.empty(len(order))
    score[order] = np.sort(columns["score"])
    columns["score"] = score
    columns["is_issue"] = score > threshold


def _scored(
    found: xr.DataArray, given: NDArray[np.int64], seed: int
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The columns and ``attrs`` that come from the probabilities."""
    cut = _fit(found, given, seed)
    parts = [_block(given[rows], p, cut) for rows, p in blocks(found)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    predicted = np.bincount(columns.pop("predicted"), minlength=found.sizes["class"])
    numbers = [min(float(number), len(given)) for number in cut.errors(sum(columns.pop("errors")))]
    return columns, {
        **dict(zip(("n_errors", "n_errors_low", "n_errors_high"), numbers, strict=True)),
        "noisiest_pairs": _noisiest_pairs(given, columns, numbers[0]),
        "warnings": imbalances(given, predicted),
        "threshold": cut.threshold,
        "class_noise_evidence": cut.evidence,
        "temperature": cut.temperature,
        "classes": found.sizes["class"],
    }


def _fit(found: xr.DataArray, given: NDArray[np.int64], seed: int) -> NoiseMixture:
    """Fit the models of the noise on some of the samples."""
    n, k = found.shape
    wanted = min(max(FITTED_ON, FITTED_ON_CLASS * k), MOST_FITTED_ON)
    chosen = np.arange(n)
    if n > wanted:
        chosen = np.sort(np.random.default_rng(seed).choice(n, wanted, replace=False))
    return fit_noise(smoothed(np.asarray(found.data[chosen])), given[chosen])


def _block(
    given: NDArray[np.int64], p: NDArray[np.floating[Any]], cut: NoiseMixture
) -> dict[str, NDArray[Any]]:
    """The columns that come from the probabilities, for a run of samples."""
    smooth = smoothed(p)
    suggested = p.argmax(axis=1)
    score, errors = cut.scores(smooth, given)
    predicted = suggested.copy()
    rows = np.arange(len(given))
    smooth[rows, given] = -1
    other = smooth.argmax(axis=1)
    own = p[rows, given]
    is_issue = score > cut.threshold
    suggested[is_issue] = other[is_issue]
    return {
        "suggested": suggested,
        "self_confidence": own,
        "normalized_margin": (own - p[rows, other] + 1) / 2,
        "score": score,
        "is_issue": is_issue,
        "predicted": predicted,
        "other": other,
        "errors": errors[None],
    }


def _noisiest_pairs(
    given: NDArray[np.int64], columns: dict[str, NDArray[Any]], errors: float
) -> list[dict[str, Any]]:
    """How many samples of one class are given as another: each by its score, the best other class.

    The scores rank; the number of errors is estimated apart, and these add up to it at most.
    """
    score = columns["score"]
    pairs = pd.Series(score).groupby([columns.pop("other"), given]).sum()
    pairs *= min(1.0, errors / max(score.sum(), 1e-9))
    return [
        {"true": int(true), "given": int(label), "expected": round(float(expected), 2)}
        for (true, label), expected in pairs.nlargest(PAIRS).items()
        if expected > 0
    ]


def _cleanlab_flags(found: xr.DataArray, given: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Flags of cleanlab's default filter, or of its filter in batches where the table is large."""
    if (given == given[0]).all():
        return np.zeros(len(given), dtype=bool)  # cleanlab refuses labels of one class only
    if found.size <= BLOCK:
        search = need("cleanlab.filter", extra="labels").find_label_issues
        with warnings.catch_warnings():
            # cleanlab says that a class without labels may be a mistake; our own warnings do.
            warnings.simplefilter("ignore")
            # Starting processes takes longer than what they would do.
            flags: NDArray[np.bool_] = search(given, np.asarray(found.data), n_jobs=1)
        return flags
    batched = need("cleanlab.experimental.label_issues_batched", extra="labels")
    inspector = batched.LabelInspector(num_class=found.sizes["class"], verbose=False, n_jobs=1)
    for rows, p in blocks(found):
        inspector.update_confident_thresholds(given[rows], p)
    for rows, p in blocks(found):
        inspector.score_label_quality(given[rows], p)
    flags = np.zeros(len(given), dtype=bool)
    flags[inspector.get_label_issues()] = True
    return flags


def _ids(*sources: Any) -> NDArray[Any]:
    """The samples' ids, from the first source that has them."""
    for source in (named_labels(sources[0])[0], *sources[1:]):
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
    return {
        "neighbor_vote": votes_of(given, neighbors["index"].values),
        "ood_score": outliers(neighbors)["isolation"].values,
        "duplicate_group": duplicates(neighbors).values,
    }
