"""Follow receptive fields through a network while it runs, operation by operation."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from workbench.gradcam.fields import Field
from workbench.gradcam.rules import RULES, Arguments, pointwise


class FieldTracker(TorchFunctionMode):
    """While this is entered, tensors that come from `image` have their fields kept.

    It stands in front of torch's functions and so sees every operation of the true graph: those of
    modules and plain functions, branches, loops. A tensor's field is that of its first unit. The
    statistics that group, layer and instance norms take over the plane are not counted.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.fields = WeakTensorKeyDictionary()
        self.fields[image] = Field()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        options = dict(kwargs or {})
        given = [t for t in _tensors((*args, *options.values())) if t in self.fields]
        before = [(self.fields[t], t) for t in given]
        output = func(*args, **options)
        if before:
            rule = RULES.get(getattr(func, "__name__", ""), pointwise)
            for result in _tensors((output,)):
                self.fields[result] = rule(before, result, Arguments(args, options))
        return output


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
