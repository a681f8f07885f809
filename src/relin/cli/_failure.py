"""How the command line fails: one sentence, an exit code, no traceback."""

import io
import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import typer

from relin._common.xla import WrongSumsError
from relin.cli._signals import kept, obey


class CommandError(Exception):
    """A command's failure, as a sentence for the person who called it."""

    exit_code = 1


class UsageError(CommandError):
    """The command was given something it cannot take."""

    exit_code = 2


def in_options(message: str) -> str:
    """A sentence of the library that names its argument `data_dir`, with the option of the command line instead."""
    return re.sub(r"(?<![\w/-])data_dir(?![\w/-])", "--data-dir", message)


def run(app: Callable[[], Any]) -> None:
    """Runs the commands; every failure becomes a sentence and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ∞ shows a question mark
    obey()
    try:
        app()
    except CommandError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail(f"Stopped; {kept()}.", 130)
    except BrokenPipeError:
        # The reader of our output, such as `head`, has left; nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except WrongSumsError as error:
        _fail(f"{error}", 1)
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        _fail(f"The system refused to read or write{place} ({error.strerror or error}); {kept()}.", 1)
    except typer.TyperException as error:
        _fail(_usage(error), getattr(error, "exit_code", 2))
    except Exception as error:
        if os.environ.get("RELIN_TRACEBACK"):
            traceback.print_exc()
        _fail(
            f"Something unexpected failed ({type(error).__name__}: {' '.join(str(error).split())}); {kept()}; with "
            "RELIN_TRACEBACK=1 in the environment it shows where it failed.",
            1,
        )


def _usage(error: Any) -> str:
    """What is wrong with the arguments, and where the right ones are described."""
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{message}; see `{context.command_path if context else 'relin'} --help`."


def _fail(message: str, exit_code: int) -> NoReturn:
    print(f"relin: {message}", file=sys.stderr)
    sys.exit(exit_code)
