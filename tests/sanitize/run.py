"""The compiled block under sanitizers: ``python tests/sanitize/run.py [PART ...]``, which is what `make sanitize` does.

Builds the extension twice into a temporary directory, with AddressSanitizer and UndefinedBehaviorSanitizer and without,
and runs there what may show what is wrong with it: the tests, a program that does all that blocks go through, the same
under valgrind, a count of what blocks leave behind, and the race between a worker and its watchdog. One line for each
part; the exit status is 1 if one of them has failed, or if something that it needs is missing.
"""
# ruff: noqa: T201 - a script, which prints

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

GCC = shutil.which("gcc")
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TESTS = ["tests/worker", "tests/core/test_page.py", "tests/test_implementation.py"]
# That one is about watchdogs, which are too slow here for the times that it gives them.
TESTS_LEFT_OUT = "tests/worker/test_choose.py"
PYTEST = ["-m", "pytest", "-n", "2", "-p", "no:cacheprovider", "-p", "fewer_examples", "--hypothesis-profile=sanitize"]
PYTEST += ["--budget=600"]  # everything takes longer there
SANITIZE = "-g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined"
# 2: faulthandler, which belongs to the development mode, must not keep the report for itself.
ASAN = "detect_leaks=0:handle_segv=2:handle_sigbus=2:handle_abort=2"
UBSAN = "print_stacktrace=1:halt_on_error=1"
VALGRIND = [
    "valgrind",
    "--quiet",
    "--track-origins=yes",
    "--leak-check=full",
    "--show-leak-kinds=definite",
    "--num-callers=40",
]
USED = "from unhang._worker import implementation; print(implementation.CHOSEN.__file__)"
INSTALL = "apt-get install -y gcc libc6-dev python3-dev valgrind"
# Functions of which one has asked for memory, the innermost first: the allocator's, then its user's.
ASKING = 6
# Seconds for one part, on a slow machine, and lines of what it has printed that are shown when it fails.
LIMIT = 240
SHOWN = 60


class Failure(Exception):  # noqa: N818 - it is no error of this program
    """A part has failed; the message is all that there is to say."""


def missing():
    """What this needs and this machine lacks."""
    lacking = [name for name in ("gcc", "valgrind") if not shutil.which(name)]
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        lacking.append("Python.h")
    if "gcc" not in lacking:
        lacking += [name for name in ("libasan.so", "libubsan.so") if not os.path.isabs(library(name))]
    return lacking


def library(name):
    """The path of a library of the compiler's; just its name if there is none."""
    return subprocess.run(
        [GCC, f"-print-file-name={name}"], stdout=subprocess.PIPE, text=True, check=True, timeout=LIMIT
    ).stdout.strip()


def printed_by(command, **environment):
    """What a program has printed, which runs in the root of the project and must end well."""
    theirs = {name: value for name, value in os.environ.items() if not name.startswith(("UNHANG_", "PYTHON", "MAKE"))}
    try:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=ROOT,
            env=theirs | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"not done after {LIMIT} s") from None
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-SHOWN:])
        raise Failure(f"exit status {done.returncode}\n{last}")
    return done.stdout


def last_line(printed):
    return (printed.strip().splitlines() or [""])[-1]


class Parts:
    """What is done, in a temporary directory.

    Args:
        directory: empty.
    """

    def __init__(self, directory):
        self._directory = Path(directory)
        sanitized, optimized = self._directory / "sanitized", self._directory / "optimized"
        self._places = {sanitized: SANITIZE, optimized: "-g"}
        self._optimized = {"PYTHONPATH": f"{optimized}:{HERE}"}
        self._sanitized = {
            "PYTHONPATH": f"{sanitized}:{HERE}",
            "PYTHONMALLOC": "malloc",
            "PYTHONDEVMODE": "1",
            "LD_PRELOAD": f"{library('libasan.so')}:{library('libubsan.so')}",
            "ASAN_OPTIONS": f"{ASAN}:log_path={directory}/report",
            "UBSAN_OPTIONS": f"{UBSAN}:log_path={directory}/report",
            "HYPOTHESIS_STORAGE_DIRECTORY": f"{directory}/hypothesis",
        }

    def build(self):
        """Both extensions, and that they are what is used."""
        for place, flags in self._places.items():
            shutil.copytree(ROOT / "src", place, ignore=shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info"))
            command = ["setup.py", "--quiet", "build_ext", "--build-lib", place, "--build-temp", place / "build"]
            printed_by([sys.executable, *command], CC="gcc", CFLAGS=flags)
        for place, environment in zip(self._places, (self._sanitized, self._optimized), strict=True):
            used = last_line(printed_by([sys.executable, "-c", USED], **environment))
            if not used.startswith(str(place)):
                raise Failure(f"{used} is used, and not what was built in {place}")
        return f"with {last_line(printed_by([GCC, '-dumpfullversion']))} of gcc"

    def _watched(self, command):
        """The last line of a program under the sanitizers; none of its processes may have made a report either."""
        said = failure = ""
        try:
            said = last_line(printed_by([sys.executable, *command], **self._sanitized))
        except Failure as error:
            failure = str(error)
        for report in sorted(self._directory.glob("report.*")):
            failure += "\n" + "\n".join(report.read_text(errors="replace").splitlines()[:SHOWN])
            report.unlink()
        if failure:
            raise Failure(failure)
        return said

    def tests(self):
        """The tests of what a worker does."""
        self._watched([*PYTEST, *TESTS, f"--ignore={TESTS_LEFT_OUT}"])
        return f"{' and '.join(TESTS)} under AddressSanitizer and UndefinedBehaviorSanitizer"

    def stress(self):
        """The program that does it all."""
        return f"{self._watched([HERE / 'stress.py', '10'])} under both sanitizers"

    def valgrind(self):
        """The same under valgrind."""
        report = self._directory / "valgrind.xml"
        command = [*VALGRIND, "--child-silent-after-fork=yes", "--xml=yes", f"--xml-file={report}", sys.executable]
        said = last_line(printed_by([*command, HERE / "stress.py", "1"], **self._optimized, PYTHONMALLOC="malloc"))
        errors = list(ET.parse(report).getroot().iter("error"))  # noqa: S314 - valgrind wrote it
        ours = [describe(error) for error in errors if is_ours(error)]
        if ours:
            raise Failure("\n\n".join(ours[:5]))
        return f"{said}; nothing of ours is among {len(errors)} complaints"

    def leaks(self):
        """Blocks leave nothing behind."""
        return last_line(printed_by([sys.executable, HERE / "leaks.py"], **self._optimized))

    def kicks(self):
        """No kick is lost."""
        return last_line(printed_by([sys.executable, HERE / "kicks.py"], **self._optimized))


# Those in one row need one processor each, and run two at a time.
ROWS = [["tests"], ["valgrind", "stress", "leaks"], ["kicks"]]


def is_ours(error):
    """Whether valgrind complains of the extension, or of what no interpreter does.

    Python itself uses what nobody has set (the digit of a zero), and leaves memory behind when it ends: that counts if
    the extension is involved, as the one who has asked for the memory, or one of those who call.
    """
    frames = [f"{frame.findtext('obj')} {frame.findtext('file')}" for frame in error.iter("frame")]
    kind = error.findtext("kind", "")
    if kind.startswith("Leak"):
        frames = frames[:ASKING]
    return not kind.startswith(("Uninit", "Leak", "SyscallParam")) or any("_block" in frame for frame in frames)


def describe(error):
    what = error.findtext("what") or error.findtext("xwhat/text")
    frames = [f"  {frame.findtext('fn')} ({frame.findtext('file')})" for frame in error.iter("frame")]
    return "\n".join([f"{error.findtext('kind')}: {what}", *frames[:20]])


def attempt(parts, name):
    """Run a part, and print its line; returns whether it went well."""
    began = time.monotonic()
    try:
        line, is_well = getattr(parts, name)(), True
    except Failure as error:
        line, is_well = f"FAILED: {error}", False
    print(f"{name} ({time.monotonic() - began:.0f} s): {line}", flush=True)
    return is_well


def main():
    lacking = missing()
    if lacking:
        print(f"FAILED: {', '.join(lacking)} missing: {INSTALL}", flush=True)
        return 1
    wanted = sys.argv[1:] or [name for row in ROWS for name in row]
    with tempfile.TemporaryDirectory(prefix="sanitize-") as directory, ThreadPoolExecutor(2) as pool:
        parts = Parts(directory)
        is_well = attempt(parts, "build")
        for row in ROWS if is_well else []:
            is_well &= all(list(pool.map(lambda name: attempt(parts, name), [name for name in row if name in wanted])))
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
