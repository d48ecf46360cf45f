"""What a cell printed, kept to a size that a notebook can be opened with."""

import re
from pathlib import Path
from typing import Any

MOST = 200_000
_HEAD = 100_000
_TAIL = 20_000
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
    left_out = len(text) - _HEAD - _TAIL
    note = f"\n… {left_out:,} characters left out here; {place} …\n"
    return text[:_HEAD] + note + text[-_TAIL:]
