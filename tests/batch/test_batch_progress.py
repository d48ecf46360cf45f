"""Progress: a bar on a terminal, two lines in a log."""

import io
import logging
import sys

import pytest

from workbench.batch.run import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class ClosedTerminal(Terminal):
    def write(self, text: str) -> int:
        if "50%" in text or "failed" in text:
            raise OSError(5, "Input/output error")
        return len(text)


def supervise(status: str) -> None:
    progress = Progress("name", "id", cells=4)
    for index in range(4):
        progress.at(index)
    progress.ended(status, 1.25)


def test_a_terminal_has_one_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    supervise("succeeded")
    last = terminal.getvalue().rpartition("\r")[2]
    assert last.startswith("name: 100%")
    assert "4/4" in last
    assert "succeeded" in last
    assert terminal.getvalue().count("\n") == 1


def test_a_closed_terminal_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", ClosedTerminal())
    supervise("failed")


def test_a_log_has_two_lines(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "workbench.batch"):
        supervise("failed")
    assert caplog.messages == ["name: started as id", "name: failed after 1.2 s"]
