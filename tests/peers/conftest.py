"""These tests need the real torch; without it they fail, and are not skipped."""

import torch  # noqa: F401
