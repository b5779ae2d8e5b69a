"""A coroutine that blocks the event loop with an ordinary sleep."""

import asyncio
import time

import unhang


async def poll() -> None:
    """Wait as a thread would."""
    time.sleep(600)  # noqa: ASYNC251 - the fault  # HANGS HERE


async def main() -> None:
    """Poll beside other work."""
    with unhang.expires(after=1.5, scope="poll"):
        await asyncio.gather(poll(), asyncio.sleep(0.1))


asyncio.run(main())
