"""A widget in a notebook that asks Python by messages, and a still page for all other places."""

import threading
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache
from html import escape
from importlib.resources import files
from typing import Any
from uuid import uuid4

from workbench._extras import need
from workbench._unattended import in_batch

#: Seconds that a message waits for one that was sent before it.
_PATIENCE = 3.0


class InOrder:
    """Messages of a browser's views, one at a time and in the order in which they were sent.

    JupyterLab opens a subshell, a thread of its own in the kernel, for widgets once the first
    messages are on their way to the main one; both then hand messages over, each at its own pace.
    What never came is given up after three seconds.

    Examples
    --------
    >>> heard = []
    >>> order = InOrder(lambda message: heard.append(message["turn"]))
    >>> order.take({"view": "a", "turn": 1})
    >>> order.take({"view": "a", "turn": 0})
    >>> heard
    [0, 1]
    """

    def __init__(self, handle: Callable[[dict[str, Any]], None]) -> None:
        self._handle = handle
        self._lock = threading.RLock()
        self._early: dict[Any, dict[int, dict[str, Any]]] = defaultdict(dict)
        self._next: dict[Any, int] = defaultdict(int)

    def take(self, message: dict[str, Any]) -> None:
        """Handle a message, or keep it until those before it have come."""
        view, turn = message.get("view"), message.get("turn")
        with self._lock:
            if turn is None or turn < self._next[view]:  # late after all, and better than lost
                self._handle(message)
                return
            self._early[view][turn] = message
            self._handle_next(view)
            if self._early[view]:
                timer = threading.Timer(_PATIENCE, self._give_up, [view, turn])
                timer.daemon = True
                timer.start()

    def _handle_next(self, view: Any) -> None:
        while message := self._early[view].pop(self._next[view], None):
            self._next[view] += 1
            self._handle(message)

    def _give_up(self, view: Any, turn: int) -> None:
        """Go on without what should have come before `turn`."""
        with self._lock:
            while turn in self._early[view]:
                self._next[view] = min(self._early[view])
                self._handle_next(view)


class Panel:
    """What a cell shows: an anywidget in a live notebook, a still page elsewhere.

    A subclass gives `answer`, `status` and `still`, and names its script and styles, (package,
    file), which are read behind those that all panels share.
    """

    front: tuple[tuple[str, str], ...] = ()
    _SHARED = (("workbench", "_widget.js"), ("workbench", "_widget.css"))

    def __init__(self, **options: Any) -> None:
        if not in_batch():
            need("anywidget", extra="widgets")
        self._widget: Any = None
        self._messages = InOrder(self._reply)
        self.options = options | {"still": f"wb-still-{uuid4().hex}"}

    def answer(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """What is sent to the browser for a message from it."""
        raise NotImplementedError

    def still(self) -> tuple[list[str], str]:
        """Short texts on how far the work has come, and the page as HTML."""
        raise NotImplementedError

    @property
    def widget(self) -> Any:
        """The widget; views of it, here and there, share one queue."""
        if self._widget is None:
            self._widget = _widget_class(self._SHARED + self.front)(options=self.options)
            self._widget.on_msg(self._on_message)
        return self._widget

    def _on_message(self, _widget: Any, message: dict[str, Any], _buffers: Any) -> None:
        self._messages.take(message)

    def _reply(self, message: dict[str, Any]) -> None:
        """Answer the browser; what went wrong is shown there, and nothing is called saved."""
        try:
            answers = self.answer(message)
        except (RuntimeError, ValueError) as error:  # a store's errors are of the former
            answers = [{"do": "failed", "seq": message.get("seq"), "why": str(error)}]
        for answer in answers:
            self.widget.send({**answer, "view": message.get("view")})

    def _ipython_display_(self) -> None:
        """Show the widget, and the still page as an output of its own, which the widget hides."""
        display = need("IPython.display", extra="widgets").display
        if not in_batch():
            display(self.widget)
        parts, page = self.still()
        html = f'<div id="{self.options["still"]}"><p>{escape(" · ".join(parts))}</p>{page}</div>'
        display({"text/plain": repr(self), "text/html": html}, raw=True)


@lru_cache
def _widget_class(front: tuple[tuple[str, str], ...]) -> Any:
    anywidget = need("anywidget", extra="widgets")
    traitlets = need("traitlets", extra="widgets")
    texts = {".js": "", ".css": ""}
    for package, name in front:
        texts[name[name.index(".") :]] += files(package).joinpath(name).read_text("utf-8")
    parts = {
        "__doc__": "The panel in the browser.",
        "_esm": texts[".js"],
        "_css": texts[".css"],
        "options": traitlets.Dict().tag(sync=True),
    }
    return type("PanelWidget", (anywidget.AnyWidget,), parts)
