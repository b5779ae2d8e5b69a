"""Options that several commands have."""

from __future__ import annotations

import click

observe = click.option(
    "--observe",
    is_flag=True,
    envvar="UNHANG_OBSERVE",
    show_envvar=True,
    help="Tell what expires, and kill nobody.",
)
