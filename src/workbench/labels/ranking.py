"""Rankings and flags to compare with: by loss, by FiftyOne's score; how far methods agree."""

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray


def losses(
    labels: ArrayLike | xr.DataArray, probabilities: ArrayLike | xr.DataArray
) -> NDArray[np.float64]:
    """Cross-entropy of each sample, the plainest ranking of suspects: sort by loss.

    Parameters
    ----------
    labels
        int (sample,), or bool (sample, class) for several labels an image.
    probabilities
        (sample, class).

    Returns
    -------
    numpy.ndarray
        float64 (sample,), in nats; for several labels, the mean over the classes.

    Examples
    --------
    >>> losses([0, 1], [[1.0, 0.0], [0.5, 0.5]]).round(2).tolist()
    [0.0, 0.69]
    """
    p = np.asarray(probabilities, dtype=np.float64).clip(1e-12, 1 - 1e-12)
    given = np.asarray(labels)
    if given.ndim == 1:
        own: NDArray[np.float64] = -np.log(p[np.arange(len(p)), given])
        return own
    mean: NDArray[np.float64] = -np.log(np.where(given.astype(bool), p, 1 - p)).mean(axis=1)
    return mean


def mistakenness(
    labels: ArrayLike | xr.DataArray,
    probabilities: ArrayLike | xr.DataArray,
    *,
    use_logits: bool = True,
) -> NDArray[np.float64]:
    """FiftyOne's ranking of suspects, without its database.

    ``(m c + 1) / 2``, where m is 1 where the most probable class is not the given one and -1 where
    it is, and c says how sure the model is: what ``fiftyone.brain.compute_mistakenness`` computes.

    Parameters
    ----------
    labels
        int (sample,).
    probabilities
        (sample, class), rows sum to 1.
    use_logits
        Take ``exp(-entropy)`` for c, as FiftyOne does where the predictions carry logits;
        otherwise the largest probability, as it does by default.

    Returns
    -------
    numpy.ndarray
        float64 (sample,), in [0, 1], high is bad.

    Examples
    --------
    >>> mistakenness([0, 1], [[1.0, 0.0], [0.75, 0.25]], use_logits=False).tolist()
    [0.0, 0.875]
    """
    p = np.asarray(probabilities, dtype=np.float64)
    sure = p.max(axis=1)
    if use_logits:
        sure = np.exp((p * np.log(p.clip(1e-300))).sum(axis=1))
    differs = p.argmax(axis=1) != np.asarray(labels)
    found: NDArray[np.float64] = (np.where(differs, 1, -1) * sure + 1) / 2
    return found


def method_agreement(flags: pd.DataFrame) -> pd.DataFrame:
    """Share of the samples flagged by either of two methods that both flag (Jaccard).

    Parameters
    ----------
    flags
        bool, one column a method. NaN where neither flags any.

    Examples
    --------
    >>> flags = pd.DataFrame({"a": [True, True], "b": [True, False]})
    >>> float(method_agreement(flags).loc["a", "b"])
    0.5
    """
    values = flags.to_numpy(dtype=np.float64)
    both = values.T @ values
    either = values.sum(axis=0)[:, None] + values.sum(axis=0) - both
    share = np.divide(both, either, out=np.full(both.shape, np.nan), where=either > 0)
    return pd.DataFrame(share, index=flags.columns, columns=flags.columns)
