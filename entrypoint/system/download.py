"""Files are downloaded over HTTP with bounded retries, resumed where the server allows it, and verified."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import logging
import re
import time
from collections.abc import Mapping
from concurrent import futures
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
import urllib3
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay, wait_random_exponential

from entrypoint.system import files, logs, parallel
from entrypoint.system.errors import JobError
from entrypoint.system.printable import redact

logger = logging.getLogger("job")

TRANSIENT_STATUS = {408, 429, *range(500, 600)}
TIMEOUT = (10, 30)  # seconds to connect, and between two packets
HEADERS_SECONDS = 60  # until all headers of an answer are there
# A transfer of less than so many bytes in so many seconds is broken off and resumed.
SLOWEST_BYTES, SLOWEST_SECONDS = 64 * 1024, 60
HTTPS_PORT = 443
# More than twice the largest archive of the zoo has.
MOST_BYTES = 4 << 30


class TransientError(JobError):
    """The download may succeed if it is tried again."""

    retry_after: float | None = None  # seconds


class WrongHashError(JobError):
    """The file that arrived is not the one that was announced."""


class RefusedError(JobError):
    """The server does not give this file to this job, and no retry changes that."""


def fetch(url: str, target: Path, sha256: str | None, retry_seconds: float) -> None:
    """Downloads a file; errors that can pass are retried for `retry_seconds`.

    Raises:
        TransientError: the time is over.
        WrongHashError: the file does not have the SHA-256, or not the MD5 that its server announced.
        RefusedError: the server does not give the file, or the address is none.
    """
    for attempt in Retrying(
        retry=retry_if_exception_type(TransientError),
        wait=wait_as_told,
        stop=stop_before_delay(retry_seconds),
        before_sleep=logs.log_retry,
        reraise=True,
    ):
        with attempt:
            transfer(url, target, sha256)


def prefer_https(url: str) -> str:
    """Returns the https form of an http address if its host serves it, and the address itself otherwise.

    An address with a port is taken as it is.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.port is not None:
        return url
    netloc = parts.netloc if HTTPS_PORT == 443 else f"{parts.netloc}:{HTTPS_PORT}"
    encrypted = urlunsplit(parts._replace(scheme="https", netloc=netloc))
    try:
        with answer_of("HEAD", encrypted, allow_redirects=True) as response:
            if response.status_code < requests.codes.bad_request:
                return encrypted
            words = f"it answered {response.status_code}"
    except requests.RequestException as error:
        words = innermost(error)
    logger.warning("%s is not served over https (%s): the download is not encrypted", redact(url), words)
    return url


def wait_as_told(state: RetryCallState) -> float:
    """Returns the seconds of the server's Retry-After, or an exponential back-off with jitter of at most a minute."""
    error = state.outcome.exception() if state.outcome else None
    told = error.retry_after if isinstance(error, TransientError) else None
    return told if told is not None else wait_random_exponential(multiplier=0.5, max=60)(state)


def transfer(url: str, target: Path, sha256: str | None) -> None:
    """Sends one request, and continues where the last one broke off if the server still has the same file."""
    part = target.with_name(f"{target.name}.part")
    state = target.with_name(f"{target.name}.part.json")
    headers = resume_headers(part, state)
    try:
        with answer_of("GET", url, headers=headers, stream=True) as response:
            refuse_status(response, url, part)
            append = response.status_code == requests.codes.partial_content
            if append and not continues(response, part):
                part.unlink(missing_ok=True)
                raise TransientError(f"{redact(url)} answered with another part than was asked for")
            remember(response, state)
            receive(response, part, append=append)
            check_length(response, part, url)
    except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
        raise TransientError(f"{redact(url)}: {innermost(error)}") from None
    except RefusedError:
        # The part would be the beginning of the next attempt.
        part.unlink(missing_ok=True)
        raise
    except requests.RequestException as error:
        words = f"{type(error).__name__}: {redact(str(error))}"
        raise RefusedError(f"{redact(url)} cannot be fetched ({words})") from None
    announced = json.loads(state.read_text())
    try:
        verify(part, sha256, redact(url))
        verify_announced(part, announced, redact(url))
    except WrongHashError:
        part.unlink()
        raise
    part.replace(target)
    state.unlink()


def answer_of(method: str, url: str, **options: Any) -> requests.Response:
    """Returns the answer to a request when its headers are there; raises Timeout after HEADERS_SECONDS.

    The time limit of requests is one for each read, and a server can send a byte at a time.
    """
    request = functools.partial(requests.request, method, url, timeout=TIMEOUT, **options)
    future = parallel.in_background(request, "request")
    try:
        return future.result(HEADERS_SECONDS)
    except futures.TimeoutError:
        future.add_done_callback(close)
        raise requests.Timeout(f"no answer in {HEADERS_SECONDS} seconds") from None


def close(future: futures.Future[requests.Response]) -> None:
    """Closes an answer that came too late."""
    if future.exception() is None:
        future.result().close()


def innermost(error: Exception) -> str:
    """Returns the cause that requests and urllib3 wrap their errors around: `[Errno 111] Connection refused`."""
    wrapped = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
    return redact(str(getattr(wrapped, "reason", wrapped)).rpartition(": ")[2])


def resume_headers(part: Path, state: Path) -> dict[str, str]:
    """Returns the headers that ask for the rest of a file, if it is still the same file (RFC 9110, 14.2)."""
    headers = {"Accept-Encoding": "identity"}
    known = json.loads(state.read_text()) if state.exists() else {}
    validator = known.get("etag") or known.get("last_modified")
    if part.exists() and part.stat().st_size and validator:
        headers |= {"Range": f"bytes={part.stat().st_size}-", "If-Range": validator}
    return headers


def refuse_status(response: requests.Response, url: str, part: Path) -> None:
    """Raises TransientError or RefusedError for an answer that is not the file."""
    if response.status_code in (requests.codes.ok, requests.codes.partial_content):
        return
    words = f"{redact(url)} answered {response.status_code} {response.reason}"
    if response.status_code == requests.codes.requested_range_not_satisfiable:
        part.unlink(missing_ok=True)
        raise TransientError(f"{words}: starting again")
    if response.status_code in TRANSIENT_STATUS:
        error = TransientError(words)
        error.retry_after = seconds_to_wait(response.headers.get("Retry-After", ""))
        raise error
    raise RefusedError(words)


def seconds_to_wait(retry_after: str) -> float | None:
    """Returns the seconds of a Retry-After header, a number or a date (RFC 9110, 10.2.3); None for anything else."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, (moment.astimezone(timezone.utc) - datetime.now(timezone.utc)).total_seconds())


def continues(response: requests.Response, part: Path) -> bool:
    """Returns whether a 206 answer starts where the local part ends."""
    return part.exists() and response.headers.get("Content-Range", "").startswith(f"bytes {part.stat().st_size}-")


def remember(response: requests.Response, state: Path) -> None:
    """Stores what the server says of the file, for a resumed request and for the check at the end."""
    hashes = response.headers.get("x-goog-hash", "")  # Google Cloud Storage: `crc32c=...,md5=...`
    md5 = re.search(r"md5=([A-Za-z0-9+/=]+)", hashes)
    weak = response.headers.get("ETag", "").startswith("W/")
    known = {
        "etag": None if weak else response.headers.get("ETag"),
        "last_modified": response.headers.get("Last-Modified"),
        "md5": md5.group(1) if md5 else response.headers.get("Content-MD5"),
    }
    # The Content-MD5 of a partial answer would be that of the part.
    if response.status_code == requests.codes.ok or not state.exists():
        files.write_json(state, known)


def receive(response: requests.Response, part: Path, *, append: bool) -> None:
    """Writes the body to the part; raises TransientError if it trickles."""
    began, received = time.monotonic(), 0
    with part.open("ab" if append else "wb") as file:
        # read1 returns what has arrived; read would wait for the whole block.
        while block := response.raw.read1(1 << 16, decode_content=False):
            file.write(block)
            received += len(block)
            if file.tell() > MOST_BYTES:
                raise RefusedError(f"{redact(response.url)} sends more than {MOST_BYTES:,} bytes to {part}")
            if time.monotonic() - began > SLOWEST_SECONDS:
                if received < SLOWEST_BYTES:
                    raise TransientError(
                        f"only {received} bytes of {redact(response.url)} came in {SLOWEST_SECONDS} seconds"
                    )
                began, received = time.monotonic(), 0


def check_length(response: requests.Response, part: Path, url: str) -> None:
    """Raises TransientError if the connection ended before the announced length."""
    whole = response.headers.get("Content-Range", "").rpartition("/")[2] or response.headers.get("Content-Length", "")
    if whole.isdigit() and part.stat().st_size != int(whole):
        raise TransientError(f"{redact(url)} broke off at {part.stat().st_size} of {whole} bytes")


def verify(path: Path, sha256: str | None, name: str) -> None:
    """Raises WrongHashError if the file does not have this SHA-256; None accepts every file."""
    if sha256 and (found := files.file_sha256(path)) != sha256:
        raise WrongHashError(f"{name} has SHA-256 {found}, not {sha256}")


def verify_announced(path: Path, announced: Mapping[str, str | None], name: str) -> None:
    """Raises WrongHashError if the file does not have the MD5 that the server announced."""
    if announced.get("md5"):
        with path.open("rb") as file:
            md5 = hashlib.md5(usedforsecurity=False)
            while block := file.read(1 << 20):
                md5.update(block)
        found = base64.b64encode(md5.digest()).decode()
        if found != announced["md5"]:
            raise WrongHashError(f"{name} has MD5 {found}, not {announced['md5']} as its server says")
