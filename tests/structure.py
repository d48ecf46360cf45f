"""How the package is built: ``python tests/structure.py [--trace]``; `make check` runs it.

Prints files, lines, import circles (imports for the type checker count) and lengths of functions
without their docstrings. Fails where there is a circle or more lines than are promised. ``--trace``
runs six calls that users make and prints how many files and functions each runs through, in all
its processes; what runs while a module is imported does not count.
"""

import ast
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grimp
import nbformat
import networkx as nx
from nbformat import v4

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
MOST_LINES = 27_000
LONG = 50

#: Notes each function of the package, from the moment that TRACE_NOW or the call itself says.
HOOK = """
import os, sys, threading
seen = set()
def importing(frame):
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith({source!r}):
            return frame.f_globals["__name__"] != "__main__"
        frame = frame.f_back
def note(frame, event, given):
    code = frame.f_code
    if event == "call" and code not in seen and code.co_filename.startswith({source!r}):
        if code.co_name != "<module>" and not importing(frame):
            seen.add(code)
            with open({log!r}, "a") as log:
                log.write(code.co_filename + ":" + code.co_qualname + "\\n")
def start():
    threading.setprofile(note)
    sys.setprofile(note)
if os.environ.get("TRACE_NOW"):
    start()
"""
RASTER = """
from workbench import rasters
places = rasters.write_example("m.tif", size=512, objects=60, progress=False)
regions = rasters.regions(places[["x", "y", "label"]], "m.tif", size=32, crs="raster")
plan = rasters.plan("m.tif", regions)
"""
IMAGES = """
from workbench import datasets, embeddings, labels
ds = datasets.load("digits", n=300)
vectors = embeddings.features(ds)
"""
PROBE = """
import torchvision
from workbench import gradcam
probe = gradcam.Probe(torchvision.models.resnet18(), layers=["layer4"])
images = gradcam.photographs(224)
"""
#: What a user writes, after what it needs; without either it is the command.
CALLS = {
    "plan.load": (RASTER, "plan.load()"),
    "plan.write": (RASTER, 'plan.write("chips.zarr", progress=False)'),
    "find_issues": (
        IMAGES + "given = labels.out_of_fold(vectors, ds.label)",
        "labels.find_issues(ds.label, given)",
    ),
    "project": (IMAGES, "embeddings.project(vectors)"),
    "Probe.run": (PROBE, 'probe.run(images).map("gradcam", layer="layer4")'),
    "workbench run": ("", ""),
}


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Every function's place and its lines without the docstring."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) and node.body[1:] else node.body
            place = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
            yield place, (node.body[-1].end_lineno or 0) - body[0].lineno + 1


def circles() -> list[list[str]]:
    """Modules that import one another, directly or not; a package's ``__init__`` only passes on."""
    graph = grimp.build_graph("workbench", cache_dir=None)
    modules = [module for module in graph.modules if not graph.find_children(module)]
    imports = nx.DiGraph(
        (module, other)
        for module in modules
        for other in graph.find_modules_directly_imported_by(module)
        if other in modules
    )
    return [sorted(part) for part in nx.strongly_connected_components(imports) if len(part) > 1]


def trace(name: str) -> set[str]:
    """The functions, ``file:name``, that a call runs through."""
    with tempfile.TemporaryDirectory() as folder:
        log, hook = Path(folder, "log"), Path(folder, "sitecustomize.py")
        log.touch()
        hook.write_text(HOOK.format(source=str(SOURCE / "workbench"), log=str(log)))
        paths = os.pathsep.join([folder, str(SOURCE)])
        environment = {**os.environ, "PYTHONPATH": paths, "PYTHONWARNINGS": "ignore"}
        before, call = CALLS[name]
        command = [sys.executable, "-c", f"{before}\nimport sitecustomize as s\ns.start()\n{call}"]
        if not call:
            environment["TRACE_NOW"] = "1"
            cells = [v4.new_code_cell("n = 1", metadata={"tags": ["parameters"]})]
            nbformat.write(v4.new_notebook(cells=cells), Path(folder, "x.ipynb"))
            command = [Path(sys.executable).with_name("workbench"), "run", "x.ipynb"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{name}:\n{done.stderr}")
        return set(log.read_text().splitlines())


def main() -> None:
    """Print it all; fail on a circle and on too many lines."""
    files = sorted(SOURCE.rglob("*.py"))
    lines = sum(len(path.read_text().splitlines()) for path in files)
    lengths = dict(pair for path in files for pair in functions(path))
    found = circles()
    print(
        f"src: {len(files)} files, {lines:,} lines (fewer than {MOST_LINES:,} are promised), "
        f"{len(found)} import circles; functions: median {statistics.median(lengths.values()):.0f} "
        f"lines, 90 % up to {statistics.quantiles(lengths.values(), n=10)[-1]:.0f}"
    )
    for part in found:
        print("circle:", *part)
    for place, length in lengths.items():
        if length > LONG:
            print(f"{length} lines: {place}")
    for name in CALLS if "--trace" in sys.argv else ():
        called = trace(name)
        through = {one.partition(":")[0] for one in called}
        files = [one for one in through if one.endswith(".py")]
        besides = f" and {len(through) - len(files)} templates" if len(through) > len(files) else ""
        print(f"{name}: {len(files)} files{besides}, {len(called)} functions")
    if lines >= MOST_LINES:
        print(f"src: {lines - MOST_LINES + 1:,} lines over the promise")
    if found:
        sys.exit("an import circle")


if __name__ == "__main__":
    main()
