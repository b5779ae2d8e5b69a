"""What worker and watchdog say to each other over their socket, one message a packet.

To the watchdog: `HELLO`, with the version, the flags, the signal on which the worker writes down its stacks (0: on
none), who it says it is, and the pages attached as descriptors; `PAGE`, with more of them; `KICK`. To the worker:
`welcome`, with what the watchdog's monotonic clock shows, 8 bytes, and the file for its stacks attached; or `refused`,
with a reason as UTF-8.

A viewer asks instead: `VIEW` and JSON, see `unhang.report.live`, and is answered with JSON, or refused likewise.
"""

from __future__ import annotations

from unhang._core.identity import Identity

VERSION = 3
# Flags: this worker is not to be killed for the timers of this connection; it had lost its watchdog, and was not
# watched for a while.
OBSERVE = 1
WAS_LOST = 2

KICK = b"!"
PAGE = b"P"
VIEW = b"V"
_HELLO = b"unhang"
_WELCOME = b"W"
_REFUSED = b"R"

_CLOCK_BYTES = 8

# Bytes; a reason is cut to fit.
LONGEST = 512
# Descriptors in one message: what the kernel lets through.
MOST_DESCRIPTORS = 253
# Pages of a worker: each is twice as large as the one before, and one is of durations.
MOST_PAGES = 16


class MessageError(ValueError):
    """A packet that is no message of ours; the message says why."""


def hello(flags: int, stack_signal: int, identity: Identity) -> bytes:
    """The first message of a worker."""
    return (_HELLO + bytes((VERSION, flags, stack_signal)) + identity.encode())[:LONGEST]


def may_have_pages(message: bytes) -> bool:
    """Whether descriptors may come with it; with all other messages to the watchdog none do."""
    return message == PAGE or message.startswith(_HELLO)


def parse_hello(message: bytes) -> tuple[int, int, Identity]:
    """The flags, the signal for stacks, and who it is.

    Raises:
        MessageError: it is not the first message of a worker that speaks this version.
    """
    if not message.startswith(_HELLO) or len(message) < len(_HELLO) + 2:
        raise MessageError(f"it does not begin as a worker does: {message[:16]!r}")
    version = message[len(_HELLO)]
    if version != VERSION:
        raise MessageError(f"the worker speaks version {version}, and this watchdog version {VERSION}: update one")
    if len(message) < len(_HELLO) + 3:
        raise MessageError("its first message is cut short")
    flags, stack_signal = message[len(_HELLO) + 1 : len(_HELLO) + 3]
    return flags, stack_signal, Identity.decode(message[len(_HELLO) + 3 :])


def welcome(now: int) -> bytes:
    """The answer to a worker that is watched: nanoseconds of the watchdog's monotonic clock."""
    return _WELCOME + now.to_bytes(_CLOCK_BYTES, "little")


def refused(reason: str) -> bytes:
    """The answer to a worker that is not watched."""
    return _REFUSED + reason.encode("utf-8", "backslashreplace")[: LONGEST - 1]


def refusal(message: bytes) -> str | None:
    """Why the worker is not watched; None when it is.

    Raises:
        MessageError: it is not an answer.
    """
    if message[:1] == _WELCOME and len(message) == 1 + _CLOCK_BYTES:
        return None
    if message[:1] == _REFUSED:
        return message[1:].decode("utf-8", "replace")
    raise MessageError(f"it does not answer as a watchdog does: {message[:16]!r}")


def clock_of(answer: bytes) -> int:
    """What the watchdog's clock showed when it sent `welcome`."""
    return int.from_bytes(answer[1:], "little")
