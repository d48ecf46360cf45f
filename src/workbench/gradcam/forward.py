"""Forward passes that leave no trace in a network, and the score of an image to be explained."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from workbench.models.files import OpaqueModel
from workbench.models.inference import batches, channels_of, evaluating, place_of, scores_of

#: Images, or images and what else the model takes, each with one entry an image; or a dataset.
Inputs = Tensor | tuple[Tensor, ...] | xr.Dataset


def images_for(model: nn.Module, x: Inputs) -> Tensor:
    """The images as the model takes them, checked, outside any graph.

    They get the model's device and precision; grey ones have their channel repeated for a model
    that takes three. Videos have a time axis, (sample, channel, t, y, x).
    """
    if isinstance(x, tuple):
        x = x[0]
    if isinstance(x, xr.Dataset):
        x = next(batches(x, max(1, x.sizes["sample"]), progress=False))
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim not in (4, 5) or not len(x):
        what = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"images are a float tensor (sample, channel, y, x), got {what}")
    bad = (~torch.isfinite(x)).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"NaN or infinite pixels in {len(bad)} images; the first is at {bad[0]}")
    if (x.shape[1], channels_of(model)) == (1, 3):
        x = x.expand(-1, 3, *x.shape[2:])
    with torch.inference_mode(False):
        return (x.clone() if x.is_inference() else x.detach()).to(place_of(model, x))


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients, whatever surrounds it; all as before afterwards."""
    with evaluating(model), torch.inference_mode(False), torch.no_grad():
        yield


@dataclass(frozen=True)
class Forward:
    """A network, and what it takes beside the images: one entry an image, or one for all."""

    model: nn.Module
    others: tuple[Tensor, ...] = ()

    @classmethod
    def of(cls, model: nn.Module, x: Inputs, n: int) -> "Forward":
        """Split what was given into the images, which are checked elsewhere, and the rest."""
        others = x[1:] if isinstance(x, tuple) else ()
        place = place_of(model, torch.empty(0)).device
        for i, other in enumerate(others):
            if not isinstance(other, Tensor) or len(other) != n:
                raise ValueError(f"input {i + 1} is not a tensor with one entry for each image")
        return cls(model, tuple(other.to(place) for other in others))

    def __call__(self, x: Tensor) -> Any:
        """Run it: a tensor of scores where the output holds one, else the whole output."""
        others = (o.expand(len(x), *o.shape[1:]) if len(o) == 1 else o for o in self.others)
        output = self.model(x, *others)
        try:
            scores = scores_of(output)
        except ValueError:
            return output
        if not torch.isfinite(scores).all():
            raise ValueError("the model's output holds NaN or infinities")
        return scores

    def part(self, samples: slice) -> "Forward":
        """The same for some of the images."""
        return Forward(self.model, tuple(other[samples] for other in self.others))


def differentiable(model: nn.Module) -> bool:
    """Whether gradients flow: not through ONNX programs, nor quantised layers."""
    if isinstance(model, OpaqueModel):
        return model.differentiable
    return not any("quantized" in type(module).__module__ for module in model.modules())


#: A class for all images, one for each, a function of the output, or None: the predicted class.
Target = int | Sequence[int] | Tensor | np.ndarray | xr.DataArray | Callable[[Any], Tensor] | None


class Scorer:
    """The target's score of each image of a batch, before any softmax.

    Parameters
    ----------
    target
        As :meth:`Probe.run` takes it.
    output
        What the model makes of the batch: (sample, class), for a callable of any form.
    n
        How many images there are.

    Raises
    ------
    ValueError
        The number of targets is not that of the images, a class is not one of the model's, or the
        output is not (sample, class).
    TypeError
        Targets that are not whole numbers.
    """

    def __init__(self, target: Target, output: Any, n: int) -> None:
        self.output = detached(output)
        self._n = n
        self.target = None if callable(target) else _classes(target, scores_of(self.output))
        self._function = target if callable(target) else self._of_class

    def __call__(self, output: Any) -> Tensor:
        """Scores (sample,) of the whole batch."""
        scores = self._function(output)
        if not isinstance(scores, Tensor) or scores.shape != (self._n,):
            what = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(
                f"the target function gives {what}, not one score for each of {self._n} images"
            )
        return scores

    def _of_class(self, output: Tensor) -> Tensor:
        return output[torch.arange(len(output)), self.target]

    def of_sample(self, sample: int, outputs: Any, variants: int) -> Tensor:
        """Scores (variant,) of several outputs that were made from one sample of the batch."""
        if self.target is not None:
            scores: Tensor = outputs[:, self.target[sample]]
            return scores
        # a function may look at the place in the batch
        every = [self(_put(self.output, sample, outputs, i))[sample] for i in range(variants)]
        return torch.stack(every)


def detached(output: Any) -> Any:
    """The output outside any graph, whatever it is made of."""
    if isinstance(output, Tensor):
        return output.detach()
    if isinstance(output, Mapping):
        return {key: detached(value) for key, value in output.items()}
    return [detached(v) for v in output] if isinstance(output, list | tuple) else output


def _put(whole: Any, sample: int, part: Any, variant: int) -> Any:
    """A batch's output in which one sample's was replaced by another output's variant."""
    if isinstance(whole, Tensor) and whole.ndim:
        batch = whole.clone()
        batch[sample] = part[variant]
        return batch
    if isinstance(whole, Mapping):
        return {key: _put(value, sample, part[key], variant) for key, value in whole.items()}
    if isinstance(whole, list) and all(isinstance(value, Tensor) for value in whole):
        return [_put(a, sample, b, variant) for a, b in zip(whole, part, strict=True)]
    if isinstance(whole, list):  # an entry for each image, as detectors give
        return [*whole[:sample], part[variant], *whole[sample + 1 :]]
    return whole


def _classes(target: Any, output: Tensor) -> Tensor:
    """The target classes (sample,), checked."""
    if output.ndim != 2:
        raise ValueError(
            f"the model gives {tuple(output.shape)}, not (sample, class): give a function of the "
            "output that returns one score an image"
        )
    n, classes = output.shape
    if target is None:
        return output.argmax(1)
    if isinstance(target, xr.DataArray):
        target = target.values
    chosen = torch.as_tensor(target, device=output.device)
    if chosen.ndim > 1 or (chosen.ndim == 1 and len(chosen) != n):
        raise ValueError(f"targets of shape {tuple(chosen.shape)} for {n} images")
    if chosen.is_floating_point() or chosen.dtype in (torch.bool, torch.complex64):
        raise TypeError(f"targets are class numbers, got {chosen.dtype}")
    bad = chosen[(chosen < 0) | (chosen >= classes)]
    if bad.numel():
        raise ValueError(
            f"there is no class {bad.flatten()[0].item()}: the model has 0 to {classes - 1}"
        )
    return chosen.long().expand(n)
