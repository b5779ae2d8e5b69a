"""HTTP for probes and metrics, as clients of all sorts meet it."""

import contextlib
import http.client
import ipaddress
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

import capabilities
from observe import looks
from observe.looks import armed, picture, row
from support import LONG, until
from unhang.observe import document, endpoint
from unhang.observe import http as served
from unhang.observe.endpoint import EndpointError, listen, parse_endpoint
from unhang.observe.health import LATE, Limits
from unhang.observe.http import HttpServer
from unhang.observe.site import Site

GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def clock():
    return looks.Clock()


@pytest.fixture
def site(clock):
    """One that has seen a watchdog with one worker."""
    site = Site(Limits(max_stall=60), clock)
    site.saw(picture(row(1, armed())))
    return site


@pytest.fixture
def serve(monkeypatch):
    """Serve a site at an address; closed at the end."""
    monkeypatch.setattr(served, "_POLL", 0.01)
    servers = []

    def start(site, address="0"):
        server = HttpServer(listen(address), site)
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def ask(serve, site):
    """Ask the site, and get the status and the body."""
    server = serve(site)

    def get(path, method="GET", **headers):
        connection = http.client.HTTPConnection("localhost", server.server_port, timeout=LONG)
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        get.headers = response.headers
        return response.status, text

    return get


@pytest.fixture
def connect():
    """Connect to a server; hung up at the end."""
    with contextlib.ExitStack() as opened:
        yield lambda server: opened.enter_context(
            socket.create_connection((server.server_name, server.server_port), timeout=LONG)
        )


def everything(connection):
    text = b""
    while piece := connection.recv(65536):
        text += piece
    return text


def test_all_is_well(ask):
    """200, with a line for people."""
    assert ask("/livez") == (200, "the watchdog looks\n")
    assert ask("/readyz") == (200, "1 worker\n")
    assert ask("/livez?verbose")[0] == 200


def test_workers_that_stall_are_not_ready(ask, site):
    """The watchdog is alive all the same."""
    site.saw(picture(row(1, armed(running=70), idle=70)))
    assert ask("/livez")[0] == 200
    why = "worker 4001 makes no progress for 70 s: in 'step' for 70 s, timeout 600 s\n"
    assert ask("/readyz") == (503, why)


def test_a_watchdog_that_does_not_answer(ask, site):
    """503 with the reason on all that is about it; metrics say that it is down, and keep what was counted."""
    site.lost("cannot look at it:\n  it is stopped")
    for path in ("/livez", "/readyz", "/workers"):
        assert ask(path) == (503, "cannot look at it: it is stopped\n")
    status, text = ask("/metrics")
    assert status == 200
    assert "unhang_watchdog_up 0.0" in text
    assert "unhang_armings_total 5.0" in text
    assert "\nunhang_workers " not in text


def test_a_watchdog_whose_loop_does_not_turn(ask, site):
    """It answers, but looks at nobody."""
    site.saw(picture(watchdog=looks.watchdog(looked=looks.NOW - 30)))
    assert ask("/livez") == (503, "the watchdog has not looked for 30 s\n")
    assert ask("/readyz")[0] == 503


def test_what_was_seen_long_ago_says_nothing(ask, clock):
    """Should the one who looks hang, nobody is told that all is well."""
    clock.now += LATE + 3
    assert ask("/livez")[0] == 503
    assert ask("/readyz")[0] == 503
    assert "unhang_watchdog_up 0.0" in ask("/metrics")[1]


def test_before_the_first_look(serve, connect, clock):
    """Whoever asks at once is answered when it has been looked."""
    site = Site(clock=clock)
    connection = connect(serve(site))
    connection.sendall(GET)
    site.saw(picture())
    assert everything(connection).startswith(b"HTTP/1.0 200 ")


def test_workers_as_json(ask, site):
    """The document of `unhang status --json`."""
    found = document.decode(ask("/workers")[1].encode())
    assert [worker.pid for worker in found.workers] == [4001]
    assert found.workers[0].blocks[0].scope == "step"
    assert found.watchdog.up == 900
    assert ask.headers["Content-Type"] == "application/json"


def test_metrics_for_prometheus(ask):
    """As text of the version that every Prometheus reads."""
    status, text = ask("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert status == 200
    assert ask.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "unhang_watchdog_up 1.0\n" in text


def test_an_index(ask):
    """A page for browsers, that links to all others."""
    status, text = ask("/")
    assert status == 200
    assert all(f'href="{name}"' in text for name in ("livez", "readyz", "metrics", "workers"))


def test_other_paths_and_methods(ask):
    """404 names what there is; 405 what may be done; HEAD has no body."""
    assert ask("/nothing") == (404, "there is /, /livez, /readyz, /metrics, /workers\n")
    assert ask("/metrics/")[0] == 404
    assert ask("/livez", "POST")[0] == 405
    assert ask.headers["Allow"] == "GET, HEAD"
    assert ask("/livez", "HEAD") == (200, "")
    assert int(ask.headers["Content-Length"]) > 0


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9464", "127.0.0.1:9464", "[::1]:9464", "x.localhost", "127.9.9.9"]
)
def test_names_of_this_host(ask, host):
    """All that can only mean this host is answered."""
    assert ask("/livez", Host=host)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9464", "localhost.evil.example", "10.0.0.1", "", "[", "@"]
)
def test_other_names_are_refused(ask, host):
    """A page in a browser, whose own name was made to point here, reads nothing."""
    assert ask("/workers", Host=host)[0] == 403


def test_two_names_must_both_be_ours(serve, connect, site):
    """One proxy reads the first, another the second."""
    connection = connect(serve(site))
    connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
    assert everything(connection).startswith(b"HTTP/1.0 403 ")


def test_for_other_hosts_any_name_is_right(serve, site):
    """Where it listens for all, it has names that nobody here knows."""
    server = serve(site, "0.0.0.0:0")
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=LONG) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: gpu3.cluster\r\n\r\n")
        assert everything(connection).startswith(b"HTTP/1.0 200 ")


def test_probes_that_say_little(serve, connect, site):
    """HTTP/1.0, no Host, bare line feeds."""
    connection = connect(serve(site))
    connection.sendall(b"GET /livez HTTP/1.0\n\n")
    assert everything(connection).startswith(b"HTTP/1.0 200 ")


@pytest.mark.parametrize(
    ("path", "status"),
    [(b"http://[oops/livez", 400), (b"http://elsewhere/livez", 200), (b"/\xff", 404), (b"*", 404)],
)
def test_odd_paths(serve, connect, site, path, status):
    """What is no path of ours is refused, however it is written."""
    connection = connect(serve(site))
    connection.sendall(b"GET %b HTTP/1.1\r\n\r\n" % path)
    assert everything(connection).startswith(b"HTTP/1.0 %d " % status)


def test_a_request_in_pieces(serve, connect, site):
    """Each byte may come alone."""
    connection = connect(serve(site))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in GET:
        connection.sendall(bytes([byte]))
    assert everything(connection).startswith(b"HTTP/1.0 200 ")


@pytest.mark.parametrize(
    "request_",
    [b"\r\n\r\n", b"nonsense\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 100 + b"\n\n",
     b"\xff\xfe\n\n", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 500 + b"\r\n"],
    ids=["empty", "a word", "no path", "another version", "zeros", "no text", "many headers"],
)  # fmt: skip
def test_what_is_no_request(serve, connect, site, request_):
    """It is refused or left alone, and the next one is answered."""
    server = serve(site)
    with connect(server) as connection:
        connection.sendall(request_)
        assert not everything(connection).startswith(b"HTTP/1.0 200 ")
    with connect(server) as connection:
        connection.sendall(GET)
        assert everything(connection).startswith(b"HTTP/1.0 200 ")


def test_a_huge_request(serve, connect, site):
    """No more than 16 KiB are read of it."""
    server = serve(site)
    with connect(server) as connection:
        try:
            connection.sendall(b"GET /" + b"x" * (served._LARGEST_REQUEST - 5))
            assert everything(connection).startswith(b"HTTP/1.0 431 ")
        except ConnectionError:
            pass  # it was closed before it was read
    with connect(server) as connection:
        connection.sendall(GET)
        assert everything(connection).startswith(b"HTTP/1.0 200 ")


def test_those_who_say_nothing_are_closed(serve, connect, site, monkeypatch):
    """Nor are those waited for who go on too slowly: the time is for the whole request."""
    monkeypatch.setattr(served, "_TO_ASK", 0.3)
    server = serve(site)
    with connect(server) as silent, connect(server) as slow:
        slow.sendall(b"G")
        assert everything(silent) == b""
        assert everything(slow) == b""


def test_many_connections_keep_nobody_out(serve, connect, site):
    """The oldest ones that have not asked are closed; whoever asks is answered; the threads are bounded."""
    server = serve(site)
    before = threading.active_count()
    idle = [connect(server) for _ in range(200)]
    for connection in idle[-5:]:
        connection.sendall(GET)
        assert everything(connection).startswith(b"HTTP/1.0 200 ")
    assert threading.active_count() - before <= served._MOST_THREADS
    assert idle[0].recv(1) == b""
    for connection in idle:
        connection.close()
    until(lambda: not server._busy and not server._waiting)


def test_one_who_does_not_read(serve, connect, clock, monkeypatch):
    """An answer that is not taken is given up, and holds up no other one."""
    monkeypatch.setattr(served, "_TO_TAKE", 0.5)
    site = Site(clock=clock)
    site.saw(picture(*(row(number, *[armed("x" * 190)] * 8) for number in range(5000))))
    server = serve(site)
    with connect(server) as deaf:
        deaf.sendall(GET.replace(b"/livez", b"/workers"))
        with connect(server) as other:
            other.sendall(GET)
            assert everything(other).startswith(b"HTTP/1.0 200 ")
        until(lambda: not server._busy)


def test_ipv6(serve, site):
    """In brackets, as in URLs."""
    try:
        server = serve(site, "[::1]:0")
    except EndpointError as error:
        capabilities.lacks("ipv6", str(error))
    assert server.is_local
    assert endpoint.url_of(server.socket) == f"http://[::1]:{server.server_port}"
    connection = http.client.HTTPConnection("::1", server.server_port, timeout=LONG)
    connection.request("GET", "/livez")
    assert connection.getresponse().status == 200
    connection.close()


def test_a_port_that_is_taken():
    """One line says which and why."""
    with listen("0") as first:
        port = first.getsockname()[1]
        with pytest.raises(EndpointError, match=f"cannot serve HTTP at '{port}': Address already in use"):
            listen(str(port))


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("9464", "127.0.0.1", 9464),
        (":9464", "127.0.0.1", 9464),
        ("0.0.0.0:80", "0.0.0.0", 80),  # noqa: S104
        ("localhost:1", "localhost", 1),
        ("[::1]:1", "::1", 1),
        ("[::]:65535", "::", 65535),
        (" gpu3.cluster:9464 ", "gpu3.cluster", 9464),
    ],
)
def test_addresses(text, host, port):
    """Without a host, only this one can ask."""
    assert parse_endpoint(text) == (host, port)


@pytest.mark.parametrize(
    "text", ["", ":", "host", "host:", "host:port", "65536", "-1", "::1:80", "[::1]", "[x]:80", "1:2:3", "¹"]
)
def test_what_is_no_address(text):
    """It is told how one is written."""
    with pytest.raises(EndpointError, match="cannot serve HTTP at"):
        parse_endpoint(text)


@pytest.mark.parametrize("text", ["65536", "host:99999", "[::1]:100000", "9" * 5000])
def test_a_port_that_is_too_high(text):
    """It is told that there is none so high."""
    with pytest.raises(EndpointError, match="a port is a number up to 65535"):
        parse_endpoint(text)


@given(st.text() | st.from_regex(r"\[?[0-9a-f:.]{0,12}\]?:\d{0,6}"))
def test_an_address_or_an_error(text):
    """Nothing else comes of any text."""
    try:
        host, port = parse_endpoint(text)
    except EndpointError:
        return
    assert 0 <= port <= 65535
    assert host


@given(st.ip_addresses() | st.text(max_size=20))
def test_this_host_alone(host):
    """Only addresses of the loopback are for this host alone; names are not."""
    try:
        wanted = ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        wanted = False
    if "%" not in str(host):
        assert endpoint.is_loopback(str(host)) == wanted
