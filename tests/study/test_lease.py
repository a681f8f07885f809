"""Leases: one holder at a time, over processes, machines and their deaths."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from relin._common import process
from relin.study import _lease
from relin.study._lease import EXPIRES, Leases


@pytest.fixture
def clock(monkeypatch):
    """A monotonic clock that stands still until it is set."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(_lease, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=time.sleep))
    return clock


@pytest.fixture(scope="module")
def dead():
    """The number of a process that ended."""
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    return ended.pid


def write(folder, name="a", *, pid, host=None):
    path = folder / f"{name}.lease"
    path.write_text(json.dumps({"host": host or process.host(), "pid": pid, "token": "old"}))
    return path


def test_one_holder_at_a_time(tmp_path):
    one, other = Leases(tmp_path), Leases(tmp_path)
    assert one.acquire("a")
    assert not other.acquire("a")
    assert not one.acquire("a")
    assert other.acquire("b")
    one.release("a")
    assert other.acquire("a")
    other.release("a")
    other.release("b")
    assert list(tmp_path.iterdir()) == []


def test_who_holds_a_lease_knows_it(tmp_path):
    one, other = Leases(tmp_path), Leases(tmp_path)
    assert not one.holds("a")
    assert one.acquire("a")
    assert (one.holds("a"), one.holds("b"), other.holds("a")) == (True, False, False)
    (tmp_path / "a.lease").write_text('{"token": "of another"}')
    assert not one.holds("a")
    (tmp_path / "a.lease").unlink()
    assert not one.holds("a")
    one.release("a")
    assert not one.holds("a")


def test_a_lease_says_who_holds_it(tmp_path):
    with Leases(tmp_path).held("a"):
        lease = json.loads((tmp_path / "a.lease").read_text())
    assert (lease["name"], lease["pid"], lease["host"]) == (socket.gethostname(), os.getpid(), process.host())


def test_that_of_a_dead_process_of_this_machine_is_free_at_once(tmp_path, dead):
    for pid in (dead, os.getpid()):  # ours: of a process before this one that had its number
        write(tmp_path, pid=pid)
        leases = Leases(tmp_path)
        assert leases.acquire("a")
        leases.release("a")
    assert list(tmp_path.iterdir()) == []


def test_that_of_a_living_process_of_this_machine_is_not(tmp_path):
    write(tmp_path, pid=os.getppid())
    assert not Leases(tmp_path).acquire("a")


@pytest.mark.parametrize("content", ["other machine", "", "{", "3"])
def test_any_other_is_free_once_it_was_seen_unchanged_for_a_minute(tmp_path, clock, dead, content):
    path = write(tmp_path, pid=dead, host="elsewhere")
    if content != "other machine":
        path.write_text(content)  # written by a process that died then
    leases = Leases(tmp_path)
    assert not leases.acquire("a")
    clock.now += EXPIRES - 1
    assert not leases.acquire("a")
    os.utime(path, (5.0, 5.0))  # renewed, by a clock that is wrong by years
    assert not leases.acquire("a")
    assert not Leases(tmp_path).acquire("a")  # who begins to look now knows nothing yet
    clock.now += EXPIRES - 1
    assert not leases.acquire("a")
    clock.now += 1
    assert leases.acquire("a")
    assert json.loads(path.read_text())["pid"] == os.getpid()
    leases.release("a")
    assert list(tmp_path.iterdir()) == []


def test_a_machine_of_another_name_knows_nothing_of_our_processes(tmp_path, monkeypatch, dead):
    write(tmp_path, pid=dead)
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    assert not Leases(tmp_path).acquire("a")
    monkeypatch.undo()
    assert Leases(tmp_path).acquire("a")


def test_one_of_many_takes_over(tmp_path, dead):
    several = [Leases(tmp_path) for _ in range(6)]
    for number in range(30):
        name, won, barrier = f"n{number}", [], threading.Barrier(len(several))
        write(tmp_path, name, pid=dead)

        def attempt(leases, name=name, won=won, barrier=barrier):
            barrier.wait()
            if any(leases.acquire(name) for _ in range(3)):
                won.append(leases)

        threads = [threading.Thread(target=attempt, args=(leases,)) for leases in several]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        won[0].release(name)
    assert list(tmp_path.iterdir()) == []


def test_who_comes_late_does_not_take_the_lease_of_who_took_over(tmp_path, monkeypatch, dead):
    """Both have seen the dead holder's lease; one is suspended there, and goes on after the other took it over."""
    write(tmp_path, pid=dead)
    late, quick, create = Leases(tmp_path), Leases(tmp_path), _lease._create

    def suspended(path, token):
        if path.name != "a.lease":
            monkeypatch.setattr(_lease, "_create", create)
            assert quick.acquire("a")
        return create(path, token)

    monkeypatch.setattr(_lease, "_create", suspended)
    assert not late.acquire("a")
    assert not late.acquire("a")
    quick.release("a")
    assert list(tmp_path.iterdir()) == []


def test_who_dies_taking_over_is_no_hindrance(tmp_path, monkeypatch, dead):
    path = write(tmp_path, pid=dead)
    monkeypatch.setattr(_lease, "_create", lambda *_: False)
    monkeypatch.setattr(Leases, "_expired", lambda *_: path.read_bytes())
    claims = []
    monkeypatch.setattr(_lease.Path, "unlink", lambda claim, **_: claims.append(claim))
    Leases(tmp_path).acquire("a")
    monkeypatch.undo()
    write(tmp_path, claims[0].name.removesuffix(".lease"), pid=dead).rename(claims[0])
    leases = Leases(tmp_path)
    assert not leases.acquire("a")
    assert leases.acquire("a")
    leases.release("a")
    assert list(tmp_path.iterdir()) == []


def test_who_lost_a_lease_neither_renews_nor_removes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(_lease, "RENEWED", 0.005)
    monkeypatch.setattr(_lease, "_renewal", _lease._Renewal())
    leases = Leases(tmp_path)
    assert leases.acquire("a")
    path = tmp_path / "a.lease"
    os.utime(path, (5.0, 5.0))
    end = time.monotonic() + 30
    while path.stat().st_mtime == 5.0:  # renewed while it is held
        assert time.monotonic() < end
        time.sleep(0.005)
    path.write_text('{"token": "of another"}')
    os.utime(path, (5.0, 5.0))
    time.sleep(0.05)
    assert path.stat().st_mtime == 5.0
    leases.release("a")
    assert path.exists()


def test_a_full_disk_leaves_no_lease(tmp_path, monkeypatch):
    def full(settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_lease, "json", SimpleNamespace(dumps=lambda _: SimpleNamespace(encode=lambda: full(0))))
    leases = Leases(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        leases.acquire("a")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert leases.acquire("a")


@pytest.mark.slow
def test_studies_need_no_locks_of_the_system():
    """Windows has no `fcntl`."""
    code = "import sys; sys.modules['fcntl'] = None; import relin.study; relin.study.run_study; import relin.cli._study"
    subprocess.run([sys.executable, "-c", code], check=True)
