"""Signals end a command wherever it is; the cases that must not be swallowed each in a process of its own."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from relin._common import writing as _writing
from relin._common.files import write_atomically

START = """
import ctypes, gc, io, logging, os, signal, sys, threading, time
from relin.cli._failure import run
from relin.cli._signals import keeps, closed_when_stopped

def send(*_):
    print("sent", flush=True)
    os.kill(os.getpid(), NUMBER)
    time.sleep(0.05)

def app():
"""
PLACES = {
    "collector": """
    gc.callbacks.append(lambda phase, info: phase == "start" and not gc.callbacks.clear() and send())
    gc.collect()
""",
    "del": """
    class Last:
        __del__ = send
    Last()
""",
    "logging": """
    class Handler(logging.Handler):
        emit = send
    logging.getLogger("a").addHandler(Handler())
    logging.getLogger("a").error("something")
""",
    "ctypes": """
    ctypes.CFUNCTYPE(None)(send)()
""",
    "except": """
    try:
        send()
        time.sleep(30)
    except BaseException:
        pass
""",
    "full pipe": """
    os.set_blocking(1, True)
    send()
    while True:
        os.write(1, bytes(10**6))
""",
    "exit": """
    threading.Thread(target=time.sleep, args=(30,)).start()
    threading.Timer(0.3, send).start()
""",
    "jit": """
    import jax
    loop = jax.jit(lambda x: jax.lax.while_loop(lambda x: x < 2, jax.numpy.sin, x)).lower(1.0).compile()
    threading.Timer(0.2, send).start()
    loop(1.0).block_until_ready()
""",
}
END = """
    time.sleep(0.1)
    if THEN:
        print("went on", flush=True)

run(app)
"""


def started(place, number=signal.SIGTERM, then=True, **options):
    code = START.replace("NUMBER", str(int(number))) + place + END.replace("THEN", str(then))
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"signal.signal(signal.SIGHUP, signal.SIG_DFL)\n{code}"  # whatever the tests themselves run under
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONIOENCODING": "ascii"}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, **{**pipes, **options})


@pytest.mark.parametrize("place", PLACES)
def test_a_signal_is_obeyed_wherever_it_arrives(place):
    with started(PLACES[place], then=place != "exit") as process:
        process.stdout.readline()  # "sent"
        start = time.monotonic()
        code = process.wait(timeout=20)
        assert time.monotonic() - start < 2
        assert code == 143
        assert "went on" not in process.stdout.read()
        if place != "full pipe":
            expected = "relin: Stopped; what was not yet written is lost, and the same command begins anew.\n"
            assert process.stderr.read() == expected


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_what_is_kept_is_said_and_what_is_open_is_closed(number, code):
    place = """
    keeps("K\\N{INFINITY} is kept")
    with closed_when_stopped(lambda: os.write(2, b"closed\\n")):
        print("half a line", end=" ")
        send()
        time.sleep(30)
"""
    with started(place, number) as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (code, "half a line sent\n", "relin: Stopped; K? is kept.\nclosed\n")


def test_a_second_signal_ends_at_once():
    place = """
    with closed_when_stopped(lambda: (send(), time.sleep(30))):
        send()
        time.sleep(30)
"""
    with started(place) as process:
        process.stdout.readline()
        start = time.monotonic()
        assert process.wait(timeout=20) == 143
    assert time.monotonic() - start < 1


def test_a_hangup_that_is_ignored_stays_so():
    before = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{START}"
    code = before.replace("NUMBER", "signal.SIGHUP") + "    send()\n" + END.replace("THEN", "True")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert (found.returncode, found.stdout) == (0, "sent\nwent on\n")


def test_forked_processes_have_their_own_signals():
    place = """
    child = os.fork()
    if child == 0:
        time.sleep(30)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
"""
    with started(place) as process:
        out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "went on\n")


def test_files_that_are_being_written_are_waited_for(tmp_path, monkeypatch):
    begun, release = threading.Event(), threading.Event()
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (begun.set(), release.wait(10), fsync(handle)))
    first = threading.Thread(target=write_atomically, args=(tmp_path / "first", "whole"))
    second = threading.Thread(target=write_atomically, args=(tmp_path / "second", "late"), daemon=True)
    first.start()
    begun.wait(10)
    try:
        _writing.finish_writing(0.01)
        assert first.is_alive()
        release.set()
        _writing.finish_writing(10)
        assert [path.name for path in tmp_path.iterdir()] == ["first"]
        second.start()
        second.join(0.05)
        assert not (tmp_path / "second").exists()
    finally:
        with _writing._changed:
            _writing._closed = False
            _writing._changed.notify_all()
    second.join(10)
    assert (tmp_path / "second").read_text() == "late"


def test_without_signals_of_posix_an_interrupt_ends_the_command(monkeypatch, capsys):
    """As on Windows."""
    from relin.cli._failure import run

    monkeypatch.delattr(os, "register_at_fork")
    monkeypatch.delattr(signal, "pthread_sigmask")

    def app():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        run(app)
    assert end.value.code == 130
    assert capsys.readouterr().err.startswith("relin: Stopped; what was not yet written is lost")
