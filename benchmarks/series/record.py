"""Records how long real blocks take, into JSON files beside this one, for bench_learned.

    python benchmarks/series/record.py [NAME...]

A series is some processes, one after the other, each with one block that starts up and many that work. `training` needs
torch. The machine should do nothing else.
"""

from __future__ import annotations

import argparse
import http.client
import http.server
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_RUNS = 12
_BLOCKS = 2000
_LIMIT = 600.0
_random = random.Random()  # noqa: S311 - no secret


def _writes(directory: Path) -> Iterator[None]:
    """64 KiB written to a file and brought to the disk."""
    data = os.urandom(1 << 16)
    with (directory / "file").open("wb", buffering=0) as file:
        for _ in range(_BLOCKS):
            file.seek(_random.randrange(256) << 16)
            file.write(data)
            os.fsync(file.fileno())
            yield


class _Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # In one piece: otherwise the second one waits for an acknowledgement that is delayed.
    wbufsize = -1

    def do_GET(self) -> None:
        """Answer with a text of some kilobytes that takes a while to make."""
        text = json.dumps([_random.random() for _ in range(_random.randrange(200, 4000))]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def _requests(_directory: Path) -> Iterator[None]:
    """A request to a server in Python that two other clients keep busy."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for _ in range(2):
        threading.Thread(target=_keep_busy, args=(server.server_port,), daemon=True).start()
    client = http.client.HTTPConnection("127.0.0.1", server.server_port)
    for _ in range(_BLOCKS):
        client.request("GET", "/")
        client.getresponse().read()
        yield


def _keep_busy(port: int) -> None:
    client = http.client.HTTPConnection("127.0.0.1", port)
    while True:
        client.request("GET", "/")
        client.getresponse().read()
        time.sleep(_random.expovariate(200))


def _transactions(directory: Path) -> Iterator[None]:
    """A transaction of twenty rows in SQLite with a write-ahead log, which it empties now and then."""
    database = sqlite3.connect(directory / "database", isolation_level=None, timeout=60)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, key INTEGER, value BLOB)")
    database.execute("CREATE INDEX keys ON rows (key)")
    for _ in range(_BLOCKS):
        database.execute("BEGIN IMMEDIATE")
        rows = ((_random.randrange(1 << 40), os.urandom(200)) for _ in range(20))
        database.executemany("INSERT INTO rows (key, value) VALUES (?, ?)", rows)
        database.execute("COMMIT")
        yield


def _objects(_directory: Path) -> Iterator[None]:
    """Python that makes cycles for the garbage collector, in a heap that grows."""
    kept: list[list[object]] = []
    for _ in range(_BLOCKS):
        for _ in range(_random.randrange(500, 1500)):
            cycle: list[object] = [{}, str(_random.random())]
            cycle.append(cycle)
            kept.append(cycle)
        if len(kept) > 400_000:
            del kept[::2]
        yield


def _training(directory: Path) -> Iterator[None]:
    """Steps of a small network in torch on the processor; every 100th evaluates it, every 300th saves it as well."""
    import torch  # the first block pays for it

    torch.set_num_threads(1)
    model = torch.nn.Sequential(torch.nn.Linear(256, 512), torch.nn.ReLU(), torch.nn.Linear(512, 10))
    optimizer = torch.optim.AdamW(model.parameters())
    for step in range(1, _BLOCKS + 1):
        inputs, labels = torch.randn(64, 256), torch.randint(10, (64,))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        if step % 100 == 0:
            with torch.no_grad():
                for _ in range(100):
                    model(torch.randn(64, 256))
        if step % 300 == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            with (directory / "checkpoint").open("wb") as file:
                torch.save(state, file)
                os.fsync(file.fileno())
        yield


_SERIES: dict[str, Callable[[Path], Iterator[None]]] = {
    "writes": _writes,
    "requests": _requests,
    "transactions": _transactions,
    "objects": _objects,
    "training": _training,
}


def _run(name: str) -> list[int]:
    """Microseconds of each block of one process: of this one."""
    durations = []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
        begun = time.perf_counter_ns()
        for _ in _SERIES[name](Path(directory)):
            ended = time.perf_counter_ns()
            durations.append(_rounded((ended - begun) // 1000))
            begun = ended
    return durations


def _rounded(number: int) -> int:
    """Three digits, and zeros."""
    return int(float(f"{number:.3g}"))


def _record(name: str) -> None:
    runs = []
    for _ in range(_RUNS):
        command = [sys.executable, __file__, "--run", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=_LIMIT)
        runs.append(json.loads(done.stdout))
    about = " ".join((_SERIES[name].__doc__ or "").split())
    document = {"name": name, "about": about, "python": sys.version.split()[0], "unit": "µs", "runs": runs}
    path = Path(__file__).with_name(f"{name}.json")
    path.write_text(json.dumps(document, separators=(",", ":"), ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path}: {sum(map(len, runs))} blocks")


def main() -> None:
    """Record the series that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*_SERIES, []], metavar="NAME")
    parser.add_argument("--run", choices=_SERIES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(_run(arguments.run)))
        return
    for name in arguments.names or _SERIES:
        _record(name)


if __name__ == "__main__":
    main()
