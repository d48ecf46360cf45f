import functools
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from workbench.datasets import sources


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing set, an empty cache (which is returned), and every download refused."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]  # closed again, so that a connection is refused
    cache = tmp_path / "cache"
    monkeypatch.delenv("WORKBENCH_DATA", raising=False)
    monkeypatch.setattr(sources, "cache_folder", lambda: cache)
    for name, origin in sources.REGISTRY.items():
        closed = replace(origin, base_url=f"http://127.0.0.1:{port}/")
        monkeypatch.setitem(sources.REGISTRY, name, closed)
    return cache


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Start a web server: ``serve({"file": content}, cut={"file"}) -> base_url``.

    Of a file in ``cut`` it sends half of the promised bytes and drops the connection.
    """
    servers = []

    class Handler(BaseHTTPRequestHandler):
        def __init__(self, files: dict[str, bytes], cut: set[str], *args: object) -> None:
            self.files, self.cut = files, cut
            super().__init__(*args)  # type: ignore[arg-type]

        def do_GET(self) -> None:
            name = self.path.lstrip("/")
            if name not in self.files:
                self.send_error(404)
                return
            content = self.files[name]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if name in self.cut else content)

        def log_message(self, *args: object) -> None:
            pass

    def start(files: dict[str, bytes], cut: set[str] = frozenset()) -> str:  # type: ignore[assignment]
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, files, cut))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def picture(path: Path, size: tuple[int, int] = (20, 10), color: object = "red", mode: str = "RGB"):
    """Save a plain picture, (width, height), and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)
    return path


@pytest.fixture(name="picture")
def picture_fixture() -> Callable[..., Path]:
    return picture


def idx(array: np.ndarray) -> bytes:
    """Return an array of bytes in the IDX format."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


@pytest.fixture
def idx_files() -> Callable[..., dict[str, bytes]]:
    """``idx_files(train=30, test=10)``: four raw IDX files of a small MNIST."""

    def make(train: int = 30, test: int = 10) -> dict[str, bytes]:
        files = {}
        for prefix, count in (("train", train), ("t10k", test)):
            rng = np.random.default_rng(count)
            images = rng.integers(0, 256, (count, 28, 28))
            files[f"{prefix}-images-idx3-ubyte"] = idx(images)
            files[f"{prefix}-labels-idx1-ubyte"] = idx(np.arange(count) % 10)
        return files

    return make


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """Three classes of three pictures each, all 20 wide and 10 high."""
    root = tmp_path / "pets"
    for name, color in (("cat", "red"), ("dog", "lime"), ("owl", "blue")):
        for number in range(3):
            picture(root / name / f"{number}.png", color=color)
    return root


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """``real_data("mnist")``: the folder of the real files, or skip."""

    def folder(name: str) -> Path:
        path = Path(os.environ.get("WORKBENCH_DATA", "")) / name
        if "WORKBENCH_DATA" not in os.environ or not path.is_dir():
            pytest.skip(f"WORKBENCH_DATA has no {name}")
        return path

    return folder
