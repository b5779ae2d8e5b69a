"""A pattern that tries all ways to split a line before it gives up."""

import re

import unhang

NAMES = re.compile(r"(\w+\s?)+;")

with unhang.expires(after=1.5, scope="parse"):
    print(NAMES.match("the quick brown fox jumps over the lazy dog and runs away"))  # HANGS HERE
