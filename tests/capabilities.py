"""What tests need of the machine that they run on, and what is skipped where it is missing.

``UNHANG_TESTS_MAY_LACK`` says what may be missing, as names with commas between; for anything else a test fails then.
Unless it is set, all may be missing.
"""

import functools
import importlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig

import pytest

_MAY_LACK = os.environ.get("UNHANG_TESTS_MAY_LACK")
# A namespace of mounts, in which tests may mount what they like; process 1 of a pid namespace, as in a container.
MOUNTS = ("--mount",)
CONTAINER = ("--pid", "--fork", "--mount-proc", "--kill-child")


def lacks(capability, why, **where):
    """Skip the test: this machine lacks something; fail it where nobody has said that it may."""
    if _MAY_LACK is not None and capability not in _MAY_LACK.split(","):
        pytest.fail(f"this machine lacks what UNHANG_TESTS_MAY_LACK does not name: {capability}: {why}", pytrace=False)
    pytest.skip(f"needs {capability}: {why}", **where)


def is_not_for_this(what, **where):
    """Skip what has no meaning for this interpreter, processor or choice, whatever the machine has."""
    pytest.skip(what, **where)


def extension(**where):
    """The compiled block: skipped where there is none for this interpreter, failed where it could have been built."""
    if sys.platform != "linux" or sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        is_not_for_this("there is no extension for this interpreter", **where)
    try:
        return importlib.import_module("unhang._worker._block")
    except ImportError as error:
        compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
        if shutil.which(compiler) is None or not os.path.exists(f"{sysconfig.get_path('include')}/Python.h"):
            lacks("compiler", f"{compiler} and Python.h, for the extension", **where)
        pytest.fail(f"the extension is not built, `make test` does it: {error}", pytrace=False)


def other_user():
    """The uid of another user, for tests that can become that one."""
    if os.geteuid() != 0 or not _is_mapped(65534):
        lacks("root", "to become another user")
    return 65534


def _is_mapped(user):
    """Whether there is this user here: root of a user namespace may be its only one."""
    with open("/proc/self/uid_map") as ranges:
        return any(first <= user < first + count for first, _, count in (map(int, line.split()) for line in ranges))


def unshare(*flags):
    """The start of a command that runs the rest of it as root of namespaces of its own."""
    found = _unshare(flags)
    if isinstance(found, str):
        lacks("namespaces", found)
    return found


@functools.cache
def _unshare(flags):
    tried = []
    for users in ([], ["--user", "--map-root-user"]):
        command = ["unshare", *users, *flags]
        try:
            done = subprocess.run([*command, "true"], capture_output=True, text=True, timeout=30, check=False)
        except FileNotFoundError:
            return "there is no unshare"
        if done.returncode == 0:
            return command
        tried.append(done.stderr.strip())
    return f"unshare is refused: {'; '.join(tried)}"
