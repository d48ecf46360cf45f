"""What a reader of a figure would stumble over: texts that overlap, or leave the figure."""

from itertools import combinations

from matplotlib.backends.backend_agg import FigureCanvasAgg

#: Pixels by which boxes of texts may touch: their boxes are larger than their ink.
_SLACK = 1.5


def stumbles(figure):
    """One sentence for each pair of texts that overlap and each text that is cut off or tiny."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = {}
    for text in _texts(figure):
        if text.get_visible() and text.get_text().strip():
            boxes[text] = text.get_window_extent(renderer)
    whole = figure.bbox
    found = [
        f"{text.get_text()!r} leaves the figure"
        for text, box in boxes.items()
        if box.x0 < -_SLACK or box.y0 < -_SLACK
        or box.x1 > whole.x1 + _SLACK or box.y1 > whole.y1 + _SLACK
    ]  # fmt: skip
    found += [
        f"{one.get_text()!r} overlaps {other.get_text()!r}"
        for (one, a), (other, b) in combinations(boxes.items(), 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > _SLACK and min(a.y1, b.y1) - max(a.y0, b.y0) > _SLACK
    ]
    return found + [f"{t.get_text()!r} is tiny" for t in boxes if t.get_fontsize() < 7]


def _texts(figure):
    """What is written in a figure, and only what is drawn of it."""
    yield from figure.texts
    yield from filter(None, (figure._suptitle, figure._supxlabel, figure._supylabel))
    for legend in figure.legends + [ax.get_legend() for ax in figure.axes if ax.get_legend()]:
        yield from legend.get_texts()
    for ax in figure.axes:
        yield from (ax.title, ax._left_title, ax._right_title, *ax.texts)
        for axis in (ax.xaxis, ax.yaxis) if ax.axison else ():
            low, high = sorted(axis.get_view_interval())
            yield axis.label
            for tick in axis.get_major_ticks():
                if low <= tick.get_loc() <= high:
                    yield from (tick.label1, tick.label2)
