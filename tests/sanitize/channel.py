"""A channel to nobody: pages in memory of this process, which a test reads itself."""

import mmap

import unhang
from unhang._core.duration_pages import DurationWriter
from unhang._core.page import PageWriter
from unhang._core.page_reader import PageReader


class Channel:
    """See `unhang._worker.slots.Channel`.

    Args:
        memory: of the first page, shared with another process; None: each page is memory of its own.

    Attributes:
        told: how often the watchdog would have been told.
    """

    def __init__(self, memory=None):
        self._first = memory
        self._readers = []
        self.told = 0

    def new_page(self, size):
        memory, self._first = self._first or mmap.mmap(-1, size), None
        writer = PageWriter(memoryview(memory))
        self._readers.append(PageReader(memoryview(memory)))
        return writer

    def new_durations(self, size):
        return DurationWriter(memoryview(mmap.mmap(-1, size)))

    def attend(self, watched, deadline):
        self.told += 1
        return True

    def connect(self):
        return None

    def tell(self): ...

    def abandon(self):
        self._readers = []

    def live(self):
        """The scopes that are armed."""
        return [timer.scope for reader in self._readers for timer in reader.live()]

    @property
    def used(self):
        """How many slots were ever used."""
        return sum(reader.used for reader in self._readers)

    @property
    def sequence(self):
        """How often timers were armed."""
        return sum(reader.sequence for reader in self._readers)


def client_over(channel, clock, made_of=None, *, learn=False):
    """A client over it, which is this process's default from now on."""
    made_of = () if made_of is None else (made_of,)
    client = unhang.SharedTimerClient._over(channel, clock, *made_of, learn=learn)
    unhang.configure(client)
    return client
