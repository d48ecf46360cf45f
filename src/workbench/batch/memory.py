"""The memory of a run over time: samples that stay few, and a drawing of them."""

from collections import deque
from collections.abc import Sequence

from workbench.batch.limits import show_size

Sample = tuple[float, int, int | None]  # seconds since the start, bytes, index of the cell

_MOST = 120
_LAST = 12
_WIDTH, _HEIGHT = 640, 90


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
    end = max(samples[-1][0], 1e-9)
    top = max([limit or 0, *(size for _, size, _ in samples)]) * 1.05 or 1
    points = [(s / end * _WIDTH, _HEIGHT - size / top * _HEIGHT) for s, size, _ in samples]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    area = f"{points[0][0]:.1f},{_HEIGHT} {line} {_WIDTH},{_HEIGHT}"
    seconds, peak, _ = _largest(samples)
    parts = [
        f'<polygon points="{area}" fill="currentColor" opacity=".12"/>',
        f'<polyline points="{line}" fill="none" stroke="currentColor" stroke-width="1.5"/>',
        _peak(points[samples.index(_largest(samples))], f"{show_size(peak)} after {seconds:g} s"),
        f'<text x="{_WIDTH}" y="{_HEIGHT + 14}" text-anchor="end">{end:.0f} s</text>',
        _limit(limit, top) if limit else "",
    ]
    said = f"memory over time: at most {show_size(peak)}, after {seconds:g} of {end:.0f} s"
    return (
        f'<svg class="memory" viewBox="0 -16 {_WIDTH} {_HEIGHT + 32}" role="img" '
        f'aria-label="{said}" font-size="12" fill="currentColor">{"".join(parts)}</svg>'
    )


def _peak(place: tuple[float, float], said: str) -> str:
    """Return a dot with words on the side where there is room for them."""
    x, y = place
    anchor, beside = ("end", x - 6) if x > _WIDTH / 2 else ("start", x + 6)
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="currentColor"/>'
        f'<text x="{beside:.1f}" y="{max(y - 5, 0):.1f}" text-anchor="{anchor}">{said}</text>'
    )


def _limit(limit: int, top: float) -> str:
    y = _HEIGHT - limit / top * _HEIGHT
    return (
        f'<line x1="0" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" '
        f'stroke-dasharray="5 4"/><text x="0" y="{_HEIGHT + 14}">limit {show_size(limit)}, '
        "dashed</text>"
    )


def _largest(samples: Sequence[Sample]) -> Sample:
    return max(samples, key=lambda sample: sample[1])
