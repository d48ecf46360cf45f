"""One bar for each run on a terminal; elsewhere a log line when it starts and when it ends."""

import logging
import sys
from contextlib import suppress
from types import TracebackType
from typing import Any

from tqdm import tqdm

_log = logging.getLogger("workbench.batch")


class Progress:
    """Shows how far a run is. A log gets two lines a run, whatever its cells print."""

    def __init__(self, name: str, run_id: str, cells: int) -> None:
        self.name = name
        self.bar: tqdm[Any] | None = None
        if sys.stderr.isatty():
            bar: tqdm[Any] = tqdm(total=cells, desc=name, unit="cell", file=sys.stderr)
            self.bar = bar
        _log.info("%s: started as %s", name, run_id)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            with suppress(OSError):
                self.bar.close()

    def at(self, index: int) -> None:
        """Say that the cell at `index` has started, so that those before it are done."""
        if self.bar is not None:
            with suppress(OSError):  # the terminal was closed; that is no failure of the run
                self.bar.update(index - self.bar.n)

    def ended(self, status: str, seconds: float) -> None:
        """Say how the run ended."""
        if self.bar is not None:
            with suppress(OSError):
                if status == "succeeded":
                    self.bar.update((self.bar.total or 0) - self.bar.n)
                self.bar.set_postfix_str(status)
        _log.info("%s: %s after %.1f s", self.name, status, seconds)
