"""Speed of sampling and learning: ours against the plain way, in one run on this machine.

    python bench.py                 # a table for ST and FC_S at 100 px, FC_S_large at 224 px; 70 frames, 3 chains
    python bench.py -json out.json  # the same figures for a program
    python bench.py -run            # where the time of a whole run of main.py goes: a shipped clip, 64 px, 20 epochs
    python bench.py -run -im_size 128 -num_epochs 60   # of another; what stands after -run are flags of main.py
    torchrun --nproc_per_node 4 bench.py   # what four processes gain over one, each with a GPU or one thread

'plain' is what the library offers: its convolution everywhere and autograd, float32, contiguous tensors. A Langevin
step is gradient, drift and noise; a learning step is the gap of 3 chains and 1 observed video, its gradient, and Adam.
GFLOP/s count the multiplications and additions that the model needs, whatever is spent; 'of mm' is their share of what
a matrix product of the same type reaches in the same run (2048 x 2048 on a CPU). The error is the gradient's against
float64 (relative norm; 32 px, 14 frames, units clear of their kinks, so that arithmetic alone counts). There is no bf16
where the machine has no instructions for it. '+ field' is what a step takes longer with -reference field: its map from
noise to video and back. With N processes, an epoch is 5 Langevin steps and a learning step of 3 N chains and a clip, in
float32: the first process makes it alone while the others wait, then all share it; efficiency is the time alone over N
times that together, and what they exchange is the gradient of the parameters.
"""

import argparse
import copy
import functools
import json
import math
import multiprocessing
import platform
import resource
import statistics
import sys
import tempfile
import time

import torch
import torch.nn.functional as F

import utils
from fast.device import multiplies_bfloat16, prepare
from fast.gradient import FastGradient
from fast.graph import FastLangevin, LangevinGraph
from field.gaussian import GaussianField
from langevin import langevin
from model import descriptor
from run import ranks
from run.adam import Adam
from run.flags import ArgumentParser, add_flag, device_name, positive_int

NETS = {"ST": 100, "FC_S": 100, "FC_S_large": 224}
VARIANTS = ("plain fp32", "ours fp32", "ours bf16")
PARTS = {  # of a run: on its clock, one after the other, then in the background, beside these and at the end
    "start": "Python, PyTorch, clip, precision, reference, net",
    "sampling": "Langevin steps",
    "learning": "gap, its gradient, Adam, metrics",
    "between": "from epoch to epoch: copies of the state, waiting for outputs",
    "end": "from the last epoch until the program is gone",
    "outputs": "in the background: frames, sheets, GIFs, MP4s",
    "evaluation": "in the background: the table that judges the run, and its picture",
    "page": "in the background: index.html",
}
DELTA = 0.3
WARM = 2  # rounds before those that count: memory still grows in them
RUN = ("-category", "fire_pot", "-im_size", "64", "-preset", "quality", "-num_epochs", "20")
STEPS = 5  # Langevin steps of an epoch
CHAIN = 20  # Langevin steps that are timed at once on a GPU: one CUDA graph


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds(function, device):
    wait(device)
    begun = time.perf_counter()
    function()
    wait(device)
    return time.perf_counter() - begun


def gigaflop(f):
    """Multiplications and additions, in 1e9, of f and its input gradient for one video."""
    total, size = 0, f.size
    for layer in f.layers:
        size = layer.out_size(size)
        total += math.prod(size) * layer.weight.numel()
    return 2 * 2 * total / 1e9


def product_rate(dtype, device, n=2048):
    """GFLOP/s of an n x n matrix product, the best of ten."""
    n = 8192 if device.type == "cuda" else n
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    best = min(seconds(lambda: a @ b, device) for _ in range(10))
    return 2 * n**3 / best / 1e9


def copy_rate(device):
    """GB/s that are read and written while a large tensor is copied, the best of ten."""
    a = torch.empty(2**28 if device.type == "cuda" else 2**26, device=device)
    b = torch.empty_like(a)
    return 2 * a.nbytes / min(seconds(lambda: b.copy_(a), device) for _ in range(10)) / 1e9


def traffic(f, chains, entry):
    """GB that a Langevin step cannot but move, at `entry` bytes an entry of a map or a weight: every map and its
    gradient written once and read once, the weights read twice; float32 videos: read by f, written as its gradient,
    then read, changed and written again, with their noise."""
    size, maps, videos = f.size, 0, 3 * math.prod(f.size)
    for layer in f.layers:
        size = layer.out_size(size)
        maps += len(layer.bias) * math.prod(size)
    weights = sum(p.numel() for p in f.parameters())
    return (chains * (4 * entry * maps + 4 * 6 * videos) + 2 * entry * weights) / 1e9


def print_profile(name, step, f, chains, rate, device):
    """Where the time of a Langevin step goes, and the two floors under it."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        seconds(step, device)
    arithmetic, moved = chains * gigaflop(f) / rate, traffic(f, chains, 2 if name.endswith("bf16") else 4)
    speed = copy_rate(device)
    print(f"{name}: arithmetic takes {1e3 * arithmetic:.3g} ms at {rate:.0f} GFLOP/s, {moved:.3g} GB of memory "
          f"traffic {1e3 * moved / speed:.3g} ms at {speed:.0f} GB/s")
    print(profile.key_averages().table(sort_by=f"self_{device.type}_time_total", row_limit=12,
                                       max_name_column_width=60))


def plain_features(f, x):
    """f.features by the library's convolution everywhere."""
    for layer in f.layers:
        pads = [edge for pad in reversed(layer.padding(x.shape[2:])) for edge in pad]
        x = F.relu(F.conv3d(F.pad(x, pads), layer.weight, layer.bias, layer.stride))
    return x


def plain_gradient(f, x):
    """f.gradient by autograd through `plain_features`."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(plain_features(f, x).sum(), x)[0]


def gradient_errors(net, device, precisions):
    """Relative error against float64 of the plain gradient, and of ours in each of the precisions."""
    torch.manual_seed(0)
    f = descriptor(net, 14, 32).to(device)
    for layer in f.layers:
        layer.bias.detach().fill_(100)
    x = 50 * torch.randn(1, 14, 32, 32, 3, device=device).permute(0, 4, 1, 2, 3)
    exact = plain_gradient(copy.deepcopy(f).double(), x.double())
    gradients = [plain_gradient(f, x), *(FastGradient(f, precision)(x) for precision in precisions)]
    return [((g.double() - exact).norm() / exact.norm()).item() for g in gradients]


def videos_of(f, count, device):
    """`count` videos of noise, stored channels last."""
    return 50 * torch.randn(count, *f.size, 3, device=device).permute(0, 4, 1, 2, 3)


def learn(features, videos, chains, optimizer, share=None):
    """One learning step: the gap of the first `chains` videos and the last one, its gradient, Adam. share: which of
    them `videos` are, where other processes have the others."""
    sign = torch.tensor([1 / chains] * chains + [-1.0], device=videos.device)
    optimizer.zero_grad()
    (features(videos).flatten(1).sum(1) * (sign[share] if share else sign)).sum().backward()
    if share:
        ranks.sum_([p.grad for p in optimizer.parameters])
    optimizer.step()


def score_of(gradient):
    """Gradient of the log density, with sigma = 1."""
    return lambda J: gradient(J).sub_(J)


def our_step(gradient, J, generators):
    """Our Langevin step from the chains J."""
    return lambda: langevin(J, score_of(gradient), 1, DELTA, generators)


def our_chain(gradient, J, generators):
    """Our Langevin steps as they are timed at once."""
    if not J.is_cuda:
        return our_step(gradient, J, generators)
    graph = LangevinGraph(J, score_of(gradient), CHAIN, DELTA, generators)
    return lambda: graph(J, DELTA, generators)


def field_steps(x, generators):
    """What the reference field adds to a step from the chains x: noise to video, and a gradient back."""
    q = GaussianField.fit(x[:1])
    y, g = q.noise(generators), x.clone()
    return lambda: q.pull(y, lambda J: g)


def plain_steps(f, device, chains):
    """The plain Langevin step and learning step; contiguous weights send the library down its ordinary way."""
    plain = copy.deepcopy(f).to(memory_format=torch.contiguous_format)
    x = videos_of(f, chains + 1, device).contiguous()
    adam = torch.optim.Adam(plain.parameters(), 1e-3)

    def step():
        J = x[:chains]
        return J + DELTA**2 / 2 * (plain_gradient(plain, J) - J) + DELTA * torch.randn_like(J)

    return step, lambda: learn(lambda videos: plain_features(plain, videos), x, chains, adam)


def measure(net, device_name, rounds, chains, profile, queue):
    """All figures of one net, in a process of its own (for its peak memory)."""
    device = torch.device(device_name)
    prepare(device)
    torch.manual_seed(0)
    f = descriptor(net, 70, NETS[net]).to(device)
    precisions = ["fp32", "bf16"] if multiplies_bfloat16(device) else ["fp32"]
    gradients = [FastGradient(f, precision) for precision in precisions]
    x, adam = videos_of(f, chains + 1, device), Adam(f.parameters(), 1e-3, 0.5)
    start = x[:chains], [utils.generator(device, k) for k in range(chains)]
    ours = [our_chain(each, *start) for each in gradients]

    def our_learning():
        learn(f.features, x, chains, adam)

    for step in (*ours, our_learning):
        step()
    peak = (torch.cuda.max_memory_allocated() if device.type == "cuda" else
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024) / 2**30
    plain, plain_learning = plain_steps(f, device, chains)
    plain()
    plain_learning()
    names = VARIANTS[: len(precisions) + 1]
    times = {name: [] for name in names}
    for _ in range(WARM + rounds):
        for name, step in zip(names, (plain, *ours), strict=True):
            count = CHAIN if device.type == "cuda" and step is not plain else 1
            times[name].append(seconds(step, device) / count)
    field = field_steps(*start)
    field_time = statistics.median(seconds(field, device) for _ in range(WARM + rounds))
    learning = dict.fromkeys(names, statistics.median(seconds(our_learning, device) for _ in range(rounds)))
    learning["plain fp32"] = seconds(plain_learning, device)  # always float32
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    rates = {precision: product_rate(dtypes[precision], device) for precision in precisions}
    if profile:
        for name, each in zip(names[1:], gradients, strict=True):
            print_profile(f"{net} {name}", our_step(each, *start), f, chains, rates[name[-4:]], device)
    base, cost, rows = statistics.median(times["plain fp32"][WARM:]), chains * gigaflop(f), []
    for name, error in zip(names, gradient_errors(net, device, precisions), strict=True):
        step, learn_time, rate = statistics.median(times[name][WARM:]), learning[name], rates[name[-4:]]
        rows.append({
            "net": net, "variant": name, "seconds_per_step": step, "speedup": base / step,
            "seconds_per_learning_step": learn_time, "epoch_of_5_steps": 5 * step + learn_time,
            "epoch_speedup": (5 * base + learning["plain fp32"]) / (5 * step + learn_time), "gflops": cost / step,
            "share_of_product": cost / step / rate, "product_gflops": rate,
            "peak_gib": None if name == "plain fp32" else peak, "gradient_error": error,
            "field_seconds": None if name == "plain fp32" else field_time,
        })
    queue.put(rows)


def print_table(rows):
    print(f"{'net':<11}{'variant':<11}{'s/step':>8}{'x plain':>8}{'s/learn':>9}{'s/epoch of 5':>13}{'x plain':>8}"
          f"{'GFLOP/s':>9}{'of mm':>7}{'peak GiB':>9}{'error':>9}{'+ field':>9}")
    for r in rows:
        peak, field = (f"{r[key]:{form}}" if r[key] else "-" for key, form in (("peak_gib", ".1f"),
                                                                               ("field_seconds", ".3g")))
        print(f"{r['net']:<11}{r['variant']:<11}{r['seconds_per_step']:>8.4g}{r['speedup']:>8.2f}"
              f"{r['seconds_per_learning_step']:>9.4g}{r['epoch_of_5_steps']:>13.4g}{r['epoch_speedup']:>8.2f}"
              f"{r['gflops']:>9.0f}{r['share_of_product']:>6.0%} {peak:>9}{r['gradient_error']:>9.1e}{field:>9}")


def scaling(net, device, rounds, chains):
    """What the processes of torchrun gain in an epoch of one net."""
    torch.manual_seed(0)
    f = descriptor(net, 70, NETS[net]).to(device)
    adam, gradient = Adam(f.parameters(), 1e-3, 0.5), FastGradient(f)

    def time_epoch(share=None):
        """Median seconds of an epoch with all chains and a clip, which is the last, or with a share of them."""
        x = videos_of(f, len(range(chains + 1)[share or slice(None)]), device)
        J = x[: len(range(chains)[share or slice(None)])]
        langevin_steps = FastLangevin(score_of(gradient), gradient, STEPS, len(J))
        generators = [utils.generator(device, k) for k in range(len(J))]

        def epoch():
            J.copy_(langevin_steps(J, DELTA, generators))
            learn(f.features, x, chains, adam, share)

        return statistics.median([seconds(epoch, device) for _ in range(WARM + rounds)][WARM:])

    alone = ranks.first(time_epoch)
    together = time_epoch(ranks.shares([chains + 1])[0])
    return {"net": net, "processes": ranks.world(), "chains": chains, "seconds_alone": alone, "seconds": together,
            "speedup": alone / together, "efficiency": alone / together / ranks.world(),
            "bytes_exchanged": 4 * sum(p.numel() for p in f.parameters())}


def print_scaling(rows):
    print(f"{'net':<11}{'processes':>9}{'chains':>8}{'s/epoch':>9}{'alone':>9}{'x alone':>9}{'efficiency':>11}"
          f"{'MB exchanged':>14}")
    for r in rows:
        print(f"{r['net']:<11}{r['processes']:>9}{r['chains']:>8}{r['seconds']:>9.4g}{r['seconds_alone']:>9.4g}"
              f"{r['speedup']:>9.2f}{r['efficiency']:>11.0%}{r['bytes_exchanged'] / 1e6:>14.1f}")


def several(args):
    """The table of `scaling`, where torchrun has started several processes."""
    device = ranks.start(args.device)
    torch.set_num_threads(1)
    prepare(device)
    rows = [scaling(net, device, args.rounds, args.chains * ranks.world()) for net in args.nets]
    print_scaling(rows)
    if ranks.rank() == 0:
        save_figures(args.json, rows)
    ranks.end()


def time_run(flags):
    """Seconds of a run of main.py with these flags, by PARTS; its outputs are deleted."""
    context, begun = multiprocessing.get_context("spawn"), time.time()
    queue = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        child = context.Process(target=clocked_run, args=([*flags, "-output_dir", folder], queue))
        child.start()
        spans = queue.get()
        child.join()
        ended = time.time()
    if child.exitcode or not spans.get("commit"):
        sys.exit(child.exitcode)
    return parts_of(begun, ended, spans)


def clocked_run(flags, queue):
    """Run main.py, end as it does, and put into the queue when each call of what is timed began and ended."""
    spans = {}
    try:
        for name, (owner, function) in timed_functions().items():
            spans[name] = []
            setattr(owner, function, clocked(getattr(owner, function), spans[name], wait=name == "sampling"))
        import main  # no part of this program, but what it measures

        sys.exit(main.main(flags))
    finally:
        queue.put(spans)


def timed_functions():
    """What is timed of a run, by name: where it is, and what it is called there."""
    import main
    from stg import outputs

    return {"sampling": (main.FastLangevin, "__call__"), "learn": (main.Learner, "learn"),
            "commit": (main.Learner, "commit"), "outputs": (main, "save_outputs"), "page": (main, "write_page"),
            "evaluation": (outputs.Judge, "report")}


def clocked(function, spans, wait):
    """The function, but it adds when it began and ended to spans; wait: for the GPU, too."""

    @functools.wraps(function)
    def timed(*args, **kwargs):
        begin, result = time.time(), function(*args, **kwargs)
        if wait and torch.cuda.is_available():
            torch.cuda.synchronize()
        spans.append((begin, time.time()))
        return result

    return timed


def parts_of(begun, ended, spans):
    """Seconds of a run by PARTS, from when it began and ended and from the spans of `clocked_run`."""
    spent = {name: sum(end - begin for begin, end in each) for name, each in spans.items()}
    first, last = spans["learn"][0][0], spans["commit"][-1][1]
    steps = spent["learn"] + spent["commit"]
    return {"start": first - begun, "sampling": spent["sampling"], "learning": steps - spent["sampling"],
            "between": last - first - steps, "end": ended - last, "outputs": spent["outputs"] - spent["evaluation"],
            "evaluation": spent["evaluation"], "page": spent["page"]}


def print_parts(parts):
    for name, seconds in parts.items():
        print(f"{name:<11}{seconds:>8.2f} s  {PARTS[name]}")
    whole = sum(parts[name] for name in ("start", "sampling", "learning", "between", "end"))
    print(f"{'whole':<11}{whole:>8.2f} s")


def main(argv=None):
    parser = ArgumentParser(prog="bench.py", description=__doc__)
    add_flag(parser, "nets", list(NETS), "which nets", nargs="+", choices=tuple(NETS))
    add_flag(parser, "rounds", 5, "rounds, of which the median is shown", type=positive_int)
    add_flag(parser, "chains", 3, "videos sampled at once", type=positive_int)
    add_flag(parser, "device", "auto", "auto, cpu, cuda, ...", type=device_name)
    add_flag(parser, "profile", help="show where a Langevin step's time goes, and its floors",
                   action="store_true")
    add_flag(parser, "json", None, "file for the figures")
    add_flag(parser, "run", None, "time a whole run of main.py by its parts; what follows are flags of main.py, to "
             f"those that are always there: {' '.join(RUN)}", nargs=argparse.REMAINDER, metavar="...")
    args = parser.parse_args(argv)
    if args.run is not None:
        parts = time_run([*RUN, *args.run])
        print_parts(parts)
        return save_figures(args.json, parts)
    if ranks.world() > 1:
        return several(args)
    context, rows = multiprocessing.get_context("spawn"), []
    for net in args.nets:
        queue = context.Queue()
        child = context.Process(target=measure, args=(
            net, str(args.device), args.rounds, args.chains, args.profile, queue))
        child.start()
        while child.is_alive() and queue.empty():
            time.sleep(0.2)
        if queue.empty():
            sys.exit(f"bench.py: measuring {net} failed")
        rows += queue.get()
        child.join()
    name = (torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else
            platform.processor() or platform.machine())
    print(f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, {args.chains} chains, 70 frames")
    print_table(rows)
    save_figures(args.json, rows)


def save_figures(path, figures):
    if path:
        utils.write_atomically(path, json.dumps(figures, indent=2).encode())


if __name__ == "__main__":
    main()
