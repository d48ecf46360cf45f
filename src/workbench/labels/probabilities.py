"""Class probabilities of every sample by models that never saw it."""

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from workbench._extras import need
from workbench._samples import same_samples, unit_range
from workbench.labels.inputs import class_numbers

Factory = Callable[[], Any]


def out_of_fold(
    features_or_ds: xr.DataArray | xr.Dataset,
    labels: ArrayLike | xr.DataArray,
    model: Literal["logistic"] | Factory = "logistic",
    folds: int = 5,
    seed: int = 0,
    *,
    classes: int | None = None,
    recipe: Any = None,
    progress: bool = True,
) -> xr.DataArray:
    """Class probabilities of every sample, by models that never saw it.

    The samples are dealt into `folds` parts, each class evenly; a model trained on all parts but
    one predicts that one.

    Parameters
    ----------
    features_or_ds
        Feature vectors (sample, feature), as :func:`workbench.embeddings.features` makes them, or
        an image dataset, whose pixels are then the features unless `model` makes a network.
    labels
        int (sample,), the given class numbers.
    model
        ``"logistic"``: multinomial logistic regression on standardised features. Otherwise a
        function that returns a new model each time: a scikit-learn classifier with
        ``predict_proba``, or a torch module that takes float images (sample, channel, y, x) in
        [0, 1] and returns logits, a new one each time. For a module give the image dataset.
    folds
        How many parts, 2 or more. A class with fewer members lies in as many parts as it has
        members.
    seed
        Fixes the parts, a module's first weights and its training.
    classes
        How many there are; by default those of the dataset's ``class``, or one more than the
        largest label. A class without members gets probability 0.
    recipe
        For a torch module: a :class:`workbench.models.training.Recipe`.
    progress
        Show a bar.

    Returns
    -------
    xarray.DataArray
        float64 (sample, class), rows sum to 1; the coordinate ``sample`` of `features_or_ds`;
        ``attrs`` holds ``folds``, ``seed``, ``model`` and ``accuracy``, the share of samples whose
        most probable class is the given one.

    Raises
    ------
    ValueError
        `labels` are of another length or no class numbers, there is one class only, a class has
        one member only (its held-out probability would mean nothing), `folds` is below 2, or the
        modules have another number of outputs or are one and the same.
    TypeError
        `model` is or makes something else, or the features are a bare array.

    Examples
    --------
    >>> features = xr.DataArray([[0.0], [0.1], [5.0], [5.1]], dims=("sample", "feature"))
    >>> found = out_of_fold(features, [0, 0, 1, 1], folds=2, progress=False)
    >>> found.argmax("class").values
    array([0, 0, 1, 1])
    """
    if not isinstance(features_or_ds, xr.DataArray | xr.Dataset):
        raise TypeError(
            f"features are a {type(features_or_ds).__name__}; give an image dataset, or "
            'xarray.DataArray(features, dims=("sample", "feature"))'
        )
    named = features_or_ds.sizes.get("class") if isinstance(features_or_ds, xr.Dataset) else None
    given = class_numbers(labels, classes or named)
    same_samples(labels, features_or_ds, ("labels", "features"))
    k = classes or named or int(given.max()) + 1
    found = np.zeros((len(given), k))
    parts = list(_parts(given, folds, seed))
    learn = _learner(_factory(model), features_or_ds, given, (k, seed, recipe))
    for train, test in tqdm(parts, desc="folds", unit="fold", disable=not progress):
        found[test] = learn(train, test)
    found /= found.sum(axis=1, keepdims=True)
    name = model if isinstance(model, str) else getattr(model, "__name__", type(model).__name__)
    accuracy = round(float((found.argmax(axis=1) == given).mean()), 4)
    return xr.DataArray(
        found,
        dims=("sample", "class"),
        coords={"sample": features_or_ds["sample"]} if "sample" in features_or_ds.coords else {},
        name="probabilities",
        attrs={"folds": len(parts), "seed": seed, "model": name, "accuracy": accuracy},
    )


def _parts(
    given: NDArray[np.int64], folds: int, seed: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield the positions to train on and those to predict."""
    counts = np.bincount(given)
    lonely = np.flatnonzero(counts == 1)
    if np.count_nonzero(counts) < 2:
        raise ValueError(f"all {len(given)} labels are class {given[0]}: there is nothing to tell")
    if lonely.size:
        raise ValueError(
            f"class {lonely[0]} has one member only, so that no model could learn it and be asked "
            f"about it; merge or leave out such classes ({lonely.size} of them)"
        )
    if folds < 2:
        raise ValueError(f"folds={folds}: it takes at least 2")
    selection = need("sklearn.model_selection", extra="images")
    splitter = selection.StratifiedKFold(min(folds, counts.max()), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # Small classes are meant: their members still come to lie in different parts.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        yield from splitter.split(np.zeros(len(given)), given)


def logistic() -> Any:
    """Make a multinomial logistic regression on standardised features."""
    linear = need("sklearn.linear_model", extra="images")
    pipeline = need("sklearn.pipeline", extra="images")
    scale = need("sklearn.preprocessing", extra="images").StandardScaler()
    return pipeline.make_pipeline(scale, linear.LogisticRegression(C=0.1, max_iter=200))


def _factory(model: str | Factory) -> Factory:
    if model == "logistic":
        return logistic
    instance = hasattr(model, "state_dict") and not isinstance(model, type)
    if isinstance(model, str) or not callable(model) or instance:
        said = repr(model) if isinstance(model, str) else f"a {type(model).__name__} itself"
        raise TypeError(f"model is {said}; give 'logistic' or a function that makes a new model")
    return model


def _learner(
    make: Factory,
    source: xr.DataArray | xr.Dataset,
    given: NDArray[np.int64],
    options: tuple[int, int, Any],
) -> Callable[[NDArray[np.intp], NDArray[np.intp]], NDArray[np.float64]]:
    """What trains on one set of positions and returns probabilities for another."""
    k, seed, recipe = options
    first = make()
    if hasattr(first, "predict_proba"):
        return partial(_classify, make, rows_of(source), given, k)
    torch = need("torch", extra="networks")
    if not isinstance(first, torch.nn.Module):
        raise TypeError(
            f"model made a {type(first).__name__}; it must make a torch module or a classifier "
            "with predict_proba"
        )
    if not isinstance(source, xr.Dataset):
        raise TypeError("a torch module is trained on images: give the image dataset")
    from workbench.labels.networks import Learner

    return Learner(make, first, source.assign(label=("sample", given)), k, seed, recipe)


def _classify(
    make: Factory,
    values: NDArray[Any],
    given: NDArray[np.int64],
    k: int,
    train: NDArray[np.intp],
    test: NDArray[np.intp],
) -> NDArray[np.float64]:
    """Probabilities (test, class) of a scikit-learn classifier."""
    model = make().fit(values[train], given[train])
    found = np.zeros((len(test), k))
    found[:, model.classes_] = model.predict_proba(values[test])
    return found


def rows_of(source: xr.DataArray | xr.Dataset) -> NDArray[Any]:
    """The features, or the pixels of the images, one row a sample."""
    if isinstance(source, xr.DataArray):
        return np.asarray(source.transpose("sample", ...).values)
    image = source["image"].transpose("sample", ...).values
    return unit_range(image.reshape(len(image), -1))
