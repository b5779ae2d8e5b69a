"""Which watchdog: `configure`, and what `expires` and `heartbeat` do with it."""

from __future__ import annotations

import errno
import os
import sys

from unhang._core.page import parse_ending
from unhang._worker.client import ADDRESS, LEARN, SharedTimerClient
from unhang._worker.flags import is_clear, says_no
from unhang._worker.implementation import Timer, accelerate, use
from unhang.errors import NoTimerClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from datetime import timedelta
    from types import FrameType
    from typing import Any

    from unhang._worker.learned import Learned
    from unhang._worker.timer import TimerBase
    from unhang.api import Expiration, TimerClient

# Where torchrun tells its workers the named pipe of its FileTimerServer.
_TORCH_PIPE = "TORCHELASTIC_TIMER_FILE"
_OBSERVE = "UNHANG_OBSERVE"

_client: Any = None  # a TimerClient or a SharedTimerClient
# What the environment named, by what it said then: threads that enter their first blocks together get one client.
_named: dict[tuple[str | None, str | None], Any] = {}
_expiration: Any = None  # the class, once it is loaded
_contract_clients: set[type] = set()  # the classes of clients with which blocks were made already, unlike shared ones
_NUMBERS = frozenset({float, int})
_getframe = sys._getframe


class _FromEnvironment:
    """Says that `configure` was given no client."""

    def __repr__(self) -> str:
        return "<from the environment>"


_FROM_ENVIRONMENT = _FromEnvironment()


def expires(
    after: float | timedelta | Learned,
    scope: str | None = None,
    client: TimerClient | SharedTimerClient | None = None,
    *,
    signal: int | str | None = None,
    grace: float | timedelta | None = None,
    pretimeout: float | timedelta | None = None,
) -> Timer | Expiration:
    """Arm a timer for a block, or for each call of a decorated function, and disarm it behind.

    ::

        with expires(after=60):
            all_reduce(x)

    If the block still runs when the timer expires, the watchdog kills this process from outside. It is not
    promised that it is killed at that very instant, see the guarantees.

    Args:
        after: the timeout, in seconds or as a ``timedelta``, from entering the block on (monotonic clock); or what
            `unhang.learned` returns, which follows from how long such blocks took before.
        scope: names the timer in the report. Default: the place of this call, as ``file:line``; of a decorated
            function, its qualified name.
        client: whom to ask; default: the one given to `configure`, else the one that the environment names
            (``UNHANG_ADDRESS``, ``TORCHELASTIC_TIMER_FILE``), looked up when the block is entered.
        signal: the signal that asks this process to end, by name or number; ``"none"``: SIGKILL at once. Default: the
            watchdog's choice, SIGTERM unless it was told otherwise. When several timers have expired, the earliest
            decides.
        grace: seconds from that signal to SIGKILL. Default: the watchdog's choice, 5 unless it was told otherwise.
        pretimeout: seconds before the deadline at which evidence is recorded, without disturbing this process; the
            block may still end in time. Default: the watchdog's choice, none unless it was told otherwise. In blocks
            shorter than a second it may be recorded up to that much later.

    With shared timers this returns a `Timer`, and every arming is a timer of its own: nested blocks and threads in
    one place do not disturb each other. With a `TimerClient` of the timer contract it does what torch's ``expires``
    does: arming a scope again replaces the timer.

    Raises:
        NoTimerClientError: (a RuntimeError) on entering, when there is no client and the environment names none.
        WatchdogLostError: on entering, if the client was told to raise when nobody watches.
        TypeError, ValueError: ``after`` is no time above 0 (contract clients take any number), ``scope`` no string,
            ``signal`` no signal, or one of the options is given with a client of the timer contract.

    Thread-safe. In a forked child, blocks that it inherited are not watched, and a new one makes it a worker of its
    own.
    """
    if client is None:
        client = _client
    if type(client) is SharedTimerClient and signal is grace is pretimeout is None:
        try:
            if scope is None:
                frame = _getframe(1)
                return Timer(client.sites[id(frame.f_code), frame.f_lasti, after])
            return Timer(client.sites[scope, after])
        except (KeyError, TypeError):
            pass
    elif (
        scope is not None
        and type(client) in _contract_clients
        and type(after) in _NUMBERS
        and signal is grace is pretimeout is None
    ):
        return _expiration(after, scope, client)  # type: ignore[no-any-return]
    options: dict[str, Any] = {}
    if not signal is grace is pretimeout is None:
        options = {"signal": signal, "grace": grace, "pretimeout": pretimeout}
    return _expires(after, scope, client, _getframe(1), options)


_SIGNATURE = "expires(after, scope=None, client=None, *, signal=None, grace=None, pretimeout=None)\n--\n\n"
# For a place or a name that it has seen before, the compiled one does it without coming here.
_plain_expires = expires
expires = accelerate(_plain_expires, SharedTimerClient, _SIGNATURE + (expires.__doc__ or ""), "unhang")


def _expires(
    after: Any, scope: str | None, client: Any, frame: FrameType, options: dict[str, Any]
) -> Timer | Expiration:
    """What `expires` does for what it has not seen before, for options, or for another kind of client."""
    if callable(after):
        raise TypeError(
            "unhang.expires has no timeout here: write its seconds in parentheses, as in `@unhang.expires(60)`"
        )
    if client is None:
        client = _named_by_environment()
    source = key = None
    if scope is None:
        source = frame.f_code
        key = (id(source), frame.f_lasti, after)
        scope = f"{source.co_filename}:{frame.f_lineno}"
    if isinstance(client, SharedTimerClient):
        return client.timer(after, scope, source, key, **options)
    if options:
        raise TypeError(f"signal, grace and pretimeout are for shared timers, not for a {type(client).__name__}")
    if hasattr(after, "budgets"):
        after = max(after.budgets(scope)) / 1e9
    block: Expiration = (_expiration or _load_expiration())(after, scope, client, is_named=source is None)
    if client is not None:
        _contract_clients.add(type(client))
    return block


def _load_expiration() -> Any:
    global _expiration  # noqa: PLW0603 - loaded once, when it is needed
    from unhang.api import Expiration

    _expiration = Expiration
    return Expiration


def timers_like(timer: TimerBase, scope: str) -> Callable[[], AbstractContextManager[object]]:
    """Makes timers like this one under a name, each of the default client then, if this one's is the default now."""
    site = timer._site
    if getattr(_client, "sites", None) is not site.slots.sites:
        site = site.slots.called(site, scope)
        return lambda: site.slots.timer(site)
    after = site.slots.learned_of(site) or timer.after
    signal, grace = parse_ending(site.ending)
    pretimeout = site.pretimeout / 1e9 or None
    return lambda: expires(after, scope, signal=signal, grace=grace, pretimeout=pretimeout)


def configure(
    timer_client: Any = _FROM_ENVIRONMENT,
    *,
    observe: bool | None = None,
    on_lost: str = "warn",
    learn: bool | str | None = None,
) -> None:
    """Choose the watchdog for this process and its children.

    Args:
        timer_client: the client that `expires` uses when it is given none. None clears it. Default: the watchdog named
            by the environment variable ``UNHANG_ADDRESS``, which ``unhang run`` sets; else, when
            ``TORCHELASTIC_TIMER_FILE`` is set, the `FileTimerServer` at that named pipe; else a watchdog of this
            process's own: another process, started now, that ends after this one, and that child processes use too.
            An address that ``unhang run`` or another program's ``configure`` has left behind when it ended names none.
        observe: ask the watchdog to tell what expires and to kill nobody. Default: the environment variable
            ``UNHANG_OBSERVE``, else no. A client that is given has its own say.
        on_lost: as for `SharedTimerClient`.
        learn: write down how long blocks take, for `unhang.learned`: the file in which a watchdog that is started for
            this keeps that, or True for ``unhang/learned.json`` in ``$XDG_STATE_HOME``, else in ``~/.local/state``. It
            sets the environment variable ``UNHANG_LEARN``. Default: what that says already; False: nothing is learned.

    Raises:
        FileNotFoundError: the directory of the file that ``learn`` names does not exist.
        NotSupportedError: there is no watchdog to be had for this process; the message says why.

    Call it once, before threads use `expires`. A forked child keeps the choice. Processes that `multiprocessing` starts
    by spawn or forkserver find the watchdog in their environment: call it before the first of them is started.
    """
    if learn is not None:
        _learn(learn)
    _leave()
    if timer_client is _FROM_ENVIRONMENT:
        observe = _observes() if observe is None else observe
        _forget_stale_address()
        if os.environ.get(ADDRESS) or os.environ.get(_TORCH_PIPE):
            timer_client = _from_environment(observe=observe, on_lost=on_lost)
        else:
            from unhang._worker import embedded  # takes longer to load than all of the rest

            timer_client = embedded.start(observe=observe, on_lost=on_lost)
        if isinstance(timer_client, SharedTimerClient):
            timer_client.connect()
    set_client(timer_client)


def _forget_stale_address() -> None:
    """Take an address out of the environment if its watchdog is gone for good: a program may outlive the one before it.

    Where somebody has chosen the address, as for ``unhang serve``, a watchdog may still come.
    """
    import logging

    from unhang._platform.socket_directory import is_for_one_run
    from unhang._worker.connection import is_deserted

    address = os.environ.get(ADDRESS, "")
    if is_for_one_run(address) and is_deserted(address):
        logging.getLogger("unhang").info("the watchdog at %s has ended: another one is used", address)
        del os.environ[ADDRESS]


def _learn(learn: bool | str) -> None:
    if learn is False:
        os.environ.pop(LEARN, None)
        return
    if learn is True:
        from unhang._worker.learned import default_path  # for those who want it

        path = default_path()
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)  # noqa: PTH103, PTH120 - as below
    else:
        path = os.path.abspath(learn)  # noqa: PTH100 - pathlib is not loaded otherwise
        if not os.path.isdir(os.path.dirname(path)):  # noqa: PTH112, PTH120 - as above
            problem = "no durations can be kept there: its directory does not exist; make it, or name another file"
            raise FileNotFoundError(errno.ENOENT, problem, path)
    os.environ[LEARN] = path


def set_client(client: Any) -> None:
    """Let `expires` use this client when it is given none; None: none."""
    global _client  # noqa: PLW0603 - one client a process is what the contract says
    _client = client
    use(client.sites if type(client) is SharedTimerClient else None)


def _leave() -> None:
    """Give up the client that the environment named, and the watchdog that `configure` started before."""
    _named.clear()
    embedded = sys.modules.get("unhang._worker.embedded")
    if embedded is not None:
        embedded.release()


def _observes() -> bool:
    said = os.environ.get(_OBSERVE, "")
    if not is_clear(said):
        import logging

        logging.getLogger("unhang").warning("%s is yes or no, not %r: nobody is killed, to be safe", _OBSERVE, said)
    return not says_no(said)


def _from_environment(*, observe: bool, on_lost: str) -> Any:
    """The client for what the environment names."""
    if os.environ.get(ADDRESS):
        return SharedTimerClient(on_lost=on_lost, observe=observe)
    from unhang._file_timer_client import FileTimerClient

    path = os.environ[_TORCH_PIPE]
    return FileTimerClient(path, signal=0) if observe else FileTimerClient(path)


def _named_by_environment() -> Any:
    """The client for what the environment names; None when it names nothing. From then on it is the default."""
    said = os.environ.get(ADDRESS), os.environ.get(_TORCH_PIPE)
    if _client is None and any(said):
        # Decided by one step that no thread and no signal handler can divide, without a lock that a fork could break.
        # A client has no connection before its first timer: those that come too late cost nothing.
        set_client(_named.setdefault(said, _named.get(said) or _from_environment(observe=_observes(), on_lost="warn")))
    return _client


def current_client() -> Any:
    """The client that `expires` uses at this moment.

    Raises:
        NoTimerClientError: there is none.
    """
    client = _named_by_environment()
    if client is None:
        raise NoTimerClientError
    return client
