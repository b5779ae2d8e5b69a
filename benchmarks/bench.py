"""What a timer costs and how late a kill is: unhang, torch's timers, and what else one might use.

Prints tables, and says whether unhang meets what is required of it. Exit status: 0 if it does, 1 if not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from bench_channel import MODULES
from bench_tables import (
    block_table,
    import_table,
    lateness_figures,
    lateness_table,
    live_table,
    requests_table,
)

_HERE = Path(__file__).parent
_MOST_US = 2.0
_MOST_MS = 20.0
_SECTION_LIMIT = 300.0


@dataclass(frozen=True)
class Requirement:
    """What is required of unhang, and what was found; ``figure`` is None when it was beyond measuring."""

    name: str
    limit: float
    unit: str
    figure: float | None

    @property
    def met(self) -> bool:
        """Whether the figure is within the limit."""
        return self.figure is not None and self.figure <= self.limit

    def __str__(self) -> str:
        found = "too much to measure" if self.figure is None else f"{self.figure:.2f} {self.unit}"
        return f"{'met' if self.met else 'NOT MET'}: {self.name}: {found} (at most {self.limit:g} {self.unit})"


def _section(script: str, libraries: Sequence[str], *, quick: bool) -> Any:
    """Run the script of a section in an interpreter, session and process group of its own; returns its figures."""
    command = [sys.executable, str(_HERE / script), "--libraries", *libraries, *(["--quick"] if quick else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=_SECTION_LIMIT, start_new_session=True)
    return json.loads(done.stdout)


def _libraries(*, without_torch: bool) -> tuple[list[str], str]:
    """The libraries to measure, and a sentence about torch."""
    if without_torch:
        return ["unhang"], "torch is left out, as asked."
    try:
        return ["unhang", "torch"], f"torch {metadata.version('torch')}."
    except metadata.PackageNotFoundError:
        return ["unhang"], "torch is not installed: going on without it."


def _block(console: Console, libraries: Sequence[str], *, quick: bool) -> tuple[Any, list[Requirement]]:
    rows = _section("bench_block.py", libraries, quick=quick)
    console.print("", block_table(rows))
    ours = [row for row in rows if (row["library"], row["client"]) == ("unhang", "do-nothing")]
    worst = max(row["us"] for row in ours if row["scope"] == "unnamed")
    return rows, [Requirement("expires() itself, unnamed, however deep", _MOST_US, "µs", worst)]


def _lateness(console: Console, libraries: Sequence[str], *, quick: bool) -> tuple[Any, list[Requirement]]:
    rows: dict[str, Any] = {}
    for library in libraries:
        found = _section("bench_lateness.py", [library], quick=quick)
        rows |= {name: lateness_figures(late, found["cap"]) for name, late in found["late"].items()}
    rows["bare sleep"] = rows.pop("bare sleep")
    console.print("", lateness_table(rows))
    ours = {name: row for name, row in rows.items() if name.startswith("unhang")}
    return rows, [
        Requirement(f"lateness of the kill, p99, {name}", _MOST_MS, "ms", row["p99_ms"]) for name, row in ours.items()
    ]


def _server(console: Console, libraries: Sequence[str], *, quick: bool) -> tuple[Any, list[Requirement]]:
    found = _section("bench_server.py", libraries, quick=quick)
    console.print("", requests_table(found["flat_out"]))
    console.print("", live_table(found["live"]))
    return found, []


def _imports(console: Console, libraries: Sequence[str], *, quick: bool) -> tuple[Any, list[Requirement]]:
    """Milliseconds of whole processes, started in turns, from bytecode after the first."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    runs = {"pass": 5 if quick else 20}
    runs |= {f"import {MODULES[name]}": runs["pass"] for name in libraries}
    if "torch" in libraries:
        runs[f"import {MODULES['torch']}"] = 1 if quick else 3  # it takes more than a second
    rows: dict[str, list[float]] = {f"python -c '{code}'": [] for code in runs}
    for turn in range(runs["pass"]):
        for code in runs:
            if turn < runs[code]:
                start = time.perf_counter()
                subprocess.run([sys.executable, "-c", code], check=True, env=environment)
                rows[f"python -c '{code}'"].append((time.perf_counter() - start) * 1e3)
    console.print("", import_table(rows))
    return rows, []


_SECTIONS = {"block": _block, "lateness": _lateness, "server": _server, "import": _imports}


def _machine() -> dict[str, Any]:
    return {
        "python": sys.version,
        "implementation": platform.python_implementation(),
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
        "machine": platform.machine(),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--quick", action="store_true", help="a rough run of a quarter of a minute")
    parser.add_argument("--without-torch", action="store_true", help="leave torch out, though it is installed")
    return parser.parse_args()


def main() -> int:
    """Run all sections; returns the exit status."""
    arguments = _arguments()
    if sys.platform != "linux":
        print("The benchmarks need Linux: pidfds, /proc, and fork.", file=sys.stderr)
        return 1
    console = Console(width=None if sys.stdout.isatty() else 140)
    begun = time.monotonic()
    libraries, about_torch = _libraries(without_torch=arguments.without_torch)
    versions = {name: metadata.version(name) for name in libraries}
    machine = _machine()
    console.print(f"Python {platform.python_version()}, {machine['cpus']} CPUs, {machine['platform']}. {about_torch}")
    figures: dict[str, Any] = {"machine": machine, "versions": versions, "quick": arguments.quick}
    requirements: list[Requirement] = []
    for name, section in _SECTIONS.items():
        figures[name], required = section(console, libraries, quick=arguments.quick)
        requirements += required
    figures["requirements"] = [{**asdict(requirement), "met": requirement.met} for requirement in requirements]
    figures["seconds"] = time.monotonic() - begun
    console.print()
    for requirement in requirements:
        console.print(str(requirement), style="green" if requirement.met else "bold red", highlight=False)
    console.print(f"{figures['seconds']:.0f} s")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0 if all(requirement.met for requirement in requirements) else 1


if __name__ == "__main__":
    sys.exit(main())
