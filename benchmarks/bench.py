"""What a timer costs and how late a kill is: unhang, torch's timers, and what else one might use.

Prints tables, and says whether unhang meets what is required of it. Exit status: 0 if it does, 1 if not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from bench_channel import MODULES, PLAIN
from bench_crowd import Watchdog
from bench_drop_in import of_drop_in_blocks, of_drop_in_servers
from bench_evidence_tables import evidence_table, siblings_table
from bench_learned_tables import learned_table, of_learned
from bench_requirements import (
    Requirement,
    of_blocks,
    of_crowds,
    of_evidence,
    of_imports,
    of_lateness,
    of_learning,
    of_plain_blocks,
)
from bench_shared_tables import (
    anatomy_table,
    crowd_lateness,
    crowd_lateness_table,
    crowd_table,
    many_table,
    memory_table,
    paces_table,
)
from bench_tables import (
    block_table,
    import_table,
    instructions_table,
    lateness_figures,
    lateness_table,
    learning_table,
    live_table,
    requests_table,
)
from bench_view_tables import of_views, view_figures, view_table
from unhang._worker.implementation import COMPILED, PURE, WHY

_HERE = Path(__file__).parent
_SECTION_LIMIT = 300.0
_FIRST_BLOCK = "import unhang\nwith unhang.expires(60): pass"


def _section(script: str, libraries: Sequence[str], *, quick: bool) -> Any:
    """Run the script of a section in an interpreter, session and process group of its own; returns its figures."""
    command = [sys.executable, str(_HERE / script), "--libraries", *libraries, *(["--quick"] if quick else [])]
    environment = os.environ | ({PURE: "1"} if PLAIN in libraries else {})
    done = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, timeout=_SECTION_LIMIT, start_new_session=True, env=environment
    )
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
    found = _section("bench_block.py", libraries, quick=quick)
    plain = _section("bench_block.py", [PLAIN], quick=quick)
    found["plain"] = plain
    console.print("", block_table(found["blocks"] + [row for row in plain["blocks"] if row["library"]]))
    console.print("", anatomy_table(plain["steps"], plain["blocks"]))
    required = of_blocks(found["blocks"]) if WHY == COMPILED else of_plain_blocks(found["blocks"])
    return found, required + of_drop_in_blocks(found["blocks"])


def _instructions(console: Console, libraries: Sequence[str], *, quick: bool) -> tuple[Any, list[Requirement]]:  # noqa: ARG001
    counts = {name: _section("bench_instructions.py", [name], quick=quick) for name in ("unhang", PLAIN)}
    if all(counts.values()):
        console.print("", instructions_table(counts))
    else:
        console.print("", "Instructions are not counted: there is no valgrind.")
    return counts, []


def _learning(console: Console, libraries: Sequence[str], *, quick: bool) -> tuple[Any, list[Requirement]]:  # noqa: ARG001
    found = _section("bench_learning.py", ["unhang"], quick=quick)
    console.print("", learning_table(found))
    return found, of_learning(found)


def _lateness(console: Console, libraries: Sequence[str], *, quick: bool) -> tuple[Any, list[Requirement]]:
    rows: dict[str, Any] = {}
    for library in libraries:
        found = _section("bench_lateness.py", [library], quick=quick)
        rows |= {name: lateness_figures(late, found["cap"]) for name, late in found["late"].items()}
    rows["bare sleep"] = rows.pop("bare sleep")
    console.print("", lateness_table(rows))
    return rows, of_lateness(rows)


def _shared(console: Console, libraries: Sequence[str], *, quick: bool) -> tuple[Any, list[Requirement]]:  # noqa: ARG001
    found = _section("bench_shared.py", ["unhang"], quick=quick)
    late = found["late"] = crowd_lateness(found["late"])
    tables = [paces_table(found["paces"]), crowd_table(found), crowd_lateness_table(found, late)]
    for table in (*tables, memory_table(found), many_table(found)):
        console.print("", table)
    return found, of_crowds(found, late)


def _view(console: Console, libraries: Sequence[str], *, quick: bool) -> tuple[Any, list[Requirement]]:  # noqa: ARG001
    figures = view_figures(_section("bench_view.py", ["unhang"], quick=quick))
    console.print("", view_table(figures))
    return figures, of_views(figures)


def _evidence(console: Console, libraries: Sequence[str], *, quick: bool) -> tuple[Any, list[Requirement]]:  # noqa: ARG001
    found = _section("bench_evidence.py", ["unhang"], quick=quick)
    console.print("", evidence_table(found))
    console.print("", siblings_table(found))
    return found, of_evidence(found)


def _learned(console: Console, libraries: Sequence[str], *, quick: bool) -> tuple[Any, list[Requirement]]:  # noqa: ARG001
    found = _section("bench_learned.py", ["unhang"], quick=quick)
    console.print("", learned_table(found))
    return found, of_learned(found)


def _server(console: Console, libraries: Sequence[str], *, quick: bool) -> tuple[Any, list[Requirement]]:
    found = _section("bench_server.py", libraries, quick=quick)
    console.print("", requests_table(found["flat_out"]))
    console.print("", live_table(found["live"]))
    return found, of_drop_in_servers(found)


def _imports(console: Console, libraries: Sequence[str], *, quick: bool) -> tuple[Any, list[Requirement]]:
    """Milliseconds of whole processes, started in turns, from bytecode after the first."""
    runs = {"pass": 5 if quick else 20}
    runs |= dict.fromkeys(("import unhang", _FIRST_BLOCK), runs["pass"])
    if "torch" in libraries:
        runs[f"import {MODULES['torch']}"] = 1 if quick else 3  # it takes more than a second
    rows: dict[str, list[float]] = {code: [] for code in runs}
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment["UNHANG_ADDRESS"] = Watchdog(stack, f"{directory}/watchdog").address
        for turn in range(runs["pass"]):
            for code in (code for code, most in runs.items() if turn < most):
                rows[code].append(_run(code, environment))
    console.print("", import_table({code.replace("\n", "; "): row for code, row in rows.items()}))
    return rows, of_imports(rows["pass"], rows["import unhang"])


def _run(code: str, environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    return (time.perf_counter() - start) * 1e3


_SECTIONS = {
    "block": _block,
    "instructions": _instructions,
    "learning": _learning,
    "lateness": _lateness,
    "shared": _shared,
    "view": _view,
    "evidence": _evidence,
    "learned": _learned,
    "server": _server,
    "import": _imports,
}


def _machine() -> dict[str, Any]:
    return {
        "python": sys.version,
        "implementation": platform.python_implementation(),
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "load": os.getloadavg()[0],
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--quick", action="store_true", help="a rough run of half a minute")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=tuple(_SECTIONS),
        default=tuple(_SECTIONS),
        metavar="SECTION",
        help=f"some of the sections: {', '.join(_SECTIONS)}",
    )
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
    console.print(
        f"Python {platform.python_version()}, {machine['cpus']} CPUs (load {machine['load']:.1f}), "
        f"{machine['platform']}. unhang: {WHY}. {about_torch}"
    )
    figures: dict[str, Any] = {"machine": machine, "versions": versions, "quick": arguments.quick}
    requirements: list[Requirement] = []
    for name in arguments.only:
        figures[name], required = _SECTIONS[name](console, libraries, quick=arguments.quick)
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
