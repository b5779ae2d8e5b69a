"""A task that awaits the answer of a server which sends none."""

import asyncio
import socket

import unhang

mute = socket.create_server(("127.0.0.1", 0))


async def main() -> None:
    """Ask the server."""
    host, port = mute.getsockname()
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"hello\n")
    with unhang.expires(after=1.5, scope="ask"):
        print(await reader.readline())


asyncio.run(main())  # HANGS HERE
