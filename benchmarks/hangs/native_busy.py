"""C code that has given up the GIL and computes."""

import hashlib

import unhang

with unhang.expires(after=1.5, scope="login"):
    hashlib.pbkdf2_hmac("sha256", b"secret", b"salt", 2_000_000_000)  # HANGS HERE
