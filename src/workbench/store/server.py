"""Serve a store as web pages on this machine: samples with their annotations, or perturbed."""

import asyncio
import io
import os
import secrets
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
from PIL import Image, ImageDraw

from workbench._extras import need
from workbench.datasets.boxes import CORNERS
from workbench.store.perturb import Perturb
from workbench.store.stream import Stream, stream

_PAGE = 48
_COLORS = ("#ffd400", "#00c8ff", "#ff5fa2", "#7dff5f", "#ff8c1a", "#b48cff")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; "
    "form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


@dataclass
class Server:
    """A running server: open ``url`` in a browser; ``stop()`` ends it."""

    url: str
    _loop: asyncio.AbstractEventLoop
    _thread: threading.Thread

    def stop(self) -> None:
        """Close the port and end the server's thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


def serve(path: str | os.PathLike[str], port: int = 0) -> Server:
    """Show a store's samples, with their annotations drawn, at an address of this machine.

    The page filters by label and leafs; ``?perturb=1&angle=20&hflip=1`` shows what a stream with
    that :class:`Perturb` gives to a network. The server listens on 127.0.0.1 alone and answers
    only who knows the token in the address. Samples are asked for by number, so that no request
    names a file.

    Parameters
    ----------
    path
        What :func:`workbench.store.write` made.
    port
        0 takes a free one.

    Returns
    -------
    Server
        Already running, in a thread of its own.

    Raises
    ------
    OSError
        The port is taken.

    Examples
    --------
    >>> import tempfile
    >>> from workbench import datasets, store
    >>> path = store.write(datasets.load("digits", n=20), tempfile.mkdtemp() + "/digits")
    >>> server = serve(path)
    >>> server.url.startswith("http://127.0.0.1:")
    True
    >>> server.stop()
    """
    netutil, web = need("tornado.netutil", extra="store"), need("tornado.web", extra="store")
    source = stream(path, 1, shuffle=False)
    sockets = netutil.bind_sockets(port, "127.0.0.1")
    address = f"127.0.0.1:{sockets[0].getsockname()[1]}"
    token = secrets.token_urlsafe(24)
    application = _application(web, source, Path(path).name, token, address)
    loop, ready = asyncio.new_event_loop(), threading.Event()

    def run() -> None:
        asyncio.set_event_loop(loop)
        server = need("tornado.httpserver", extra="store").HTTPServer(application)
        server.add_sockets(sockets)
        loop.call_soon(ready.set)
        loop.run_forever()
        server.stop()
        loop.run_until_complete(server.close_all_connections())
        loop.close()

    thread = threading.Thread(target=run, daemon=True, name="workbench.store")
    thread.start()
    ready.wait()
    return Server(f"http://{address}/?token={token}", loop, thread)


def _application(web: Any, source: Stream, name: str, token: str, address: str) -> Any:
    """A page of samples, and each sample's picture, for who knows the token."""
    base: Any = web.RequestHandler

    class Guarded(base):  # type: ignore[misc]
        def prepare(self) -> None:
            for key, value in _HEADERS.items():
                self.set_header(key, value)
            self.asked = {key: self.get_query_argument(key) for key in self.request.arguments}
            # another name for this machine may be a web page's that looks for open ports
            if self.request.host not in (address, address.replace("127.0.0.1", "localhost")):
                raise web.HTTPError(403, reason="ask for 127.0.0.1")
            given = self.asked.get("token", "").encode()
            if not secrets.compare_digest(given, token.encode()):
                raise web.HTTPError(403, reason="the token is missing or wrong")
            try:
                self.source = replace(source, perturb=_perturb_of(self.asked))
                self.page, self.draw = (int(self.asked.get(key) or 0) for key in ("page", "draw"))
            except ValueError as error:
                raise web.HTTPError(400, reason=str(error)) from error

    class Page(Guarded):
        def get(self) -> None:
            self.render("server.html", name=name, **_page(self.source, self.asked, self.page))

    class Picture(Guarded):
        def get(self, row: str) -> None:
            if int(row) >= len(source.rows):
                raise web.HTTPError(404)
            self.set_header("Content-Type", "image/png")
            self.finish(_picture(self.source, int(row), self.draw, "small" in self.asked))

    pages = [("/", Page), (r"/sample/(\d{1,9})", Picture)]
    return web.Application(pages, template_path=str(Path(__file__).parent))


def _perturb_of(asked: dict[str, str]) -> Perturb | None:
    """The perturbation that an address asks for; ``ValueError`` where it is none."""
    if asked.get("perturb", "0") == "0":
        return None
    angle, least, most = (
        float(asked.get(key) or usual)
        for key, usual in (("angle", 0), ("min_scale", 1), ("max_scale", 1))
    )
    color = [float(part) for part in asked.get("color", "").split(",") if part] or [0.0]
    hflip, vflip = (asked.get(key, "0") not in ("0", "") for key in ("hflip", "vflip"))
    return Perturb(angle, least, most, color, hflip, vflip)


def _page(source: Stream, asked: dict[str, str], page: int) -> dict[str, Any]:
    """What the page's template fills in."""
    known = source.listing
    label = known.label if known.label is not None else np.full(len(known.sample), -1)
    rows = source.rows
    if (wanted := asked.get("label")) in known.classes:
        drawn = source.boxes["sample"][source.boxes["label"] == wanted]
        rows = rows[(label == known.classes.index(wanted)) | np.isin(known.sample, drawn)]
    first = max(page, 0) * _PAGE
    names = [*known.classes, "no label"]
    shown = [
        (row, str(known.sample[row]), names[label[row]], len(source.boxes_at(row)))
        for row in rows[first : first + _PAGE].tolist()
    ]
    usual = {"angle": 20, "min_scale": 0.8, "max_scale": 1.2, "color": 10, "hflip": 1, "vflip": 0}
    return {
        "asked": asked,
        "classes": known.classes,
        "first": first,
        "shown": shown,
        "total": len(rows),
        "page": page,
        "perturbed": source.perturb is not None,
        "numbers": [(key, asked.get(key, value)) for key, value in usual.items()],
        "link": lambda **changed: urlencode(asked | changed),
    }


def _picture(source: Stream, row: int, draw: int, small: bool) -> bytes:
    """One sample as training gets it in one of its epochs, its annotations drawn on it."""
    drawn = source.draw(row, draw)
    image = Image.fromarray(drawn.image.squeeze()).convert("RGB")
    scale = 200 / max(image.size) if small else max(1.0, 400 / max(image.size))
    image = image.resize([max(1, round(side * scale)) for side in image.size])
    pen = ImageDraw.Draw(image)
    names = sorted(set(source.boxes["label"]))
    for box in drawn.boxes.to_dict("records"):
        color = _COLORS[names.index(box["label"]) % len(_COLORS)]
        corners = [box[name] * scale for name in CORNERS]
        if box["points"] is None:
            pen.rectangle(corners, outline=color, width=2)
        elif len(box["points"]) == 1:
            pen.circle(corners[:2], 4, outline=color, width=2)
        else:
            pen.polygon(
                [tuple(xy) for xy in np.asarray(box["points"]) * scale], outline=color, width=2
            )
        if not small:
            pen.text((corners[0], corners[1]), box["label"], fill=color, anchor="lb")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
