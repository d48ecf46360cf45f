"""Hand an image dataset to FiftyOne: images, labels, tags, fields and maps."""

import os
import warnings
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from platformdirs import user_cache_path
from tqdm import tqdm

from workbench._extras import MissingExtraError, need
from workbench.show.plots import class_names

#: Key in a FiftyOne dataset's ``info`` that marks it as made here, and so ours to replace.
OWNED = "workbench"
_BATCH = 1000


def _fiftyone() -> Any:
    """FiftyOne, with usage tracking off and the bundled database's age warning silenced."""
    os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")
    if "FIFTYONE_DATABASE_URI" not in os.environ:
        os.environ.setdefault("FIFTYONE_DATABASE_VALIDATION", "false")
    return need("fiftyone", extra="fiftyone")


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
        _fiftyone().list_datasets()
    except MissingExtraError as error:
        reason = str(error)
    except Exception as error:  # FiftyOne has no common class for what can fail here
        reason = (
            f"FiftyOne's database does not start ({type(error).__name__}: {error}). Set "
            "FIFTYONE_DATABASE_URI to a MongoDB of your own, or install FiftyOne with the "
            "project's requirements.lock, which brings one on Linux x86-64"
        )
    else:
        return True
    warnings.warn(reason, stacklevel=2)
    return False


def to_fiftyone(
    ds: xr.Dataset,
    name: str | None = None,
    *,
    maps: Mapping[str, xr.DataArray] | None = None,
    tags: Mapping[str, xr.DataArray] | None = None,
    progress: bool = True,
) -> Any:
    """Make a FiftyOne dataset of an image dataset.

    Parameters
    ----------
    ds
        An image dataset. Images that came from files are not copied; others are written once as
        PNG to the user's cache. ``label`` or ``labels`` become ``ground_truth``, ``split`` a tag,
        ``sample`` the field ``workbench_id``, and every other numeric, boolean or text variable
        along ``sample`` a field of its name.
    name
        Of the FiftyOne dataset. By default ``workbench-`` and the data's name; batch runs add
        their id, so that runs side by side do not replace each other's.
    maps
        Brain key to map (sample, axis): the App's Embeddings panel offers each of them.
    tags
        Tag to bool (sample,): samples to tag.
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
        A dataset of that `name` exists and was not made here; a map or a tag has another number
        of samples.

    Examples
    --------
    >>> dataset = to_fiftyone(ds, maps={"mnist_test": xy})  # doctest: +SKIP
    >>> dataset.match_tags("test").count()  # doctest: +SKIP
    10000
    """
    fo = _fiftyone()
    n = ds.sizes["sample"]
    for key, values in {**(maps or {}), **(tags or {})}.items():
        if len(values) != n:
            raise ValueError(f"{key!r} has {len(values)} samples and the dataset {n}")
    run = os.environ.get("WORKBENCH_RUN_ID")
    if name is None:
        name = "-".join(filter(None, ["workbench", str(ds.attrs.get("name", "images")), run]))
    _delete_own(fo, name)
    dataset = fo.Dataset(name, persistent=run is None)
    dataset.info = {OWNED: {"sha256": ds.attrs.get("sha256"), "source": ds.attrs.get("source")}}
    dataset.save()
    _add_samples(fo, dataset, ds, _media(ds, progress), tags or {}, progress)
    for key, xy in (maps or {}).items():
        brain = need("fiftyone.brain", extra="fiftyone")
        brain.compute_visualization(dataset, points=np.asarray(xy.values, float), brain_key=key)
    return dataset


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

    from workbench.show.plots import picture

    part = file.with_suffix(f".{os.getpid()}.part")
    Image.fromarray(picture(image)).save(part, format="PNG")
    part.replace(file)


def _add_samples(
    fo: Any,
    dataset: Any,
    ds: xr.Dataset,
    files: list[str],
    tags: Mapping[str, xr.DataArray],
    progress: bool,
) -> None:
    """Add the samples in batches, each with its label, tags and fields."""
    truth = _ground_truth(fo, ds)
    fields = _fields(ds)
    split = ds["split"].values if "split" in ds else None
    masks = {tag: np.asarray(mask.values, dtype=bool) for tag, mask in tags.items()}
    with tqdm(total=len(files), desc="add to FiftyOne", disable=not progress) as bar:
        for start in range(0, len(files), _BATCH):
            batch = []
            for i in range(start, min(start + _BATCH, len(files))):
                own = [tag for tag, mask in masks.items() if mask[i]]
                own += [] if split is None else [str(split[i])]
                values = {key: column[i] for key, column in fields.items()}
                batch.append(fo.Sample(files[i], tags=own, ground_truth=truth[i], **values))
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


def _fields(ds: xr.Dataset) -> dict[str, list[Any]]:
    """The plain variables along ``sample`` that have no place of their own in FiftyOne."""
    fields = {"workbench_id": [str(value) for value in ds["sample"].values]}
    for key, variable in ds.data_vars.items():
        plain = variable.dims == ("sample",) and variable.dtype.kind in "biufUO"
        if plain and key not in ("label", "split", "path"):
            fields[str(key)] = variable.values.tolist()
    return fields


def app_link(dataset: Any) -> str:
    """Open the FiftyOne App on a dataset and say where, or say how it is opened.

    In batch runs nobody would look at it, so no server is started there.
    """
    if os.environ.get("WORKBENCH_RUN_ID"):
        return "The FiftyOne App opens here when this notebook is run in JupyterLab or Colab."
    session = _fiftyone().launch_app(dataset, auto=False)
    # 0.0.0.0 is where the App listens inside a container, not where a browser finds it.
    return f"FiftyOne App: {session.url.replace('0.0.0.0', 'localhost')}"  # noqa: S104
