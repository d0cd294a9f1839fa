"""bench.py on small videos: its counts against PyTorch's own, and its table."""

import json
import os
import queue
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import bench
from model import NETS, descriptor


@pytest.mark.parametrize("net_type", NETS)
def test_the_arithmetic_that_f_needs_is_counted_as_by_pytorch(net_type):
    f = descriptor(net_type, 7, (9, 12))
    with FlopCounterMode(display=False) as counter:
        bench.plain_gradient(f.requires_grad_(False), torch.randn(1, 3, 7, 9, 12))
    assert bench.gigaflop(f) == pytest.approx(counter.get_total_flops() / 1e9, rel=1e-6)


@pytest.mark.parametrize("net_type, bf16", [("FC_S_large", False), ("ST", True)])
def test_the_table_has_every_variant_that_the_machine_has_instructions_for(net_type, bf16, monkeypatch, capsys):
    monkeypatch.setattr(bench, "multiplies_bfloat16", lambda device: bf16)
    monkeypatch.setitem(bench.NETS, net_type, 16)
    monkeypatch.setattr(bench, "product_rate", lambda dtype, device: 100.0)
    monkeypatch.setattr(bench, "copy_rate", lambda device: 10.0)
    rows = queue.Queue()
    bench.measure(net_type, "cpu", rounds=1, chains=2, profile=True, queue=rows)
    rows = rows.get()
    assert [row["variant"] for row in rows] == ["plain fp32", "ours fp32", "ours bf16"][: 2 + bf16]
    assert all(row["gradient_error"] < limit for row, limit in zip(rows, (1e-5, 1e-5, 0.01), strict=False))
    for row in rows:
        assert row["speedup"] == pytest.approx(rows[0]["seconds_per_step"] / row["seconds_per_step"])
        assert row["epoch_of_5_steps"] == pytest.approx(5 * row["seconds_per_step"] + row["seconds_per_learning_step"])
        assert row["share_of_product"] == pytest.approx(row["gflops"] / 100)
    bench.print_table(rows)
    printed = capsys.readouterr().out
    assert printed.count(f"\n{net_type} ") >= len(rows) and "arithmetic takes" in printed and "Self CPU" in printed


def test_the_parts_of_a_run_add_up(monkeypatch, capsys):
    spans = {name: [] for name in ("sampling", "learn", "commit", "outputs", "page", "evaluation")}
    spans |= {"learn": [(3, 5), (6, 8)], "sampling": [(3, 4), (6, 7.5)], "commit": [(5, 5.5), (8, 8.5)],
              "outputs": [(8.5, 12)], "evaluation": [(9, 11)], "page": [(12, 12.5)]}
    assert spans.keys() == {name for name, (owner, each) in bench.timed_functions().items() if hasattr(owner, each)}
    parts = bench.parts_of(1, 13, spans)
    assert parts == {"start": 2, "sampling": 2.5, "learning": 2.5, "between": 0.5, "end": 4.5, "outputs": 1.5,
                     "evaluation": 2, "page": 0.5}
    monkeypatch.setattr(bench, "time_run", lambda flags: [parts, asked.extend(flags)][0])
    asked = []
    bench.main(["-run", "-im_size", "32"])
    assert asked[-2:] == ["-im_size", "32"] and asked[:2] == ["-category", "fire_pot"]
    assert "whole         12.00 s" in capsys.readouterr().out  # from 1 to 13


def test_two_processes_are_measured_beside_one(tmp_path):
    root, script, figures = Path(bench.__file__).parent, tmp_path / "small.py", tmp_path / "figures.json"
    script.write_text(f"import sys\nsys.path.insert(0, {str(root)!r})\nimport bench\nbench.NETS['ST'] = 16\n"
                      f"bench.main(['-nets', 'ST', '-rounds', '2', '-device', 'cpu', '-json', {str(figures)!r}])\n")
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
                           script], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0, done.stderr
    [row], parameters = json.loads(figures.read_text()), sum(p.numel() for p in descriptor("ST", 70, 16).parameters())
    assert (row["processes"], row["chains"], row["bytes_exchanged"]) == (2, 6, 4 * parameters)
    assert row["efficiency"] == pytest.approx(row["seconds_alone"] / row["seconds"] / 2) and row["seconds"] > 0
    assert done.stdout.count("ST ") == done.stdout.count("efficiency") == 1  # the first process alone speaks
