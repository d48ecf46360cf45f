"""This process's own memory, for every benchmark."""

from pathlib import Path


def resident_gib(key: str = "VmHWM") -> float:
    """Return resident memory in GiB (Linux): its high-water mark, or ``"VmRSS"``, what it is now.

    Not ``getrusage``: its maximum is carried over ``exec``, so a child would show its parent's.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 2**20
