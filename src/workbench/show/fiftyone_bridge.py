"""To and from FiftyOne: images, labels, tags, fields, features and maps; its App."""

import functools
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from platformdirs import user_cache_path
from tqdm import tqdm

from workbench._extras import MissingExtraError, need
from workbench._images import picture
from workbench._samples import classes_of, same_samples
from workbench._unattended import in_batch, run_id
from workbench.datasets.images import is_part
from workbench.show.samples import class_names

#: Where a sample's id and its class are kept in FiftyOne.
ID_FIELD = "workbench_id"
LABEL_FIELD = "ground_truth"


_NO_DATABASE = (
    "Set FIFTYONE_DATABASE_URI to a MongoDB of your own, or install FiftyOne with the project's "
    "requirements.lock, which brings one on Linux x86-64"
)
_NEWER_DATABASE = (
    "A newer FiftyOne has used this database: install that version, or set "
    "FIFTYONE_DATABASE_DIR to another folder for a database of its own"
)


@functools.cache
def connect() -> Any:
    """FiftyOne with its database running, usage tracking off, and the database's age unremarked.

    One process at a time starts the database: two that do it together collide over its folder.
    Where it does not start, a RuntimeError says what to do.
    """
    os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")
    if "FIFTYONE_DATABASE_URI" not in os.environ:
        os.environ.setdefault("FIFTYONE_DATABASE_VALIDATION", "false")
    fiftyone = need("fiftyone", extra="fiftyone")
    folder = user_cache_path("workbench", ensure_exists=True)
    with need("filelock", extra="fiftyone").FileLock(folder / "fiftyone.lock", timeout=120):
        try:
            fiftyone.list_datasets()
        except Exception as error:  # FiftyOne has no common class for what can fail here
            newer = "must have fiftyone" in str(error)
            advice = _NEWER_DATABASE if newer else _NO_DATABASE
            raise RuntimeError(
                f"FiftyOne's database does not start ({type(error).__name__}: {error}). {advice}"
            ) from error
    return fiftyone


def fiftyone_ready() -> bool:
    """Whether FiftyOne is installed and its database answers; a warning says why not.

    Notebooks ask this first, so that their story stands where FiftyOne is not to be had. The
    database starts on the first call, which takes some seconds.

    Examples
    --------
    >>> if fiftyone_ready():  # doctest: +SKIP
    ...     dataset = to_fiftyone(ds)
    """
    try:
        connect()
    except (MissingExtraError, RuntimeError) as error:
        warnings.warn(str(error), stacklevel=2)
        return False
    return True


def app_link(dataset: Any) -> str:
    """Open the FiftyOne App on a dataset and say where, or say how it is opened.

    A dataset that was given maps is shown beside a list of them. In batch runs nobody would look
    at it, so no server is started there. FiftyOne waits a minute for the App's server; where that
    is too short, what is returned says so.

    Examples
    --------
    >>> print(app_link(dataset))  # doctest: +SKIP
    FiftyOne App: http://localhost:5151/
    """
    if in_batch():
        return "The FiftyOne App opens here when this notebook is run in JupyterLab or Colab."
    fiftyone = connect()
    try:
        with _quiet():
            spaces = _beside_its_maps(fiftyone, dataset)
            # Inside containers FiftyOne would listen to the whole network, without a password.
            session = fiftyone.launch_app(dataset, spaces=spaces, auto=False, address="127.0.0.1")
    except Exception as error:  # FiftyOne has no common class for what can fail here
        # The App is for looking; what follows in a notebook needs the database only.
        return (
            f"The FiftyOne App did not start ({type(error).__name__}: {error}). Run this again "
            f"when the machine is less busy, or `fiftyone app launch {dataset.name}` in a terminal."
        )
    return f"FiftyOne App: {session.url}"


def _beside_its_maps(fiftyone: Any, dataset: Any) -> Any:
    """The App's layout: images left, maps right; None, which is images only, without a map."""
    if not dataset.list_brain_runs(type="visualization"):
        return None
    panels = [
        fiftyone.Panel(type="Samples", pinned=True),
        fiftyone.Panel(type="Embeddings"),
    ]
    halves = [
        # Without an active child a space stays empty in the App.
        fiftyone.Space(children=[panel], active_child=panel.component_id)
        for panel in panels
    ]
    return fiftyone.Space(children=halves, orientation="horizontal")


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out FiftyOne's welcome, a screen of advertisement, in which the link would be lost."""
    logger = logging.getLogger("fiftyone")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def from_fiftyone(view: Any, ds: xr.Dataset | None = None, *, progress: bool = True) -> xr.Dataset:
    """Read a view of a dataset that :func:`to_fiftyone` made: its samples, tags and labels.

    Parameters
    ----------
    view
        A FiftyOne view or dataset, ``session.view`` for instance.
    ds
        The image dataset that was handed over. With it, ids have their own type again, classes
        their numbers, and `changed` says where a label is another one now.
    progress
        Show a bar.

    Returns
    -------
    xarray.Dataset
        Along ``sample``, the view's samples in its order. ``tags`` is bool (sample, tag), a split
        being a tag too; ``label`` (sample,) holds class numbers, -1 for none, or ``labels``
        (sample, class) several of them; ``changed`` is bool (sample,), with `ds` only. A class
        that was not there before comes after the others, and a warning names it.

    Raises
    ------
    ValueError
        The view's samples were not put there by :func:`to_fiftyone`, or come from another dataset
        than `ds`.

    Examples
    --------
    >>> seen = from_fiftyone(session.view, ds)  # doctest: +SKIP
    >>> wrong = seen.sample[seen.tags.sel(tag="wrong")]  # doctest: +SKIP
    >>> fixed = ds.label.copy()  # doctest: +SKIP
    >>> fixed.loc[{"sample": seen.sample}] = seen.label  # doctest: +SKIP
    """
    view = view.view()  # of a whole dataset too, which has other attributes
    kind = _label_kind(view)
    ids, tags, names = _values(view, kind, progress)
    sample = _sample_ids(ids, ds)
    known = _known_classes(view, ds)
    classes = known + _new_classes(names, known)
    back = xr.Dataset(
        {"tags": _tags(tags)},
        coords={"sample": sample, "class": np.array(classes, dtype=np.str_)},
        attrs={"name": view.dataset_name},
    )
    if kind is None:
        return back.drop_vars("class")
    numbers = {name: number for number, name in enumerate(classes)}
    if kind == "Classifications":
        back["labels"] = (("sample", "class"), _one_hot(names, numbers))
    else:
        label = [-1 if name is None else numbers[name] for name in names]
        back["label"] = ("sample", np.array(label, dtype=np.int64))
    changed = None if ds is None else _changed(back, ds)
    return back if changed is None else back.assign(changed=("sample", changed))


def _label_kind(view: Any) -> str | None:
    """``"Classification"``, ``"Classifications"``, or None where the view holds no labels."""
    schema = view.get_field_schema()
    if ID_FIELD not in schema:
        raise ValueError(
            f"the samples of {view.dataset_name!r} have no field {ID_FIELD!r}; from_fiftyone "
            "reads what to_fiftyone has written"
        )
    kind = getattr(schema.get(LABEL_FIELD), "document_type", None)
    return None if kind is None else str(kind.__name__)


def _values(view: Any, kind: str | None, progress: bool) -> tuple[list[str], list[Any], list[Any]]:
    """Ids, tags and label names of the view in one query."""
    several = "classifications." if kind == "Classifications" else ""
    paths = [ID_FIELD, "tags"] + ([] if kind is None else [f"{LABEL_FIELD}.{several}label"])
    with tqdm(total=len(view), desc="read from FiftyOne", disable=not progress) as bar:
        ids, tags, *names = view.values(paths)
        bar.update(len(ids))
    missing = sum(value is None for value in ids)
    if missing:
        raise ValueError(
            f"{missing} of {len(ids)} samples were not put there by to_fiftyone; leave them out "
            f"with view.exists({ID_FIELD!r})"
        )
    return ids, tags, names[0] if names else [None] * len(ids)


def _sample_ids(ids: Sequence[str], ds: xr.Dataset | None) -> NDArray[Any]:
    """The ids as `ds` has them, which FiftyOne keeps as text."""
    if ds is None:
        return np.array(ids, dtype=np.str_)
    own = {str(value): i for i, value in enumerate(ds["sample"].values)}
    strange = [value for value in ids if value not in own]
    if strange:
        raise ValueError(
            f"{len(strange)} of {len(ids)} samples are not of the dataset given; the first is "
            f"{strange[0]!r}"
        )
    chosen: NDArray[Any] = ds["sample"].values[[own[value] for value in ids]]
    return chosen


def _known_classes(view: Any, ds: xr.Dataset | None) -> list[str]:
    """The classes in the order of their numbers."""
    if ds is not None:
        return classes_of(ds)
    return list(view._dataset.default_classes)


def _new_classes(names: Sequence[Any], known: Sequence[str]) -> list[str]:
    """Classes that came up in FiftyOne; a warning tells them from slips of the pen."""
    flat = (name for item in names for name in ([item] if isinstance(item, str) else item or []))
    new = sorted({name for name in flat if name is not None} - set(known))
    for name in new if known else []:
        close = get_close_matches(name, known, n=1)
        hint = f" (did someone mean {close[0]!r}?)" if close else ""
        warnings.warn(f"{name!r} is a new class{hint}; it comes last", stacklevel=3)
    return new


def _tags(tags: Sequence[Sequence[str] | None]) -> xr.DataArray:
    """Tags as bool (sample, tag)."""
    found = sorted({tag for own in tags for tag in own or []})
    return xr.DataArray(
        _one_hot(tags, {tag: i for i, tag in enumerate(found)}),
        dims=("sample", "tag"),
        coords={"tag": np.array(found, dtype=np.str_)},
    )


def _one_hot(items: Sequence[Sequence[str] | None], numbers: dict[str, int]) -> NDArray[np.bool_]:
    """Which of the numbered names each sample has."""
    mask = np.zeros((len(items), len(numbers)), dtype=bool)
    for row, own in enumerate(items):
        mask[row, [numbers[name] for name in own or []]] = True
    return mask


def _changed(back: xr.Dataset, ds: xr.Dataset) -> NDArray[np.bool_] | None:
    """Where the label is not that of the dataset; None where only one of them has labels."""
    before = ds.sel(sample=back["sample"].values)
    if "label" in back and "label" in ds:
        return np.asarray(back["label"].values != before["label"].values)
    if "labels" in back and "labels" in ds:
        old = before["labels"].transpose("sample", "class").values.astype(bool)
        new = back["labels"].values
        grown = np.pad(old, ((0, 0), (0, new.shape[1] - old.shape[1])))
        return np.asarray((new != grown).any(axis=1))
    return None


#: Key in a FiftyOne dataset's ``info`` that marks it as made here, and so ours to replace.
OWNED = "workbench"
FEATURE_FIELD = "features"
_BATCH = 1000


def to_fiftyone(
    ds: xr.Dataset,
    name: str | None = None,
    *,
    maps: Mapping[str, xr.DataArray] | None = None,
    tags: Mapping[str, xr.DataArray] | None = None,
    features: xr.DataArray | None = None,
    progress: bool = True,
) -> Any:
    """Make a FiftyOne dataset of an image dataset.

    Parameters
    ----------
    ds
        An image dataset. Images that came from files are not copied; others are written once as
        PNG to the user's cache. ``label`` or ``labels`` become ``ground_truth``, ``split`` a tag,
        ``sample`` the field ``workbench_id``, and every other numeric, boolean or text variable
        along ``sample`` a field of its name (``ds_`` before it where FiftyOne needs that name).
    name
        Of the FiftyOne dataset. By default ``workbench-``, the data's name and eight digits of
        its hash; batch runs add their id, so that runs side by side do not replace each other's.
        A dataset of that name that was made here is replaced, unless it was edited since.
    maps
        Brain key to map (sample, axis): the App's Embeddings panel offers each of them. Of a key,
        what is neither letter, digit nor underscore becomes an underscore.
    tags
        Tag to bool (sample,): samples to tag.
    features
        (sample, feature): kept with each sample as the field ``features``, for FiftyOne's own
        similarity and uniqueness.
    progress
        Show a bar.

    Returns
    -------
    fiftyone.Dataset
        Persistent, except in batch runs, where it goes when the database stops.

    Raises
    ------
    MissingExtraError
        FiftyOne is not installed.
    ValueError
        A dataset of that `name` exists and was not made here, or was edited since: its tags and
        labels are nowhere else. A map, a tag or the features belong to other samples.

    Examples
    --------
    >>> dataset = to_fiftyone(ds, maps={"mnist_test": xy})  # doctest: +SKIP
    >>> dataset.match_tags("test").count()  # doctest: +SKIP
    10000
    """
    fo = connect()
    maps = {re.sub(r"\W", "_", key): _aligned(key, xy, ds) for key, xy in (maps or {}).items()}
    tags = {tag: _aligned(tag, mask, ds) for tag, mask in (tags or {}).items()}
    features = None if features is None else _aligned("features", features, ds)
    run = run_id()
    if name is None:
        hashed = sha256(repr((ds.attrs.get("sha256"), ds["sample"].values.tolist())).encode())
        of_data = [str(ds.attrs.get("name", "images")), hashed.hexdigest()[:8]]
        name = "-".join(filter(None, ["workbench", *of_data, run]))
    _make_room(fo, name)
    dataset = fo.Dataset(name, persistent=run is None)
    dataset.info = {OWNED: {"sha256": ds.attrs.get("sha256"), "source": ds.attrs.get("source")}}
    if "class" in ds.coords:
        # The App offers these where a label is edited, and the numbers of classes are kept so.
        dataset.default_classes = [str(name) for name in ds["class"].values]
    dataset.save()
    _add_samples(fo, dataset, ds, _media(ds, progress), tags, features, progress)
    for key, xy in maps.items():
        brain = need("fiftyone.brain", extra="fiftyone")
        brain.compute_visualization(dataset, points=np.asarray(xy.values, float), brain_key=key)
    dataset.info = {**dataset.info, OWNED: {**dataset.info[OWNED], "state": _state(dataset)}}
    dataset.save()
    return dataset


def _aligned(key: str, values: xr.DataArray, ds: xr.Dataset) -> xr.DataArray:
    return same_samples(values, ds, (f"{key!r}", "the dataset"))


def _make_room(fo: Any, name: str) -> None:
    """Delete what was made here under a name, unless it holds what somebody did since."""
    if not fo.dataset_exists(name):
        return
    dataset = fo.load_dataset(name)
    if OWNED not in dataset.info:
        raise ValueError(
            f"FiftyOne already holds a dataset {name!r} that was not made here; choose another "
            "name, or delete it with fiftyone.delete_dataset"
        )
    if dataset.info[OWNED].get("state") != _state(dataset):
        raise ValueError(
            f"FiftyOne's dataset {name!r} has tags or labels that were edited since it was made, "
            "and they would be lost: bring them back with show.from_fiftyone, then delete it with "
            "fiftyone.delete_dataset, or choose another name"
        )
    fo.delete_dataset(name)


def _state(dataset: Any) -> str:
    """Tells whether tags, labels or samples changed."""
    kind = dataset.get_field_schema().get(LABEL_FIELD)
    several = kind is not None and kind.document_type.__name__ == "Classifications"
    label = f"{LABEL_FIELD}.classifications.label" if several else f"{LABEL_FIELD}.label"
    columns = dataset.values([ID_FIELD, "tags", *([label] if kind else [])])
    return sha256(repr(columns).encode()).hexdigest()


def _media(ds: xr.Dataset, progress: bool) -> list[str]:
    """A file for every image: its own, or a PNG written to the cache the first time."""
    paths = [str(path) for path in ds["path"].values] if "path" in ds else []
    if paths and not any(map(is_part, paths)):
        return [str(Path(path).resolve()) for path in paths]
    digest = sha256(str(ds.attrs.get("sha256", "")).encode())
    for start in range(0, ds.sizes["sample"], _BATCH):
        digest.update(_images(ds, start).tobytes())
    folder = user_cache_path("workbench") / "media" / digest.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{i:06d}.png" for i in range(ds.sizes["sample"])]
    with tqdm(total=len(files), desc="write images", unit="image", disable=not progress) as bar:
        for start in range(0, len(files), _BATCH):
            batch = files[start : start + _BATCH]
            if not all(file.exists() for file in batch):
                for file, image in zip(batch, _images(ds, start), strict=True):
                    _write_png(file, image)
            bar.update(len(batch))
    return [str(file) for file in files]


def _images(ds: xr.Dataset, start: int) -> np.ndarray:
    return np.asarray(ds["image"].isel(sample=slice(start, start + _BATCH)).values)


def _write_png(file: Path, image: np.ndarray) -> None:
    """Write one image under a name that only a whole file ever has."""
    from PIL import Image

    part = file.with_suffix(f".{os.getpid()}.part")
    Image.fromarray(picture(image)).save(part, format="PNG")
    part.replace(file)


def _add_samples(
    fo: Any,
    dataset: Any,
    ds: xr.Dataset,
    files: list[str],
    tags: Mapping[str, xr.DataArray],
    features: xr.DataArray | None,
    progress: bool,
) -> None:
    """Add the samples in batches, each with its label, tags and fields."""
    truth = _ground_truth(fo, ds)
    fields = _fields(fo, ds)
    split = ds["split"].values if "split" in ds else None
    masks = {tag: np.asarray(mask.values, dtype=bool) for tag, mask in tags.items()}
    if features is not None:
        fields[FEATURE_FIELD] = list(np.asarray(features.values))
    with tqdm(total=len(files), desc="add to FiftyOne", disable=not progress) as bar:
        for start in range(0, len(files), _BATCH):
            batch = []
            for i in range(start, min(start + _BATCH, len(files))):
                own = [tag for tag, mask in masks.items() if mask[i]]
                own += [] if split is None else [str(split[i])]
                values = {key: column[i] for key, column in fields.items()}
                batch.append(fo.Sample(files[i], tags=own, **{LABEL_FIELD: truth[i]}, **values))
            dataset.add_samples(batch, progress=False)
            bar.update(len(batch))


def _ground_truth(fo: Any, ds: xr.Dataset) -> list[Any]:
    """FiftyOne's classification of every sample, None where there is no label."""
    if "labels" in ds:
        names = np.array([str(name) for name in ds["class"].values])
        rows = ds["labels"].transpose("sample", "class").values
        return [
            fo.Classifications(
                classifications=[fo.Classification(label=name) for name in names[row]]
            )
            for row in rows
        ]
    return [fo.Classification(label=name) if name else None for name in class_names(ds)]


def _fields(fo: Any, ds: xr.Dataset) -> dict[str, list[Any]]:
    """The plain variables along ``sample`` that have no place of their own in FiftyOne."""
    fields = {ID_FIELD: [str(value) for value in ds["sample"].values]}
    for key, variable in ds.data_vars.items():
        plain = variable.dims == ("sample",) and variable.dtype.kind in "biufUO"
        if plain and key not in ("label", "split", "path"):
            fields[_field_name(fo, str(key))] = variable.values.tolist()
    return fields


def _field_name(fo: Any, key: str) -> str:
    """A name that is free in FiftyOne, whose samples have fields and attributes of their own."""
    taken = key in (ID_FIELD, LABEL_FIELD, FEATURE_FIELD) or hasattr(fo.Sample("x.png"), key)
    plain = key.lstrip("_").replace(".", "_")
    return f"ds_{plain}" if taken or plain != key else key
