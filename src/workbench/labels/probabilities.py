"""Out-of-fold class probabilities, and labels and probabilities as they come in, checked."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from workbench._extras import need
from workbench._samples import same_samples, unit_range
from workbench.embeddings.graph import duplicates

#: Elements of a block: 64 MiB as float64.
BLOCK = 2**23
#: How far a row's sum may be from 1: ten classes written with three decimals.
ROUNDING = 0.01
#: Two decimals may miss by half a hundredth in each class, but no row by more than this.
MOST_ROUNDING = 0.1
Source = ArrayLike | xr.DataArray | pd.DataFrame | str | os.PathLike[str]
Labels = ArrayLike | xr.DataArray | xr.Dataset
Factory = Callable[[], Any]


def load_probabilities(source: Source | Any, classes: Sequence[str] | None = None) -> xr.DataArray:
    """Class probabilities from wherever they are kept, checked.

    Parameters
    ----------
    source
        (sample, class): a NumPy array or memory map, a dask array, a tensor, a DataArray, a table
        with one column a class, or the path of a ``.npy``, ``.parquet`` or ``.csv`` file of one.
        A table's column ``sample`` becomes the coordinate. A ``.npy`` file stays on disk and is
        read in blocks, as dask arrays and memory maps are.
    classes
        The classes' names in the order of their numbers. Columns that have names, and a
        coordinate ``class``, are put into this order.

    Returns
    -------
    xarray.DataArray
        (sample, class), the values as they were, with the coordinate ``class`` where the columns
        have names. Columns named 0 to K-1 are put into the order of their numbers.

    Raises
    ------
    ValueError
        The shape is not (sample, class), there are fewer than two classes or no sample, a value
        is NaN, negative or above 1, or a row does not sum to 1 (two decimals will do): how many
        rows, and the first. The columns have other names than `classes`.

    Examples
    --------
    >>> load_probabilities([[0.9, 0.1], [0.2, 0.8]]).sizes["class"]
    2
    """
    found = as_array(_read(source) if isinstance(source, str | os.PathLike) else source)
    if found.ndim != 2 or found.shape[1] < 2 or found.shape[0] == 0:
        raise ValueError(
            f"probabilities must have the shape (sample, class), with at least one sample and two "
            f"classes, not {found.shape}"
        )
    found = found.rename(dict(zip(found.dims, ("sample", "class"), strict=True)))
    found = in_order(found, classes)
    for rows, block in blocks(found):
        _check_block(block, rows.start)
    return found


def in_order(found: xr.DataArray, classes: Sequence[str] | None) -> xr.DataArray:
    """The columns in the order of the class numbers, by their names where they have any."""
    if "class" not in found.coords:
        return found
    names = [str(name) for name in found["class"].values]
    numbers = [str(number) for number in range(len(names))]
    wanted = numbers if classes is None else [str(name) for name in classes]
    if sorted(names) == numbers and sorted(wanted) != numbers:
        wanted = numbers
    if sorted(names) == sorted(wanted):
        return found if names == wanted else found.isel({"class": list(map(names.index, wanted))})
    if classes is None:
        return found
    raise ValueError(
        f"the probabilities are of the classes {', '.join(names[:10])}; the labels of "
        f"{', '.join(wanted[:10])}: the same names are needed"
    )


def aligned(
    labels: Labels, probabilities: Source, classes: Sequence[str] | None = None
) -> tuple[NDArray[np.int64], xr.DataArray]:
    """Class numbers (sample,), and probabilities (sample, class) in the order of the labels.

    Samples are matched by id, classes by name, where both sides have them.

    Raises
    ------
    ValueError
        Samples or classes differ; or the probabilities name classes and labelled labels do not
        (bare arrays, which cannot, are taken in the order of the columns, with a warning).
    """
    given, names = named_labels(labels, classes)
    found = load_probabilities(probabilities, names)
    if names is None and "class" in found.coords:
        columns = [str(name) for name in found["class"].values]
        if columns != [str(number) for number in range(len(columns))]:
            text = (
                f"the probabilities name the classes {', '.join(columns[:10])} and the labels are "
                "numbers without names: give the dataset in place of its labels, or "
                'classes=ds["class"], the names in the order of the numbers'
            )
            if isinstance(labels, xr.DataArray | xr.Dataset):
                raise ValueError(text)
            # A bare array can carry no names, and the table's order is often meant.
            warnings.warn(f"{text}; the columns are taken in their order", stacklevel=3)
    numbers = class_numbers(given, found.sizes["class"])
    return numbers, same_samples(found, given, ("the probabilities", "labels"))


def named_labels(labels: Labels, classes: Any = None) -> tuple[Any, list[str] | None]:
    """Labels along ``sample``, and their classes' names where they carry or are given any.

    A dataset has them in ``class``; the labels of a loaded one in ``attrs["classes"]``, and
    categorical labels in their categories, whose codes are then the numbers. The index of a
    Series holds the samples' ids.
    """
    ids = _row_ids(labels.index) if isinstance(labels, pd.Series) else {}
    names = classes
    if isinstance(labels, xr.Dataset):
        if names is None and "class" in labels.coords:
            names = labels["class"].values
        labels = labels["label"]
    elif names is None and isinstance(labels, xr.DataArray):
        names = labels.attrs.get("classes")
    categories = getattr(getattr(labels, "dtype", None), "categories", None)
    if categories is not None:
        codes = pd.Categorical(cast("Any", labels))
        if names is not None:
            codes = codes.set_categories([str(name) for name in names])
        labels, names = np.asarray(codes.codes, np.int64), codes.categories
    if ids:
        labels = xr.DataArray(np.asarray(labels), dims="sample", coords=ids)
    return labels, None if names is None else [str(name) for name in names]


def blocks(probabilities: xr.DataArray) -> Iterator[tuple[slice, NDArray[np.floating[Any]]]]:
    """Yield runs of rows as NumPy arrays, about 64 MiB each, and where they lie."""
    total, classes = probabilities.shape
    step = max(1, BLOCK // classes)
    for start in range(0, total, step):
        rows = slice(start, min(start + step, total))
        block = np.asarray(probabilities.data[rows])
        yield rows, block if block.dtype.kind == "f" else block.astype(np.float32)


def class_numbers(
    labels: ArrayLike | xr.DataArray, classes: int | None = None
) -> NDArray[np.int64]:
    """Labels as int64 (sample,), or an error that says which of them is no class.

    Parameters
    ----------
    labels
        Whole numbers (sample,).
    classes
        How many classes there are; None takes any number from 0 up.
    """
    given = np.asarray(labels)
    if given.ndim != 1 or len(given) == 0:
        raise ValueError(f"labels must have the shape (sample,), not {given.shape}")
    whole = given.dtype.kind in "iu"
    if given.dtype.kind == "f":
        whole = np.isfinite(given) & (given == np.floor(given))
    if not np.all(whole):
        first = given[int(np.argmin(np.broadcast_to(whole, given.shape)))].item()
        raise ValueError(
            f"labels must be class numbers, whole numbers from 0 up, not {given.dtype} such as "
            f"{first!r}"
        )
    numbers = given.astype(np.int64)
    none = np.flatnonzero(numbers == -1)
    if none.size:
        raise ValueError(
            f"{none.size} samples have no label (-1), the first at position {none[0]}; leave them "
            "out: ds.isel(sample=ds.label.values >= 0)"
        )
    top = np.iinfo(np.int64).max if classes is None else classes
    outside = np.flatnonzero((numbers < 0) | (numbers >= top))
    if outside.size:
        raise ValueError(
            f"{outside.size} labels are none of the {classes or ''} classes, the first is "
            f"{numbers[outside[0]]} at position {outside[0]}; classes are numbered from 0"
            + (f" to {classes - 1}" if classes else "")
        )
    return numbers


def _read(path: str | os.PathLike[str]) -> Any:
    """Return what a file holds."""
    kind = Path(path).suffix.lower()
    readers: dict[str, Callable[[Any], Any]] = {
        ".npy": lambda file: np.load(file, mmap_mode="r"),
        ".csv": pd.read_csv,
        ".parquet": pd.read_parquet,
        ".pq": pd.read_parquet,
    }
    if kind not in readers:
        raise ValueError(f"{path}: probabilities are read from .npy, .parquet or .csv files")
    if kind in (".parquet", ".pq"):
        need("pyarrow", extra="images")
    try:
        return readers[kind](path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as {kind}: {error}") from error


def as_array(source: Any) -> xr.DataArray:
    """Wrap the values without copying or loading them."""
    if isinstance(source, xr.DataArray):
        named = set(source.dims) == {"sample", "class"}
        return source.transpose("sample", "class") if named else source
    if isinstance(source, pd.DataFrame):
        table = source.set_index("sample") if "sample" in source else source
        texts = [str(name) for name, kind in table.dtypes.items() if kind.kind not in "fiu"]
        if texts:
            raise ValueError(f"columns {', '.join(texts)} of the probabilities hold no numbers")
        coords = {"class": table.columns.map(str).to_numpy(), **_row_ids(table.index)}
        return xr.DataArray(table.to_numpy(), dims=("sample", "class"), coords=coords)
    if hasattr(source, "detach"):  # a tensor, of which NumPy knows no bfloat16
        source = source.detach().cpu().float().numpy()
    lazy = hasattr(source, "dtype") and hasattr(source, "ndim")
    values = source if lazy else np.asarray(source, dtype=np.float64)
    return xr.DataArray(values, dims=[f"dim_{i}" for i in range(values.ndim)])


def _row_ids(index: pd.Index) -> dict[str, Any]:
    """The samples' ids that the rows of a table have, none where its index only counts them."""
    counts = isinstance(index, pd.RangeIndex) and index.step == 1
    return {} if counts else {"sample": index.to_numpy()}


def _check_block(block: NDArray[np.floating[Any]], start: int) -> None:
    """Raise where a row is no distribution. NaN fails every comparison, so it is asked first."""
    total = block.sum(axis=1, dtype=np.float64)
    rounding = max(ROUNDING, min(0.005 * block.shape[1], MOST_ROUNDING))
    if block.min() >= 0 and block.max() <= 1 + ROUNDING and np.abs(total - 1).max() <= rounding:
        return
    wrong = {
        "hold NaN": np.isnan(block).any(axis=1),
        "hold negative values": (block < 0).any(axis=1),
        "hold values above 1": (block > 1 + ROUNDING).any(axis=1),
        "do not sum to 1": np.abs(total - 1) > rounding,
    }
    for what, rows in wrong.items():
        if rows.any():
            first = int(np.argmax(rows))
            raise ValueError(
                f"{np.count_nonzero(rows)} rows of the probabilities {what}, the first at "
                f"position {start + first}: {block[first][:5]}"
                + (f", sum {total[first]:.3f}" if what == "do not sum to 1" else "")
                + "; if these are logits, give their softmax"
            )


def out_of_fold(
    features_or_ds: xr.DataArray | xr.Dataset,
    labels: Labels,
    model: Literal["logistic"] | Factory = "logistic",
    folds: int = 5,
    seed: int = 0,
    *,
    groups: ArrayLike | xr.DataArray | None = None,
    neighbors: xr.Dataset | None = None,
    classes: int | None = None,
    recipe: Any = None,
    progress: bool = True,
) -> xr.DataArray:
    """Class probabilities of every sample, by models that never saw it.

    The samples are dealt into `folds` parts, each class evenly; a model trained on all parts but
    one predicts that one. Copies of an image belong into one part: a model that has learnt a copy
    together with its wrong label agrees with that label, and the error is not found.

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
    groups
        (sample,): samples of one group, such as the frames of a video or the copies of an image,
        come to lie in one part; -1 is a group of its own. By default the near-duplicates of
        `neighbors`, if that is given.
    neighbors
        A graph over the features.
    classes
        How many there are; by default those of the dataset's ``class``, or one more than the
        largest label. A class without members gets probability 0.
    recipe
        For a torch module: a :class:`workbench.models.Recipe`.
    progress
        Show a bar.

    Returns
    -------
    xarray.DataArray
        float64 (sample, class), rows sum to 1; the coordinate ``sample`` of `features_or_ds`, and
        ``class`` where the names are known; ``attrs`` holds ``folds``, ``groups`` (those of
        several samples), ``seed``, ``model`` and ``accuracy``, the share of samples whose most
        probable class is the given one.

    Raises
    ------
    ValueError
        `labels` are of another length or no class numbers, there is one class only, a class has
        one member or group only (its held-out probability would mean nothing), `folds` is below
        2, or the modules have another number of outputs or are one and the same.
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
    labels, names = named_labels(labels)
    if names is None and isinstance(features_or_ds, xr.Dataset) and "class" in features_or_ds:
        names = [str(name) for name in features_or_ds["class"].values]
    classes = classes or (len(names) if names else None)
    labels = same_samples(labels, features_or_ds, ("labels", "features"))
    given = class_numbers(labels, classes)
    k = classes or int(given.max()) + 1
    found = np.zeros((len(given), k))
    group = _groups(features_or_ds, groups, neighbors)
    parts = list(_parts(given, group, folds, seed))
    learn = learner(model, features_or_ds, given, (k, seed, recipe))
    for train, test in tqdm(parts, desc="folds", unit="fold", disable=not progress):
        found[test] = learn(train, test)
    found /= found.sum(axis=1, keepdims=True)
    name = model if isinstance(model, str) else getattr(model, "__name__", type(model).__name__)
    coords: dict[str, Any] = {"class": names} if names and len(names) == k else {}
    if "sample" in features_or_ds.coords:
        coords["sample"] = features_or_ds["sample"]
    return xr.DataArray(
        found,
        dims=("sample", "class"),
        coords=coords,
        name="probabilities",
        attrs={
            "folds": len(parts),
            "groups": int((np.bincount(group) > 1).sum()),
            "seed": seed,
            "model": name,
            "accuracy": round(float((found.argmax(axis=1) == given).mean()), 4),
        },
    )


def _groups(
    source: xr.DataArray | xr.Dataset,
    groups: ArrayLike | xr.DataArray | None,
    neighbors: xr.Dataset | None,
) -> NDArray[np.int64]:
    """The number of each sample's group, counted from 0; a sample without one is its own."""
    if groups is None and neighbors is not None:
        groups = duplicates(neighbors)
    if groups is None:
        return np.arange(source.sizes["sample"])
    given = np.asarray(same_samples(groups, source, ("groups", "features")))
    _, group = np.unique(given, return_inverse=True)
    alone = np.flatnonzero((given == -1) & (given.dtype.kind in "iuf"))
    group[alone] = group.max() + 1 + np.arange(len(alone))
    numbers: NDArray[np.int64] = np.unique(group, return_inverse=True)[1]
    return numbers


def _parts(
    given: NDArray[np.int64], group: NDArray[np.int64], folds: int, seed: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield the positions to train on and those to predict: whole groups, each class evenly."""
    first = np.unique(group, return_index=True)[1]
    lead = given[first]  # the class for which a group is dealt out
    pairs = np.unique(np.stack([given, group]), axis=1)
    counts = np.bincount(pairs[0])  # groups in which a class has members
    lonely = np.flatnonzero(counts == 1)
    if np.count_nonzero(counts) < 2:
        raise ValueError(f"all {len(given)} labels are class {given[0]}: there is nothing to tell")
    if lonely.size:
        raise ValueError(
            f"class {lonely[0]} has one member only, or one group of copies, so that no model "
            "could learn it and be asked about it; merge or leave out such classes "
            f"({lonely.size} of them)"
        )
    if folds < 2:
        raise ValueError(f"folds={folds}: it takes at least 2")
    selection = need("sklearn.model_selection", extra="images")
    most = np.bincount(lead).max()
    splitter = selection.StratifiedKFold(min(folds, most), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # Small classes are meant: their members still come to lie in different parts.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for _, dealt in splitter.split(np.zeros(len(lead)), lead):
            asked = np.isin(group, dealt)
            yield np.flatnonzero(~asked), np.flatnonzero(asked)


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


def learner(
    model: str | Factory,
    source: xr.DataArray | xr.Dataset,
    given: NDArray[np.int64],
    options: tuple[int, int, Any],
) -> Callable[[NDArray[np.intp], NDArray[np.intp]], NDArray[np.float64]]:
    """What trains on one set of positions and returns probabilities for another."""
    k, seed, recipe = options
    make = _factory(model)
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
    from workbench.labels.torch_learner import Learner

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


def multilabel_out_of_fold(
    features_or_ds: xr.DataArray | xr.Dataset,
    labels: ArrayLike | xr.DataArray,
    model: Factory = logistic,
    folds: int = 5,
    seed: int = 0,
    *,
    groups: ArrayLike | xr.DataArray | None = None,
    neighbors: xr.Dataset | None = None,
    progress: bool = True,
) -> xr.DataArray:
    """Probability of every class in every sample, by models that never saw the sample.

    One model a class and fold, of that class against the rest.

    Parameters
    ----------
    features_or_ds
        Feature vectors (sample, feature), or an image dataset, whose pixels are then the features.
    labels
        bool (sample, class).
    model
        Makes a scikit-learn classifier with ``predict_proba``; by default logistic regression.
    folds
        How many parts the samples are dealt into.
    seed
        Fixes the parts.
    groups, neighbors
        As :func:`out_of_fold` takes them: copies of an image come to lie in one part.
    progress
        Show a bar.

    Returns
    -------
    xarray.DataArray
        float64 (sample, class), each in [0, 1].

    Raises
    ------
    ValueError
        `labels` are not 0 and 1 in the shape (sample, class), or belong to other samples.

    Examples
    --------
    >>> x = xr.DataArray(np.arange(8.0)[:, None], dims=("sample", "feature"))
    >>> y = np.arange(8)[:, None] > [3, 8]
    >>> multilabel_out_of_fold(x, y, folds=2, progress=False).values[7].round().tolist()
    [1.0, 0.0]
    """
    labels = same_samples(labels, features_or_ds, ("labels", "features"))
    given = class_flags(labels, features_or_ds.sizes["sample"])
    values = rows_of(features_or_ds)
    group = _groups(features_or_ds, groups, neighbors)
    splitter = need("sklearn.model_selection", extra="images").KFold(
        folds, shuffle=True, random_state=seed
    )
    found = np.zeros(given.shape)
    with tqdm(
        total=folds * given.shape[1], desc="folds", unit="class", disable=not progress
    ) as bar:
        for _, dealt in splitter.split(np.arange(group.max() + 1)):
            asked = np.isin(group, dealt)
            train, test = ~asked, asked
            for k in range(given.shape[1]):
                found[test, k] = _binary(model, values[train], given[train, k], values[test])
                bar.update()
    coords = {"sample": features_or_ds["sample"]} if "sample" in features_or_ds.coords else {}
    if isinstance(labels, xr.DataArray) and "class" in labels.coords:
        coords["class"] = labels["class"]
    return xr.DataArray(found, dims=("sample", "class"), coords=coords, name="probabilities")


def class_flags(labels: ArrayLike | xr.DataArray, samples: int) -> NDArray[np.bool_]:
    """Labels as bool (sample, class), or an error that says what is no label."""
    found = np.asarray(labels)
    if found.ndim != 2 or len(found) != samples or found.shape[1] == 0:
        raise ValueError(
            f"labels must be 0 or 1 in the shape (sample, class), for {samples} samples; got the "
            f"shape {found.shape}"
        )
    odd = ~np.isin(found, (0, 1))
    if odd.any():
        row = int(odd.any(axis=1).argmax())
        raise ValueError(f"labels must be 0 or 1; position {row} holds {found[row][odd[row]][0]}")
    return found.astype(bool)


def _binary(
    model: Factory, train: NDArray[Any], given: NDArray[np.bool_], test: NDArray[Any]
) -> NDArray[np.float64]:
    """P(class) of the test rows; a class that no or every training sample has is not learnt."""
    if given.all() or not given.any():
        return np.full(len(test), float(given.all()))
    found: NDArray[np.float64] = model().fit(train, given).predict_proba(test)[:, 1]
    return found
