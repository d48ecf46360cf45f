"""Networks that torchvision and timm know by name, what each wants of images, and its weights."""

import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pickle import UnpicklingError
from textwrap import shorten
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workbench._extras import need
from workbench.models.files import no_pickles


@dataclass(frozen=True)
class Preprocess:
    """What is done to images before they reach a network: a resize, then (x - mean) / std.

    A forward pre-hook: the network keeps its class and the names of its layers, and gradients flow
    through to the image. Images are resized whole, so that a map of what the network saw lies over
    the entire image, by ``"bilinear"`` or ``"bicubic"`` interpolation, with antialiasing. None
    leaves the `size` (y, x), or the values, as they are.
    """

    size: tuple[int, int] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    interpolation: str = "bilinear"

    def __call__(self, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Prepare the first input, as a forward pre-hook."""
        return (self.apply(inputs[0]), *inputs[1:])

    def apply(self, x: Tensor) -> Tensor:
        """Resize and normalise images (sample, channel, y, x)."""
        if self.size is not None and tuple(x.shape[-2:]) != self.size:
            x = F.interpolate(x, self.size, mode=self.interpolation, antialias=True)
            if self.interpolation == "bicubic":
                # it overshoots at edges
                x = x.clamp(0, 1)
        for values, step in ((self.mean, torch.sub), (self.std, torch.div)):
            if values is not None:
                if len(values) != x.shape[1]:
                    raise ValueError(f"the images have {x.shape[1]} channels, not {len(values)}")
                x = step(x, torch.tensor(values, dtype=x.dtype, device=x.device).view(1, -1, 1, 1))
        return x


#: Seconds in which a server must answer.
_PATIENCE = 5


class WeightsNotFoundError(FileNotFoundError):
    """Pretrained weights are neither on this machine nor to be had."""


@dataclass(frozen=True)
class Architecture:
    """A network that can be built by name, by ``pretrained=True`` with weights, and its preset."""

    build: Callable[..., nn.Module]
    preset: Preprocess
    classes: list[str] | None
    where: str


def find(name: str) -> Architecture | None:
    """Find a torchvision or timm name, torchvision's first; None where neither knows it.

    ``"torchvision/resnet34"`` and ``"timm/resnet34"`` ask for one of the two.
    """
    library, _, bare = name.rpartition("/")
    for key, look in (("torchvision", _torchvision), ("timm", _timm)):
        if library in ("", key) and (found := look(bare)):
            return found
    return None


def names() -> set[str]:
    """All names that :func:`find` knows."""
    vision = torchvision().models
    return {*vision.list_models(module=vision), *need("timm", extra="networks").list_models()}


def pretrained(name: str, found: Architecture, options: Mapping[str, Any]) -> nn.Module:
    """Build a network with its pretrained weights, downloaded where they are not in the cache."""
    try:
        with no_pickles():
            return found.build(pretrained=True, **options)
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


@contextmanager
def _offline_hub() -> Iterator[None]:
    """Without a way to Hugging Face's hub, take what its cache holds, and do not ask again.

    By itself the hub's client would ask for each file six times, and wait in between.
    """
    hub = need("huggingface_hub", extra="networks").constants
    before = hub.HF_HUB_OFFLINE
    hub.HF_HUB_OFFLINE = before or not _reachable(hub.ENDPOINT)
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before


def _reachable(address: str) -> bool:
    """Whether a server answers, whatever it says; through a proxy where one is set."""
    try:
        urlopen(Request(address, method="HEAD"), timeout=_PATIENCE).close()  # noqa: S310
    except HTTPError:
        return True
    except OSError as error:
        return isinstance(getattr(error, "reason", error), ssl.SSLError)  # the client knows more
    return True


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


#: Networks whose random start takes seconds; state dicts overwrite it.
_SLOW = ("googlenet", "inception_v3")


def _torchvision(name: str) -> Architecture | None:
    models = torchvision().models
    if name not in models.list_models(module=models):
        return None
    weights = models.get_model_weights(name).DEFAULT
    preset = weights.transforms()

    def build(pretrained: bool = False, **options: Any) -> nn.Module:
        slow = {"init_weights": False} if name in _SLOW and not pretrained else {}
        made: nn.Module = models.get_model(
            name, weights=weights if pretrained else None, **slow, **options
        )
        return made

    size = (preset.crop_size[0],) * 2
    return Architecture(
        build=build,
        preset=Preprocess(size, preset.mean, preset.std, preset.interpolation.value),
        classes=list(weights.meta["categories"]),
        where=weights.url,
    )


def _timm(name: str) -> Architecture | None:
    torchvision()  # timm imports it, and cannot say what is wrong with it
    timm = need("timm", extra="networks")
    if not timm.is_model(name):
        return None
    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise ValueError(f"timm has no pretrained weights for {name!r}")
    names = timm.data.ImageNetInfo().label_descriptions() if config.num_classes == 1000 else None

    def build(pretrained: bool = False, **options: Any) -> nn.Module:
        with _offline_hub() if pretrained else nullcontext():
            made: nn.Module = timm.create_model(name, pretrained=pretrained, **options)
        return made

    return Architecture(
        build, preset_of(config.to_dict()), names, f"{config.hf_hub_id or config.url}"
    )


def preset_of(config: Mapping[str, Any]) -> Preprocess:
    """What a network of timm's wants, by its ``pretrained_cfg``."""
    timm = need("timm", extra="networks")
    wants = timm.data.resolve_data_config(pretrained_cfg=config)
    size = tuple(wants["input_size"][1:])
    return Preprocess(size, wants["mean"], wants["std"], wants["interpolation"])
