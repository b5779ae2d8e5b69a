"""Waits for a peer that never connects."""

import socket

import unhang

server = socket.create_server(("127.0.0.1", 0))

with unhang.expires(after=1.5, scope="rendezvous"):
    peer, address = server.accept()  # HANGS HERE
