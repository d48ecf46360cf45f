"""Make the README's pictures of batch runs: python docs/batch_pictures.py.

A sweep of the first notebook's smallest relative, the pipeline of the digits with its lineage, and
a run that comes to its memory limit; all on data that scikit-learn brings along. The lineage is put
into the page on batch runs.
"""

import json
import os
import re
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat

from workbench.batch import Job, run_many, run_notebook, run_pipeline, trace
from workbench.batch.provenance import compare
from workbench.batch.report import memory_chart as draw_memory

HERE = Path(__file__).resolve().parent
PIPELINE = HERE.parent / "notebooks" / "pipelines" / "digits.yaml"
MAP = """
from workbench import batch, datasets, embeddings
ds = datasets.subset(datasets.load("digits"), 600, seed=seed)
vectors = embeddings.features(ds)
graph = embeddings.neighbors(vectors, k=90)
xy = embeddings.project(vectors, "tsne", graph, seed=seed, perplexity=perplexity)
scores = embeddings.quality(vectors, xy, graph, ds.label, k=10, seed=seed)["value"]
batch.record("quality", scores[["neighbor_recall", "trustworthiness", "label_accuracy"]].to_dict())
"""
HUNGRY = """
import time
kept = []
while True:
    kept.append(b"x" * 25_000_000)
    time.sleep(0.1)
"""


def main() -> None:
    """Make all of them in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        sweep()
        lineage()
        killed()


def sweep() -> None:
    """Quality of a t-SNE map over perplexity and seed."""
    write("map", MAP, "perplexity: int = 30\nseed: int = 0")
    given = [{"perplexity": p, "seed": s} for p in (5, 10, 20, 28) for s in range(3)]
    run_many([Job("map.ipynb", values) for values in given], n_jobs=2)
    table = compare()
    scores = [column for column in table if column.startswith("quality.")]
    figure, panels = plt.subplots(1, len(scores), figsize=(10, 3.2), layout="constrained")
    for panel, score in zip(panels, scores, strict=True):
        means = table.groupby("perplexity")[score].mean()
        panel.plot(means.index, means.values)
        panel.plot(table["perplexity"], table[score], "o", color="C0", markersize=4)
        panel.set_title(score.removeprefix("quality.").replace("_", " "), fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(f"perplexity   (digits, n = 600; {len(table)} runs)", fontsize=10)
    figure.savefig(HERE / "sweep.png", dpi=110)


def lineage() -> None:
    """Where the released model came from."""
    results = run_pipeline(PIPELINE, n_jobs=2)
    print(*(f"{r.stage:<10} {r.state:<11} {r.why}" for r in results), sep="\n")
    page = HERE / "batch.md"
    text = f"```text\n{trace('last').text()}\n```"
    page.write_text(re.sub(r"```text\n.*?\n```", lambda _: text, page.read_text(), flags=re.S))


def killed() -> None:
    """The memory of a run that came to its limit, and what its record says of it."""
    write("hungry", "rows = 7", "n: int = 1", HUNGRY)
    record = run_notebook("hungry.ipynb", memory="1GiB")
    picture = draw_memory(record.memory.samples, record.memory.limit_bytes)
    style = 'xmlns="http://www.w3.org/2000/svg" color="#1d5fd1" font-family="sans-serif"'
    (HERE / "killed-run.svg").write_text(picture.replace("<svg", f"<svg {style}", 1) + "\n")
    saved = json.loads((record.folder / "run.json").read_text())
    del saved["error"]["traceback"]
    print(
        json.dumps({key: saved[key] for key in ("status", "error", "peak_memory_bytes")}, indent=1)
    )


def write(name: str, source: str, parameters: str, *more: str) -> None:
    """Write a notebook of a parameters cell and others."""
    first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    cells = [first, *(nbformat.v4.new_code_cell(text.strip()) for text in (source, *more))]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), f"{name}.ipynb")


if __name__ == "__main__":
    main()
