"""Sizes and durations: read from text, and written for a person."""

import re

_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s{0,9}([KMGT]?)(i?)B?", re.IGNORECASE)


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


def show_size(size: int | None) -> str:
    """Return bytes as a reader says them, in binary units when these come out round.

    Examples
    --------
    >>> show_size(4 * 2**30), show_size(1_500_000), show_size(116_000), show_size(None)
    ('4 GiB', '1.5 MB', '116 kB', '-')
    """
    if size is None:
        return "-"
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20)):
        if size >= scale and size % scale == 0:
            return f"{size // scale} {unit}"
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} B"


def show_seconds(seconds: float | None) -> str:
    """Return a duration as a reader says it.

    Examples
    --------
    >>> show_seconds(0.0312), show_seconds(4.27), show_seconds(812.4), show_seconds(20_000)
    ('0.031 s', '4.3 s', '13 min 32 s', '5 h 33 min')
    >>> show_seconds(None)
    '-'
    """
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
