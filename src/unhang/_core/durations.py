r"""How long blocks took: histograms in shared memory, one for each scope of a worker; their layout is known here alone.

A page of durations is a whole number of 8-byte words, signed, in the byte order of the host: a header of 32 words, then
records of 160 words each, one for each scope. Durations are nanoseconds of the monotonic clock, without the stretches
in which a timer was suspended. All of it is written by the worker alone. Offsets are in words:

==============  =====  =========================================================================================
header          words
==============  =====  =========================================================================================
magic           0      ``b"unhangd\0"``
version         1      1
records         2      how many follow at most: ``(size of the page - 256) // 1280``
record size     3      1280 bytes
used            4      high-water mark: records from here on were never used
left out        5      how often a slot was given to a scope for which there was no room
(none)          6-31   0
==============  =====  =========================================================================================

==============  =======  =======================================================================================
record          words
==============  =======  =======================================================================================
length          0        bytes of the scope; written last, when the record is used for the first time
budget          1        the timeout that its blocks have now
first           2        how long the first block of this process took; 0: it is not over yet
longest         3        how long the longest of the others took
(none)          4-7      0
scope           8-31     UTF-8, 192 bytes at most, as in a slot of `unhang._core.page`
buckets         32-159   how many blocks took how long, without the first one: see `bucket_of`
==============  =======  =======================================================================================

A worker costs one page of 512 KiB of address space, of which 1280 bytes for each scope are touched.
"""

from __future__ import annotations

import sys

WORD = 8
MAGIC = int.from_bytes(b"unhangd\0", "little")
VERSION = 1
PAGE_BYTES = 512 * 1024
# Bytes of all such pages of a worker.
MOST_DURATIONS = 1024 * 1024
HEADER_WORDS = 32
RECORDS, RECORD_SIZE, USED, LEFT_OUT = 2, 3, 4, 5
LENGTH, BUDGET, FIRST, LONGEST, SCOPE, BUCKETS = 0, 1, 2, 3, 8, 32
# Four buckets for each power of two, from 2**12 ns (4 µs) to 2**44 ns (almost five hours).
SHORTEST_OCTAVE = 12
BUCKET_COUNT = 128
RECORD_WORDS = BUCKETS + BUCKET_COUNT
RECORD_BYTES = RECORD_WORDS * WORD


def bucket_of(duration: int) -> int:
    """The bucket of a duration in nanoseconds: four for each power of two, all as wide, so 14 to 25 % of what is in it.

    What is shorter than 4 µs is in the first one, what is longer than some five hours in the last.
    """
    octave = duration.bit_length() - 1
    if octave < SHORTEST_OCTAVE:
        return 0
    return min((octave - SHORTEST_OCTAVE) * 4 + (duration >> (octave - 2) & 3), BUCKET_COUNT - 1)


def bounds_of(bucket: int) -> tuple[int, int]:
    """The durations that a bucket is for: from the first one on to below the second one; nanoseconds."""
    octave, quarter = divmod(bucket, 4)
    width = 1 << (octave + SHORTEST_OCTAVE - 2)
    lowest = (4 + quarter) * width
    return (0 if bucket == 0 else lowest), lowest + width


def is_of_durations(memory: memoryview) -> bool:
    """Whether memory that a worker hands over is a page of durations, and not one of timers."""
    return int.from_bytes(memory[:WORD], sys.byteorder) == MAGIC
