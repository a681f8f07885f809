"""How the command line fails: one sentence, an exit code, no traceback."""

import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, NoReturn, TypeVar

import typer

Value = TypeVar("Value")


class CommandError(Exception):
    """A command's failure, as a sentence for the person who called it."""

    exit_code = 1


class UsageError(CommandError):
    """The command was given something it cannot take."""

    exit_code = 2


def in_options(message: str) -> str:
    """A sentence of the library that names its argument `data_dir`, with the option of the command line instead."""
    return re.sub(r"(?<![\w/-])data_dir(?![\w/-])", "--data-dir", message)


class _StoppedError(BaseException):
    """Ctrl-C, or the system asked the process to end. Not a KeyboardInterrupt, of which Typer makes a normal end."""

    def __init__(self, number: int):
        self.exit_code = 128 + number


def run(app: Callable[[], Any]) -> None:
    """Runs the commands; every failure becomes a sentence and an exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else the caller wants it ignored
        signal.signal(signal.SIGINT, _interrupt)
    try:
        app()
    except CommandError as error:
        _fail(str(error), error.exit_code)
    except _StoppedError as stopped:
        _stop(stopped.exit_code)
    except BrokenPipeError:
        # The reader of our output, such as `head`, has left; nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        _fail(
            f"The system refused to read or write{place} ({error.strerror or error}); finished runs of a "
            "study are kept, and the same command resumes it once that is mended.",
            1,
        )
    except typer.TyperException as error:
        _fail(_usage(error), getattr(error, "exit_code", 2))
    except Exception as error:
        if os.environ.get("RELIN_TRACEBACK"):
            traceback.print_exc()
        _fail(
            f"Something unexpected failed ({type(error).__name__}: {' '.join(str(error).split())}); finished runs of "
            "a study are kept, and with RELIN_TRACEBACK=1 in the environment the same command shows where it failed.",
            1,
        )


def interruptibly(compute: Callable[[], Value]) -> Value:
    """What `compute` returns or raises, from a thread of its own: a compilation takes up to minutes, in which the main
    thread would not hear Ctrl-C.
    """
    pool = ThreadPoolExecutor(1)
    try:
        future = pool.submit(compute)
        while not wait([future], timeout=0.2).done:
            pass
        return future.result()
    finally:
        pool.shutdown(wait=False)


def _usage(error: Any) -> str:
    """What is wrong with the arguments, and where the right ones are described."""
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{message}; see `{context.command_path if context else 'relin'} --help`."


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise _StoppedError(number)


def _stop(exit_code: int) -> NoReturn:
    """Ends the process at once: threads in the middle of a run have nothing left to save."""
    print("relin: Stopped; finished runs of a study are kept, and the same command resumes it.", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def _fail(message: str, exit_code: int) -> NoReturn:
    print(f"relin: {message}", file=sys.stderr)
    sys.exit(exit_code)
