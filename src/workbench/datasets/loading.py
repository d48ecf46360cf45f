"""Load a named dataset, a folder or a table as the image dataset."""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from workbench._chips import holds_chips, load_chips
from workbench.datasets import folder, shards, table
from workbench.datasets.dataset import subset
from workbench.datasets.errors import BadDataError, DataNotFoundError, warn
from workbench.datasets.images import Fit, Mode, Size
from workbench.datasets.listing import OnBad, Options, Range, collect, of_split, split_order
from workbench.datasets.named import NAMES, SPLITS, load_named


def load(
    name: str | os.PathLike[str],
    split: str = "all",
    n: int | None = None,
    seed: int = 0,
    fallback: bool = True,
    *,
    size: int | Size | None = None,
    fit: Fit = "crop",
    mode: Mode | None = None,
    lazy: bool | None = None,
    on_bad: OnBad = "skip",
    range: Range = "dtype",  # noqa: A002 - the field's word
    image: str | None = None,
    label: str | Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    suffix: str = "",
    progress: bool = True,
) -> xr.Dataset:
    """Load a named dataset, a folder of images or a table of images.

    Parameters
    ----------
    name
        One of ``NAMES``; a folder; a store (:mod:`workbench.store`); a ``.csv``, ``.tsv``,
        ``.jsonl`` or ``.parquet`` table; chips that :mod:`workbench.rasters` wrote. A name wins
        over a folder of that name here, with a warning: write ``"./mnist"`` for it. A folder is
        ``class_name/**/file.jpg``, or files of no class. Above the classes, folders that are called
        after a split (train, training; val, valid, validation, dev; test, testing, eval,
        evaluation; in any case, alone or beside a separator) divide it; a folder alone around them
        is skipped. Hugging Face's ``metadata.csv`` or ``.jsonl`` beside the images is read in the
        place of class folders, and so are its Parquet files where there is no image.
    split
        "train", "test" or "all"; also "val" where the reader's own data have it.
    n
        Keep so many images, each class in its proportion, in the official order. See ``subset``.
    seed
        Of that draw.
    fallback
        Load a bundled stand-in for "mnist" and "cifar10" where neither ``$WORKBENCH_DATA``, the
        cache nor the network has them, with a ``StandInWarning``; ``n`` is then the most that is
        returned, for it has fewer images. False raises instead.
    size
        Folders and tables only, as is all that follows. Pixels a side, or (height, width). Left
        out: the images' own size if a hundred of them agree on it and no side is above 256, else
        64 x 64. ``attrs["resized_to"]`` tells.
    fit
        "crop" the middle to the new shape, "pad" with black, or "stretch".
    mode
        "RGB" or "L" (grey): 3 channels or 1. Left out: "RGB", or as a store was written.
    lazy
        True for a dask array, False for a NumPy array. Left out: dask above 512 MiB or 20,000
        images.
    on_bad
        "skip" drops an image that cannot be read, with a warning and the count in
        ``attrs["skipped"]``; a lazy one comes back black, with a warning when it is computed.
        "raise" raises, for a lazy one when it is computed.
    range
        Which values become 0 and 255 in images of more than 8 bits, for the whole dataset.
        "dtype": 0 to 65,535 for 16 bits; for 32 bits and floats, which have no range of their own,
        the first of 0 to 1, 0 to 255 and 0 to 65,535 that holds all values, else the least and
        the greatest of all. Where the images use less than a tenth of it, as a 12-bit camera's
        do, a warning says so. "data": the least and the greatest of all. (low, high): these, and
        what lies beyond is clipped. ``attrs["range"]`` tells.
    image
        Tables only, as is all that follows but ``progress``. The column of paths, encoded bytes
        or ``{"bytes", "path"}`` structs; left out, the first of image, path, file, filename,
        file_name, image_path, filepath and img, in any case.
    label
        The column of class numbers or names; left out, the first of label, labels, class,
        class_name, target, category and fine_label, in any case. Cells of lists, of JSON lists or
        ``cat|dog`` are several labels an image, as is a list of columns of 0 and 1 (or -1 and 1).
        [] for none.
    classes
        The class names in the order of their numbers; left out, those of a Parquet schema's
        ClassLabel, else the different names sorted.
    root
        The folder that paths are relative to; left out, the table's own.
    suffix
        What each path lacks: ``".jpg"`` where the table holds names without.
    progress
        Show a bar, and a line that says what was found.

    Returns
    -------
    xarray.Dataset
        ``image`` (sample, y, x, channel) uint8; ``label`` (sample,) int64 with -1 for none, or
        ``labels`` (sample, class) bool; coordinates ``sample`` and ``class``; ``split`` and
        ``path`` (sample,) where they apply: the file, or the cell of a Parquet table
        (``file_name`` is then what it was called). ``sample`` is, for a named dataset, the
        official index within its split, those of the test images beginning after the training
        images' with ``split="all"``; for a folder, the path below it; for a table, its unique
        column "sample" or "id", else the row. ``attrs``: ``name``, ``source``, ``sha256`` of what
        ``sha256_of`` says, ``stand_in_for``, and where they apply ``listing_sha256`` (of ids and
        file sizes, the same for lazy and eager), ``seed``, ``n_available``, ``resized_to``,
        ``fit``, ``skipped``, ``skipped_paths``, ``ignored_files``, ``ignored_kinds``; those of
        ``path`` hold its ``root``.

    Raises
    ------
    DataNotFoundError
        There is no such name, folder or table, or a dataset is in none of the places tried.
    BadDataError
        Something is there and is not right: files that contradict each other, a wrong checksum, a
        missing column, a class with no images, a split that there is not, too large an ``n``.
    BadImageError
        An image cannot be read and ``on_bad="raise"``.
    TypeError
        An option was given that does not apply.

    Examples
    --------
    >>> ds = load("digits", split="test", n=50)
    >>> dict(ds["image"].sizes)
    {'sample': 50, 'y': 8, 'x': 8, 'channel': 1}
    """
    options = Options(size, fit, mode, lazy, on_bad, range, progress)
    choice = table.ColumnChoice(image, label, classes, root, suffix)
    given = [key for key, value in vars(choice).items() if value not in (None, "")]
    if isinstance(name, str) and name in NAMES:
        if os.path.exists(name):  # noqa: PTH110 - a name, not a path
            warn(f'"{name}" is the named dataset; "./{name}" would be what lies here', UserWarning)
        _refuse([*options.changed(), *given], f'the named dataset "{name}"')
        return load_named(name, split, n, seed, fallback)
    path = _existing(name)
    if holds_chips(path):
        _refuse([*{*options.changed(), *given} - {"lazy"}], f"chips: {path}")
        return load_chips(path, lazy) if n is None else subset(load_chips(path, lazy), n, seed)
    if path.is_dir():
        _refuse(given, f"the folder {path}")
        listing = (shards if shards.is_store(path) else folder).listing(path)
    else:
        listing = table.listing([(path, "")], choice, path.stem)
        listing.attrs["source"] = f"table {path.name}"
    return collect(of_split(listing, split, str(path)), options, n, seed)


def splits(name: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the splits of a dataset, without reading its images.

    Parameters
    ----------
    name
        As ``load`` takes it.

    Returns
    -------
    tuple of str
        ``("train", "test")`` for each named dataset; what the top level of a folder or the column
        ``split`` of a table says; ``()`` where there is no such division.

    Raises
    ------
    DataNotFoundError
        There is no such name, folder or table.

    Examples
    --------
    >>> splits("mnist")
    ('train', 'test')
    """
    if isinstance(name, str) and name in NAMES:
        return SPLITS
    path = _existing(name)
    if not path.is_dir():
        return table.splits([(path, "")])
    if shards.is_store(path):
        given = shards.listing(path).split
        return () if given is None else split_order(given.tolist())
    return folder.splits(path)


def _refuse(given: Sequence[str], what: str) -> None:
    if given:
        raise TypeError(f"{', '.join(given)} cannot be chosen for {what}")


def _existing(name: str | os.PathLike[str]) -> Path:
    """Return the folder or table of that name; raise ``DataNotFoundError`` where there is none."""
    path = Path(name).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix.lower() in (*table.SUFFIXES, ".tar")):
        return path
    kinds = f"a folder, a table ({', '.join(table.SUFFIXES)}) or chips"
    names = f"Names are {', '.join(NAMES)}; a path must lead to {kinds}"
    if path.is_file():
        hint = " workbench.boxes.load(path) reads images with boxes from COCO's JSON."
        hint *= path.suffix.lower() == ".json"
        raise BadDataError(f"{path} is a file of another kind. {names}.{hint}")
    close = difflib.get_close_matches(str(name).lower(), NAMES, 1)
    hint = f' Did you mean "{close[0]}"?' if close else ""
    raise DataNotFoundError(
        f'There is no dataset "{name}", and nothing at {path.absolute()}.{hint} {names}.'
    )
