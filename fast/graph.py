"""Langevin dynamics in parts that fit into memory, each on a GPU as one CUDA graph."""

import torch

from langevin import langevin


class FastLangevin:
    """`langevin` over one score function, `chunk` rows at a time; on a GPU the steps of each shape are one CUDA graph.

    score: as for `langevin`; gradient: the FastGradient that it reads, whose weights may change in their place;
    steps: how many Langevin steps a call makes.
    """

    def __init__(self, score, gradient, steps, chunk):
        self.score, self.gradient, self.steps, self.chunk, self.graphs = score, gradient, steps, chunk, {}

    def __call__(self, x, delta, generators, free=None):
        """x (N, ...) after the steps; delta, generators (or more of them) and free as for `langevin`."""
        generators = generators[: len(x)]
        if len(x) <= self.chunk:
            return self.chain(x, delta, generators, free)
        out = torch.empty_like(x)
        for k in range(0, len(x), self.chunk):
            rows = slice(k, k + self.chunk)
            out[rows] = self.chain(x[rows], delta, generators[rows], None if free is None else free[rows])
        return out

    def chain(self, x, delta, generators, free):
        if not x.is_cuda:
            return langevin(x, self.score, self.steps, delta, generators, free)
        self.gradient.renew()
        key = (x.shape, free is None)
        if key not in self.graphs:
            self.graphs[key] = LangevinGraph(x, self.score, self.steps, delta, generators, free)
        return self.graphs[key](x, delta, generators, free)


class LangevinGraph:
    """`langevin` on a GPU as one CUDA graph: all its steps, noise included, start with one call instead of thousands.

    Made from what `langevin` takes, it is called with a new delta, and new x, generators and free of the same shapes
    and number, and returns what `langevin` would. What the score reads must stay in its place in memory, like weights
    that an optimiser changes in place.
    """

    def __init__(self, x, score, steps, delta, generators, free=None):
        self.x, self.free = x.clone(), None if free is None else free.clone()
        self.delta = torch.full((), delta, dtype=x.dtype, device=x.device)
        self.generators = [torch.Generator(x.device) for _ in generators]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries choose their kernels and take their memory at the first call
            langevin(self.x, score, 1, self.delta, self.generators, self.free)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        if hasattr(self.graph, "register_generator_state"):  # newer PyTorch registers by itself
            for generator in self.generators:
                self.graph.register_generator_state(generator)
        with torch.cuda.graph(self.graph):
            self.result = langevin(self.x, score, steps, self.delta, self.generators, self.free)

    def __call__(self, x, delta, generators, free=None):
        self.x.copy_(x)
        self.delta.fill_(delta)
        if free is not None:
            self.free.copy_(free)
        for ours, theirs in zip(self.generators, generators, strict=True):
            ours.manual_seed(theirs.initial_seed())
        self.graph.replay()
        return self.result.clone()
