"""Memory that two processes share through a descriptor, and that cannot be cut short (``memfd_create``, Linux)."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import sys

from unhang._core.page import LARGEST_PAGE, SMALLEST_PAGE, PageError
from unhang._platform.descriptor import STREAMS, past_streams, streams_of

# Bytes for the stacks that a worker writes down itself: a hundred threads have some 40 KiB.
STACKS_SIZE = 64 * 1024
# Each as the shell's `ulimit` has it, where a process has one of its own. A memfd counts as a file for -f.
_LIMITS = {
    errno.EMFILE: "`ulimit -n`",
    errno.ENFILE: "`sysctl fs.file-max`",
    errno.EFBIG: "`ulimit -f`",
    errno.ENOMEM: "`ulimit -v` and the memory of the control group",
}


def create(size: int) -> tuple[int, mmap.mmap]:
    """Zeroed memory whose size is sealed, as a descriptor and mapped.

    Raises:
        OSError: there is none to be had, or this process is short of descriptors.
    """
    fd = _sealed("unhang-page", size)
    try:
        return fd, _map(fd, size)
    except BaseException:
        os.close(fd)
        raise


def why_not(error: OSError) -> str:
    """Why there is no such memory, with the limit that is met."""
    limit = _LIMITS.get(error.errno or 0)
    return f"{error.strerror}, see {limit}" if limit else str(error.strerror)


def create_stack_file() -> int:
    """A file for a worker's stacks, as a descriptor. Copies of it share its position; nobody can resize it.

    Raises:
        OSError: as for `create`.
    """
    return _sealed("unhang-stacks", STACKS_SIZE)


def _sealed(name: str, size: int) -> int:
    fd = past_streams(os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    try:
        os.ftruncate(fd, 0)  # of what another thread printed before it was past the streams
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(fd)
        raise
    return fd


if sys.version_info >= (3, 13):

    def _map(fd: int, size: int, prot: int = mmap.PROT_READ | mmap.PROT_WRITE) -> mmap.mmap:
        return mmap.mmap(fd, size, prot=prot, trackfd=False)

else:

    def _map(fd: int, size: int, prot: int = mmap.PROT_READ | mmap.PROT_WRITE) -> mmap.mmap:
        """Map it. The copy of the descriptor that Python keeps with each mapping is no standard stream either."""
        made = [mmap.mmap(fd, size, prot=prot)]
        while len(made) <= len(STREAMS) and streams_of(fd) == len(made):
            made.append(mmap.mmap(fd, size, prot=prot))
        memory = made.pop()
        for one in made:
            one.close()
        return memory


def to_read(fd: int) -> int:
    """Another descriptor of the same memory, through which it can be read and not written.

    Raises:
        OSError: there is none to be had, or no procfs.
    """
    return past_streams(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC))


def map_to_read(fd: int) -> mmap.mmap:
    """Map what a watchdog hands on: memory that it has checked. The descriptor may be closed afterwards.

    Raises:
        OSError, ValueError: it cannot be mapped.
    """
    return _map(fd, os.fstat(fd).st_size, prot=mmap.PROT_READ)


def check_sealed(fd: int) -> int:
    """Look at what somebody else has sent, without mapping it; returns its size.

    What passes is closed in no time: it cannot grow to a size that takes long to give back.

    Raises:
        PageError: it was not made by `create`. Unsealed memory could be cut short, and a process that reads past its
            end dies of SIGBUS.
    """
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        raise PageError("it is not memory that can be sealed") from None
    if not seals & fcntl.F_SEAL_SHRINK or not seals & fcntl.F_SEAL_GROW:
        raise PageError("its size is not sealed")
    if os.fstatvfs(fd).f_bsize != mmap.PAGESIZE:
        # A page of them may not be there when it is touched, which is SIGBUS too.
        raise PageError("it is made of huge pages")
    if seals & fcntl.F_SEAL_WRITE:
        raise PageError("it is sealed against writing")
    size = os.fstat(fd).st_size
    if not SMALLEST_PAGE <= size <= LARGEST_PAGE:
        raise PageError(f"a page has {SMALLEST_PAGE} to {LARGEST_PAGE} bytes, this has {size}")
    if size % mmap.PAGESIZE:
        raise PageError(f"its size is not a multiple of {mmap.PAGESIZE}")
    return size


def map_sealed(fd: int) -> mmap.mmap:
    """Map what somebody else made by `create`. The descriptor may be closed afterwards.

    Raises:
        PageError: it is not such memory, or cannot be mapped.
    """
    size = check_sealed(fd)
    try:
        return _map(fd, size)
    except (OSError, ValueError) as error:
        raise PageError(f"it cannot be mapped: {error}") from None
