"""The process of one run, forked off the fork server when the supervisor asks for it.

The first line on stdin is the job. What follows is either a line that says why to stop, or the
end of stdin, which means that the parent is gone. Events go to stdout as JSON lines: ``cell`` when
a cell starts, ``outcome`` when the notebook has ended. What the kernel and the libraries print
goes to stderr, which is the run's ``log.txt``.
"""

import json
import logging
import math
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from workbench._extras import need
from workbench._unattended import SECRET_PREFIX
from workbench.batch import html_page, notebook, processes
from workbench.batch.alt_text import add_alternatives
from workbench.batch.parameters import MASK
from workbench.batch.results import collect, collect_data, collect_files
from workbench.batch.run_record import (
    OUTCOME,
    Cause,
    Outcome,
    RunError,
    Status,
    exit_words,
    failure,
)

MOST = 200_000
_KEPT_HEAD = 100_000
_KEPT_TAIL = 20_000
_OVERWRITTEN = re.compile(r"[^\n]*\r(?=[^\n])")


def clip(cell: Any, index: int, folder: Path = Path()) -> None:
    """Shorten what a cell printed to its beginning and its end; ``cell-3-stdout.txt`` has it all.

    Of a progress bar, which overwrites its line again and again, the last state is kept.
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
_PRINTED_ERROR = re.compile(r"(\w{1,80}Error): ([^\n]*)")
_TAIL = 4000
_HEAD = 400
# A kernel may take long to hand over all that a cell has printed.
_OUTPUT_SECONDS = 300
# A kernel that dies before it runs anything, as when its port was taken, is started again.
_STARTS = 3
_UNSTARTED = ("DeadKernelError", "RuntimeError")


class StopError(Exception):
    """The parent asked for the end before the next cell."""


class Worker:
    """Executes one notebook and tells the parent about it."""

    def __init__(self) -> None:
        # The channel to the parent is a descriptor that no child inherits; prints go to the log.
        self.channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self.job = json.loads(sys.stdin.readline())
        self.path = Path(self.job["file"]).absolute()
        self.original = self.path.read_text(encoding="utf-8", errors="surrogatepass")
        self.secrets = [v for n, v in os.environ.items() if n.startswith(SECRET_PREFIX)]
        self.cell: int | None = None
        self.source: str | None = None
        self.stop: dict[str, Any] | None = None
        self.executed = threading.Event()

    def run(self) -> None:
        """Execute the notebook, or take a dead worker's outcome, and leave all files."""
        threading.Thread(target=self.heed_parent, daemon=True).start()
        told = self.job["outcome"]  # by a parent whose earlier worker has died
        outcome = OUTCOME.validate_python(told) if told else self.execute()
        self.executed.set()
        try:
            document = self.save(outcome.error)
        except OSError as error:  # the disk is full; that must not hide how the notebook ended
            self.tell_outcome(outcome if outcome.error else failure(error))
            raise
        files, data = collect_files(document.cells), collect_data(document.cells)
        self.tell_outcome(outcome, files=files, results_on=data)
        html = html_page.to_html(document, self.path.stem, self.job["images"])
        notebook.write_text(self.path.with_suffix(".html"), html)

    def execute(self) -> Outcome:
        """Run the notebook, with another kernel if one dies before the first cell."""
        for start in range(1, _STARTS + 1):
            outcome = self.execute_once()
            error = outcome.error
            unstarted = self.cell is None and error and error.type in _UNSTARTED
            if not error or not unstarted or error.cause == "signal":  # somebody wants it dead
                break
            _log.warning("start %d of at most %d: %s", start, _STARTS, error.message)
        return outcome

    def execute_once(self) -> Outcome:
        """Run the notebook by papermill's engine."""
        try:
            engines = import_engines()
            kernel = need("workbench.batch.kernel", extra="batch")
            kernel.Kernel.exit_code = None
            document = need("nbformat", extra="batch").reads(self.original, as_version=4)
            document.metadata["papermill"] = {}
            timeout = self.job["cell_timeout"]
            document = engines.papermill_engines.execute_notebook_with_engine(
                None,
                document,
                kernel_name=self.job["kernel"],
                output_path=str(self.path),
                progress_bar=False,
                autosave_cell_every=5,
                execution_timeout=math.ceil(timeout) if timeout else None,
                iopub_timeout=_OUTPUT_SECONDS,
                coalesce_streams=True,
                on_cell_start=self.on_cell_start,
                on_cell_executed=self.on_cell_executed,
                kernel_manager_class=kernel.Kernel,
                resources={"metadata": {"path": self.job["cwd"]}},
            )
        except BaseException as error:  # whatever it is, the record has to name it
            return self.explain(error)
        return self.result(document)

    def result(self, document: Any) -> Outcome:
        """Return how a notebook ended whose kernel lives; a cell may be tagged to raise."""
        for index, cell in enumerate(document.cells):
            if cell.metadata.get("papermill", {}).get("exception") is True:
                kind, said, lines = _raised(cell.get("outputs", []))
                if kind == "SystemExit" and said in ("", "0", "None"):
                    return Outcome("succeeded", note=self.ended_early(index))
                return self.outcome("failed", kind, said, "code", lines, index, cell.source)
        return Outcome("succeeded")

    def ended_early(self, index: int) -> str:
        """Say that a notebook ended itself in a cell, and what did not run therefore."""
        place, left = self.job["origins"][index], len(self.job["origins"]) - index - 1
        return f"ended early in cells[{place}]: {left} cell{'' if left == 1 else 's'} did not run"

    def on_cell_start(self, cell: Any, cell_index: int) -> None:
        """Tell the parent which cell starts."""
        if self.stop:
            raise StopError
        self.cell = cell_index
        self.source = cell.source
        self.tell("cell", index=cell_index, source=cell.source[:_HEAD])

    def on_cell_executed(self, cell: Any, cell_index: int, **_: Any) -> None:
        """Shorten what a cell printed before the notebook is saved again and again."""
        cell["outputs"] = self.masked(cell.get("outputs", []))
        clip(cell, cell_index)

    def explain(self, error: BaseException) -> Outcome:
        """Return the outcome that an exception of papermill's engine stands for."""
        kind, message = type(error).__name__, str(error).strip()
        lines = traceback.format_exception(error)
        if self.stop:
            told = self.stop
            return self.outcome(told["status"], told["type"], told["message"], told["cause"])
        if kind == "DeadKernelError" or "Kernel died" in message:  # the latter: as it started
            kernel = need("workbench.batch.kernel", extra="batch").Kernel
            words, cause = exit_words(kernel.exit_code)
            if self.cell is None and cause == "code":  # none of the notebook's
                words, cause = f"{words} as it started", "system"
            return self.outcome("killed", "DeadKernelError", f"the kernel {words}", cause)
        if kind == "CellTimeoutError":
            if self.job["cell_timeout"] and "IOPub" not in message:
                words = f"the cell took longer than {self.job['cell_timeout']:g} s"
                return self.outcome("timed-out", kind, words, "timeout")
            words = f"the cell's outputs had not all come {_OUTPUT_SECONDS} s after it had ended"
            return self.outcome("failed", "OutputTimeout", words, "system", lines)
        return self.outcome("failed", kind, message, "system", lines)

    def outcome(
        self,
        status: Status,
        kind: str,
        message: str,
        cause: Cause,
        lines: Sequence[str] = (),
        cell: int | None = None,
        source: str | None = None,
    ) -> Outcome:
        """Return an outcome with an error in a cell, by default the one that ran last."""
        source = source or self.source
        error = RunError(
            type=kind,
            message=self.masked(_COLOURS.sub("", message)[:_TAIL]),
            cause=cause,
            cell=self.cell if cell is None else cell,
            cell_source=source and source[:_HEAD],
            traceback=self.masked(_COLOURS.sub("", "\n".join(lines))[-_TAIL:]),
        )
        return Outcome(status, error)

    def save(self, error: RunError | None) -> Any:
        """Correct the executed notebook, collect its results, and return it."""
        nbformat = need("nbformat", extra="batch")
        try:
            document = nbformat.read(self.path, as_version=4)
        except ValueError:  # cut off while it was written: a full disk, a kill
            self.path.unlink()  # gives back its space
            document = nbformat.reads(self.original, as_version=4)
        correct(document, error)
        try:
            add_alternatives(document)
        except Exception:  # an output of a kind unseen so far is no failure of the run
            _log.exception("pictures are left without a text")
        for index, cell in enumerate(document.cells):
            clip(cell, index)  # that of a cell which did not end
        document.cells = self.masked(document.cells)
        notebook.write_text(self.path, nbformat.writes(document) + "\n")
        results = json.dumps(collect(document.cells), indent=1, allow_nan=False)
        notebook.write_text(self.path.with_name("results.json"), results + "\n")
        return document

    def masked(self, value: Any) -> Any:
        """Return texts, or anything that holds texts, without the secrets of the run."""
        if not self.secrets:
            return value
        if isinstance(value, str):
            for secret in self.secrets:
                value = value.replace(secret, MASK)
        elif isinstance(value, list):
            value = [self.masked(item) for item in value]
        elif isinstance(value, dict):
            value = type(value)({key: self.masked(item) for key, item in value.items()})
        return value

    def tell_outcome(self, outcome: Outcome, **more: Any) -> None:
        """Send how the notebook ended."""
        self.tell("outcome", outcome=OUTCOME.dump_python(outcome), **more)

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


def _raised(outputs: list[Any]) -> tuple[str, str, list[str]]:
    """Return type, message and traceback of what a cell raised."""
    for output in reversed(outputs):
        if output.output_type == "error":
            return output.ename, output.evalue, output.traceback
        # IPython only prints what is wrong with a magic
        if output.output_type == "stream" and (told := _PRINTED_ERROR.match(output.text)):
            return told[1], told[2], []
    return "CellExecutionError", "", []


def correct(document: Any, error: RunError | None) -> None:
    """Make the metadata of a notebook that papermill executed true.

    When the kernel dies or a cell times out, papermill saves the notebook as if the cell, and
    every cell after it, had completed. The error's cell is that of the executed notebook.
    """
    document.metadata.get("kernelspec", {}).pop("path", None)
    for cell in document.cells:
        if cell.metadata.get("papermill", {}).get("start_time") is None:
            cell.metadata.setdefault("papermill", {})["status"] = "pending"
    if error is None:
        return
    document.metadata.setdefault("papermill", {})["exception"] = True
    if error.cell is None or error.cell >= len(document.cells):
        return
    cell = document.cells[error.cell]
    cell.metadata.setdefault("papermill", {}).update(exception=True, status="failed")
    if cell.cell_type == "code" and error.type not in [o.get("ename") for o in cell.outputs]:
        new_output = need("nbformat", extra="batch").v4.new_output
        text = f"{error.type}: {error.message}"
        cell.outputs.append(
            new_output("error", ename=error.type, evalue=error.message, traceback=[text])
        )


@cache
def import_engines() -> Any:
    """Import papermill's engines, and quickly."""
    # jsonschema uses this package, if there is one, to check addresses that no notebook holds;
    # its import builds a grammar for 1.7 s.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    logging.getLogger("papermill").setLevel(logging.ERROR)
    return need("papermill.engines", extra="batch")
