"""Leases: one holder at a time, over processes, machines and their deaths."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from relin._common import lease as _lease, process
from relin._common.lease import EXPIRES, InUseError, Leases, SoleWriter


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


def test_a_process_that_ended_and_was_not_waited_for_is_dead(tmp_path):
    with subprocess.Popen(["true"]) as ended:
        end = time.monotonic() + 30
        while not process.is_dead(process.host(), ended.pid):
            assert time.monotonic() < end
            time.sleep(0.01)
        os.kill(ended.pid, 0)  # its number is there still


def test_who_takes_a_lease_is_told_its_living_holder(tmp_path, dead):
    path = write(tmp_path, pid=os.getppid())
    assert Leases(tmp_path).take("a") == f"process {os.getppid()} of the machine None"
    path.unlink()
    one = Leases(tmp_path)
    assert one.take("a") is None
    assert Leases(tmp_path).take("a") == f"process {os.getpid()} of the machine {socket.gethostname()!r}"
    one.release("a")
    write(tmp_path, pid=dead)
    assert one.take("a") is None
    one.release("a")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def passing(monkeypatch):
    """Time that passes while one sleeps; `events` happen then."""
    passing = SimpleNamespace(now=1000.0, events=[])

    def sleep(seconds):
        passing.now += 1.0
        for event in passing.events:
            event(passing.now - 1000.0)

    clock = SimpleNamespace(monotonic=lambda: passing.now, sleep=sleep, time=time.time)
    monkeypatch.setattr(_lease, "_renewal", SimpleNamespace(add=lambda *_: 0, remove=lambda *_: 0, tokens=set))
    monkeypatch.setattr(_lease, "time", clock)
    return passing


@pytest.mark.parametrize("where", ["another machine", "a process that has its number now"])
def test_a_holder_that_gives_no_sign_of_life_for_a_minute_is_taken_for_dead(tmp_path, passing, where):
    if where == "another machine":
        write(tmp_path, pid=1, host="elsewhere")
    else:
        os.utime(write(tmp_path, pid=os.getppid()), (5.0, 5.0))
    leases = Leases(tmp_path)
    assert leases.take("a") is None
    assert EXPIRES <= passing.now - 1000 <= EXPIRES + 2
    leases.release("a")


def test_one_that_does_is_told(tmp_path, passing):
    path = write(tmp_path, pid=1, host="elsewhere")
    passing.events.append(lambda second: os.utime(path, (second, second)) if second == 9 else None)
    assert Leases(tmp_path).take("a") == "process 1 of the machine None"
    assert passing.now == 1009


def test_a_lease_that_cannot_be_read_is_not_waited_for_without_end(tmp_path, passing):
    (tmp_path / "a.lease").mkdir()
    assert Leases(tmp_path).take("a") == "a process that cannot be told"


def test_a_lease_is_kept_where_its_file_was_removed_but_not_where_another_has_it(tmp_path):
    leases = Leases(tmp_path)
    assert leases.take("a") is None
    assert leases.keep("a")
    (tmp_path / "a.lease").unlink()
    assert leases.keep("a")
    assert leases.holds("a")
    write(tmp_path, pid=os.getppid())
    assert not leases.keep("a")
    leases.release("a")
    assert (tmp_path / "a.lease").exists()


def test_the_only_one_who_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = Path("folder")
    one, other = SoleWriter(place, place, "run"), SoleWriter(place, place, "run")
    one.take()
    with pytest.raises(InUseError, match=rf"folder is in use by process {os.getpid()} of the machine '.*'; wait until"):
        other.take()
    one.keep()
    other.leave()
    one.leave()
    assert not place.exists()
    one.take()
    (place / "file").touch()
    write(place, "run", pid=os.getppid())
    with pytest.raises(InUseError, match="folder was taken over by another process while this one was suspended"):
        one.keep()
    one.leave()
    assert sorted(path.name for path in place.iterdir()) == ["file", "run.lease"]


@pytest.mark.slow
def test_studies_need_no_locks_of_the_system():
    """Windows has no `fcntl`."""
    code = "import sys; sys.modules['fcntl'] = None; import relin.study; relin.study.run_study; import relin.cli._study"
    subprocess.run([sys.executable, "-c", code], check=True)
