"""Hand an image dataset to FiftyOne: images, labels, tags, fields, features and maps."""

import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from platformdirs import user_cache_path
from tqdm import tqdm

from workbench._extras import need
from workbench._pictures import picture
from workbench._unattended import run_id
from workbench.show.fiftyone_app import ID_FIELD, LABEL_FIELD, connect
from workbench.show.plots import class_names

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
        Of the FiftyOne dataset. By default ``workbench-`` and the data's name; batch runs add
        their id, so that runs side by side do not replace each other's.
    maps
        Brain key to map (sample, axis): the App's Embeddings panel offers each of them.
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
        A dataset of that `name` exists and was not made here; a map, a tag or the features have
        another number of samples.

    Examples
    --------
    >>> dataset = to_fiftyone(ds, maps={"mnist_test": xy})  # doctest: +SKIP
    >>> dataset.match_tags("test").count()  # doctest: +SKIP
    10000
    """
    fo = connect()
    _check_lengths(ds, maps or {}, tags or {}, {} if features is None else {"features": features})
    run = run_id()
    if name is None:
        name = "-".join(filter(None, ["workbench", str(ds.attrs.get("name", "images")), run]))
    _delete_own(fo, name)
    dataset = fo.Dataset(name, persistent=run is None)
    dataset.info = {OWNED: {"sha256": ds.attrs.get("sha256"), "source": ds.attrs.get("source")}}
    if "class" in ds.coords:
        # The App offers these where a label is edited, and the numbers of classes are kept so.
        dataset.default_classes = [str(name) for name in ds["class"].values]
    dataset.save()
    _add_samples(fo, dataset, ds, _media(ds, progress), tags or {}, features, progress)
    for key, xy in (maps or {}).items():
        brain = need("fiftyone.brain", extra="fiftyone")
        brain.compute_visualization(dataset, points=np.asarray(xy.values, float), brain_key=key)
    return dataset


def _check_lengths(ds: xr.Dataset, *several: Mapping[str, xr.DataArray]) -> None:
    n = ds.sizes["sample"]
    for arrays in several:
        for key, values in arrays.items():
            if len(values) != n:
                raise ValueError(f"{key!r} has {len(values)} samples and the dataset {n}")


def _delete_own(fo: Any, name: str) -> None:
    """Make room for a dataset called `name`, unless somebody else's is there."""
    if not fo.dataset_exists(name):
        return
    if OWNED not in fo.load_dataset(name).info:
        raise ValueError(
            f"FiftyOne already holds a dataset {name!r} that was not made here; choose another "
            "name, or delete it with fiftyone.delete_dataset"
        )
    fo.delete_dataset(name)


def _media(ds: xr.Dataset, progress: bool) -> list[str]:
    """A file for every image: its own, or a PNG written to the cache the first time."""
    if "path" in ds:
        return [str(Path(str(path)).resolve()) for path in ds["path"].values]
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
