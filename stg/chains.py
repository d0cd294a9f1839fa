"""The chains of a run: which of them this process has, and where they live."""

import math

import torch

import utils
from fast.device import holds
from run import ranks


class Chains:
    """The chains of this process, y, as mini-batches. They live on the device or, where they do not fit, in the host's
    memory, with room for their next state (spare), and visit the device `chunk` at a time.

    counts: how many chains each mini-batch has in all; own: which of them are here, a slice each.
    """

    def __init__(self, saved, f, reference, counts, chunk, generators):
        """saved: a checkpoint's, or None, with which they start at noise of the reference: generators(b) has one for
        each chain of mini-batch b."""
        self.device, self.reference, self.counts, self.chunk = next(f.parameters()).device, reference, counts, chunk
        self.own = ranks.shares(counts)
        rows, size = sum(own.stop - own.start for own in self.own), math.prod(reference.noise([]).shape[1:])
        self.fit = holds(self.device, f, 2 * 4 * rows * size)
        y = ranks.spread(saved, counts) or [self.first(generators(b)[own]) for b, own in enumerate(self.own)]
        self.y = [self.home(each) for each in y]
        self.spare = [None if self.fit else self.home(torch.empty_like(each)) for each in y]

    def first(self, generators):
        """Noise of the reference, a chain each generator."""
        parts = [generators[k : k + self.chunk] for k in range(0, len(generators), self.chunk)] or [[]]
        return torch.cat([self.home(self.reference.noise(part)) for part in parts])

    def home(self, y):
        """y where the chains live."""
        return y.to(self.device) if self.fit else y.cpu().pin_memory()

    def take(self, y):
        """Take new chains in place of these."""
        self.spare = self.spare if self.fit else self.y
        self.y = y

    def whole(self):
        """Mini-batches of all processes' chains, in the first process."""
        return ranks.collected(self.y, self.counts)

    def shown(self):
        """All processes' chains, in the first one, as uint8 (N, T, H, W, 3)."""

        def levels(y):
            return utils.quantized(self.reference.video(y.to(self.device)) + self.reference.mean).to(y.device)

        own = [torch.cat([levels(part) for part in y.split(self.chunk)]) if len(y) else y for y in self.y]
        return torch.cat(ranks.collected(own, self.counts))
