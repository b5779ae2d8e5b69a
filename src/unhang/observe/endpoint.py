"""Where HTTP is served: an address as users write it, and a socket that listens there."""

from __future__ import annotations

import ipaddress
import socket

from unhang.errors import UnhangError

_LOOPBACK = "127.0.0.1"
_LARGEST_PORT = 65535
_LONGEST_PORT = 20  # with zeros in front


class EndpointError(UnhangError, ValueError):
    """HTTP cannot be served at this address.

    Attributes:
        address: as it was written.
        reason: why not.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot serve HTTP at {self.address!r}: {self.reason}"


def parse_endpoint(text: str) -> tuple[str, int]:
    """The host and the port of ``HOST:PORT``, ``[IPv6]:PORT``, or ``:PORT`` or ``PORT``, which mean the loopback.

    Raises:
        EndpointError: (a ValueError) it is none of these.
    """
    host, colon, port = text.strip().rpartition(":")
    if not port.isascii() or not port.isdigit():
        raise EndpointError(text, "it ends in no port; write HOST:PORT, [IPv6]:PORT, or PORT for this host alone")
    if len(port) > _LONGEST_PORT or int(port) > _LARGEST_PORT:
        raise EndpointError(text, f"a port is a number up to {_LARGEST_PORT}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not _is_ipv6(host):
            raise EndpointError(text, "what stands in brackets is no IPv6 address")
    elif ":" in host:
        raise EndpointError(text, f"an IPv6 address stands in brackets: [{host}]:{port}")
    elif colon and not host:
        host = _LOOPBACK
    return host or _LOOPBACK, int(port)


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def listen(text: str) -> socket.socket:
    """A socket that listens at such an address; at the first one that the host's name has.

    Raises:
        EndpointError: it cannot be had; the message says why.
    """
    host, port = parse_endpoint(text)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise EndpointError(text, f"the host cannot be found: {error}") from error
    try:
        # As any server does: a port whose last connections are being forgotten is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(socket.SOMAXCONN)
    except OSError as error:
        listener.close()
        raise EndpointError(text, str(error.strerror)) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Where it can be asked from this host."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether this address, as a socket names it, is for this host alone."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
