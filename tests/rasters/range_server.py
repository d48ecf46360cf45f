"""Serves one file under any path that ends like it, by ranges, as HTTP servers and buckets do.

    python range_server.py FILE LOG

Prints its port. For each answer with a body LOG gets a line: the path and the number of bytes. It
is a process of its own because GDAL, while it waits for an answer, keeps Python's lock.
"""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Ranges(BaseHTTPRequestHandler):
    """Answers HEAD and GET."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        part = self.answer()
        if part is not None:
            with LOG.open("a") as log:
                log.write(f"{self.path} {len(part)}\n")
            self.wfile.write(part)

    def answer(self):
        """Send the head; return the body that belongs to it."""
        if not self.path.endswith(f"/{FILE.name}"):
            self.send_error(404)
            return None
        content, asked = FILE.read_bytes(), self.headers.get("Range")
        first, last = asked.removeprefix("bytes=").split("-") if asked else (0, len(content))
        part = content[int(first) : int(last) + 1]
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        if asked:
            end = int(first) + len(part) - 1
            self.send_header("Content-Range", f"bytes {first}-{end}/{len(content)}")
        self.end_headers()
        return part

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    FILE, LOG = map(Path, sys.argv[1:])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Ranges)
    print(server.server_port, flush=True)
    server.serve_forever()
