"""How a run ended, and who ended it."""

import signal
import traceback
from typing import Any, Literal

from workbench.batch.limits import show_size

# who ended a run: the notebook's own code, our limit, the machine without memory, a signal from
# somebody, our deadline, Ctrl-C, the system under us (a full disk), or nobody can say
Cause = Literal[
    "code",
    "memory limit",
    "out-of-memory killer",
    "signal",
    "timeout",
    "interruption",
    "system",
    "unknown",
]

# A process that does this to itself has crashed; another's doing looks different.
_CRASHES = {"SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSYS", "SIGTRAP"}


def outcome(
    status: str,
    kind: str,
    message: str,
    cause: Cause,
    text: str = "",
    cell: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a status and an error as the record takes them."""
    cell = cell or {"index": None, "source": None}
    error = {
        "type": kind,
        "message": message,
        "cause": cause,
        "cell": cell["index"],
        "cell_source": cell["source"],
        "traceback": text,
    }
    return {"status": status, "error": error}


def failure(error: BaseException) -> dict[str, Any]:
    """Return the outcome of a run that failed for a reason outside its notebook."""
    text = "".join(traceback.format_exception(error))[-4000:]
    return outcome("failed", type(error).__name__, str(error), "system", text)


def exit_words(code: int | None) -> tuple[str, Cause]:
    """Say how a process ended that should not have, and who is to blame as far as that tells.

    Examples
    --------
    >>> exit_words(-9)
    ('was ended by SIGKILL', 'signal')
    >>> exit_words(-11)
    ('crashed with SIGSEGV', 'code')
    >>> exit_words(3)
    ('ended itself with exit code 3', 'code')
    """
    if code is None:
        return "died", "unknown"
    if code >= 0:
        return f"ended itself with exit code {code}", "code"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal
        name = f"signal {-code}"
    return (
        (f"crashed with {name}", "code") if name in _CRASHES else (f"was ended by {name}", "signal")
    )


def blame_memory(
    found: dict[str, Any], limit: int | None, limit_kills: int, system_kills: int
) -> dict[str, Any]:
    """Name the memory as the cause of an outcome where the kernel's counters say so.

    Parameters
    ----------
    found
        The outcome as the processes themselves could tell it.
    limit
        The run's limit in bytes, if it had a control group of its own.
    limit_kills
        Processes of the run that the kernel killed because the run was at its limit.
    system_kills
        Processes that the kernel killed for memory elsewhere or because the machine had none left.
    """
    error = found["error"]
    if not error or error["cause"] in ("timeout", "interruption", "memory limit"):
        return found
    if limit_kills and limit:
        kind, cause = "MemoryLimit", "memory limit"
        message = f"the run reached its memory limit of {show_size(limit)}"
    elif system_kills and error["cause"] == "signal" and "SIGKILL" in error["message"]:
        kind, cause = "OutOfMemory", "out-of-memory killer"
        message = "the machine or its container ran out of memory: the kernel killed this process"
    else:
        return found
    if found["status"] == "killed" or error["type"] in ("RuntimeError", "WorkerError"):
        return {
            "status": "killed",
            "error": {**error, "type": kind, "message": message, "cause": cause},
        }
    # A child of the notebook was killed, and the notebook itself failed over that.
    return {**found, "error": {**error, "cause": cause}}
