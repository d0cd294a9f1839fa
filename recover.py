"""Hidden pixels: first guesses of them, and what Algorithm 2 keeps while Langevin steps move them.

Xie, Zhu, Wu, CVPR 2017, section 4.2. Masks are bool, True where a pixel is hidden: (N, T, H, W) as arrays,
(N, 1, T, H, W) as tensors.
"""

import numpy as np
import torch

import data
from judge import fillings

GUESSES = {"field": "Gaussian field", "linear": "linear interpolation", "mean": "flat"}  # their names in tables
READOUTS = ("blend", "last", "mean", "noise_free")
BLENDS = [k / 20 for k in range(21)]  # ways from the first guesses to the mean of samples that a blend tries, 0 to 1
MEMORY = 50  # epochs over which recovered clips are averaged


def draw_probes(hidden):
    """Which visible pixels to hide as well, to test how well hidden ones are recovered: bool (N, T, H, W).

    They are the masks moved by half the clip's length, height and width, less what is hidden already, and of the frames
    that this gives every eighth. A clip that would have no visible pixel left gets none.
    """
    probes = np.roll(hidden, [n // 2 for n in hidden.shape[1:]], (1, 2, 3)) & ~hidden
    for mask, probe in zip(hidden, probes, strict=True):
        frames = np.flatnonzero(probe.any(axis=(1, 2)))
        probe[np.setdiff1d(frames, frames[::8])] = False
        probe &= not (mask | probe).all()
    return probes


def hide(videos, hidden, probes, start, device):
    """Clips with their hidden pixels guessed: two float32 (N, 3, T, H, W). In the first, which learning may see, the
    probes are guessed, too; in the second they are as they were."""
    blind, full = [], []
    for video, mask, probe in zip(videos, hidden, probes, strict=True):
        video = np.where(mask[..., None], np.float32(0), video)  # from here on, hidden values are gone
        if start == "field":
            guess = fillings.GaussianField(video, mask | probe, device).fill
        else:
            guess = {"linear": fillings.interpolate_linear, "mean": fillings.fill_flat}[start]
        blind.append(guess(video, mask | probe))
        full.append(guess(video, mask) if probe.any() else blind[-1])
    return [data.to_tensor(np.stack(filled)) for filled in (blind, full)]


class Recovery:
    """What Algorithm 2 keeps beside the clips, as lists of mini-batches on their device.

    hidden: which pixels of the clips move, and probes: those among them whose truth is known (N, 1, T, H, W); blind:
    the clips at the start, (N, 3, T, H, W) in mean-subtracted grey levels; full: the same with guesses of the hidden
    pixels only, not of the probes; average: the clips over the last epochs.
    """

    def __init__(self, hidden, probes, *, blind, full, average=None):
        self.hidden, self.probes, self.blind, self.full = hidden, probes, blind, full
        self.average = blind if average is None else average

    def update(self, I):
        """Take an epoch's clips into the average."""
        self.average = [torch.lerp(a, new, 1 / MEMORY) for a, new in zip(self.average, I, strict=True)]

    def blended(self):
        """The clips at the share of the way from first guesses to the mean of samples that the probes like best."""
        share, batches = self.blend_share(), zip(self.full, self.average, self.blind, self.probes, strict=True)
        return [full + share * (average - blind) * ~probes for full, average, blind, probes in batches]

    def blend_share(self):
        """How far to go from the first guesses to the mean of samples, 0 to 1: where the probes' error is least."""
        errors = torch.zeros(len(BLENDS), device=self.full[0].device)
        for full, average, blind, probes in zip(self.full, self.average, self.blind, self.probes, strict=True):
            off, way = ((x - y)[probes.expand_as(x)] for x, y in ((blind, full), (average, blind)))
            errors += torch.stack([(off + share * way).abs().sum() for share in BLENDS])
        return BLENDS[errors.argmin()]

    def ingredients(self, start):
        """The first clip by its first guess and by the mean of samples, (1, 3, T, H, W) by their names in tables."""
        guess, mean = self.full[0][:1], torch.where(self.probes[0][:1], self.full[0][:1], self.average[0][:1])
        return {GUESSES[start]: guess, "mean of samples": mean}
