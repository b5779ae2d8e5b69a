"""Builds the C extension where it can be built; all else about the package stands in pyproject.toml.

The extension is optional: `unhang._worker.plain` does the same in Python. Where it cannot be built, the package is
installed without it, and one line on the standard error says what is missing (pip shows it with ``-v`` alone).
``UNHANG_REQUIRE_EXTENSION=1`` makes that an error, with all that the compiler says.
"""

from __future__ import annotations

import os
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Distribution, Extension, setup
from setuptools.errors import SetupError

REQUIRE = "UNHANG_REQUIRE_EXTENSION"
SOURCE = "src/unhang/_worker/_block.c"
# The modules whose constants the extension is compiled with: PAGE_DEADLINE, DURATIONS_FIRST, and so on.
LAYOUTS = {"PAGE": "src/unhang/_core/page.py", "DURATIONS": "src/unhang/_core/durations.py"}
# pip keeps the wheels that it has built.
AGAIN = "then install unhang again (pip: --force-reinstall --no-cache-dir)"


def why_none() -> str:
    """Why there is no extension to build here; empty if there is one."""
    if sys.platform != "linux":
        return f"there is none for {sys.platform}"
    if sys.implementation.name != "cpython":
        return f"there is none for {sys.implementation.name}"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "there is none for Python without the GIL"
    return "" if Path(SOURCE).exists() else f"{SOURCE} is missing"


def layout() -> list[tuple[str, str | None]]:
    """The constants of the layouts as macros: the modules that have them are their one source."""
    return [
        (f"{prefix}_{name}", str(value))
        for prefix, path in LAYOUTS.items()
        for name, value in runpy.run_path(path).items()
        if name.isupper() and type(value) is int
    ]


def extension() -> Extension:
    """The extension, which sees the layouts."""
    return Extension(
        "unhang._worker._block",
        [SOURCE],
        define_macros=layout(),
        depends=[*LAYOUTS.values(), "setup.py"],
        extra_compile_args=["-std=c11", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra"],
    )


def failure() -> str:
    """What the build of the extension prints if it fails, else nothing. It goes into a directory of its own."""
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            [sys.executable, "setup.py", "build_ext", "--build-lib", directory, "--build-temp", directory],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C"},
            text=True,
            errors="replace",
            check=False,
        )
    return (done.stdout or f"exit status {done.returncode}") if done.returncode else ""


def explained(printed: str) -> str:
    """What is missing and what helps, in one line, from what a build that failed has printed."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if not shutil.which(compiler):
        return f"there is no C compiler ({compiler}). Install one, {AGAIN}."
    if "Python.h" in printed:
        return f"Python's headers are missing (Python.h). Install them (python3-dev, python3-devel), {AGAIN}."
    lines = [line.strip() for line in printed.splitlines()]
    error = next((line for line in lines if "error:" in line), lines[-1])
    return f"the C compiler fails: {error[:200]}. {REQUIRE}=1 shows all that it says."


def is_required() -> bool:
    """Whether there must be an extension."""
    return os.environ.get(REQUIRE, "").strip().lower() not in {"", "0", "false", "f", "no", "n", "off"}


class WithOptionalExtension(Distribution):
    """A distribution that drops its extension if that cannot be built.

    It does so before a command for wheels begins: the directories and the tag depend on whether there is an extension.
    """

    def run_command(self, command: str) -> None:
        """Run a command of setuptools; raises `SetupError` if the extension is required, and there is none here."""
        if command in {"bdist_wheel", "editable_wheel"}:
            self._require() if is_required() else self._try()
            # The time of a file does not tell with which flags, and for which interpreter, it was compiled.
            self.get_command_obj("build").force = True
        if command == "editable_wheel" and not self.ext_modules:
            # What an earlier one left beside the source would be used.
            Path(SOURCE).with_name("_block" + sysconfig.get_config_var("EXT_SUFFIX")).unlink(missing_ok=True)
        super().run_command(command)

    def _require(self) -> None:
        if not self.ext_modules:
            raise SetupError(f"{REQUIRE} is set, and the C extension cannot be built: {why_none()}")

    def _try(self) -> None:
        printed = failure() if self.ext_modules else ""
        if printed:
            self.ext_modules = []
            sys.stderr.write(f"unhang: its C extension is not built, plain Python is used: {explained(printed)}\n")


setup(distclass=WithOptionalExtension, ext_modules=[] if why_none() else [extension()])
