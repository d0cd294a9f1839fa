"""The chains of a run: which of them this process has, where they live, and how they move."""

import math

import torch

import utils
from fast.device import holds
from run import ranks
from run.loop import uninterrupted

STAYS = -1.0  # in place of the pull of a chain that has yet to move


class Chains:
    """The chains of this process, y, as mini-batches. They live on the device or, where they do not fit, in the host's
    memory, and visit the device `chunk` at a time. They move in their places, so that there are never more than a chunk
    of them beside these; an epoch that is interrupted goes on with those that have yet to move in it.

    counts: how many chains each mini-batch has in all; own: which of them are here, a slice each; pulls: of each chain
    that has moved in this epoch, the rms of df/dy at the first one of its chunk, else STAYS.
    """

    def __init__(self, saved, pulls, f, reference, counts, chunk, generators):
        """saved, which is used up, and pulls: a checkpoint's, or None, with which chains start at noise of the
        reference: generators(b) has one for each chain of mini-batch b."""
        self.device, self.reference, self.counts, self.chunk = next(f.parameters()).device, reference, counts, chunk
        self.own, self.like = ranks.shares(counts), reference.noise([])
        rows = [own.stop - own.start for own in self.own]
        self.resident = holds(self.device, f, 4 * sum(rows) * math.prod(self.like.shape[1:]))
        saved = ranks.spread(saved, counts)
        self.y = [self.first(generators(b)[own]) if saved is None else self.home(saved.pop(0))
                  for b, own in enumerate(self.own)]
        self.pulls = ranks.spread(pulls, counts) or [torch.full((n,), STAYS) for n in rows]

    def home(self, y):
        """y where the chains live."""
        return y.to(self.device) if self.resident else y.cpu().pin_memory()

    def first(self, generators):
        """Noise of the reference, a chain each generator."""
        y = self.home(torch.empty_strided((len(generators), *self.like.shape[1:]), self.like.stride()))
        for k in range(0, len(y), self.chunk):
            y[k : k + self.chunk] = self.reference.noise(generators[k : k + self.chunk])
        return y

    def move(self, b, step):
        """Move the chains of mini-batch b that have yet to move in this epoch. step(b, rows, y): of the chains y, which
        are those rows of the whole mini-batch, the new state and the pull."""
        for k in range(0, len(self.y[b]), self.chunk):
            here, pulls = (each[b][k : k + self.chunk] for each in (self.y, self.pulls))
            stay = [j for j, pull in enumerate(pulls.tolist()) if pull == STAYS]
            if stay:
                first = self.own[b].start + k
                y, pull = step(b, slice(first, first + len(here)), here.to(self.device, non_blocking=True))
                with uninterrupted():
                    for j in stay:
                        here[j].copy_(y[j])
                        pulls[j] = pull

    def pull(self, b):
        """The pull at the first chain of mini-batch b, or 0 where that is another process's."""
        return self.pulls[b][0].item() if self.own[b].start == 0 < self.own[b].stop else 0.0

    def rest(self):
        """The epoch has ended: all have yet to move in the next."""
        for pulls in self.pulls:
            pulls.fill_(STAYS)

    def rested(self):
        """Whether all have yet to move in this epoch: not where one goes on that was interrupted."""
        return all((pulls == STAYS).all() for pulls in self.pulls)

    def state(self):
        """What a checkpoint keeps of all processes' chains, in the first one."""
        return {"chains": ranks.collected(self.y, self.counts), "pulls": ranks.collected(self.pulls, self.counts)}

    def shown(self, count):
        """The first chains, `count` or fewer, as uint8 (N, T, H, W, 3) in the first process."""

        def levels(y):
            return utils.quantized(self.reference.video(y.to(self.device)) + self.reference.mean).to(y.device)

        enough = sum(own.stop - own.start for own in ranks.shares(self.counts, 0)) >= count  # in the first process
        if enough and ranks.rank():
            return torch.empty(0)  # which nobody sees
        own, left = [], count if enough else sum(self.counts)
        for y in self.y:
            y = y[:left]
            own.append(torch.cat([levels(part) for part in y.split(self.chunk)]) if len(y) else y)
            left -= len(y)
        own = own if enough else ranks.collected(own, self.counts)
        return torch.cat([videos for videos in own if len(videos)])[:count]
