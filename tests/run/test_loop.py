"""What all programs share of a run, proven once, on a toy: order, resume, interruption at any moment, full disks."""

import csv
import io
import os
import resource
import signal
import threading
import time

import pytest
import torch
import toy

from run.flags import RunError, Terminated
from run.folder import Run
from run.loop import fit, uninterrupted

EPOCHS = 6


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    toy.learn(folder, EPOCHS)
    return folder


def state_of(folder, name="latest"):
    return torch.load(folder / f"model/{name}.pt", weights_only=True)


def assert_same(folder, whole):
    """The same state, and the same rows of the log, none of them twice."""
    assert torch.equal(state_of(folder)["w"], state_of(whole)["w"])
    rows = [list(csv.DictReader(open(run / "metrics.csv"))) for run in (folder, whole)]
    assert rows[0] == rows[1] and [row["epoch"] for row in rows[0]] == [str(k + 1) for k in range(EPOCHS)]
    assert (folder / "progress/newest.txt").read_text() == str(EPOCHS)
    assert not list(folder.rglob("*.tmp"))


def interrupting(function, at, number=signal.SIGINT):
    """The function, but its call number `at` first gets a signal."""
    calls = []

    def wrapped(*args, **kwargs):
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), number)
            time.sleep(0.01)
        return function(*args, **kwargs)

    return wrapped


def test_resumed_equals_uninterrupted_and_a_finished_run_says_so(whole, tmp_path, capsys):
    for epochs in (1, 3, EPOCHS):
        toy.learn(tmp_path, epochs)
    assert_same(tmp_path, whole)
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != "config.json"}
    toy.learn(tmp_path, EPOCHS)
    assert "is finished: 6 epochs; raise -num_epochs" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_outputs_come_at_fixed_intervals_and_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("run.loop.MOVING", 3)
    seen = []
    toy.learn(tmp_path, 9, seen=seen)
    assert seen == [(2, True, False), (4, False, False), (6, True, False), (8, False, False), (9, True, True)]


def test_an_epoch_is_told_once_it_is_saved(tmp_path, monkeypatch, capsys):
    told, save = [], Run.save_checkpoint

    def look(run, state, epoch):
        told.append(capsys.readouterr().out.count("epoch "))
        save(run, state, epoch)

    monkeypatch.setattr(Run, "save_checkpoint", look)
    toy.learn(tmp_path, 4)
    assert told[0] <= 2  # the header, and how long an epoch took
    assert "epoch 4/4  loss" in capsys.readouterr().out


MOMENTS = {  # where a signal comes in epoch 3, and the epochs that are done by then
    "while learning": (toy.Toy, "learn", 2),
    "while the state changes": (toy.Toy, "commit", 3),
    "while the row is logged": (Run, "log", 3),
}


@pytest.mark.parametrize("number, raised", [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
@pytest.mark.parametrize("moment", MOMENTS)
def test_interrupted_at_any_moment_it_goes_on_from_there(moment, number, raised, whole, tmp_path, monkeypatch):
    owner, name, done = MOMENTS[moment]
    handler = signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(Terminated))
    try:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, interrupting(getattr(owner, name), 3, number))
            with pytest.raises(raised, match=f"interrupted: epoch {done} is saved"):
                toy.learn(tmp_path, EPOCHS)
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert state_of(tmp_path)["epoch"] == done
    toy.learn(tmp_path, EPOCHS)
    assert_same(tmp_path, whole)


def test_interrupted_while_a_checkpoint_is_half_written_both_are_whole(whole, tmp_path, monkeypatch):
    save, calls = torch.save, []

    def slow(state, file):
        buffer = io.BytesIO()
        save(state, buffer)
        half = len(buffer.getvalue()) // 2
        file.write(buffer.getvalue()[:half])
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
        file.write(buffer.getvalue()[half:])

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", slow)
        with pytest.raises(KeyboardInterrupt, match="is saved in"):
            toy.learn(tmp_path, EPOCHS, 0.05)
    for path in (tmp_path / "model").iterdir():
        assert state_of(tmp_path, path.stem)["epoch"] > 0
    toy.learn(tmp_path, EPOCHS)
    assert_same(tmp_path, whole)


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


def test_what_fails_ends_the_run_with_the_last_good_state(whole, tmp_path, monkeypatch):
    def diverges(learner):
        if learner.done == 3:
            raise RunError("diverged")
        learn(learner)

    learn = toy.Toy.learn
    with monkeypatch.context() as patch:
        patch.setattr(toy.Toy, "learn", diverges)
        with pytest.raises(RunError, match=r"diverged \(epoch 3 is saved in"):
            toy.learn(tmp_path, EPOCHS)
    toy.learn(tmp_path, EPOCHS)
    assert_same(tmp_path, whole)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_from_outside_is_answered_by_its_exit_code(number, code, tmp_path, run_script):
    process = run_script([str(tmp_path), "100000", "0.05"], "tests/run/toy.py", start=True)
    watchdog = threading.Timer(300, process.kill)
    watchdog.start()
    for line in process.stdout:
        if line.startswith("epoch 2/"):
            assert state_of(tmp_path)["epoch"] == 2  # told after it is saved
            process.send_signal(number)
            break
    _, err = process.communicate()
    watchdog.cancel()
    assert process.returncode == code, err
    assert f"epoch {state_of(tmp_path)['epoch']} is saved" in err and "Traceback" not in err


KILL_AT_EVENT = """
import os, signal, sys
left = [{count}]
def hook(event, arguments):
    if event == {event!r} and any("latest.pt" in str(a) for a in arguments):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
"""


@pytest.mark.parametrize("event, count, saved", [("os.rename", 1, 0), ("os.rename", 2, 2), ("os.link", 2, 4)])
def test_killed_while_saving_the_same_command_finishes_as_if_nothing_had_been(
    event, count, saved, whole, tmp_path, run_script
):
    before = KILL_AT_EVENT.format(event=event, count=count)
    killed = run_script([str(tmp_path), str(EPOCHS)], "tests/run/toy.py", before)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (state_of(tmp_path)["epoch"] if (tmp_path / "model/latest.pt").exists() else 0) == saved
    toy.learn(tmp_path, EPOCHS)
    assert_same(tmp_path, whole)


def test_a_full_disk_ends_the_run_and_the_checkpoint_before_is_intact(whole, tmp_path, run_script):
    toy.learn(tmp_path, 2)
    before = (tmp_path / "model/latest.pt").read_bytes()

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))  # no file may grow beyond it

    full = run_script([str(tmp_path), str(EPOCHS)], "tests/run/toy.py", preexec_fn=fill)
    [line] = full.stderr.splitlines()
    assert full.returncode == 1 and "File too large" in line
    assert (tmp_path / "model/latest.pt").read_bytes() == before
    toy.learn(tmp_path, EPOCHS)
    assert_same(tmp_path, whole)


@pytest.mark.parametrize("number, raised", [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_an_interrupt_waits_until_what_belongs_together_has_changed(number, raised):
    done, handlers = [], [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(raised):
        with uninterrupted():
            os.kill(os.getpid(), number)
            done.append("first")
            done.append("second")
    assert done == ["first", "second"]
    with uninterrupted():  # nothing is left over
        pass
    with pytest.raises(KeyError):
        with uninterrupted():
            raise KeyError
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
