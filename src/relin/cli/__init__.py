"""The command line: arguments, progress bars, exit codes. What it does lives elsewhere."""

from relin.cli._signals import obey


def main() -> None:
    """The entry point: exit code 0, 1 after a failure, 2 after a wrong use, 128 + its number after a signal."""
    obey()  # before the rest is imported, which takes a while
    from relin.cli._app import main

    main()
