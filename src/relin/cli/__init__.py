"""The command line: arguments, progress bars, exit codes. What it does lives elsewhere."""

from relin.cli._app import main as main
