"""Which program a process runs."""

import os
import subprocess

from support import until
from unhang._platform.program import is_another, program_of


def test_exec_makes_another_program_of_a_process(popen):
    """Also if it is the same one again; pid and start time stay as they are."""
    script = 'read line; exec sh -c "echo again; read line"'
    shell = popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    before = program_of(shell.pid)
    assert before is not None
    assert not is_another(before, shell.pid)
    shell.stdin.write("go on\n")
    shell.stdin.flush()
    assert shell.stdout.readline() == "again\n"
    assert is_another(before, shell.pid)


def test_a_forked_child_is_the_same_program():
    """Until it executes another."""
    before = program_of(os.getpid())
    child = os.fork()
    if child == 0:
        os._exit(is_another(before, os.getpid()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_cannot_be_read_is_not_another_program(popen):
    """Of a process that is gone, or that was not to be read at first."""
    gone = popen(["true"])
    before = program_of(os.getpid())
    until(lambda: program_of(gone.pid) is None)
    assert not is_another(before, gone.pid)
    assert not is_another(None, os.getpid())
