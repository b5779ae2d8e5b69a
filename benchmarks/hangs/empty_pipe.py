"""Reads a pipe that stays empty, since this process itself holds its other end open."""

import os

import unhang

reader, writer = os.pipe()

with unhang.expires(after=1.5, scope="read"):
    os.read(reader, 100)  # HANGS HERE
