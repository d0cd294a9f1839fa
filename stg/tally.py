"""What an epoch finds, summed up chunk by chunk, so that no more than a chunk of videos is needed at once."""

import torch

from field.gaussian import motion
from judge.metrics import QUICK_COLUMNS, quick_metrics
from run import ranks


class Tally:
    """Sums over the videos of this process and, after `join`, of all processes.

    batches: of each mini-batch the sums of f(I) and of f(J), and at how many places each unit of the top layer is
    alive, (mini-batches, 2 + c_out); video: the sum of all J, (3, T, H, W); squares: that of
    their squares, over time, too, (3, H, W), for a reference of several clips; chunks: plain figures of each chunk of
    chains, by name; tilt: rms of df/dy at the first chain of the last mini-batch.
    """

    def __init__(self, f, reference, mini_batches, clips):
        """clips: (N, 3, T, H, W), by which chains are judged, or None."""
        device = next(f.parameters()).device
        self.reference, self.clips, self.chunks, self.tilt = reference, clips, [], 0.0
        self.batches = torch.zeros(mini_batches, 2 + len(f.layers[-1].bias), device=device)
        self.video = torch.zeros(3, *f.size, device=device)
        self.squares = torch.zeros(3, *f.size[1:], device=device)

    def add(self, b, values, J, alive):
        """A chunk of mini-batch b: f(I) and f(J), the videos J (N, 3, T, H, W), where units of the top are alive."""
        self.batches[b] += torch.cat([torch.stack([value.sum() for value in values]), alive])
        if len(J):
            self.video += J.sum(0)
            levels = J + self.reference.mean
            std, mean = torch.std_mean(levels)
            figures = torch.stack([mean, std, levels.amin(), levels.amax()]).tolist()
            self.chunks.append({"rows": len(J), **dict(zip(("mean", "std", "min", "max"), figures))})
            if self.reference.several:
                self.squares += J.square().sum((0, 2))
            elif self.reference.several is False:
                self.chunks[-1]["motion"] = motion(J)
            if self.clips is not None:
                self.chunks[-1] |= quick_metrics(J, self.clips)

    def join(self, gradients):
        """Sum all this, and the gradients, over the processes."""
        tilt = torch.full((1,), self.tilt, device=self.video.device)
        ranks.sum_([*gradients, self.batches, self.video, self.squares, tilt])
        self.tilt, self.chunks = tilt.item(), ranks.joined(self.chunks)

    def rows(self):
        """How many chains there are."""
        return sum(chunk["rows"] for chunk in self.chunks)

    def mean(self, name):
        """The mean over chains of a figure of chunks."""
        return sum(chunk["rows"] * chunk[name] for chunk in self.chunks) / self.rows()

    def motion(self):
        """How much the chains move, as reference.motion has it; None where the reference does not ask."""
        if self.reference.several is None:
            return None
        if not self.reference.several:
            return self.mean("motion")
        frames = self.rows() * self.video.shape[1]
        mean = self.video.sum(1) / frames
        return (self.squares / frames - mean.square()).clamp(min=0).sqrt().mean().item()

    def values(self, clips, chains):
        """f(I), f(J) and the share of the top's units that are alive, means over mini-batches of so many clips (a list)
        and chains."""
        f_I, f_J, alive = self.batches.cpu().split([1, 1, self.batches.shape[1] - 2], dim=1)
        f_I = f_I / torch.tensor(clips)[:, None]
        return [x.mean(1).mean().item() for x in (f_I, f_J / chains, (alive > 0).float())]

    def levels(self):
        """Mean, standard deviation and range of the chains' grey levels."""
        mean, each = self.mean("mean"), self.video.numel()
        squares = sum((each * c["rows"] - 1) * c["std"] ** 2 + each * c["rows"] * (c["mean"] - mean) ** 2
                      for c in self.chunks)
        return {"chain_mean": mean, "chain_std": (squares / (each * self.rows() - 1)) ** 0.5,
                "chain_min": min(c["min"] for c in self.chunks), "chain_max": max(c["max"] for c in self.chunks)}

    def quick(self):
        """QUICK_COLUMNS of the chains, or None for each of them where they are not judged."""
        return {name: None if self.clips is None else self.mean(name) for name in QUICK_COLUMNS}
