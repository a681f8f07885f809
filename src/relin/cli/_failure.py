"""How the command line fails: one sentence, an exit code, no traceback."""

import sys
from collections.abc import Callable


class CommandError(Exception):
    """A command's failure, as a sentence for the person who called it."""

    exit_code = 1


class UsageError(CommandError):
    """The command was given something it cannot take."""

    exit_code = 2


def run(app: Callable[[], None]) -> None:
    """Runs the commands; failures that are known become a sentence and an exit code."""
    try:
        app()
    except CommandError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        _fail(
            f"The system refused to read or write{place} ({error.strerror or error}); what was finished is kept, "
            "and the same command resumes.",
            1,
        )


def _fail(message: str, exit_code: int) -> None:
    print(f"relin: {message}", file=sys.stderr)
    sys.exit(exit_code)
