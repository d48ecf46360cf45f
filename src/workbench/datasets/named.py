"""The datasets that have a name."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from workbench.datasets import bundled, formats
from workbench.datasets.dataset import SplitImages, assemble
from workbench.datasets.errors import BadDataError, DataNotFoundError, StandInWarning
from workbench.datasets.sources import Inventory, locate

SPLITS = ("train", "test")
_CLOTHES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


@dataclass(frozen=True)
class _Filed:
    """A dataset that is read from files."""

    inventory: Inventory
    read: Callable[[Path, str], SplitImages]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class _Bundled:
    """A dataset that is made of what other packages bring along."""

    name: str
    make: Callable[[Sequence[str]], list[SplitImages]]
    classes: tuple[str, ...]
    source: str


_FILED = {
    "mnist": _Filed(formats.idx_inventory, formats.read_mnist, bundled.DIGITS),
    "fashion-mnist": _Filed(formats.idx_inventory, formats.read_mnist, _CLOTHES),
    "cifar10": _Filed(formats.cifar_inventory, formats.read_cifar, formats.CLASSES),
}
_DIGITS = _Bundled("digits", bundled.digits, bundled.DIGITS, "bundled with scikit-learn")
_PHOTOS = _Bundled(
    "photos", bundled.photos, bundled.PHOTOS, "bundled with scikit-image and scikit-learn"
)
_BUNDLED = {"digits": _DIGITS, "photos": _PHOTOS}
_STAND_INS = {
    "mnist": _Bundled(
        "digits",
        bundled.digits_like_mnist,
        bundled.DIGITS,
        "bundled with scikit-learn, enlarged to 28 x 28",
    ),
    "cifar10": _PHOTOS,
}
NAMES: tuple[str, ...] = (*_FILED, *_BUNDLED)


def load_named(name: str, split: str, n: int | None, seed: int, fallback: bool) -> xr.Dataset:
    """Load one of ``NAMES``. ``load`` describes the parameters and the result."""
    if split not in (*SPLITS, "all"):
        raise BadDataError(f'"{name}" has the splits train and test; there is no split="{split}"')
    wanted = SPLITS if split == "all" else (split,)
    if name in _BUNDLED:
        return _from_bundle(_BUNDLED[name], wanted, n, seed)
    filed = _FILED[name]
    try:
        source = locate(name, wanted, filed.inventory)
    except DataNotFoundError as error:
        if not fallback or name not in _STAND_INS:
            raise
        return _from_bundle(_STAND_INS[name], wanted, n, seed, instead_of=(name, error))
    parts = [filed.read(source.folder, part) for part in wanted]
    attrs = {"name": name, "source": source.source, "sha256_of": "decompressed files"}
    return assemble(parts, filed.classes, attrs, n, seed)


def _from_bundle(
    bundle: _Bundled,
    wanted: Sequence[str],
    n: int | None,
    seed: int,
    instead_of: tuple[str, DataNotFoundError] | None = None,
) -> xr.Dataset:
    parts = bundle.make(wanted)
    attrs = {
        "name": bundle.name,
        "source": bundle.source,
        "sha256_of": "decoded images and labels",
    }
    if instead_of is None:
        return assemble(parts, bundle.classes, attrs, n, seed)
    name, error = instead_of
    total = sum(len(part.label) for part in parts)
    # n was chosen for the larger dataset: what there is of the stand-in serves the same end
    fewer = n is not None and n > total
    warnings.warn(
        f'{error}\nLoaded {total if n is None or fewer else n} images of "{bundle.name}" instead'
        f"{f', all there are, for the {n} asked for' if fewer else ''}. "
        "fallback=False makes this an error.",
        StandInWarning,
        stacklevel=4,
    )
    attrs |= {"stand_in_for": name}
    return assemble(parts, bundle.classes, attrs, None if fewer else n, seed)
