"""A proxy before an S3 server, which counts the requests and spoils some of them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from typing import Literal

Fault = Literal["refused", "denied", "cut", "500", "503", "slow"]
Spoilt = (
    Fault | Literal["409", "lost"]
)  # of what changes objects: refused while another does, and done without an answer
CONFLICT = b"<?xml version='1.0'?><Error><Code>ConditionalRequestConflict</Code><Message>Try again.</Message></Error>"
SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
ERROR = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>Try again.</Message></Error>"
ANSWERS = {"denied": (403, DENIED), "500": (500, ERROR), "503": (503, SLOW_DOWN), "409": (409, CONFLICT)}


class Proxy(ThreadingHTTPServer):
    """Hands requests to the server at ``port``, and takes the next fault for each that may be spoilt."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port = port
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.asked = Counter[str]()  # requests by their method; lists are LIST
        self.n_bytes = 0  # of the objects that were read
        self.injected = Counter[str]()
        self.headers: dict[str, dict[str, str]] = {}  # of the last request by its method
        self._faults: Iterator[Spoilt | None] = iter(())
        self._turn = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def make_bucket(self, name: str) -> None:
        """Make a bucket."""
        connection = HTTPConnection("127.0.0.1", self.port)
        connection.request("PUT", f"/{name}")
        assert connection.getresponse().status == 200
        connection.close()

    def spoil(self, faults: Iterator[Spoilt | None], most: int | None = None) -> None:
        """Take from here on a fault for each request, None for none; forget what was counted."""
        with self._turn:
            self._faults = islice(faults, most)
            self.asked.clear()
            self.injected.clear()
            self.n_bytes = 0

    def count(self, what: str) -> Spoilt | None:
        """Count a request, and return its fault; only what changes objects takes the faults of that."""
        with self._turn:
            self.asked[what] += 1
            fault = next(self._faults, None)
            if what not in ("PUT", "DELETE"):
                fault = {"409": "503", "lost": "cut"}.get(fault or "", fault)  # type: ignore[assignment]  # of the others
            if fault:
                self.injected[fault] += 1
            return fault

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet: clients that hang up are the point."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Keep quiet."""

    def do_GET(self) -> None:
        self._pass_on("LIST" if "list-type=2" in self.path else "GET")

    def do_HEAD(self) -> None:
        self._pass_on("HEAD")

    def do_PUT(self) -> None:
        self._pass_on("PUT")

    def do_DELETE(self) -> None:
        self._pass_on("DELETE")

    def do_POST(self) -> None:
        self._pass_on("DELETE")  # of several objects at once

    def _pass_on(self, what: str) -> None:
        fault = self.server.count(what)
        self.server.headers[what] = {name.lower(): value for name, value in self.headers.items()}
        changes, length = what in ("PUT", "DELETE"), int(self.headers.get("Content-Length", 0))
        sent = self.rfile.read(length // 2 if changes and fault == "cut" else length)
        if fault == "refused" or (changes and fault == "cut"):
            self.close_connection = True
            return
        if fault in ANSWERS and (fault != "409" or what == "PUT"):
            self._answer(*ANSWERS[fault], what)
            return
        upstream = HTTPConnection("127.0.0.1", self.server.port)
        upstream.request(self.command, self.path, sent, dict(self.headers))
        found = upstream.getresponse()
        body = found.read()
        upstream.close()
        if fault == "lost":
            self.close_connection = True
            return
        self.server.n_bytes += len(body) if what == "GET" else 0
        self.send_response(found.status)
        for name, value in found.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "date", "server", "content-length"):
                self.send_header(name, value)
        n_bytes = found.getheader("Content-Length") if what == "HEAD" else str(len(body))
        self.send_header("Content-Length", n_bytes or "0")
        self.end_headers()
        if what != "HEAD":
            self._send(body, fault)

    def _send(self, body: bytes, fault: Spoilt | None) -> None:
        if fault == "cut":
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        elif fault == "slow":
            for start in range(0, len(body), len(body) // 5 + 1):
                self.wfile.write(body[start : start + len(body) // 5 + 1])
                time.sleep(0.01)
        else:
            self.wfile.write(body)

    def _answer(self, status: int, body: bytes, what: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if what != "HEAD":
            self.wfile.write(body)
