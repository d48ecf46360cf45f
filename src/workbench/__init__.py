"""An analysis workbench for image datasets and large rasters in Jupyter.

Each topic is a subpackage that is imported when it is first used::

    from workbench import datasets, embeddings, show

    ds = datasets.load("mnist", split="test")
"""

from importlib import import_module
from types import ModuleType

__version__ = "0.2.0"
__all__ = [
    "batch",
    "boxes",
    "datasets",
    "dynamics",
    "embeddings",
    "gradcam",
    "labels",
    "models",
    "rasters",
    "show",
    "soft_prototypes",
    "store",
]


def __getattr__(name: str) -> ModuleType:
    """Import a topic on first use, so that ``import workbench`` stays quick."""
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
