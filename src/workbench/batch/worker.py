"""The process of one run, forked off the `nursery` when `supervise` asks for it.

The first line on stdin is the job. What follows is either a line that says why to stop, or the
end of stdin, which means that the parent is gone. Events go to stdout as JSON lines: ``cell`` when
a cell starts, ``outcome`` when the notebook has ended. What the kernel and the libraries print
goes to stderr, which is the run's ``log.txt``.

What a cell printed, kept to a size that a notebook can be opened with.
"""

import ast
import json
import logging
import math
import os
import re
import sys
import threading
import time
import traceback
from functools import cache
from pathlib import Path
from typing import Any

from workbench._extras import need
from workbench.batch import html_page, notebook, processes
from workbench.batch.alt_text import add_alternatives
from workbench.batch.results import collect, collect_files
from workbench.batch.run_record import exit_words, failure
from workbench.batch.widgets import leave_pictures

MOST = 200_000
_KEPT_HEAD = 100_000
_KEPT_TAIL = 20_000
_OVERWRITTEN = re.compile(r"[^\n]*\r(?=[^\n])")


def clip(cell: Any, index: int, folder: Path = Path()) -> None:
    """Shorten what a cell printed to its beginning and its end, and keep the whole in a file.

    Of a progress bar, which overwrites its line again and again, the last state is kept.

    Parameters
    ----------
    cell
        A code cell of an executed notebook, changed in place.
    index
        Its index, for the file's name: ``cell-3-stdout.txt``.
    folder
        Where the whole text goes if it is shortened.
    """
    streams: dict[str, Any] = {}
    kept = []
    for output in cell.get("outputs", []):
        if output["output_type"] == "stream" and output["name"] in streams:
            streams[output["name"]].append(output["text"])
            continue
        if output["output_type"] == "stream":
            streams[output["name"]] = [output["text"]]
        kept.append(output)
    for output in kept:
        if output["output_type"] == "stream":
            text = "".join(streams[output["name"]])
            output["text"] = _shortened(text, folder / f"cell-{index}-{output['name']}.txt")
    if streams:
        cell["outputs"] = [output for output in kept if not _wiped(output)]


def _wiped(output: Any) -> bool:
    """Whether nothing is left of a progress bar but the carriage return that wiped it out."""
    return (
        output["output_type"] == "stream"
        and output["text"].endswith("\r")
        and (not output["text"].strip())
    )


def _shortened(text: str, file: Path) -> str:
    if "\r" in text:
        text = _OVERWRITTEN.sub("", text)
    if len(text) <= MOST:
        return text
    try:
        with file.open("a", encoding="utf-8") as whole:
            whole.write(text)
        place = f"the whole is in {file.name}"
    except OSError as error:  # the disk is full: the shortened text is better than none
        place = f"the whole could not be kept: {error.strerror}"
    left_out = len(text) - _KEPT_HEAD - _KEPT_TAIL
    note = f"\n… {left_out:,} characters left out here; {place} …\n"
    return text[:_KEPT_HEAD] + note + text[-_KEPT_TAIL:]


_log = logging.getLogger("workbench.batch")
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# Figures say in words what they show, from which their alternative texts are made.
_KERNEL = [
    "--IPKernelApp.log_level=ERROR",
    "--IPKernelApp.extra_extensions=workbench.batch.alt_text",
]
_TAIL = 4000
_HEAD = 400


class StopError(Exception):
    """The parent asked for the end before the next cell."""


class Worker:
    """Executes one job and tells the parent about it."""

    def __init__(self) -> None:
        # The channel to the parent is a descriptor that no child inherits; prints go to the log.
        self.channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self.job = json.loads(sys.stdin.readline())
        self.path = Path(self.job["file"])
        self.original = self.path.read_text(encoding="utf-8")
        self.cell: tuple[int, str] | None = None
        self.stop: dict[str, Any] | None = None
        self.executed = threading.Event()

    def run(self) -> None:
        """Execute the notebook, or take a dead worker's outcome, and leave all files."""
        threading.Thread(target=self.heed_parent, daemon=True).start()
        outcome = self.job["outcome"] or self.execute()
        self.executed.set()
        try:
            document = self.save(outcome["error"])
        except OSError as error:  # the disk is full; that must not hide how the notebook ended
            self.tell("outcome", **(outcome if outcome["error"] else failure(error)))
            raise
        self.tell("outcome", **outcome, files=collect_files(document.cells))
        html = html_page.to_html(document, self.path.stem)
        notebook.write_text(self.path.with_suffix(".html"), html)

    def execute(self) -> dict[str, Any]:
        """Run the notebook by papermill; the outcome is a status and an error."""
        try:
            papermill = _papermill()
            kernel = need("workbench.batch.kernel", extra="batch")
            # papermill takes braces in a path for a template
            file = str(self.path).replace("{", "{{").replace("}", "}}")
            timeout = self.job["cell_timeout"]
            papermill.execute_notebook(
                file,
                file,
                ast.literal_eval(self.job["parameters"]),
                kernel_name="python3",
                language="python",
                progress_bar=False,
                autosave_cell_every=5,
                execution_timeout=math.ceil(timeout) if timeout else None,
                coalesce_streams=True,
                on_cell_start=self.on_cell_start,
                on_cell_executed=self.on_cell_executed,
                kernel_manager_class=kernel.Kernel,
                extra_arguments=[*_KERNEL],
            )
        except BaseException as error:  # whatever it is, the record has to name it
            return self.explain(error)
        return {"status": "succeeded", "error": None}

    def on_cell_start(self, cell: Any, cell_index: int) -> None:
        """Tell the parent which cell starts."""
        if self.stop:
            raise StopError
        self.cell = cell_index, cell.source
        self.tell("cell", index=cell_index, source=cell.source[:_HEAD])

    def on_cell_executed(self, cell: Any, cell_index: int, **_: Any) -> None:
        """Shorten what a cell printed before the notebook is saved again and again."""
        clip(cell, cell_index)

    def explain(self, error: BaseException) -> dict[str, Any]:
        """Return the outcome that an exception of papermill stands for."""
        name = type(error).__name__
        index, source = self.cell or (None, None)
        kind, message, lines = name, str(error).strip(), traceback.format_exception(error)
        status, cause = "failed", "system"
        if self.stop:
            status, (kind, message, cause), lines = self.stop["status"], self.stop["reason"], []
        elif name == "PapermillExecutionError":
            index, source = error.cell_index, error.source  # type: ignore[attr-defined]
            kind, message, lines = error.ename, error.evalue, error.traceback  # type: ignore[attr-defined]
            cause = "code"
        elif name == "DeadKernelError" or "Kernel died" in message:  # the latter: as it started
            words, cause = exit_words(self.kernel_exit())
            status, kind, message, lines = "killed", "DeadKernelError", f"the kernel {words}", []
        elif name == "CellTimeoutError":
            status, cause, lines = "timed-out", "timeout", []
            message = f"the cell took longer than {self.job['cell_timeout']:g} s"
        return {
            "status": status,
            "error": {
                "type": kind,
                "message": _COLOURS.sub("", message)[:_TAIL],
                "cause": cause,
                "cell": index,
                "cell_source": source and source[:_HEAD],
                "traceback": _COLOURS.sub("", "\n".join(lines))[-_TAIL:],
            },
        }

    @staticmethod
    def kernel_exit() -> int | None:
        """Return the exit code of a kernel that ended before it was told to."""
        known = sys.modules.get("workbench.batch.kernel")
        return known.Kernel.exit_code if known else None

    def save(self, error: dict[str, Any] | None) -> Any:
        """Correct the executed notebook, collect its results, and return it."""
        nbformat = need("nbformat", extra="batch")
        try:
            document = nbformat.read(self.path, as_version=4)
        except ValueError:  # cut off while it was written: a full disk, a kill
            self.path.unlink()  # gives back its space
            document = nbformat.reads(self.original, as_version=4)
        notebook.correct(document, error)
        for adorn in (leave_pictures, add_alternatives):
            try:
                adorn(document)
            except Exception:  # a widget of a kind unseen so far is no failure of the run
                _log.exception("%s left something out", adorn.__name__)
        for index, cell in enumerate(document.cells):
            clip(cell, index)  # that of a cell which did not end
        notebook.write_text(self.path, nbformat.writes(document) + "\n")
        results = json.dumps(collect(document.cells), indent=1, allow_nan=False)
        notebook.write_text(Path("results.json"), results + "\n")
        return document

    def tell(self, event: str, **what: Any) -> None:
        """Send an event to the parent."""
        self.channel.write(json.dumps({"event": event, **what}) + "\n")
        self.channel.flush()

    def heed_parent(self) -> None:
        """Kill the kernel when the parent says so, or is gone."""
        line = sys.stdin.readline()
        if not line:
            processes.end_all(self.job["id"], spare=os.getpid())
            os._exit(1)
        self.stop = json.loads(line)
        # The main thread sees the dead kernel, saves what there is and gives the reason.
        while not self.executed.is_set():
            processes.end_all(self.job["id"], spare=os.getpid())
            time.sleep(0.1)


def warm_up() -> None:
    """Import and prepare, without a thread or a socket, what every worker uses."""
    _papermill()
    need("workbench.batch.kernel", extra="batch")
    # It looks through the entry points of all that is installed.
    need("jupyter_client.provisioning.factory", extra="batch").KernelProvisionerFactory.instance()
    nbformat = need("nbformat", extra="batch")
    html_page.to_html(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), "")


@cache
def _papermill() -> Any:
    """Import papermill, so that it injects any literal as it is."""
    # jsonschema uses this package, if there is one, to check addresses that no notebook holds;
    # its import builds a grammar for 1.7 s.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    papermill = need("papermill", extra="batch")
    translators = need("papermill.translators", extra="batch")

    class Literals(translators.PythonTranslator):  # type: ignore[misc, name-defined]
        """Writes `(3, 4)` as a tuple, where papermill's own makes a string of it."""

        translate = repr

    # It warns of parameters that its own, cruder reading of the cell did not find.
    logging.getLogger("papermill").setLevel(logging.ERROR)
    translators.papermill_translators.register("python3", Literals)
    return papermill
