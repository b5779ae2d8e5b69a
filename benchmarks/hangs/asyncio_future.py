"""A task that awaits a result which nobody will set."""

import asyncio

import unhang


async def main() -> None:
    """Wait for a reply."""
    reply: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    with unhang.expires(after=1.5, scope="reply"):
        print(await reply)


asyncio.run(main())  # HANGS HERE
