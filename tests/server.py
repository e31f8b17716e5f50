"""Real HTTP servers. One serves one file, and a script decides for each request whether and how it misbehaves."""

from __future__ import annotations

import base64
import hashlib
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID


@dataclass
class Answer:
    """The answer to one request."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    send: float = 1.0  # the share of the body after which the connection is broken off
    ranges: bool = True  # whether Range is honoured
    pause: float = 0.0  # seconds after each 100 bytes; only the first 5,000 bytes are sent
    headers_pause: float = 0.0  # seconds after each of 50 headers, with which the answer begins


@dataclass
class Server:
    """The content of a server, its script, and the requests that it received."""

    content: bytes
    script: list[Answer] = field(default_factory=list)
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # path and Range of each request
    address: str = ""
    md5: bool = True


@contextmanager
def serve_tls(content: bytes, folder: Path) -> Iterator[Server]:
    """Serves the content over https as `localhost`, with a certificate that it writes into the folder."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(secret)
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    with serve(content, tls=context) as server:
        server.address = server.address.replace("http://127.0.0.1", "https://localhost")
        yield server


@contextmanager
def serve(content: bytes, *script: Answer, tls: ssl.SSLContext | None = None, **options: Any) -> Iterator[Server]:
    """Serves the content under every path. Each request gets the next answer of the script, or the whole content."""
    server = Server(content, list(script), **options)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer_request(self, server)

        # Clients of S3 send a HEAD request first if they may not read.
        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        http.socket = tls.wrap_socket(http.socket, server_side=True)
    thread = Thread(target=http.serve_forever, daemon=True)
    thread.start()
    server.address = f"http://127.0.0.1:{http.server_port}"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()


def answer_request(handler: BaseHTTPRequestHandler, server: Server) -> None:
    """Answers as Google Cloud Storage does, with the changes of the script."""
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
    for number in range(50 if answer.headers_pause else 0):
        handler.send_header(f"X-{number}", "slow")
        handler.flush_headers()
        time.sleep(answer.headers_pause)
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


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves a folder without a line for each request."""

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    """Serves the files of a folder; yields the address."""
    handler = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
