"""What `make docs` adds to mkdocs: facts from pyproject.toml, and a reference from `__all__`."""

import re
import tomllib
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import griffe

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
TOPICS = (
    "datasets",
    "dynamics",
    "models",
    "embeddings",
    "labels",
    "boxes",
    "store",
    "gradcam",
    "rasters",
    "show",
    "batch",
    "soft_prototypes",
)
REFERENCE = re.compile(r"^::: (workbench\.\w+)$", re.M)
ROLE = re.compile(r":(?:func|class|meth|mod):`([^`]+)`")


def on_config(config: Any) -> Any:
    """Link the repository in the footer.

    Not by ``repo_url``, for which the theme's script asks GitHub for the number of stars.
    """
    link = {"icon": "material/source-repository", "link": PROJECT["urls"]["Repository"]}
    config.extra["social"] = [link]
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in ``{repository}``; put a package's public names where the page names the package."""
    markdown = markdown.replace("{repository}", PROJECT["urls"]["Repository"])
    return REFERENCE.sub(lambda found: _reference(found[1]), markdown)


def _reference(package: str) -> str:
    places = [place for name, place in public_names().items() if name.rpartition(".")[0] == package]
    return "\n\n".join(f"::: {place}" for place in places)


@cache
def public_names() -> dict[str, str]:
    """Every public name, ``workbench.topic.name``, and where it is defined.

    Some functions have the name of their module, which would be documented in their place.
    """
    found = {}
    for topic in TOPICS:
        package = import_module(f"workbench.{topic}")
        for name in package.__all__:
            module = getattr(getattr(package, name), "__module__", package.__name__)
            found[f"{package.__name__}.{name}"] = f"{module}.{name}"
    return found


class Roles(griffe.Extension):
    """Turn Sphinx's roles in docstrings into links, or into code where nothing public is meant."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring:
            topic = ".".join(obj.path.split(".")[:2])
            obj.docstring.value = ROLE.sub(lambda it: _link(it[1], topic), obj.docstring.value)


def _link(name: str, topic: str) -> str:
    place = public_names().get(name) or public_names().get(f"{topic}.{name}")
    return f"[`{name}`][{place}]" if place else f"`{name}`"
