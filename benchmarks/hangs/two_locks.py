"""Two threads take two locks, each in its own order."""

import threading

import unhang

alice, bob = threading.Lock(), threading.Lock()
both_hold_one = threading.Barrier(2)


def pay(giver: threading.Lock, taker: threading.Lock) -> None:
    """Move money between two accounts."""
    with giver:
        both_hold_one.wait()
        with taker:  # HANGS HERE
            print("paid")


threading.Thread(target=pay, args=[bob, alice], name="bob", daemon=True).start()
with unhang.expires(after=1.5, scope="payment"):
    pay(alice, bob)
