"""Looks for a root in steps that get too small to move."""

import unhang


def root(of: float) -> float:
    """The square root, by Newton's method with a bad end."""
    guess = of
    while guess * guess != of:  # HANGS HERE
        guess = (guess + of / guess) / 2  # HANGS HERE
    return guess


with unhang.expires(after=1.5, scope="solve"):
    print(root(2.0))
