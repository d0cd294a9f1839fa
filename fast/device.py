"""What a device can do, and the settings of the process that make it fast."""

import contextlib
import math
import os
import platform
import re
import time
from pathlib import Path

import torch


def prepare(device):
    """Settings of the process for a device, before its first use.

    A GPU: cuDNN tries the three kernels that it expects most of and keeps the fastest (its first alone may be many
    times slower, ten are no faster and take seconds more to try); float32 products are float32, not TF32. A CPU: the C
    library keeps large freed blocks, for all threads, since giving them back and faulting them in again costs a
    Langevin step more than its arithmetic (Linux with glibc; elsewhere nothing happens).
    """
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.benchmark_limit = True, 3
        torch.backends.cudnn.conv.fp32_precision = torch.backends.cuda.matmul.fp32_precision = "ieee"
    elif platform.system() == "Linux" and platform.libc_ver()[0] == "glibc":
        import ctypes

        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no block gets a mapping of its own
        libc.mallopt(-8, 1)  # M_ARENA_MAX: threads share one heap
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: never shrink the heap


def multiplies_bfloat16(device):
    """Whether the device has instructions for products in bfloat16: without, they take a hundred times longer than
    float32's. An x86 processor is asked; any other device is timed, for its library need not use what it has."""
    able = torch.cpu.get_capabilities()
    if device.type == "cpu" and "avx512_bf16" in able:
        return able["avx512_bf16"]
    seconds = []
    for dtype, count in ((torch.float32, 30), (torch.bfloat16, 3)):  # a busy machine must not make the first look slow
        x, trials = torch.ones(256, 256, dtype=dtype, device=device), []
        for _ in range(count):
            begun = time.perf_counter()
            (x @ x)[0, 0].item()  # waits for the device
            trials.append(time.perf_counter() - begun)
        seconds.append(min(trials))
    return seconds[1] < 10 * seconds[0]


def available_memory(device):
    """Bytes that are free on the device: on a CPU, what the system, a container and `ulimit -v` leave to us."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    limits = []
    with contextlib.suppress(OSError, ValueError, AttributeError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits.append(1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable"))))
    with contextlib.suppress(OSError, ValueError):  # a container's, whose files that can be dropped count as free
        group = Path("/sys/fs/cgroup")
        cached = re.search(r"^inactive_file (\d+)", (group / "memory.stat").read_text(), re.MULTILINE)
        used = int((group / "memory.current").read_text()) - int(cached[1] if cached else 0)
        limits.append(int((group / "memory.max").read_text()) - used)
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most != resource.RLIM_INFINITY:
            limits.append(most - int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize())
    with contextlib.suppress(ValueError, OSError, AttributeError):
        limits = limits or [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    return min(limits, default=8 * 2**30)


def memory_per_video(f, size):
    """Bytes that one video of size (T, H, W) takes in the learning step, which takes most: padded copies, maps and
    their gradients."""
    entries = 4 * 3 * math.prod(size)
    for layer in f.layers:
        size = layer.out_size(size)
        entries += 3 * len(layer.bias) * math.prod(size)
    return 4 * entries


def pick_chunk(f, size, videos, device):
    """How many of so many videos of size (T, H, W) fit at once into half of the memory that is free; on a CPU, where
    larger batches gain little, into 1 GiB."""
    parameters = 4 * 4 * sum(p.numel() for p in f.parameters())  # weights, gradients and Adam's two moments
    free = (available_memory(device) - parameters) / 2
    budget = min(free, 2**30) if device.type == "cpu" else free
    return int(min(max(budget // memory_per_video(f, size), 1), videos))


def holds(device, f, size):
    """Whether so many bytes of videos may stay on the device: in the half of its memory that `pick_chunk` leaves."""
    parameters = 4 * 4 * sum(p.numel() for p in f.parameters())
    return device.type == "cpu" or size < (available_memory(device) - parameters) / 2
