"""Several processes of one run, started by torchrun: who they are, and how they exchange what they have found.

Every process computes; the first alone reads, writes and speaks. They exchange only where all of them are, which `vote`
makes sure of: a process that wants to stop says so there, and one that has died or hangs is missed there. Without
torchrun there is one process, and each function gives back what it was given.
"""

import contextlib
import math
import os
import re
import sys
import time
from datetime import timedelta
from itertools import accumulate

import torch
import torch.distributed as dist

from data import InputError

SECONDS = 60  # that a process may be behind the others
PATIENCE = 3600  # seconds that the others wait where the first reads or writes
groups = {}  # by the type of a device, through which its tensors are exchanged
store = None  # what torchrun keeps for all processes
lost = False  # whether a process is missing: an exchange would hang


class Lost(Exception):
    """Another process has died or hangs."""


def world():
    """How many processes there are."""
    return int(os.environ["WORLD_SIZE"]) if dist.is_available() and dist.is_torchelastic_launched() else 1


def here():
    """How many of them are on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if world() > 1 else 1


def rank():
    """The number of this process, 0 for the first."""
    return int(os.environ["RANK"]) if world() > 1 else 0


def start(device):
    """Join the other processes. Returns the device of this one: each has a GPU of its own. InputError if there are too
    few."""
    global store
    if world() == 1:
        return device
    if rank():
        sys.stdout = open(os.devnull, "w")
    if device.type == "cuda":
        gpus = torch.cuda.device_count()
        if here() > gpus or device.index is not None:
            hush(int(os.environ["LOCAL_RANK"]))
            raise InputError(f"{here()} processes need a GPU each, of {gpus} on this machine, and -device cuda")
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    with missing():
        store, _, _ = next(dist.rendezvous("env://", timeout=timedelta(seconds=SECONDS)))
        dist.init_process_group("gloo", store=store, rank=rank(), world_size=world(),
                                timeout=timedelta(seconds=PATIENCE))
        if device.type == "cuda":
            groups["cuda"] = dist.new_group(backend="nccl", timeout=timedelta(seconds=SECONDS))
    return device


def end():
    """Leave the other processes."""
    if dist.is_available() and dist.is_initialized() and not lost:
        dist.destroy_process_group()


def alone():
    """InputError, told once, if there are other processes."""
    if world() > 1:
        hush()
        raise InputError(f"this takes one process, not {world()}: start it without torchrun")


def hush(others=None):
    """Let this process say nothing more, unless it is the first (others: its number): the first says it."""
    if rank() if others is None else others:
        sys.stderr = open(os.devnull, "w")


@contextlib.contextmanager
def missing():
    """Lost, told by one process, in place of the errors of an exchange that another has left."""
    global lost
    try:
        yield
    except RuntimeError as error:
        lost = True
        found = re.search(r"[Rr]ank (\d+) failed", str(error)) if rank() == 0 else None
        if rank():
            time.sleep(1)  # the first knows more
        with contextlib.suppress(RuntimeError):
            hush(store is not None and store.add("told", 1) > 1)
        which = f"process {found[1]}" if found else "another process"
        raise Lost(f"{which} of {world()} has died, or hangs") from None


def vote(stop=0, seconds=SECONDS):
    """Wait, at most so long, until all processes are here. Returns the largest `stop` among theirs."""
    if world() == 1:
        return stop
    with missing():
        dist.monitored_barrier(timeout=timedelta(seconds=seconds))
        largest = torch.tensor(stop)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


def first(function, tell=True):
    """What function() returns in the first process, in all of them, or None in the others if it is not to be told. What
    it raises, it raises in all."""
    if world() == 1:
        return function()
    found, error = None, None
    if rank() == 0:
        try:
            found = function()
        except (Exception, KeyboardInterrupt) as raised:
            error = raised
    told = [on(found, "cpu") if tell else None, error]
    with missing():
        dist.monitored_barrier(timeout=timedelta(seconds=PATIENCE))
        dist.broadcast_object_list(told)
    if told[1] is not None:
        hush()
        raise told[1]
    return found if rank() == 0 else told[0]


def on(tree, device):
    """Nested dicts, lists and tuples with their tensors on a device."""
    if isinstance(tree, dict):
        return {key: on(value, device) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(on(value, device) for value in tree)
    return tree.to(device) if isinstance(tree, torch.Tensor) else tree


def sum_(tensors):
    """Make of each float32 tensor, in its place, the sum of the processes' own, with one exchange."""
    if world() > 1:
        flat = torch.cat([entries(x) for x in tensors])
        with missing():
            dist.all_reduce(flat, group=groups.get(flat.device.type))
        for x, total in zip(tensors, flat.split([x.numel() for x in tensors]), strict=True):
            entries(x).copy_(total)


def total(number):
    """The sum of the processes' numbers."""
    if world() == 1:
        return number
    found = torch.tensor(number, dtype=torch.float64)
    with missing():
        dist.all_reduce(found)
    return found.item()


class Sum(torch.autograd.Function):
    """The sum of the processes' float32 tensors, for losses that are summed over the processes, too; its gradient has a
    gradient. torch.distributed.nn.functional.all_reduce is the same, but a process that is lost would not be Lost."""

    @staticmethod
    def forward(ctx, x):
        x = x.clone(memory_format=torch.contiguous_format)
        sum_([x])
        return x

    @staticmethod
    def backward(ctx, g):
        return Sum.apply(g)


def centred(x):
    """What batch norm needs of x (N, C, ...), this process's rows: x less the mean and, of the rows of all processes,
    the mean (C,), the variance (C,) and how many entries a channel has. torch.nn.SyncBatchNorm, which does this, has
    neither a CPU's version nor a second derivative."""
    axes, x = (0, *range(2, x.ndim)), x.float()
    sums = Sum.apply(torch.cat([x.sum(axes), x.new_full((1,), x.numel() / x.shape[1])]))
    mean, count = sums[:-1] / sums[-1], sums[-1]
    x = x - mean.view(-1, *[1] * (x.ndim - 2))
    return x, mean, Sum.apply(x.square().sum(axes)) / count, count


def alike(net):
    """Give a net, in all processes, the weights that it has in the first."""
    if world() > 1:
        net.load_state_dict(first(net.state_dict))


def joined(items):
    """The processes' lists of plain things as one, in their order."""
    if world() == 1:
        return items
    lists = [None] * world()
    with missing():
        dist.all_gather_object(lists, items)
    return sum(lists, [])


def check_rows(count):
    """InputError where mini-batches of so many clips leave processes without one."""
    if count < world():
        raise InputError(f"mini-batches of {count} clip(s) cannot be spread over {world()} processes: start fewer")


def shares(counts, which=None):
    """The rows that process `which` (this one) has of mini-batches of so many rows, a slice each: all rows, in their
    order, are spread evenly; the first processes have one more where that does not come out even."""
    which = rank() if which is None else which
    begin, end = (-(-sum(counts) * k // world()) for k in (which, which + 1))
    starts = accumulate(counts, initial=0)
    return [slice(min(max(begin - k, 0), n), min(max(end - k, 0), n)) for k, n in zip(starts, counts)]


def gathered(own, rows, count):
    """All `count` rows, of which each process has its own, (N, ...) float32; rows: which they are."""
    if world() == 1:
        return own
    found = own.new_zeros(count, *own.shape[1:])
    found[rows] = own
    sum_([found])
    return found


def spread(whole, counts):
    """Of mini-batches in the first process, tensors of so many rows, the rows of this one; None if it has None."""
    if world() == 1:
        return whole
    like = first(lambda: whole and (tuple(whole[0].shape[1:]), whole[0].stride()[1:], whole[0].dtype))
    if like is None:
        return None
    shape, stride, dtype = like
    own = [torch.empty_strided((s.stop - s.start, *shape), (math.prod(shape), *stride), dtype=dtype)
           for s in shares(counts)]
    with missing():
        for b, k, rows in others(counts):
            if rank() == 0:
                dist.send(entries(whole[b][rows]), k)
            elif rank() == k:
                dist.recv(entries(own[b]), 0)
    if rank() == 0:
        for x, mini_batch, rows in zip(own, whole, shares(counts)):
            x.copy_(mini_batch[rows])
    return own


def collected(own, counts):
    """The inverse of `spread`: whole mini-batches in the first process, on the host; the others keep their rows."""
    if world() == 1:
        return own
    own = [x.cpu() for x in own]
    row = next(x[0] for x in own if len(x))
    whole = [torch.empty_strided((n, *row.shape), (row.numel(), *row.stride()), dtype=row.dtype) for n in counts]
    with missing():
        for b, k, rows in others(counts):
            if rank() == k:
                dist.send(entries(own[b]), 0)
            elif rank() == 0:
                dist.recv(entries(whole[b][rows]), k)
    for x, mini_batch, rows in zip(own, whole, shares(counts)):
        if len(x):
            mini_batch[rows] = x
    return whole if rank() == 0 else [x for x in own if len(x)]


def others(counts):
    """(mini-batch, process, its rows of it) for all processes but the first, where there are rows."""
    for k in range(1, world()):
        for b, rows in enumerate(shares(counts, k)):
            if rows.start < rows.stop:
                yield b, k, rows


def entries(x):
    """The entries of a tensor that has no gaps, in the order of its memory."""
    return x.as_strided((x.numel(),), (1,))
