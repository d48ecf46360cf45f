"""What every curated notebook has to look like.

``problems`` lists what is wrong with one; ``python tests/notebook_contract.py --fix`` renews what
follows from the version and the repository: the badges, in the README too, and the address that the
Colab cell installs from.
"""

import ast
import re
import sys
from pathlib import Path

import nbformat

from workbench._extras import DISTRIBUTION, REPOSITORY, SOURCE, TAG

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MOST_LINES = 15
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

BADGE = re.compile(r"\[!\[Open in Colab\]\(.*?\)\]\(.*?\)")
INSTALL = re.compile(r'"[\w-]+\[([a-z,]+)\] @ ')


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


def problems(path: Path) -> list[str]:
    """Everything about a notebook that breaks the contract."""
    notebook = nbformat.read(path, as_version=4)
    cells = notebook.cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    found = [*_opening(path, cells), *_parameters(cells[2]), *_clean(notebook, code)]
    if not code[2].source.startswith(("import ", "from ")):
        found.append("the cell after the parameters is not the imports")
    last = code[-1].source
    if cells[-1] is not code[-1] or "batch.check(" not in last or "batch.record(" not in last:
        found.append("the last cell does not check the claims and record the results")
    found += [
        f"cell {i} has {len(cell.source.splitlines())} lines, more than {MOST_LINES}"
        for i, cell in enumerate(code)
        if len(cell.source.splitlines()) > MOST_LINES
    ]
    return found


def _opening(path: Path, cells: list) -> list[str]:
    """Title, badge, question; then the Colab cell."""
    found = []
    title = cells[0].source
    if cells[0].cell_type != "markdown" or not title.startswith("# "):
        found.append("the first cell is not a title")
    if badge(path.name) not in title:
        found.append("the badge is missing or points elsewhere; `make lint` renews it")
    if "?" not in title:
        found.append("the first cell asks no question")
    install = INSTALL.search(cells[1].source)
    if not install or cells[1].source != bootstrap(install[1]):
        found.append("the second cell is not the Colab bootstrap; `make lint` renews its address")
    return found


def _parameters(cell: nbformat.NotebookNode) -> list[str]:
    """Typed literals with a Colab form each, and nothing else."""
    if "parameters" not in cell.metadata.get("tags", []):
        return ["the third cell is not tagged 'parameters'"]
    found = []
    lines = cell.source.splitlines()
    for statement in ast.parse(cell.source).body:
        line = lines[statement.lineno - 1]
        try:
            assert isinstance(statement, ast.AnnAssign)
            assert statement.value is not None
            ast.literal_eval(statement.value)
        except (AssertionError, ValueError):
            found.append(f"not an annotated literal: {line}")
        if "# @param" not in line:
            found.append(f"no Colab form (# @param): {line}")
    return found


def _clean(notebook: nbformat.NotebookNode, code: list) -> list[str]:
    """No outputs, no traces of somebody's machine."""
    found = []
    if any(cell.outputs or cell.execution_count for cell in code):
        found.append("holds outputs; `make lint` strips them")
    if dict(notebook.metadata.get("kernelspec", {})) != KERNELSPEC:
        found.append(f"kernelspec is not {KERNELSPEC}")
    if extra := set(notebook.metadata) - {"kernelspec", "language_info"}:
        found.append(f"notebook metadata holds {sorted(extra)}")
    return found


def fix(path: Path) -> None:
    """Renew badge, install address and kernelspec."""
    notebook = nbformat.read(path, as_version=4)
    opening, first = notebook.cells[:2]
    opening.source = BADGE.sub(badge(path.name), opening.source)
    if install := INSTALL.search(first.source):
        first.source = bootstrap(install[1])
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": KERNELSPEC, "language_info": {"name": "python"}}
    )
    nbformat.write(notebook, path)


if __name__ == "__main__":
    if sys.argv[1:] != ["--fix"]:
        sys.exit("usage: python tests/notebook_contract.py --fix")
    for notebook_path in NOTEBOOKS:
        fix(notebook_path)
    readme = ROOT / "README.md"
    renewed = BADGE.sub(lambda old: badge(old[0].rpartition("/")[2][:-1]), readme.read_text())
    readme.write_text(renewed)
