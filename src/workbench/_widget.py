"""A widget in a notebook that asks Python by messages, and a still page for all other places."""

from functools import lru_cache
from html import escape
from importlib.resources import files
from typing import Any
from uuid import uuid4

from workbench._extras import need
from workbench._unattended import in_batch


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

    def _on_message(self, widget: Any, message: dict[str, Any], _: Any) -> None:
        """Answer the browser; what went wrong is shown there, and nothing is called saved."""
        try:
            answers = self.answer(message)
        except (RuntimeError, ValueError) as error:  # a store's errors are of the former
            answers = [{"do": "failed", "seq": message.get("seq"), "why": str(error)}]
        for answer in answers:
            widget.send({**answer, "view": message.get("view")})

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
