"""Faults 15 and 16: the watchdog is killed and started again, and the watchdog is stopped for a while."""

from __future__ import annotations

import signal
import threading
import time
from multiprocessing.connection import Connection

from chaos_shared_stage import finish_when_told, watched_on
from chaos_stage import HANG, BrokenScenarioError, Outcome, Server, Stage, idle

# Seconds that workers give a watchdog that does not look, with some to spare: it had promised to look within one
# second, and is looked for a second and a half behind that. Who arms then finds the new one.
NOTICED = 3.5
# Seconds that the watchdog is stopped, and then until the blocks are left that were due meanwhile.
STOPPED = 10.0
AFTERWARDS = 1.0
WORKERS, THREADS = 10, 10


def killed_and_restarted(stage: Stage) -> Outcome:
    """Workers in blocks and between them; who arms again is watched again, with the outer timers as they were."""
    old = stage.serve()
    hang = [stage.worker(_arm_inner_and_hang, after) for after in (8.0, 8.5)]
    hang += [stage.worker(_arm_all_the_time, 9.0), stage.worker(_hang_between, 1.0)]
    innocents = [stage.worker(finish_when_told, 2.5), stage.worker(_arm_inner_and_leave, 8.0)]
    for worker in [*hang, *innocents]:
        worker.hear()
    _kill(old)
    server = stage.serve()
    time.sleep(NOTICED)
    for worker in [*hang, *innocents]:
        worker.pipe.send("go on")
    return watched_on(server, hang, innocents)


def _kill(server: Server) -> None:
    server.send_signal(signal.SIGKILL)
    if not server.dead_within(1):
        raise BrokenScenarioError("the server cannot be killed")


def due_meanwhile(stage: Stage) -> Outcome:
    """A thread hangs, and is due while there is no watchdog; another thread then arms again."""
    old = stage.serve()
    worker = stage.worker(_hang_beside_thread, 2.0)
    worker.hear()
    _kill(old)
    time.sleep(NOTICED)
    server = stage.serve()
    worker.pipe.send("go on")
    return watched_on(server, [worker], [])


def _hang_beside_thread(stage: Stage, after: float, pipe: Connection) -> None:
    client, hangs = stage.client(), threading.Event()

    def hang() -> None:
        with stage.api.expires(after=after, scope="hangs", client=client):
            hangs.set()
            time.sleep(HANG)

    threading.Thread(target=hang).start()
    hangs.wait()
    _await_word(pipe)
    # The watchdog knows from here on.
    pipe.send(time.monotonic())
    with stage.api.expires(after=HANG, scope="beside", client=client):
        time.sleep(HANG)


def _arm_inner_and_hang(stage: Stage, after: float, pipe: Connection) -> None:
    client, deadline = stage.client(), time.monotonic() + after
    with stage.api.expires(after=after, scope="outer", client=client):
        _await_word(pipe)
        with stage.api.expires(after=HANG, scope="inner", client=client):
            pass
        pipe.send(deadline)
        time.sleep(HANG)


def _await_word(pipe: Connection) -> None:
    pipe.send("armed")
    pipe.recv()


def _arm_all_the_time(stage: Stage, after: float, pipe: Connection) -> None:
    client, deadline = stage.client(), time.monotonic() + after
    with stage.api.expires(after=after, scope="outer", client=client):
        pipe.send("armed")
        while not pipe.poll(0.01):
            with stage.api.expires(after=HANG, scope="inner", client=client):
                pass
        pipe.send(deadline)
        time.sleep(HANG)


def _hang_between(stage: Stage, after: float, pipe: Connection) -> None:
    client = stage.client()
    with stage.api.expires(after=HANG, scope="before", client=client):
        pass
    _await_word(pipe)
    pipe.send(time.monotonic() + after)
    with stage.api.expires(after=after, scope="hangs", client=client):
        time.sleep(HANG)


def _arm_inner_and_leave(stage: Stage, after: float, pipe: Connection) -> None:
    client = stage.client()
    with stage.api.expires(after=after, scope="outer", client=client):
        _await_word(pipe)
        with stage.api.expires(after=HANG, scope="inner", client=client):
            pass
    idle(stage, pipe)


def stopped_meanwhile(stage: Stage) -> Outcome:
    """A hundred timers are due while the watchdog is stopped, and are disarmed soon after it goes on."""
    server = stage.serve()
    innocents = [stage.worker(_hold_many) for _ in range(WORKERS)]
    for worker in innocents:
        worker.hear()
    server.await_timers(WORKERS * THREADS)
    server.stop()
    time.sleep(STOPPED)
    server.send_signal(signal.SIGCONT)
    time.sleep(AFTERWARDS)
    for worker in innocents:
        worker.pipe.send("leave")
    return watched_on(server, [stage.hung(0.5)], innocents, f"; {WORKERS * THREADS} timers were due meanwhile")


def _hold_many(stage: Stage, pipe: Connection) -> None:
    client, leave = stage.client(), threading.Event()

    def hold(after: float) -> None:
        with stage.api.expires(after=after, scope=f"thread of {after:g} s", client=client):
            leave.wait()

    threads = [threading.Thread(target=hold, args=(STOPPED * (0.3 + 0.05 * n),)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    _await_word(pipe)
    leave.set()
    for thread in threads:
        thread.join()
    idle(stage, pipe)
