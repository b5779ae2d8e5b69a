"""HTTP for probes and metrics: bounded, whoever connects and whatever they send.

Some facts about it:

- One request a connection: it is closed behind the answer.
- A request is read as a whole before it is understood: 16 KiB in 5 seconds at most. An answer is taken in 10 seconds,
  or the connection is closed.
- There are 64 connections at most; for one more, the oldest is closed, so that those who are slow keep out nobody who
  is not.
- Where it listens for this host alone, ``Host`` has to be a name of it: a page in a browser on this host, whose own
  name was made to point here, reads nothing.
"""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from unhang.observe.endpoint import is_loopback
from unhang.observe.site import Answer, Site, in_text

logger = logging.getLogger("unhang.observe")

_LARGEST_REQUEST = 16 * 1024
_MOST_CONNECTIONS = 64
# Those that were closed and have not noticed yet are there as well.
_MOST_THREADS = 2 * _MOST_CONNECTIONS
# Seconds.
_TO_ASK = 5.0
_TO_TAKE = 10.0
_PAUSE = 0.05
# Until `close` is noticed.
_POLL = 0.5


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: HttpServer

    def setup(self) -> None:
        self.connection = self.request
        self.wfile: Any = io.BytesIO()

    def handle(self) -> None:
        request = self._read()
        if request is None:
            return
        self.rfile: Any = io.BytesIO(request)
        self.raw_requestline = self.rfile.readline()
        if not _is_whole(request):
            self.requestline, self.request_version, self.command = "", "HTTP/1.0", ""
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self.parse_request():  # else it has answered
            self._send(self._answer())

    def finish(self) -> None:
        answer = self.wfile.getvalue()
        if answer:
            self.connection.settimeout(_TO_TAKE)  # for all of it
            self.connection.sendall(answer)

    def _read(self) -> bytes | None:
        """The request up to the empty line, or as much of it as is read at all; None if it does not come."""
        give_up = time.monotonic() + _TO_ASK
        request = b""
        while not _is_whole(request) and len(request) < _LARGEST_REQUEST:
            self.connection.settimeout(max(0.001, give_up - time.monotonic()))
            piece = self.connection.recv(_LARGEST_REQUEST)
            if not piece:
                return None
            request += piece
        return request

    def _answer(self) -> Answer:
        hosts = self.headers.get_all("Host", [])
        if self.server.is_local and not all(map(_is_ours, hosts)):
            return in_text(403, "this host is asked by another name; ask localhost")
        try:
            path = urlsplit(self.path).path
        except ValueError:
            return in_text(400, "the path cannot be read")
        answer = self.server.site.answer(path)
        if answer.status != HTTPStatus.NOT_FOUND and self.command not in ("GET", "HEAD"):
            return in_text(405, "only GET and HEAD")
        return answer

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if answer.status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def version_string(self) -> str:
        """What it calls itself: who can ask learns nothing that an attacker would like to know."""
        return "unhang"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as its base class has it
        logger.debug(format, *args)


def _is_whole(request: bytes) -> bool:
    return b"\r\n\r\n" in request or b"\n\n" in request


def _is_ours(host: str) -> bool:
    """Whether this, as it stands in ``Host``, can only mean this host."""
    try:
        name = urlsplit(f"//{host.strip()}").hostname or ""
    except ValueError:
        return False
    return name == "localhost" or name.endswith(".localhost") or is_loopback(name)


class HttpServer(ThreadingHTTPServer):
    """Answers at a socket that listens already; takes it over.

    Args:
        listener: the socket.
        site: what is answered.

    Attributes:
        is_local: whether only this host can ask.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: socket.socket, site: Site) -> None:
        address = listener.getsockname()
        super().__init__(address[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_name, self.server_port = address[:2]
        self.site = site
        self.is_local = is_loopback(address[0])
        # The oldest first; and how many threads there are, with those whose connection was closed.
        self._waiting: dict[int, socket.socket] = {}
        self._busy: set[int] = set()
        self._guard = threading.Lock()

    def start(self) -> None:
        """Answer, in threads, until `close`."""
        threading.Thread(target=self.serve_forever, args=(_POLL,), name="unhang-http", daemon=True).start()

    def close(self) -> None:
        """Stop to listen. What is being answered goes on."""
        self.shutdown()
        self.server_close()

    def get_request(self) -> tuple[socket.socket, Any]:
        """See `socketserver.TCPServer`."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(_PAUSE)  # there are no descriptors: the connection stays in the queue and wakes us again
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """See `socketserver.ThreadingMixIn`."""
        with self._guard:
            is_room = len(self._busy) < _MOST_THREADS
            if is_room:
                self._busy.add(id(request))
                self._waiting[id(request)] = request
            if len(self._waiting) > _MOST_CONNECTIONS:
                oldest = self._waiting.pop(next(iter(self._waiting)))
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)
        if is_room:
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def close_request(self, request: Any) -> None:
        """See `socketserver.TCPServer`."""
        with self._guard:
            self._waiting.pop(id(request), None)
            self._busy.discard(id(request))
        super().close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - as its base class has it
        """Those who hang up or are too slow are none of ours."""
        logger.debug("A request failed: %r", sys.exception())
