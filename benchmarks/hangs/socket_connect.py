"""Connects to a server that is too busy to take anybody."""

import socket

import unhang

server = socket.create_server(("127.0.0.1", 0), backlog=0)
guests = [socket.socket() for _ in range(4)]
for guest in guests:
    guest.setblocking(False)
    guest.connect_ex(server.getsockname())

with unhang.expires(after=1.5, scope="connect"):
    socket.create_connection(server.getsockname())  # HANGS HERE
