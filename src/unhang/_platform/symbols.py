"""Whether the names of C functions of a process's interpreter can be found: distributions strip them from the file."""

from __future__ import annotations

import functools
import os
import re
import struct

_LARGEST_MAPS = 4 << 20
_LIBRARY = re.compile(rb" (/[^\n]*/libpython3[^/\n]*\.so[^/\n]*)$", re.MULTILINE)
_SYMTAB = 2
_MOST_SECTIONS = 512


def has_symbols(pid: int) -> bool:
    """Whether the file that holds the interpreter of a process has a table of its symbols.

    May not come back for a process that is stuck in the kernel: see `unhang._platform.patience`.

    Raises:
        OSError: that may not be read.
    """
    with open(f"/proc/{pid}/maps", "rb", buffering=0) as file:
        library = _LIBRARY.search(file.read(_LARGEST_MAPS))
    path = os.path.join(f"/proc/{pid}/root", os.fsdecode(library[1]).lstrip("/")) if library else f"/proc/{pid}/exe"
    status = os.stat(path)
    return _has_symtab(path, status.st_dev, status.st_ino, status.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _has_symtab(path: str, *_identity: int) -> bool:
    """Whether a section of a 64-bit ELF file is a symbol table."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        header = os.pread(fd, 64, 0)
        if len(header) < 64 or header[:5] != b"\x7fELF\x02":
            return False
        (start,) = struct.unpack_from("=Q", header, 40)
        size, count = struct.unpack_from("=HH", header, 58)
        table = os.pread(fd, size * min(count, _MOST_SECTIONS), start) if start < 1 << 62 else b""
    finally:
        os.close(fd)
    places = range(0, len(table) - 7, max(size, 8))
    return any(struct.unpack_from("=I", table, place + 4)[0] == _SYMTAB for place in places)
