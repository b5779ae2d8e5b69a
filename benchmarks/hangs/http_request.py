"""Asks a server that takes the connection and never answers."""

import socket
import urllib.request

import unhang

mute = socket.create_server(("127.0.0.1", 0))
port = mute.getsockname()[1]

with unhang.expires(after=1.5, scope="download"):
    urllib.request.urlopen(f"http://127.0.0.1:{port}/weights")  # HANGS HERE
