"""This process's own peak memory."""

from pathlib import Path


def peak_gib() -> float:
    """Return the high-water mark of resident memory in GiB (Linux).

    Not ``getrusage``: its maximum is carried over ``exec``, so a child would show its parent's.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20
