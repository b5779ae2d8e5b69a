"""``python -m unhang`` is the ``unhang`` command."""

from unhang.cli.main import main

if __name__ == "__main__":
    main()
