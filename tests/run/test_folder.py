"""What a run leaves: whole files, checkpoints that load, logs that go on, one run at a time."""

import threading
import time
import weakref

import pytest
import torch

from run.flags import (
    RunError,
)
from run.folder import SNAPSHOT, Run, find_checkpoint, load_checkpoint, load_weights


def new_run(folder, **settings):
    return Run(folder, {"lr": 0.1, "num_epochs": 5, "size": [3, 4], **settings}, ("num_epochs",))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null"])
def test_a_damaged_config_is_an_error_of_one_line(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError, match="config.json' is damaged") as caught:
        new_run(tmp_path)
    assert caught.value.code == 2


def test_a_run_takes_other_settings_only_where_they_may_change(tmp_path):
    new_run(tmp_path / "run")
    new_run(tmp_path / "run", num_epochs=9)
    with pytest.raises(RunError) as caught:
        new_run(tmp_path / "run", lr=0.2, size=[3, 5])
    message = str(caught.value)
    assert caught.value.code == 2 and "\n" not in message
    assert all(part in message for part in ("lr was 0.1, now 0.2", "size was [3, 4], now [3, 5]", "-overwrite"))
    assert "num_epochs" not in message


def test_a_folder_has_one_run_at_a_time(tmp_path):
    settings = {"lr": 0.1}
    run = Run(tmp_path, settings, ())
    before = (tmp_path / "config.json").read_bytes()
    for overwrite in (False, True):
        with pytest.raises(RunError, match="another program is at work") as caught:
            Run(tmp_path, {"lr": 0.2}, (), overwrite)
        assert caught.value.code == 2 and (tmp_path / "config.json").read_bytes() == before
    run.open_logs(0)
    run.close()
    Run(tmp_path, settings, ())


def test_the_newest_checkpoints_are_kept_and_each_is_whole(tmp_path):
    run = new_run(tmp_path / "run")
    for epoch in (2, 998, 1000, 9998, 10000):
        run.save_checkpoint({"epoch": epoch, "w": torch.full((3,), float(epoch))}, epoch)
    kept = sorted(p.name for p in (tmp_path / "run/model").iterdir())
    assert kept == ["epoch_1000.pt", "epoch_10000.pt", "epoch_9998.pt", "latest.pt"]
    for name, epoch in (("latest", 10000), ("epoch_10000", 10000), ("epoch_9998", 9998), ("epoch_1000", 1000)):
        state = load_checkpoint(tmp_path / f"run/model/{name}.pt", "cpu")
        assert state["epoch"] == epoch and torch.equal(state["w"], torch.full((3,), float(epoch)))
    assert run.load_checkpoint("cpu")["epoch"] == 10000


def test_as_many_checkpoints_are_kept_as_asked_and_have_their_released_names_too(tmp_path):
    run = new_run(tmp_path, keep=4)
    for epoch in range(2920, 2980, 10):
        run.save_checkpoint({"epoch": epoch}, epoch)
    model = tmp_path / "model"
    assert sorted(p.name for p in model.iterdir()) == [f"epoch_29{k}0.pt" for k in range(4, 8)] + ["latest.pt"]
    for name in ("model.ckpt-2960", "epoch_2960.pt", str(model / "model.ckpt-2960"), str(model / "epoch_2960.pt")):
        assert find_checkpoint(tmp_path, name) == model / "epoch_2960.pt"
    assert find_checkpoint(tmp_path) == model / "latest.pt"
    with pytest.raises(RunError, match="'model.ckpt-2930': .* has epoch_2940.pt to epoch_2970.pt") as caught:
        find_checkpoint(tmp_path, "model.ckpt-2930")
    assert caught.value.code == 2


@pytest.mark.parametrize("weights, said", [
    ({"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}, "its weight is 2x4, here it is 2x3"),
    ({"weight": torch.zeros(2, 3)}, "its bias is missing, here it is 2"),
    ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "more": torch.zeros(())}, "its more is a number, here"),
    ([1], "not a checkpoint of this program")])
def test_weights_of_another_net_are_an_error_of_one_line(weights, said):
    with pytest.raises(RunError) as caught:
        load_weights(torch.nn.Linear(3, 2), weights, "a.pt")
    message = str(caught.value)
    assert caught.value.code == 2 and "'a.pt'" in message and said in message and "\n" not in message


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, capsys):
    run = new_run(tmp_path / "run")
    assert run.load_checkpoint("cpu") is None
    for epoch in (1, 2, 3):
        run.save_checkpoint({"epoch": epoch, "w": torch.zeros(1000)}, epoch)
    model = tmp_path / "run/model"
    whole = (model / "latest.pt").read_bytes()
    damaged = [whole[:n] for n in (0, 1, 10, 100, len(whole) // 2, len(whole) - 1)] + [b"text", bytes(len(whole))]
    for content in damaged:
        for name in ("latest.pt", "epoch_0003.pt"):
            (model / name).unlink()
            (model / name).write_bytes(content)
        assert run.load_checkpoint("cpu")["epoch"] == 2
        assert "latest.pt" in capsys.readouterr().err
    for epoch in (1, 2):
        (model / f"epoch_{epoch:04d}.pt").unlink()
    assert run.load_checkpoint("cpu") is None


def test_a_disk_that_is_full_while_saving_is_named_and_the_checkpoint_before_is_intact(tmp_path, monkeypatch):
    run, save = new_run(tmp_path / "run"), torch.save
    run.save_checkpoint({"epoch": 1}, 1)

    class Full:
        def write(self, content):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", lambda state, file: save(state, Full()))
    with pytest.raises(RunError) as caught:
        run.save_checkpoint({"epoch": 2, "w": torch.zeros(100)}, 2)
    assert caught.value.code == 1
    assert "latest.pt" in str(caught.value) and "No space left on device" in str(caught.value)
    assert sorted(p.name for p in (tmp_path / "run/model").iterdir()) == ["epoch_0001.pt", "latest.pt"]
    assert run.load_checkpoint("cpu")["epoch"] == 1


def test_a_job_in_the_background_is_waited_for_and_what_it_raises_arrives(tmp_path):
    run, done = new_run(tmp_path / "run"), []

    def slow():
        time.sleep(0.05)
        done.append("first")

    def fails():
        assert done == ["first"]  # one at a time, in their order
        raise RunError("no room")

    run.in_background(slow)
    run.in_background(fails)
    with pytest.raises(RunError, match="no room"):
        run.wait()
    run.wait()  # told once


def test_a_few_jobs_may_wait_for_their_turn_and_none_is_heard_of_after_one_that_failed(tmp_path, monkeypatch):
    monkeypatch.setattr("run.folder.BACKLOG", 3)
    run, gate, done = new_run(tmp_path / "run"), threading.Event(), []
    run.in_background(gate.wait)
    run.in_background(lambda: done.append(1))
    run.in_background(lambda: done.append(2))
    assert not done  # learning goes on meanwhile
    threading.Timer(0.05, gate.set).start()
    run.in_background(lambda: done.append(3))  # one too many: waits for the first
    assert gate.is_set()
    run.wait()
    assert done == [1, 2, 3]
    gate.clear()
    for job in (gate.wait, lambda: 1 / 0, lambda: [][0]):
        run.in_background(job)
    gate.set()
    with pytest.raises(ZeroDivisionError):
        run.wait()
    run.wait()


@pytest.mark.parametrize("keep, saved", [(3, [2]), (4, [1, 2])])
def test_a_gpu_saves_a_large_state_every_time_if_more_of_them_are_to_be_kept(keep, saved, tmp_path, monkeypatch):
    monkeypatch.setattr("run.folder.CHEAP", 0)
    run, epochs = new_run(tmp_path, device="cuda:0", keep=keep), []
    monkeypatch.setattr(run, "save_checkpoint", lambda state, epoch: epochs.append(epoch))
    for epoch in (1, 2):
        run.save({"w": torch.zeros(5)}, epoch, lambda: None, lambda: None, moving=False, last=epoch == 2)
    run.wait()
    assert epochs == saved


@pytest.mark.parametrize("device, waits", [("cpu", True), ("cuda:0", False)])
def test_a_gpu_learns_on_while_its_state_is_saved_and_a_cpu_while_a_small_one_is(device, waits, tmp_path, monkeypatch):
    monkeypatch.setattr("run.folder.CHEAP", 0)
    run, gate, large = new_run(tmp_path / "run", device=device), threading.Event(), SNAPSHOT // 4
    state = {"w": torch.zeros(1).expand(large)}  # takes no memory
    monkeypatch.setattr("run.folder.snapshot", lambda state: {"copied": True})
    done = []
    monkeypatch.setattr(run, "save_checkpoint", lambda state, epoch: done.append((epoch, *state)))

    def save(epoch, moving, last):
        run.save(dict(state), epoch, gate.wait, lambda: done.append(f"told {epoch}"), moving=moving, last=last)

    if waits:
        threading.Timer(0.05, gate.set).start()
    save(1, True, False)
    assert gate.is_set() == waits
    gate.set()
    save(2, False, False)  # a GPU's large state is saved less often
    save(3, True, True)  # nothing changes after the last
    run.wait()
    small, kept = ("w", "copied") if waits else ("copied", "w"), "w"
    first = [(1, small[0]), "told 1"]
    assert done == first + ([(2, kept), "told 2"] if waits else []) + [(3, kept), "told 3"]


def test_log_steps_that_wait_keep_no_state_that_is_not_saved(tmp_path, monkeypatch):
    monkeypatch.setattr("run.folder.CHEAP", 0)
    run, gate, chains = new_run(tmp_path / "run", device="cuda:0"), threading.Event(), torch.zeros(5)
    held = weakref.ref(chains)
    run.save({"chains": [chains]}, 1, gate.wait, None, moving=False, last=False)
    del chains
    assert held() is None
    gate.set()
    run.wait()


def test_a_checkpoint_may_hold_only_plain_types_and_tensors(tmp_path):
    torch.save({"path": tmp_path}, tmp_path / "a.pt")
    with pytest.raises(RunError, match="a.pt"):
        load_checkpoint(tmp_path / "a.pt", "cpu")
    with pytest.raises(RunError, match="there is no checkpoint"):
        load_checkpoint(tmp_path / "b.pt", "cpu")


@pytest.mark.parametrize("state", [torch.zeros(2), {"latents": 1}, [1]])
def test_another_programs_checkpoint_is_told_apart(state, tmp_path):
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(RunError, match="not a checkpoint of this program") as caught:
        load_checkpoint(tmp_path / "a.pt", "cpu", "chains")
    assert caught.value.code == 2


def test_log_rows_after_the_resumed_epoch_are_dropped(tmp_path):
    run = new_run(tmp_path / "run")
    run.open_logs(0)
    for epoch in (1, 2, 3):
        run.log(epoch, {"gap": epoch / 3})
    run.close()
    path = tmp_path / "run/metrics.csv"
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
        assert (tmp_path / f"progress/epoch_000{epoch}.png").exists()
    run.close()
    events = b"".join(path.read_bytes() for path in (tmp_path / "log").iterdir())
    assert events.count(b"GIF89a") == 1 and events.count(b"JFIF") == 2
