"""The reader's own images, listed by a folder or a table, as the image dataset."""

import hashlib
import numbers
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.datasets.dataset import Scalar, build, choose
from workbench.datasets.errors import BadDataError, BadImageError, warn
from workbench.datasets.images import (
    FITS,
    MODES,
    Fit,
    Item,
    Mode,
    Pictures,
    Size,
    Values,
    content,
    deep_values,
    encoded_size,
    header_size,
    listed,
    value_range,
)

OnBad = Literal["skip", "raise"]
Range = Literal["dtype", "data"] | tuple[float, float]
# Above either of these a collection is lazy unless the caller says otherwise.
EAGER_BYTES = 512 * 2**20
EAGER_IMAGES = 20_000
_HEADERS = 100
_DEFAULT_SIZE = (64, 64)
_LARGEST_OWN_SIDE = 256
_EIGHT_BIT = (".jpg", ".jpeg", ".gif", ".bmp", ".webp")


@dataclass(frozen=True)
class Listing:
    """What a folder or a table says of its images. Arrays run along ``sample``."""

    items: list[Item]
    names: list[str]  # what a message calls each image
    sample: NDArray[Any]
    classes: list[str]
    attrs: dict[str, Scalar]
    label: NDArray[np.int64] | None = None
    labels: NDArray[np.bool_] | None = None
    split: NDArray[np.str_] | None = None
    path: NDArray[np.str_] | None = None
    others: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    mode: Mode = "RGB"
    root: str = ""  # the folder that the paths are below, unless a warning named them

    def keep(self, rows: NDArray[Any]) -> "Listing":
        """Return the listing of some rows, given by position."""
        kept: dict[str, Any] = {
            key: [getattr(self, key)[row] for row in rows] for key in ("items", "names")
        }
        for key in ("sample", "label", "labels", "split", "path"):
            if (values := getattr(self, key)) is not None:
                kept[key] = values[rows]
        kept["others"] = {key: values[rows] for key, values in self.others.items()}
        return replace(self, **kept)


@dataclass(frozen=True)
class Options:
    """How the reader wants a collection's images. ``load`` documents each."""

    size: int | Size | None = None
    fit: Fit = "crop"
    mode: Mode | None = None
    lazy: bool | None = None
    on_bad: OnBad = "skip"
    range: Range = "dtype"
    progress: bool = True

    def __post_init__(self) -> None:
        given: Any = self.range
        named = given in ("dtype", "data")
        if not named and (isinstance(given, str) or len(given) != 2 or given[0] >= given[1]):
            raise BadDataError(f"range={given!r} is none of 'dtype', 'data' and (low, high)")
        for key, allowed in (
            ("fit", FITS),
            ("mode", MODES),
            ("on_bad", ("skip", "raise")),
        ):
            if getattr(self, key) not in (None, *allowed):
                raise BadDataError(f"{key}={getattr(self, key)!r} is none of {', '.join(allowed)}")
        if self.pair is not None and min(self.pair) < 1:
            raise BadDataError(f"size must be 1 or more pixels, not {self.size!r}")

    def changed(self) -> list[str]:
        """Return the names of the options that are not at their defaults."""
        return [
            f.name
            for f in fields(self)
            if getattr(self, f.name) != f.default and f.name != "progress"
        ]

    @property
    def pair(self) -> Size | None:
        """The size as (height, width)."""
        if self.size is None:
            return None
        sides = self.size if isinstance(self.size, Sequence) else (self.size, self.size)
        if len(sides) != 2 or not all(isinstance(side, numbers.Integral) for side in sides):
            raise TypeError(f"size must be pixels or (height, width), not {self.size!r}")
        return int(sides[0]), int(sides[1])


def split_order(values: Iterable[str]) -> tuple[str, ...]:
    """The different splits, train, val and test first."""
    usual = ("train", "val", "test")
    there = set(values) - {""}
    return (*(name for name in usual if name in there), *sorted(there.difference(usual)))


def of_split(listing: Listing, split: str, what: str) -> Listing:
    """Keep one split; raise ``BadDataError`` where there is no such split."""
    if split == "all":
        return listing
    there = () if listing.split is None else split_order(listing.split.tolist())
    if listing.split is None or split not in there:
        has = f"has the splits {', '.join(there)}" if there else "is not divided into splits"
        raise BadDataError(f'{what} {has}, so split="{split}" has no meaning; use split="all"')
    return listing.keep(np.flatnonzero(listing.split == split))


def collect(listing: Listing, options: Options, n: int | None, seed: int) -> xr.Dataset:
    """Read the listed images, or ``n`` of them, into the image dataset."""
    attrs = dict(listing.attrs)
    if n is not None:
        attrs |= {"seed": seed, "n_available": len(listing.items)}
        listing = listing.keep(choose(listing.label, len(listing.items), n, seed))
    size = options.pair or _common_size(listing.items)
    attrs |= {"resized_to": list(size), "fit": options.fit}
    mode = options.mode or listing.mode
    values = _values(listing, options.range)
    if values is not None:
        attrs |= {"range": list(values)}
    pictures = Pictures(
        listing.items, listing.names, size, options.fit, mode, options.on_bad, values
    )
    sizes = [b"%d" % encoded_size(item) for item in listing.items]
    attrs["listing_sha256"] = _joined_sha(listing.sample, sizes)
    eager = np.prod(pictures.shape) <= EAGER_BYTES and len(listing.items) <= EAGER_IMAGES
    if options.lazy or (options.lazy is None and not eager):
        attrs |= {"sha256": attrs["listing_sha256"], "sha256_of": "sample ids and file sizes"}
        token = hashlib.sha256(repr((attrs, options, listing.path)).encode()).hexdigest()
        from workbench.datasets.lazy import lazy

        return _build(listing, lazy(pictures, token), attrs, options.progress)
    image, digests, bad = _read(pictures, options.progress)
    kept = np.flatnonzero([digest is not None for digest in digests])
    if bad:
        _report(listing, kept, bad, whole=n is None)
        attrs |= {"skipped": len(bad), "skipped_paths": [error.where for error in bad[:20]]}
        listing = listing.keep(kept)
        image = image[kept]
    attrs |= {
        "sha256": _joined_sha(listing.sample, [digests[row] or b"" for row in kept]),
        "sha256_of": "sample ids and encoded images",
    }
    return _build(listing, image, attrs, options.progress)


def _values(listing: Listing, wanted: Range) -> Values | None:
    """The values that become black and white in pictures of more than 8 bits, None without any.

    A hundred evenly spaced pictures tell whether there are any; where 16 bits do not settle the
    range, or the data shall, all are looked at.
    """

    def look(row: int) -> tuple[Values, bool] | None:
        item = listing.items[row]
        if isinstance(item, str) and item.lower().endswith(_EIGHT_BIT):
            return None
        try:
            return deep_values(content(item, listing.names[row]))
        except BadImageError:  # as it is reported when it is decoded
            return None

    seen = [found for found in map(look, _spaced(len(listing.items))) if found]
    if not seen:
        return None
    if not isinstance(wanted, str):
        return float(wanted[0]), float(wanted[1])
    sixteen = all(just for _, just in seen)
    if wanted == "data" or not sixteen:
        seen = [found for found in map(look, range(len(listing.items))) if found]
    ends = min(low for (low, _), _ in seen), max(high for (_, high), _ in seen)
    if wanted == "data":
        return ends
    values = value_range(ends, sixteen)
    if ends[1] - ends[0] < (values[1] - values[0]) / 10:
        warn(
            f"the images hold {ends[0]:g} to {ends[1]:g} of a possible {values[0]:g} to "
            f"{values[1]:g}, less than a tenth, and come out nearly flat; range='data' or "
            "range=(low, high) spreads them over all grey levels",
            UserWarning,
        )
    return values


def _build(listing: Listing, image: Any, attrs: dict[str, Scalar], progress: bool) -> xr.Dataset:
    if progress:
        sys.stderr.write(_found(listing, attrs) + "\n")
    ds = build(
        image,
        sample=listing.sample,
        classes=listing.classes,
        label=listing.label,
        labels=listing.labels,
        split=listing.split,
        path=listing.path,
        attrs=attrs,
    )
    if "path" in ds:
        ds["path"].attrs["root"] = listing.root
    return ds.assign({name: ("sample", values) for name, values in listing.others.items()})


def _found(listing: Listing, attrs: Mapping[str, Any]) -> str:
    """One line on what was found, so that a folder that means something else is seen at once."""
    parts = [f"{len(listing.items):,} images"]
    if listing.classes:
        most = ", ".join(listing.classes[:5]) + ", ..." * (len(listing.classes) > 5)
        parts.append(f"{len(listing.classes)} classes ({most})")
    if listing.labels is not None:
        parts.append(f"{listing.labels.sum(axis=1).mean():.2g} labels an image")
    if listing.label is not None and (none := int((listing.label < 0).sum())):
        parts.append(f"{none:,} without a label")
    counts = Counter([] if listing.split is None else listing.split.tolist())
    parts += [f"{counts[split]:,} {split}" for split in split_order(counts)]
    if counts[""]:
        parts.append(f"{counts['']:,} in no split")
    if attrs.get("skipped"):
        parts.append(f"{attrs['skipped']} unreadable")
    if attrs.get("ignored_kinds"):
        parts.append("other files: " + " and ".join(attrs["ignored_kinds"][:5]))
    return f"{attrs.get('source', 'images')}: {', '.join(parts)}"


def _read(
    pictures: Pictures, progress: bool
) -> tuple[NDArray[np.uint8], list[bytes | None], list[BadImageError]]:
    """Decode everything; a bad image has no digest, or raises where the caller wants that."""
    image = np.empty(pictures.shape, np.uint8)
    digests: list[bytes | None] = []
    bad = []
    for row, result in enumerate(pictures.try_all(progress)):
        if isinstance(result, BadImageError):
            if pictures.on_bad == "raise":
                raise result
            bad.append(result)
            digests.append(None)
        else:
            image[row], digest = result
            digests.append(digest)
    return image, digests, bad


def _report(
    listing: Listing, kept: NDArray[np.intp], bad: list[BadImageError], whole: bool
) -> None:
    """Warn of the bad images; raise where nothing is left, or nothing of a class."""
    if not len(kept):
        raise BadDataError(f"no image is left: {listed(bad)}")
    if whole and listing.label is not None:
        before = Counter(listing.label.tolist())
        after = Counter(listing.label[kept].tolist())
        lost = [listing.classes[k] for k in sorted(before) if k >= 0 and not after[k]]
        if lost:
            raise BadDataError(f"no image is left of class {', '.join(lost)}: {listed(bad)}")
    warn(f"skipped: {listed(bad)}")


def _common_size(items: Sequence[Item]) -> Size:
    """Return the size that evenly spaced images agree on, if small; else 64 x 64."""
    sizes = {header_size(items[row]) for row in _spaced(len(items))} - {None}
    own = sizes.pop() if len(sizes) == 1 else None
    return own if own is not None and max(own) <= _LARGEST_OWN_SIDE else _DEFAULT_SIZE


def _spaced(n: int) -> list[int]:
    """At most a hundred evenly spaced positions."""
    spaced: list[int] = np.unique(np.linspace(0, n - 1, _HEADERS).astype(int)).tolist()
    return spaced


def _joined_sha(sample: NDArray[Any], digests: Sequence[bytes]) -> str:
    sha = hashlib.sha256()
    for name, digest in zip(sample.tolist(), digests, strict=True):
        sha.update(os.fsencode(str(name)) + b"\0" + digest + b"\n")
    return sha.hexdigest()
