"""The memory of a run over time: samples that stay few, and a drawing of them."""

from collections import deque
from collections.abc import Sequence

from workbench.batch.limits import show_size

Sample = tuple[float, int, int | None]  # seconds since the start, bytes, index of the cell

_MOST = 120
_LAST = 12


class Samples:
    """Keeps the course of a run's memory in at most 120 samples, however long it takes.

    When there are more, each two neighbours become the larger of them, so that no peak is lost.

    Examples
    --------
    >>> samples = Samples()
    >>> for second in range(1000):
    ...     samples.add(second, second % 7, None)
    >>> len(samples.kept) <= 120, samples.peak
    (True, 6)
    """

    def __init__(self) -> None:
        self.kept: list[Sample] = []
        self.last: deque[Sample] = deque(maxlen=_LAST)
        self.peak = 0
        self.peak_cell: int | None = None
        self._stride = 1
        self._waiting: list[Sample] = []

    def add(self, seconds: float, size: int, cell: int | None) -> None:
        """Take a sample."""
        sample = (round(seconds, 2), size, cell)
        self.last.append(sample)
        if size > self.peak:
            self.peak, self.peak_cell = size, cell
        self._waiting.append(sample)
        if len(self._waiting) >= self._stride:
            self.kept.append(_largest(self._waiting))
            self._waiting = []
        if len(self.kept) >= _MOST:
            pairs = [self.kept[i : i + 2] for i in range(0, len(self.kept), 2)]
            self.kept = [_largest(pair) for pair in pairs]
            self._stride *= 2


def draw(samples: Sequence[Sample], limit: int | None = None) -> str:
    """Return the course of a run's memory as an SVG picture, for a page of any colours.

    Parameters
    ----------
    samples
        Seconds, bytes and cell of each sample, in the order of time.
    limit
        Bytes; drawn as a line.

    Examples
    --------
    >>> draw([(0.0, 10, 1), (1.0, 30, 1)]).startswith("<svg")
    True
    """
    width, height = 640, 90
    end = max(samples[-1][0], 1e-9)
    top = max([limit or 0, *(size for _, size, _ in samples)]) * 1.05 or 1
    points = [(s / end * width, height - size / top * height) for s, size, _ in samples]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    area = f"{points[0][0]:.1f},{height} {line} {width},{height}"
    seconds, peak, _ = _largest(samples)
    x, y = seconds / end * width, height - peak / top * height
    anchor = "end" if x > width / 2 else "start"
    beside = x - 6 if x > width / 2 else x + 6
    parts = [
        f'<polygon points="{area}" fill="currentColor" opacity=".12"/>',
        f'<polyline points="{line}" fill="none" stroke="currentColor" stroke-width="1.5"/>',
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="currentColor"/>',
        f'<text x="{beside:.1f}" y="{max(y - 5, 0):.1f}" text-anchor="{anchor}">'
        f"{show_size(peak)} after {seconds:g} s</text>",
        f'<text x="{width}" y="{height + 14}" text-anchor="end">{end:.0f} s</text>',
    ]
    if limit:
        y = height - limit / top * height
        parts.append(
            f'<line x1="0" x2="{width}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" '
            f'stroke-dasharray="5 4"/><text x="0" y="{height + 14}">limit {show_size(limit)}, '
            "dashed</text>"
        )
    said = f"memory over time: at most {show_size(peak)}, after {seconds:g} of {end:.0f} s"
    return (
        f'<svg class="memory" viewBox="0 -16 {width} {height + 32}" role="img" '
        f'aria-label="{said}" font-size="12" fill="currentColor">{"".join(parts)}</svg>'
    )


def _largest(samples: Sequence[Sample]) -> Sample:
    return max(samples, key=lambda sample: sample[1])
