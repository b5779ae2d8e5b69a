"""The page: what a worker writes is what the watchdog reads, at every step, and nothing else is taken for a page."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from support import Reentrant
from unhang._core import page
from unhang._core.page import (
    DEADLINE,
    NEVER,
    SEQUENCE,
    SMALLEST_PAGE,
    PageError,
    PageWriter,
    label,
    scope_bytes,
)
from unhang._core.page_reader import PageReader

SIZE = page.SMALLEST_PAGE
INSTANTS = st.integers(1, NEVER - 1)


def new_page():
    memory = bytearray(SIZE)
    return memory, PageWriter(memory)


def arm(slot, scope, deadline, timeout, sequence):
    label(slot, scope_bytes(scope), timeout)
    slot[SEQUENCE] = sequence
    slot[DEADLINE] = deadline


def fields(seen):
    return seen.scope, seen.deadline, seen.timeout, seen.sequence


def test_the_layout_is_what_the_docstring_says():
    """Words stand where the table has them: other implementations rely on it."""
    memory, writer = new_page()
    slot = writer.add_slot()
    arm(slot, "step", 70, 60, 5)
    words = memoryview(memory).cast("q")
    assert bytes(memory[:8]) == b"unhang\0\0"
    assert words[1:5].tolist() == [2, (SIZE - 256) // 256, 256, 1]
    assert words[32:40].tolist() == [70, 5, 60, 0, 4, 0, 0, 0]
    assert bytes(memory[256 + 64 : 256 + 68]) == b"step"
    writer.watched[0], writer.watched[1] = 11, 12
    assert words[8:10].tolist() == [11, 12]


def test_a_page_says_when_it_is_full():
    """A page of 64 KiB has 255 slots, each once."""
    _, writer = new_page()
    slots = [writer.add_slot() for _ in range(255)]
    assert all(slot is not None for slot in slots)
    assert writer.add_slot() is None


@given(st.text(max_size=400))
def test_a_scope_keeps_its_ends_and_fits(scope):
    """A scope comes out as it went in, or without its middle, and never in half a character."""
    text = scope_bytes(scope)
    assert len(text) <= page.SCOPE_BYTES
    shown = text.decode()
    whole = scope.encode("utf-8", "backslashreplace").decode()
    if len(whole.encode()) <= page.SCOPE_BYTES:
        assert shown == whole
    else:
        head, tail = shown.split("…", 1) if "…" not in whole else (shown[:20], shown[-40:])
        assert whole.startswith(head)
        assert whole.endswith(tail)


class Pages(RuleBasedStateMachine):
    """A worker arms and disarms slots of a page; the watchdog sees what a plain dictionary holds."""

    def __init__(self):
        super().__init__()
        self.memory, self.writer = new_page()
        self.reader = PageReader(memoryview(self.memory))
        self.slots = []
        self.model = {}
        self.sequences = {}

    @rule()
    def add(self):
        """A slot that was never used."""
        self.slots.append(self.writer.add_slot())

    @rule(data=st.data(), scope=st.text(max_size=40), deadline=INSTANTS, timeout=st.integers(1, 2**40))
    def arm(self, data, scope, deadline, timeout):
        """A slot that is not armed is labelled and armed."""
        idle = [index for index in range(len(self.slots)) if index not in self.model]
        if idle:
            index = data.draw(st.sampled_from(idle))
            self.sequences[index] = self.sequences.get(index, 0) + 1
            arm(self.slots[index], scope, deadline, timeout, self.sequences[index])
            expected = scope_bytes(scope).decode()
            self.model[index] = (expected, deadline, timeout, self.sequences[index])

    @rule(data=st.data())
    def disarm(self, data):
        """An armed slot is disarmed."""
        if self.model:
            index = data.draw(st.sampled_from(sorted(self.model)))
            self.slots[index][DEADLINE] |= NEVER
            del self.model[index]

    @invariant()
    def the_watchdog_sees_the_same(self):
        """Live timers, the earliest deadline, the sum of all sequences."""
        assert {seen.index: fields(seen) for seen in self.reader.live()} == self.model
        earliest = min((deadline for _, deadline, _, _ in self.model.values()), default=NEVER)
        assert min(self.reader.earliest(), NEVER) == earliest
        assert self.reader.sequence == sum(self.sequences.values())

    @rule(now=INSTANTS)
    def look(self, now):
        """What is due at an instant, and the earliest of the rest."""
        expired, earliest = self.reader.due(now)
        assert dict(expired) == {index: entry[1] for index, entry in self.model.items() if entry[1] <= now}
        assert earliest == min((entry[1] for entry in self.model.values() if entry[1] > now), default=NEVER)


TestPages = Pages.TestCase


class Spied:
    """The words of a slot; a reader looks behind every single store."""

    def __init__(self, slot, look):
        self._slot = slot
        self._look = look

    def __setitem__(self, index, value):
        self._slot[index] = value
        self._look()

    def __getitem__(self, index):
        return self._slot[index]

    def cast(self, _format):
        words, look = self._slot.cast("B"), self._look

        class Bytes:
            def __init__(self, words):
                self.words = words

            def __getitem__(self, where):
                if isinstance(where, slice) and where.stop is None:
                    return Bytes(self.words[where])
                return self.words[where]

            def __setitem__(self, where, value):
                # One byte after the other: no processor stores a text at once.
                for offset, byte in enumerate(value):
                    self.words[(where.start or 0) + offset] = byte
                    look()

        return Bytes(words)


@given(st.lists(st.tuples(st.text(max_size=30), INSTANTS, st.integers(1, 2**40)), max_size=6))
def test_a_reader_at_every_step_sees_an_arming_as_a_whole_or_not_at_all(armings):
    """Whatever the worker is in the middle of, the watchdog reads the last timer, the next, or none."""
    memory, writer = new_page()
    reader = PageReader(memoryview(memory))
    seen = []
    slot = Spied(writer.add_slot(), lambda: seen.append(reader.snapshot(0)))
    for sequence, (scope, deadline, timeout) in enumerate(armings, 1):
        arm(slot, scope, deadline, timeout, sequence)
        assert fields(seen[-1]) == (scope_bytes(scope).decode(), deadline, timeout, sequence)
        assert all(earlier is None for earlier in seen[:-1])
        slot[DEADLINE] |= NEVER
        assert seen.pop() is None
        seen.clear()


def test_a_slot_that_changes_while_it_is_read_is_read_again_later(monkeypatch):
    """A snapshot whose deadline is another one behind the text than before it is none."""
    memory, writer = new_page()
    slot = writer.add_slot()
    arm(slot, "old", 10, 1, 1)
    reader = PageReader(memoryview(memory))

    class Racing:
        def __init__(self, words):
            self.words = words

        def __getitem__(self, index):
            words = self.words[index]
            if not isinstance(index, slice):
                return words
            taken = memoryview(bytes(words)).cast("q")
            slot[DEADLINE] = 20
            return taken

    monkeypatch.setattr(reader, "_words", Racing(reader._words))
    assert reader.snapshot(0) is None
    assert reader.snapshot(0).deadline == 20


def test_is_still_tells_a_restart():
    """The same deadline of another arming is another timer."""
    memory, writer = new_page()
    slot = writer.add_slot()
    arm(slot, "x", 10, 1, 1)
    reader = PageReader(memoryview(memory))
    seen = reader.snapshot(0)
    assert reader.is_still(seen)
    arm(slot, "x", 10, 1, 2)
    assert not reader.is_still(seen)


def damaged(word, value):
    memory, _ = new_page()
    memoryview(memory).cast("q")[word] = value
    return memory


@pytest.mark.parametrize(
    ("memory", "reason"),
    [
        (bytearray(SIZE), "does not begin"),
        (bytearray(b"\xff" * SIZE), "does not begin"),
        (bytearray(4096), "4096"),
        (bytearray(SIZE + 4), str(SIZE + 4)),
        (damaged(1, 1), "version is 1"),
        (damaged(2, 254), "254 slots"),
        (damaged(2, -1), "-1 slots"),
        (damaged(3, 128), "128 bytes"),
    ],
)
def test_what_is_no_page_is_refused_with_a_reason(memory, reason):
    """Wrong size, magic, version or geometry: the message says which."""
    with pytest.raises(PageError, match=reason):
        PageReader(memoryview(memory))


@given(st.binary(min_size=2048, max_size=2048), st.integers(-(2**63), 2**63 - 1))
def test_garbage_behind_the_header_harms_nobody(garbage, used):
    """Whatever a worker writes into its slots, reading them ends without an error."""
    memory, _ = new_page()
    memory[256 : 256 + len(garbage)] = garbage
    memoryview(memory).cast("q")[page.USED] = used
    reader = PageReader(memoryview(memory))
    reader.earliest()
    expired, _ = reader.due(2**61)
    assert all(0 < deadline <= 2**61 for _, deadline in expired)
    list(reader.live())
    assert isinstance(reader.sequence, int)
    reader.promise(1, 2)
    reader.close()


def test_a_slot_that_is_added_in_the_middle_of_another_one():
    """Each gets a place of its own, and the reader sees both."""
    memory = bytearray(SMALLEST_PAGE)
    page = PageWriter(memory)
    slots = []
    page._words = Reentrant(page._words, lambda: slots.append(page.add_slot()))
    slots.append(page.add_slot())
    for number, slot in enumerate(slots):
        slot[DEADLINE] = number + 1
    reader = PageReader(memoryview(memory))
    assert sorted(seen.deadline for seen in reader.live()) == [1, 2]
