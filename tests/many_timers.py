"""Workers with many timers at once, of which one expires when it is told to; `start` runs them."""

import asyncio
import threading

import unhang
from workers import FOREVER

BAD = "bad handler"


def in_threads(client, count, say):
    """So many threads in a block each; says so, and lets the block expire that was entered first when told to."""
    threading.stack_size(256 * 1024)
    armed = threading.Semaphore(0)
    for number in range(count):
        handle = _expire_when_told if number == 0 else _wait
        try:
            threading.Thread(target=handle, args=(client, armed, say), daemon=True).start()
        except RuntimeError as error:
            say.send(str(error))
            return
        armed.acquire()
    say.send("armed")
    threading.Event().wait(FOREVER)


def _wait(client, armed, _):
    with unhang.expires(FOREVER, "handler", client):
        armed.release()
        threading.Event().wait(FOREVER)


def _expire_when_told(client, armed, say):
    with unhang.expires(0.1, BAD, client) as timer:
        with timer.suspended():
            armed.release()
            say.recv()
        threading.Event().wait(FOREVER)


def in_tasks(client, count, say):
    """The same, with tasks of one event loop."""
    asyncio.run(_serve(client, count, say))


async def _serve(client, count, say):
    told = asyncio.Event()
    handlers = [asyncio.create_task(_bad_handler(client, told))]
    handlers += [asyncio.create_task(_handler(client)) for _ in range(count - 1)]
    await asyncio.sleep(0)
    say.send("armed")
    await asyncio.get_running_loop().run_in_executor(None, say.recv)
    told.set()
    await asyncio.gather(*handlers)


async def _handler(client):
    with unhang.expires(FOREVER, "handler", client):
        await asyncio.sleep(FOREVER)


async def _bad_handler(client, told):
    with unhang.expires(0.1, BAD, client) as timer:
        with timer.suspended():
            await told.wait()
        await asyncio.sleep(FOREVER)


def with_many_clients(address, observes, say):
    """One client for each of these, which says whether it only observes, with a timer each; does what it is told.

    ``("expire", number)`` arms another timer of that client, which expires; ``("close", number)`` closes it.
    """
    clients = [unhang.SharedTimerClient(address, observe=observe) for observe in observes]
    timers = [client.timer(FOREVER, f"of {number}").__enter__() for number, client in enumerate(clients)]
    say.send(len(timers))
    while True:
        what, number = say.recv()
        if what == "expire":
            timers.append(clients[number].timer(0.1, f"expires of {number}").__enter__())
        else:
            clients[number].close()
        say.send("done")
