"""Quantities as a reader says them."""


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
