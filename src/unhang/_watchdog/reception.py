"""The watchdog's side of the connections: who comes in, what they hand over, when they are gone."""

from __future__ import annotations

import array
import contextlib
import functools
import logging
import os
import resource
import signal
import socket
from dataclasses import dataclass, field

from unhang._core import real_time as time
from unhang._core.durations import MOST_DURATIONS, is_of_durations
from unhang._core.messages import (
    KICK,
    MOST_PAGES,
    OBSERVE,
    PAGE,
    VIEW,
    WAS_LOST,
    MessageError,
    parse_hello,
    refused,
    welcome,
)
from unhang._core.page import MOST_BYTES, PageError
from unhang._core.page_reader import PageReader
from unhang._core.tally import Tally
from unhang._platform import memfd
from unhang._platform.credentials import peer_credentials
from unhang._platform.descriptor import OwnFd
from unhang._platform.disposal import Disposal
from unhang._platform.fork import close_in_child
from unhang._platform.listener import Listener, receive
from unhang._platform.memory_group import MemoryGroup
from unhang._platform.process import ProcessHandle, has_another_clock
from unhang._platform.program import program_of
from unhang._platform.waiter import Waiter
from unhang._watchdog.kill import refusal_of
from unhang._watchdog.response import Response
from unhang._watchdog.viewers import Shown, Viewer, Viewers
from unhang._watchdog.watched import Origin, Watched
from unhang._worker.implementation import fence

logger = logging.getLogger(__name__)

# Seconds in which a connection has to say who it is, and how many may be silent at once.
_SILENCE = 5.0
_MOST_SILENT = 256
# Messages of one worker in one beat. It kicks when a deadline is earlier than all others: this many are no accident.
_MOST_MESSAGES = 1000
# Connections accepted in one turn; the others wait for the next.
_AT_ONCE = 64
# Descriptors for each worker: its socket, its pidfd, its first pages, one of each for viewers, the file for its stacks,
# two more pidfds while it is dealt with; and the part of all that workers may take.
_FDS_A_WORKER = 8
_SHARE = 0.8
_MOST_VIEWERS = 32
# Questions of a viewer in one beat: so many answers tell all of ten thousand workers.
_MOST_ASKED = 400
# Seconds behind its last question from which on a viewer makes room for another one.
_IDLE = 10.0


# Pid and start time, and which program it runs: exec changes nothing else.
_Process = tuple[int, float, bytes | None]


@dataclass(eq=False, slots=True)
class _Peer:
    """One connection. What it has handed over goes with it; a worker goes with its last one."""

    socket: socket.socket
    since: float
    watched: Watched
    refusal: str | None
    origin: Origin
    process: _Process = (0, 0.0, None)  # once it is watched
    welcome: bool = False
    observed: bool = False
    messages: int = 0
    muted: bool = False
    viewer: Viewer | None = None
    shown: Shown | None = None
    pages: list[PageReader] = field(default_factory=list)
    handed_over: int = 0
    durations_bytes: int = 0
    fd: int = field(init=False)

    def __post_init__(self) -> None:
        self.fd = self.socket.fileno()


class _RefusedError(Exception):
    """The worker is not to be watched; the message says why."""


class Reception:
    """Connections of workers. It belongs to the server's loop.

    Args:
        listener: where they come in.
        waiter: what the loop waits with.
        response: whom to tell about workers and their pages.
        viewers: answers viewers.
        users: whose processes are let in.
        observe: whether no worker is ever to be killed.
    """

    def __init__(
        self,
        listener: Listener,
        waiter: Waiter,
        response: Response,
        viewers: Viewers,
        users: frozenset[int],
        *,
        observe: bool,
    ) -> None:
        self._listener = listener
        self._waiter = waiter
        self._response = response
        self._watch = response.watch
        self._viewers = viewers
        self._users = users
        self._observe = observe
        self._peers: dict[int, _Peer] = {}  # by descriptor, the oldest first
        self._silent: dict[int, _Peer] = {}
        # Those of workers, by process, the oldest first.
        self._processes: dict[_Process, list[_Peer]] = {}
        response.tell_damage = self._tell_damage
        response.forget_program = self._forget_program
        self.limits_met = Tally(lambda kind, detail: logger.warning("Limit met: %s: %s", kind, detail))
        self._owner = os.getpid()
        self._disposal = Disposal()
        self._lets_in = True
        waiter.call(listener.fileno(), self._accept)
        close_in_child(self)

    def most(self) -> int:
        """How many connections there may be."""
        return int(resource.getrlimit(resource.RLIMIT_NOFILE)[0] * _SHARE) // _FDS_A_WORKER

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if not self._disposal.has_room():
                self.limits_met.add("connections to close", "they hold descriptors that are slow to close; others wait")
                return self._shut()
            try:
                new = self._listener.accept(self._disposal)
            except OSError as error:
                self.limits_met.add("descriptors", f"a connection was turned away: {error.strerror}")
                return None if self._listener.can_turn_away() else self._shut()
            if new is None:
                return None
            try:
                self._admit(new)
            except OSError as error:
                self.limits_met.add("worker not identified", str(error))
                self._disposal.hang_up(new)
        return None

    def _shut(self) -> None:
        """Let nobody in until the next beat."""
        self._lets_in = False
        self._waiter.forget(self._listener.fileno())

    def _admit(self, new: socket.socket) -> None:
        """Find out who has connected, before anything is read."""
        self._make_room()
        pid, user = peer_credentials(new)
        handle = None
        reason = self._why_not(user)
        if reason is None:
            handle = ProcessHandle.of_peer(new)
            reason = self._why_not_watched(pid, handle)
        origin = Origin(user=user)
        peer = _Peer(new, time.monotonic(), Watched(pid, handle, origin=origin), reason, origin)
        self._waiter.call(peer.fd, functools.partial(self._hear, peer))
        self._peers[peer.fd] = self._silent[peer.fd] = peer
        if handle is not None and handle.fd >= 0:
            self._waiter.call_once(handle.fd, functools.partial(self._exited, peer))

    def _why_not(self, user: int) -> str | None:
        if user not in self._users:
            return f"user {user} is not served here, only {', '.join(map(str, sorted(self._users)))}"
        if len(self._peers) >= self.most():
            return f"there are {len(self._peers)} connections already; raise the limit of open files (ulimit -n)"
        return None

    def _why_not_watched(self, pid: int, handle: ProcessHandle | None) -> str | None:
        if handle is None:
            return f"pid {pid} cannot be seen from here: it is gone, or in a pid namespace that does not contain it"
        if has_another_clock(pid):
            return f"pid {pid} is in another time namespace, where the monotonic clock shows another time"
        return refusal_of(handle, self._users)

    def _make_room(self) -> None:
        """Let the oldest go that says nothing, if there are too many."""
        if self._silent and (len(self._silent) >= _MOST_SILENT or len(self._peers) >= self.most()):
            self.limits_met.add("silent connections", f"more than {_MOST_SILENT} at once; the oldest are closed")
            strangers = (peer for peer in self._silent.values() if self._is_stranger(peer))
            self._leave(next(strangers, None) or next(iter(self._silent.values())))

    def _is_stranger(self, peer: _Peer) -> bool:
        """Whether it belongs to a user who may neither be watched nor look."""
        return peer.origin.user not in self._users | {os.geteuid(), 0}

    def _hear(self, peer: _Peer) -> None:
        """Read what a worker says; then look at its pages, once."""
        try:
            if self._is_stranger(peer):
                self._refuse(peer)  # without a look at what it has sent
            while self._hear_one(peer):
                pass
        except BlockingIOError:
            if peer.welcome:
                self._watch.kicked(peer.watched)
        except (MessageError, PageError, _RefusedError) as error:
            if not isinstance(error, _RefusedError):
                self.limits_met.add("bad message", f"pid {peer.watched.pid}: {error}")
            _answer(peer.socket, refused(str(error)))
            self._leave(peer)
        except OSError:
            self._leave(peer)
        except Exception:
            # A fault of ours; whoever has found it has to go, so that nobody else is kept waiting by it.
            logger.exception("Error in a message of pid %s", peer.watched.pid)
            self._leave(peer)

    def _hear_one(self, peer: _Peer) -> bool:
        """Read one message; False when no more is to be read now."""
        message, fds = receive(peer.socket, self._disposal)
        try:
            if not message:
                self._leave(peer)
                return False
            peer.messages += 1
            if peer.viewer is not None or (not peer.welcome and message.startswith(VIEW)):
                return self._show(peer, message)
            if not peer.welcome:
                self._greet(peer, message, fds)
            elif message == PAGE:
                self._take_more(peer, fds)
            elif message != KICK:
                raise MessageError(f"it is none of ours: {message[:16]!r}")
        finally:
            for fd in fds:
                os.close(fd)
        if peer.messages <= _MOST_MESSAGES:
            return True
        self._mute(peer)
        return False

    def _greet(self, peer: _Peer, message: bytes, fds: list[int]) -> None:
        flags, stack_signal, identity = parse_hello(message)
        self._refuse(peer)
        peer.observed = self._observe or bool(flags & OBSERVE)
        readable = self._take_pages(peer, fds)
        peer.welcome = True
        del self._silent[peer.fd]
        origin = peer.origin
        origin.identity = identity
        origin.memory = MemoryGroup.of(peer.watched.pid)
        origin.memory_kills = None if origin.memory is None else origin.memory.kills()
        if signal.SIGRTMIN < stack_signal <= signal.SIGRTMAX:
            origin.stack_signal, origin.stack_file = stack_signal, _stack_file()
        is_new = self._join(peer)
        # Descriptors that others have not taken yet may be too many: then it has to do without a file for its stacks.
        answer = welcome(time.monotonic_ns())
        if not _answer(peer.socket, answer, origin.stack_file):
            _answer(peer.socket, answer)
        was_lost = bool(flags & WAS_LOST)
        peer.shown = self._viewers.joined(peer.watched, readable, returned=was_lost, observed=peer.observed)
        if is_new:
            self._response.came(peer.watched, was_lost=was_lost)

    def _refuse(self, peer: _Peer) -> None:
        """Raise if this worker is not to be watched: not before it has said something, so that it hears the answer."""
        if peer.refusal is not None:
            self.limits_met.add("refused", peer.refusal)
            raise _RefusedError(peer.refusal)

    def _join(self, peer: _Peer) -> bool:
        """Watch a worker, or more of one that is watched already: a process is one worker; returns whether it is new.

        What it said last about itself counts.
        """
        handle = peer.watched.handle
        assert handle is not None  # noqa: S101 - for the type checker: who has none is refused
        peer.watched.program = program_of(peer.watched.pid)
        peer.process = (peer.watched.pid, handle.start_time, peer.watched.program)
        others = self._processes.setdefault(peer.process, [])
        others.append(peer)
        if len(others) == 1:
            self._watch.join(peer.watched)
        else:
            self._let_go(peer)
            peer.watched = others[0].watched
            peer.watched.origin = peer.origin
        for page in peer.pages:
            peer.watched.timers.add(page)
        self._watch.kicked(peer.watched)
        return len(others) == 1

    def _take_more(self, peer: _Peer, fds: list[int]) -> None:
        """Pages of a worker that is watched already."""
        known = len(peer.pages)
        readable = self._take_pages(peer, fds)
        for page in peer.pages[known:]:
            peer.watched.timers.add(page)
        if peer.shown is not None:
            self._viewers.has_more(peer.shown, readable)

    def _take_pages(self, peer: _Peer, fds: list[int]) -> list[OwnFd]:
        """Take pages over; returns descriptors for viewers."""
        readable = []
        for fd in fds:
            memory = memoryview(memfd.map_sealed(fd))
            if is_of_durations(memory):
                peer.durations_bytes += len(memory)
            else:
                peer.pages.append(PageReader(memory, fence, observed=peer.observed))
            peer.handed_over += 1
            if sum(page.size for page in peer.pages) > MOST_BYTES:
                raise PageError(f"a client has {MOST_BYTES} bytes of pages at most")
            if peer.handed_over > MOST_PAGES or peer.durations_bytes > MOST_DURATIONS:
                raise PageError(f"a client has {MOST_PAGES} pages at most, {MOST_DURATIONS} bytes of durations")
            with contextlib.suppress(OSError):  # nobody gets to see it then
                readable.append(OwnFd(memfd.to_read(fd)))
        return readable

    def _show(self, peer: _Peer, message: bytes) -> bool:
        """Answer a viewer: somebody of this user's, or root."""
        if peer.viewer is None:
            if peer.watched.origin.user not in {os.geteuid(), 0}:
                raise _RefusedError("only the user of the watchdog, and root, may look")
            self._make_room_to_look()
            peer.viewer = Viewer()
            self._viewers.came()
            self._silent.pop(peer.fd, None)
        peer.viewer.asked_at = time.monotonic()
        answer, pages = self._viewers.answer(peer.viewer, message[len(VIEW) :])
        if not _answer(peer.socket, answer, *pages):
            self._leave(peer)
            return False
        if peer.messages > _MOST_ASKED:
            self._mute(peer)
        # One answer a turn: it costs more than a kick, and deadlines come first.
        return False

    def _make_room_to_look(self) -> None:
        """Let a viewer go that has not asked for a while, if there are too many."""
        if self._viewers.count < _MOST_VIEWERS:
            return
        asked_at, fd = min((peer.viewer.asked_at, fd) for fd, peer in self._peers.items() if peer.viewer is not None)
        if asked_at > time.monotonic() - _IDLE:
            raise _RefusedError(f"{_MOST_VIEWERS} others are looking already")
        self._leave(self._peers[fd])

    def _mute(self, peer: _Peer) -> None:
        """Read no more of this worker until the next beat. Its timers are looked at all the same."""
        most = _MOST_ASKED if peer.viewer is not None else _MOST_MESSAGES
        self.limits_met.add("messages", f"pid {peer.watched.pid} sent more than {most} in a second")
        peer.muted = True
        self._waiter.forget(peer.fd)
        if peer.welcome:
            self._watch.kicked(peer.watched)

    def tidy(self) -> None:
        """Once a beat: hear everybody again, and close what has been silent for too long."""
        self._viewers.tidy()
        if not self._lets_in and self._disposal.has_room():
            self._lets_in = True
            self._waiter.call(self._listener.fileno(), self._accept)
        for peer in self._peers.values():
            peer.messages = 0
            if peer.muted:
                peer.muted = False
                self._waiter.call(peer.fd, functools.partial(self._hear, peer))
        old = time.monotonic() - _SILENCE
        for peer in [peer for peer in self._silent.values() if peer.since < old]:
            self._leave(peer)

    def _tell_damage(self, worker: Watched, why: str) -> None:
        self.limits_met.add("damaged page", f"pid {worker.pid}: {why}; nobody is killed for that timer")

    def _forget_program(self, worker: Watched) -> None:
        """Its timers were those of a program that ended with exec; somebody has copies of the sockets."""
        for peer in [peer for peer in self._peers.values() if peer.watched is worker and peer.welcome]:
            self._leave(peer)

    def _exited(self, peer: _Peer) -> None:
        """The process is gone, and with it all its connections."""
        for each in list(self._processes.get(peer.process, ())) or [peer]:
            self._leave(each)

    def _leave(self, peer: _Peer) -> None:
        """The worker has exited, or hung up, or has to go. May be called twice."""
        if self._peers.pop(peer.fd, None) is None:
            return
        self._silent.pop(peer.fd, None)
        # First of all: a connection that is not forgotten would wake the loop for ever.
        self._waiter.forget(peer.fd)
        others = self._others(peer)
        try:
            if peer.viewer is not None:
                self._viewers.count -= 1
            elif not others:
                self._response.leave(peer.watched)
            else:
                peer.watched.timers.remove(peer.pages)
                peer.watched.origin = others[-1].origin
                self._watch.kicked(peer.watched)
            if peer.shown is not None:
                self._viewers.left(peer.shown)
        finally:
            if not others:
                self._let_go(peer)
            self._disposal.hang_up(peer.socket)

    def _others(self, peer: _Peer) -> list[_Peer]:
        """The other connections of the same worker; this one is none of it any more."""
        peers = self._processes.get(peer.process, [])
        if peer in peers:
            peers.remove(peer)
            if not peers:
                del self._processes[peer.process]
        return peers

    def _let_go(self, peer: _Peer) -> None:
        """Give back what its process was known by."""
        handle = peer.watched.handle
        if handle is not None:
            if handle.fd >= 0:
                self._waiter.forget(handle.fd)
            handle.close()

    def close(self) -> None:
        """Hang up on everybody, and stop listening. In a forked child: give back its copies of the descriptors."""
        if os.getpid() != self._owner:
            self._viewers.close()
            for peer in self._peers.values():
                peer.socket.close()
                if peer.watched.handle is not None:
                    peer.watched.handle.close()
            return
        self._waiter.forget(self._listener.fileno())
        self._listener.close()
        for peer in list(self._peers.values()):
            self._leave(peer)

    def __len__(self) -> int:
        return len(self._watch.workers)


def _stack_file() -> OwnFd | None:
    try:
        return OwnFd(memfd.create_stack_file())
    except OSError:
        return None


def _answer(peer: socket.socket, message: bytes, *files: OwnFd | None) -> bool:
    """Send a message, and descriptors with it; returns whether it could be sent."""
    fds = array.array("i", [file.fd for file in files if file is not None])
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else []
    try:
        peer.sendmsg([message], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except OSError:
        return False
    return True
