"""``python -m unhang`` is the ``unhang`` command."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current directory: modules there are those of the programs that are to be watched
    from unhang.cli.main import main

    main()
