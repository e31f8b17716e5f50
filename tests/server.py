"""A real HTTP server that serves one file, and misbehaves as it is told, request by request."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class Answer:
    """How to answer one request."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    send: float = 1.0  # the share of the body after which the connection is broken off
    ranges: bool = True  # whether Range is honoured
    pause: float = 0.0  # seconds between each hundred bytes, of which the first fifty are sent


@dataclass
class Server:
    """What is served, how, and what was asked for."""

    content: bytes
    script: list[Answer] = field(default_factory=list)
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # path and Range of each request
    address: str = ""
    md5: bool = True


@contextmanager
def serve(content: bytes, *script: Answer, **options: Any) -> Iterator[Server]:
    """Serves the content under every path; each request takes the next answer of the script, then a whole one."""
    server = Server(content, list(script), **options)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer_request(self, server)

        # Clients of S3 ask for the head first where they may not read.
        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=http.serve_forever, daemon=True)
    thread.start()
    server.address = f"http://127.0.0.1:{http.server_port}"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()


def answer_request(handler: BaseHTTPRequestHandler, server: Server) -> None:
    """Answers as Google Cloud Storage does, but for what the script changes."""
    wanted = handler.headers.get("Range")
    server.requests.append((handler.path, wanted))
    answer = server.script.pop(0) if server.script else Answer()
    if answer.status != 200:
        handler.send_response(answer.status)
        for name, value in {"Content-Length": "0", **answer.headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        return
    etag = f'"{hashlib.sha1(server.content).hexdigest()}"'
    first = 0
    if wanted and answer.ranges and handler.headers.get("If-Range") == etag:
        first = int(wanted.removeprefix("bytes=").removesuffix("-"))
    body = server.content[first:]
    handler.send_response(206 if first else 200)
    headers = {"Content-Length": str(len(body)), "ETag": etag, **answer.headers}
    if server.md5:
        headers.setdefault("x-goog-hash", f"md5={base64.b64encode(hashlib.md5(server.content).digest()).decode()}")
    if first:
        headers["Content-Range"] = f"bytes {first}-{len(server.content) - 1}/{len(server.content)}"
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    if answer.pause:
        for start in range(0, 5000, 100):
            handler.wfile.write(body[start : start + 100])
            handler.wfile.flush()
            time.sleep(answer.pause)
        handler.close_connection = True
        return
    handler.wfile.write(body[: int(len(body) * answer.send)])
    handler.wfile.flush()
    handler.close_connection = True
