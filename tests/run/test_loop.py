"""What all programs share of a run, proven once, on a toy: order, resume, interruption at any moment, full disks."""

import contextlib
import csv
import io
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from unittest import mock

import pytest
import torch
import toy
from tools import state_of

from data import InputError
from run.flags import RunError, Terminated, run_program
from run.folder import Run
from run.loop import fit, uninterrupted

EPOCHS = 6
SIGNALS = [(signal.SIGINT, KeyboardInterrupt, 130), (signal.SIGTERM, Terminated, 143)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    toy.learn(folder, EPOCHS)
    return folder


def assert_goes_on(folder, whole):
    """The same command comes to the same state and the same rows of the log, none of them twice."""
    toy.learn(folder, EPOCHS)
    assert torch.equal(state_of(folder)["w"], state_of(whole)["w"])
    rows = [list(csv.DictReader(open(run / "metrics.csv"))) for run in (folder, whole)]
    assert rows[0] == rows[1] and [row["epoch"] for row in rows[0]] == [str(k + 1) for k in range(EPOCHS)]
    assert (folder / "progress/newest.txt").read_text() == str(EPOCHS)
    assert not list(folder.rglob("*.tmp"))


def at_call(owner, name, at, action):
    """A patch of owner.name, whose call number `at` first does something."""
    function, calls = getattr(owner, name), []

    def wrapped(*args, **kwargs):
        calls.append(1)
        if len(calls) == at:
            action()
        return function(*args, **kwargs)

    return mock.patch.object(owner, name, wrapped)


def give(number):
    """A function that sends this process a signal."""

    def send():
        os.kill(os.getpid(), number)
        time.sleep(0.01)

    return send


@contextlib.contextmanager
def child(folder, epochs=EPOCHS, pause=0.0, before=lambda: None):
    """The program in a process of its own, after before(); it is waited for."""

    def program():
        before()
        sys.exit(run_program(lambda: toy.learn(folder, epochs, pause), InputError))

    process = multiprocessing.get_context("fork").Process(target=program)
    process.start()
    yield process
    process.join(100)


def test_resumed_equals_uninterrupted_and_a_finished_run_says_so(whole, tmp_path, capsys):
    for epochs in (1, 3):
        toy.learn(tmp_path, epochs)
    assert_goes_on(tmp_path, whole)
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != "config.json"}
    toy.learn(tmp_path, EPOCHS)
    assert "is finished: 6 epochs; raise -num_epochs" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_outputs_come_at_fixed_intervals_and_at_the_end_and_are_told_once_saved(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("run.loop.MOVING", 3)
    seen, told, save = [], [], Run.save_checkpoint

    def look(run, state, epoch):
        told.append((epoch, f"epoch {epoch}/9" in capsys.readouterr().out))
        save(run, state, epoch)

    monkeypatch.setattr(Run, "save_checkpoint", look)
    toy.learn(tmp_path, 9, seen=seen)
    assert seen == [(2, True, False), (4, False, False), (6, True, False), (8, False, False), (9, True, True)]
    assert told == [(epoch, False) for epoch, *_ in seen] and "epoch 9/9  loss" in capsys.readouterr().out


@pytest.mark.parametrize("number, raised, _", SIGNALS)
@pytest.mark.parametrize("owner, name, done", [(toy.Toy, "learn", 2), (toy.Toy, "commit", 3), (Run, "log", 3)])
def test_interrupted_at_any_moment_it_goes_on_from_there(owner, name, done, number, raised, _, whole, tmp_path):
    handler = signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(Terminated))
    try:
        with at_call(owner, name, 3, give(number)), pytest.raises(raised, match=f"interrupted: epoch {done} is saved"):
            toy.learn(tmp_path, EPOCHS)
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert state_of(tmp_path)["epoch"] == done
    assert_goes_on(tmp_path, whole)


def test_interrupted_while_a_checkpoint_is_half_written_both_are_whole(whole, tmp_path):
    save, calls = torch.save, []

    def slow(state, file):
        buffer = io.BytesIO()
        save(state, buffer)
        half = len(buffer.getvalue()) // 2
        file.write(buffer.getvalue()[:half])
        calls.append(1)
        if len(calls) == 2:
            give(signal.SIGINT)()
        file.write(buffer.getvalue()[half:])

    with mock.patch.object(torch, "save", slow), pytest.raises(KeyboardInterrupt, match="is saved in"):
        toy.learn(tmp_path, EPOCHS, 0.05)
    for path in (tmp_path / "model").iterdir():
        assert state_of(tmp_path, path.stem)["epoch"] > 0
    assert_goes_on(tmp_path, whole)


def test_a_second_interruption_while_the_first_is_answered_changes_nothing(tmp_path, capsys):
    run, gate, learner = Run(tmp_path, {}, ()), threading.Event(), toy.Toy(None)
    run.in_background(gate.wait)

    def interrupted():
        threading.Timer(0.05, lambda: (os.kill(os.getpid(), signal.SIGINT), gate.set())).start()
        raise KeyboardInterrupt

    learner.learn, learner.done = interrupted, 4
    with pytest.raises(KeyboardInterrupt, match="epoch 4 is saved in"):
        fit(learner, run, None, total=9, log_step=1, shown=(), header="")
    assert (tmp_path / "model/epoch_0004.pt").exists()
    assert "what is left is being written" in capsys.readouterr().out


def test_what_fails_ends_the_run_with_the_last_good_state(whole, tmp_path):
    failure = mock.Mock(side_effect=RunError("diverged"))
    with at_call(toy.Toy, "learn", 4, failure), pytest.raises(RunError, match=r"diverged \(epoch 3 is saved in"):
        toy.learn(tmp_path, EPOCHS)
    assert_goes_on(tmp_path, whole)


@pytest.mark.parametrize("number, _, code", SIGNALS)
def test_a_signal_from_outside_is_answered_by_its_exit_code(number, _, code, tmp_path, capfd):
    with child(tmp_path, 100000, 0.05) as process:
        while not (tmp_path / "model/epoch_0002.pt").exists():
            assert process.is_alive()
            time.sleep(0.01)
        os.kill(process.pid, number)
    err = capfd.readouterr().err
    assert process.exitcode == code, err
    assert f"epoch {state_of(tmp_path)['epoch']} is saved" in err and "Traceback" not in err


@pytest.mark.parametrize("event, count, saved", [("os.rename", 1, 0), ("os.rename", 2, 2), ("os.link", 2, 4)])
def test_killed_while_saving_the_same_command_finishes_as_if_nothing_had_been(event, count, saved, whole, tmp_path):
    calls = []

    def hook(name, arguments):
        if name == event and any("latest.pt" in str(each) for each in arguments):
            calls.append(1)
            if len(calls) == count:
                os.kill(os.getpid(), signal.SIGKILL)

    with child(tmp_path, before=lambda: sys.addaudithook(hook)) as process:
        pass
    assert process.exitcode == -signal.SIGKILL
    assert (state_of(tmp_path)["epoch"] if (tmp_path / "model/latest.pt").exists() else 0) == saved
    assert_goes_on(tmp_path, whole)


def test_a_full_disk_ends_the_run_and_the_checkpoint_before_is_intact(whole, tmp_path, capfd):
    toy.learn(tmp_path, 2)
    before, small = (tmp_path / "model/latest.pt").read_bytes(), (3000, 3000)  # no file may grow beyond it
    capfd.readouterr()
    with child(tmp_path, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, small)) as process:
        pass
    [line] = capfd.readouterr().err.splitlines()
    assert process.exitcode == 1 and "File too large" in line
    assert (tmp_path / "model/latest.pt").read_bytes() == before
    assert_goes_on(tmp_path, whole)


@pytest.mark.parametrize("number, raised, _", SIGNALS)
def test_an_interrupt_waits_until_what_belongs_together_has_changed(number, raised, _):
    done, handlers = [], [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(raised):
        with uninterrupted():
            give(number)()
            done.append(1)
    assert done
    with uninterrupted():  # nothing is left over
        pass
    with pytest.raises(KeyError):
        with uninterrupted():
            raise KeyError
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
