"""Networks by the names that torchvision and timm know them by."""

from collections.abc import Callable
from dataclasses import dataclass
from pickle import UnpicklingError
from textwrap import shorten
from typing import Any

import torch
from torch import nn

from workbench._extras import need
from workbench.models.files import no_pickles
from workbench.models.preprocess import Preprocess


class WeightsNotFoundError(FileNotFoundError):
    """Pretrained weights are neither on this machine nor to be had."""


@dataclass(frozen=True)
class Architecture:
    """A network that can be built by name, and what its pretrained weights want."""

    build: Callable[..., nn.Module]
    preset: Preprocess
    classes: list[str] | None
    where: str
    download: Callable[[], nn.Module]


def find(name: str) -> Architecture | None:
    """Find a torchvision or timm name, torchvision's first; None where neither knows it.

    ``"torchvision/resnet34"`` and ``"timm/resnet34"`` ask for one of the two.
    """
    library, _, bare = name.rpartition("/")
    finders = {"torchvision": _torchvision, "timm": _timm}
    for key, look in finders.items():
        if library in ("", key) and (found := look(bare)):
            return found
    return None


def names() -> list[str]:
    """All names that :func:`find` knows."""
    vision = torchvision().models
    found = {*vision.list_models(module=vision), *need("timm", extra="networks").list_models()}
    return sorted(found)


def pretrained(name: str, found: Architecture) -> nn.Module:
    """Build a network with its pretrained weights, downloaded where they are not in the cache.

    Raises
    ------
    WeightsNotFoundError
        There is no way to the weights.
    ValueError
        The weights that were downloaded, now or earlier, are damaged or another network's.
    """
    try:
        with no_pickles():
            return found.download()
    except OSError as error:
        raise WeightsNotFoundError(
            f"the weights of {name!r} are not on this machine and could not be downloaded "
            f"({error}). They come from {found.where}: go online once, or bring the file and "
            f"load(path, architecture={name!r})"
        ) from error
    except (RuntimeError, EOFError, UnpicklingError) as error:
        raise ValueError(
            f"the weights of {name!r} cannot be read ({shorten(str(error), 200)}). They came from "
            f"{found.where}: delete the file of that name from the cache, for torchvision's "
            f"{torch.hub.get_dir()}, and load them again"
        ) from error


def torchvision() -> Any:
    """Import torchvision, or say why it does not go with this torch."""
    try:
        return need("torchvision", extra="networks")
    except (RuntimeError, OSError, AttributeError) as error:
        raise ImportError(
            f"the torchvision that is installed was built for another torch than this one, "
            f"{torch.__version__} ({error}). Install the two together, from one place: "
            "pip install --force-reinstall torch torchvision"
        ) from error


def _torchvision(name: str) -> Architecture | None:
    models = torchvision().models
    if name not in models.list_models(module=models):
        return None
    weights = models.get_model_weights(name).DEFAULT
    preset = weights.transforms()
    return Architecture(
        build=lambda **options: models.get_model(name, weights=None, **options),
        preset=Preprocess(
            (preset.crop_size[0],) * 2, preset.mean, preset.std, preset.interpolation.value
        ),
        classes=list(weights.meta["categories"]),
        where=weights.url,
        download=lambda: models.get_model(name, weights=weights),
    )


def _timm(name: str) -> Architecture | None:
    torchvision()  # timm imports it, and cannot say what is wrong with it
    timm = need("timm", extra="networks")
    if not timm.is_model(name):
        return None
    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise ValueError(f"timm has no pretrained weights for {name!r}")
    wants = timm.data.resolve_data_config(pretrained_cfg=config.to_dict())
    names = timm.data.ImageNetInfo().label_descriptions() if config.num_classes == 1000 else None
    return Architecture(
        build=lambda **options: timm.create_model(name, pretrained=False, **options),
        preset=Preprocess(
            tuple(wants["input_size"][1:]), wants["mean"], wants["std"], wants["interpolation"]
        ),
        classes=names,
        where=f"{config.hf_hub_id or config.url}",
        download=lambda: timm.create_model(name, pretrained=True),
    )
