"""What a run leaves: whole files, checkpoints that load, logs that go on, one run at a time."""

import threading
import time
import weakref

import pytest
import torch

from run.flags import RunError
from run.folder import SNAPSHOT, Run, find_checkpoint, load_checkpoint, load_weights


@pytest.fixture
def model(tmp_path):
    """The folder of the checkpoints of the runs of new_run(tmp_path)."""
    return tmp_path / "model"


def new_run(folder, **settings):
    return Run(folder, {"lr": 0.1, "num_epochs": 5, "size": [3, 4], **settings}, ("num_epochs",))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refused(function, *parts, code=2):
    """Hold that a call ends in a RunError of one line that has all the parts."""
    with pytest.raises(RunError) as caught:
        function()
    message = str(caught.value)
    assert caught.value.code == code and "\n" not in message and all(part in message for part in parts), message
    return message


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null"])
def test_a_damaged_config_is_an_error_of_one_line(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    refused(lambda: new_run(tmp_path), "config.json' is damaged")


def test_a_run_takes_other_settings_only_where_they_may_change(tmp_path):
    new_run(tmp_path).unlock()
    new_run(tmp_path, num_epochs=9).unlock()
    message = refused(lambda: new_run(tmp_path, lr=0.2, size=[3, 5]), "lr was 0.1, now 0.2", "-overwrite",
                      "size was [3, 4], now [3, 5]")
    assert "num_epochs" not in message


def test_a_folder_has_one_run_at_a_time(tmp_path):
    run = Run(tmp_path, {"lr": 0.1}, ())
    before = (tmp_path / "config.json").read_bytes()
    for overwrite in (False, True):
        refused(lambda overwrite=overwrite: Run(tmp_path, {"lr": 0.2}, (), overwrite), "another program is at work")
        assert (tmp_path / "config.json").read_bytes() == before
    run.open_logs(0)
    run.close()
    Run(tmp_path, {"lr": 0.1}, ())


def test_as_many_whole_checkpoints_are_kept_as_asked_and_have_their_released_names_too(tmp_path, model):
    run = new_run(tmp_path)
    for epoch in (2, 998, 1000, 9998, 10000):
        run.save_checkpoint({"epoch": epoch, "w": torch.full((3,), float(epoch))}, epoch)
    assert names(model) == ["epoch_1000.pt", "epoch_10000.pt", "epoch_9998.pt", "latest.pt"]
    for name, epoch in (("latest", 10000), ("epoch_10000", 10000), ("epoch_9998", 9998), ("epoch_1000", 1000)):
        state = load_checkpoint(model / f"{name}.pt", "cpu")
        assert state["epoch"] == epoch and torch.equal(state["w"], torch.full((3,), float(epoch)))
    assert run.load_checkpoint("cpu")["epoch"] == 10000
    run.keep = 4
    run.save_checkpoint({"epoch": 20000}, 20000)
    assert len(names(model)) == 5
    for name in ("model.ckpt-9998", "epoch_9998.pt", str(model / "model.ckpt-9998"), str(model / "epoch_9998.pt")):
        assert find_checkpoint(tmp_path, name) == model / "epoch_9998.pt"
    assert find_checkpoint(tmp_path) == model / "latest.pt"
    refused(lambda: find_checkpoint(tmp_path, "model.ckpt-998"), "model.ckpt-998", "epoch_1000.pt to epoch_20000.pt")


@pytest.mark.parametrize("weights, said", [
    ({"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}, "its weight is 2x4, here it is 2x3"),
    ({"weight": torch.zeros(2, 3)}, "its bias is missing, here it is 2"),
    ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "more": torch.zeros(())}, "its more is a number, here"),
    ([1], "not a checkpoint of this program")])
def test_weights_of_another_net_are_an_error_of_one_line(weights, said):
    refused(lambda: load_weights(torch.nn.Linear(3, 2), weights, "a.pt"), "'a.pt'", said)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, model, capsys):
    run = new_run(tmp_path)
    assert run.load_checkpoint("cpu") is None
    for epoch in (1, 2, 3):
        run.save_checkpoint({"epoch": epoch, "w": torch.zeros(1000)}, epoch)
    whole = (model / "latest.pt").read_bytes()
    for content in [*(whole[:n] for n in (0, 1, 100, len(whole) // 2, len(whole) - 1)), b"text", bytes(len(whole))]:
        for name in ("latest.pt", "epoch_0003.pt"):
            (model / name).unlink()
            (model / name).write_bytes(content)
        assert run.load_checkpoint("cpu")["epoch"] == 2
        assert "latest.pt" in capsys.readouterr().err
    for epoch in (1, 2):
        (model / f"epoch_{epoch:04d}.pt").unlink()
    assert run.load_checkpoint("cpu") is None


def test_a_disk_that_is_full_while_saving_is_named_and_the_checkpoint_before_is_intact(tmp_path, model, monkeypatch):
    run, save = new_run(tmp_path), torch.save
    run.save_checkpoint({"epoch": 1}, 1)

    class Full:
        def write(self, content):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", lambda state, file: save(state, Full()))
    refused(lambda: run.save_checkpoint({"epoch": 2, "w": torch.zeros(100)}, 2), "latest.pt", "No space left on device",
            code=1)
    assert names(model) == ["epoch_0001.pt", "latest.pt"] and run.load_checkpoint("cpu")["epoch"] == 1


def test_a_checkpoint_holds_only_plain_types_and_tensors_and_is_this_programs(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"path": tmp_path}, path)
    refused(lambda: load_checkpoint(path, "cpu"), "a.pt")
    refused(lambda: load_checkpoint(tmp_path / "b.pt", "cpu"), "there is no checkpoint")
    for state in (torch.zeros(2), {"latents": 1}, [1]):
        torch.save(state, path)
        refused(lambda: load_checkpoint(path, "cpu", "chains"), "not a checkpoint of this program")


def test_a_few_jobs_wait_for_their_turn_and_none_is_heard_of_after_one_that_failed(tmp_path, monkeypatch):
    monkeypatch.setattr("run.folder.BACKLOG", 3)
    run, gate, done = new_run(tmp_path), threading.Event(), []
    run.in_background(gate.wait)
    for k in (1, 2):
        run.in_background(lambda k=k: (time.sleep(0.02), done.append(k)))
    assert not done  # learning goes on meanwhile
    threading.Timer(0.05, gate.set).start()
    run.in_background(lambda: done.append(3))  # one too many: waits for the first
    assert gate.is_set()
    run.wait()
    assert done == [1, 2, 3]  # one at a time, in their order
    gate.clear()
    for job in (gate.wait, lambda: 1 / 0, lambda: [][0]):
        run.in_background(job)
    gate.set()
    with pytest.raises(ZeroDivisionError):
        run.wait()
    run.wait()  # told once


@pytest.mark.parametrize("device, keep, saved", [
    ("cpu", 3, "copied copied last"), ("cuda:0", 3, "copied last"), ("cuda:0", 4, "copied copied last")])
def test_a_gpu_saves_a_large_state_less_often_unless_more_of_them_are_to_be_kept(device, keep, saved, tmp_path,
                                                                                 monkeypatch):
    monkeypatch.setattr("run.folder.CHEAP", 0)
    monkeypatch.setattr("run.folder.snapshot", lambda state: "copied")
    run, states = new_run(tmp_path, device=device, keep=keep), []
    monkeypatch.setattr(run, "save_checkpoint", lambda state, epoch: states.append(state))
    for epoch, moving, last in ((1, True, False), (2, False, False), (3, True, True)):
        state = "last" if last else {"w": torch.zeros(5)}  # nothing changes after the last
        run.save(state, epoch, lambda: None, lambda: None, moving, last)
    run.wait()
    assert states == saved.split()


@pytest.mark.parametrize("device, place, waits", [
    ("cpu", "cpu", True), ("cuda:0", "cpu", True), ("cuda:0", "meta", False)])  # meta in the GPU's place
def test_learning_waits_only_where_the_cpus_memory_has_no_room_for_a_copy(device, place, waits, tmp_path, monkeypatch):
    run, gate, told = new_run(tmp_path, device=device), threading.Event(), []
    monkeypatch.setattr("run.folder.snapshot", lambda state: "copied")
    monkeypatch.setattr(run, "save_checkpoint", lambda state, epoch: told.append(state))
    state = {"w": torch.zeros(1, device=place).expand(SNAPSHOT // 4)}  # takes no memory
    timer = threading.Timer(0.05 if waits else 5, gate.set)  # by which save() returns at the latest
    timer.start()
    run.save(state, 1, gate.wait, lambda: told.append("told"), moving=True, last=False)
    assert gate.is_set() == waits
    timer.cancel()
    gate.set()
    run.wait()
    assert told == [state if waits else "copied", "told"]


def test_log_steps_that_wait_keep_no_state_that_is_not_saved(tmp_path, monkeypatch):
    monkeypatch.setattr("run.folder.CHEAP", 0)
    run, gate, chains = new_run(tmp_path, device="cuda:0"), threading.Event(), torch.zeros(5)
    held = weakref.ref(chains)
    run.save({"chains": [chains]}, 1, gate.wait, None, moving=False, last=False)
    del chains
    assert held() is None
    gate.set()
    run.wait()


def test_log_rows_after_the_resumed_epoch_are_dropped(tmp_path):
    run, path = new_run(tmp_path), tmp_path / "metrics.csv"
    run.open_logs(0)
    for epoch in (1, 2, 3):
        run.log(epoch, {"gap": epoch / 3})
    run.close()
    with open(path, "a") as file:
        file.write("4,1.2")  # a row that was cut off
    run.open_logs(2)
    run.log(3, {"gap": 7.0})
    run.close()
    assert path.read_text().split() == ["epoch,gap", "1,0.3333333", "2,0.6666667", "3,7"]


def test_every_sheet_is_logged_and_moves_where_that_is_asked_for(tmp_path, moving):
    run = new_run(tmp_path)
    run.open_logs(0)
    for epoch, moves in ((1, True), (2, False)):
        run.log_pictures(epoch, [moving(4, 24, 24)], ["clip"], moving=moves)
    run.close()
    assert names(tmp_path / "progress") == ["epoch_0001.png", "epoch_0002.png"]
    events = b"".join(path.read_bytes() for path in (tmp_path / "log").iterdir())
    assert events.count(b"GIF89a") == 1 and events.count(b"JFIF") == 2
