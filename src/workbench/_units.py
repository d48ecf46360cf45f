"""Sizes and durations: read from text, and written for a person."""

import re

_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)


def parse_size(text: str | int) -> int:
    """Return a size in bytes.

    Raises
    ------
    ValueError
        The text is not a positive number with a unit.

    Examples
    --------
    >>> parse_size("4GiB"), parse_size("500 MB"), parse_size(1024)
    (4294967296, 500000000, 1024)
    """
    match = _SIZE.fullmatch(str(text).strip())
    if not match or not float(match[1]):
        raise ValueError(f"a size is a number and a unit, as 4GiB or 500MB; got {text!r}")
    number, prefix, binary = match.groups()
    exponent = " KMGT".index(prefix.upper() or " ")
    return int(float(number) * (1024**exponent if binary else _UNITS[prefix.upper()]))


def show_size(size: int) -> str:
    """Return bytes as a reader says them, in binary units when these come out round.

    Examples
    --------
    >>> show_size(4 * 2**30), show_size(1_500_000)
    ('4 GiB', '1.5 MB')
    """
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20)):
        if size >= scale and size % scale == 0:
            return f"{size // scale} {unit}"
    for unit, scale in (("GB", 10**9), ("MB", 10**6)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size:,} B"


def duration(seconds: float | None) -> str:
    """Return seconds as a reader says them."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def megabytes(size: int | None) -> str:
    """Return a number of bytes in MB, or in kB if it is less than one.

    Examples
    --------
    >>> megabytes(1_478_900_000), megabytes(116_000), megabytes(None)
    ('1,479 MB', '116 kB', '-')
    """
    if not size:
        return "-"
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} kB"


def brief(seconds: float) -> str:
    """Seconds in few characters.

    Examples
    --------
    >>> brief(0.0312), brief(4.27), brief(812.4), brief(20_000)
    ('0.031 s', '4.3 s', '812 s', '5.6 h')
    """
    if seconds < 1:
        return f"{seconds:.2g} s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:,.0f} s" if seconds < 3600 else f"{seconds / 3600:.1f} h"
