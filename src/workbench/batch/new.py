"""A notebook to begin with, which keeps the contract of the curated ones and runs as it stands."""

import re
from importlib.resources import files
from pathlib import Path
from string import Template

from workbench._extras import DISTRIBUTION, REPOSITORY, SOURCE, TAG, need
from workbench.batch.notebook import JobError, write_text

KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
_BOOTSTRAP = """\
# Colab only: install the workbench beside what is there. Anywhere else this cell does nothing.
import sys

if "google.colab" in sys.modules:
    from pathlib import Path

    from google.colab import output

    # Nothing that Colab has loaded may change: it would need a restart.
    !{{sys.executable}} -m pip list --format=freeze > kept.txt
    # Is the repository out of reach? Upload the wheel that `make wheel` builds: it is taken.
    wheels = [wheel.resolve().as_uri() for wheel in Path().glob("{wheel}-*.whl")]
    source = (wheels or ["{source}"])[0]
    %pip install --quiet --constraint kept.txt "{distribution}[{extras}] @ {{source}}"
    output.enable_custom_widget_manager()
"""
_NAME = re.compile(r"\d\d(_[a-z0-9]+)+")
#: What the template imports needs these.
_EXTRAS = "batch,embeddings"


def new_notebook(name: str, title: str | None = None, folder: str | Path = "notebooks") -> Path:
    """Write a notebook that keeps the contract and runs as it stands, and return its path.

    Parameters
    ----------
    name
        Two digits and lower-case words, joined by ``_``; ``.ipynb`` may follow.
    title
        The question that it answers, ending in ``?``; by default the words of its name.
    folder
        Where the notebooks are.

    Raises
    ------
    JobError
        The name or the title is not one, the number is taken, the folder is missing, or the
        notebook is there already.

    Examples
    --------
    >>> new_notebook("07_which_are_blurred")  # doctest: +SKIP
    PosixPath('notebooks/07_which_are_blurred.ipynb')
    """
    name = name.removesuffix(".ipynb")
    folder = Path(folder)
    if not folder.is_dir():
        raise JobError([f"there is no folder {folder}; --folder names another"])
    taken = {path.name[:2]: path for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))}
    free = f"{max(map(int, taken), default=0) + 1:02}"
    if not _NAME.fullmatch(name):
        words = re.findall(r"[a-z0-9]+", re.sub(r"^\d+", "", name.lower()))
        example = "_".join([free, *(words or ["my", "question"])])
        raise JobError([f"{name!r} is no name for a notebook; {example!r} would be one"])
    path = folder / f"{name}.ipynb"
    if path.exists():
        raise JobError([f"{path} is there already, and is not overwritten"])
    if name[:2] in taken:
        raise JobError([f"{name[:2]} is taken by {taken[name[:2]]}; {free} is free"])
    title = title or name[3:].replace("_", " ").capitalize() + "?"
    if not title.endswith("?"):
        raise JobError([f"the title {title!r} asks nothing: end it in '?'"])
    write_text(path, _notebook(path.name, title))
    return path


def badge(name: str) -> str:
    """Return the badge that opens a notebook, as it was at this version, in Colab."""
    place = REPOSITORY.removeprefix("https://github.com/")
    link = f"https://colab.research.google.com/github/{place}/blob/{TAG}/notebooks/{name}"
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({link})"


def bootstrap(extras: str) -> str:
    """Return the cell that installs the package with these extras in Colab."""
    return _BOOTSTRAP.format(
        extras=extras,
        distribution=DISTRIBUTION,
        wheel=DISTRIBUTION.replace("-", "_"),
        source=SOURCE,
    ).strip()


def _notebook(name: str, title: str) -> str:
    """Return the template as the text of a notebook; ``# %%`` begins a cell."""
    v4 = need("nbformat.v4", extra="batch")
    text = Template((files("workbench.batch") / "new_notebook.txt").read_text("utf-8")).substitute(
        title=title,
        badge=badge(name),
        bootstrap=bootstrap(_EXTRAS),
    )
    cells = []
    for part in text.split("# %%")[1:]:
        head, _, source = part.partition("\n")
        kind = v4.new_markdown_cell if "markdown" in head else v4.new_code_cell
        tags = {"tags": ["parameters"]} if "parameters" in head else {}
        cells.append(kind(source.strip(), metadata=tags))
    about = {"kernelspec": KERNELSPEC, "language_info": {"name": "python"}}
    return str(need("nbformat", extra="batch").writes(v4.new_notebook(cells=cells, metadata=about)))
