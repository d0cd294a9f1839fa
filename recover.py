"""Hidden pixels: Algorithm 2's moves of them, and what is read off in the end.

Xie, Zhu, Wu, CVPR 2017, section 4.2: hidden pixels are drawn from p(hidden | visible) by the same dynamics as chains,
and the clips they complete are what f learns from. Masks are bool, True where a pixel is hidden, (N, 1, T, H, W); clips
float32 (N, 3, T, H, W) in grey levels less the reference's mean. All come as lists of mini-batches.

`WhiteRecovery` is the paper's, for its reference q of white noise; `FieldRecovery` belongs to a fitted q. Both have
move, which gives new clips and changes nothing that is kept; update, which takes them; mean and sample, the recovered
clips as the mean of samples, which has the least error, and as one sample, which looks like the clip; and state.
"""

import numpy as np
import torch

import utils
from data import InputError, to_tensor
from field.conditional import ConditionalField
from judge.fillings import interpolate_linear

MEMORY = 50  # epochs over which is averaged
RHO = 0.5  # what an epoch leaves of a hidden pixel's departure from its expectation


def first_guess(videos, hidden, fitted, device, seed):
    """Where hidden pixels start, in clips uint8 (N, T, H, W, 3), hidden bool (N, T, H, W): the clips with them, float32
    (N, 3, T, H, W), in grey levels, and what a checkpoint keeps beside them. fitted: they start as samples of the
    clips' Gaussian field given what is visible, for FieldRecovery; else as expected under it, for WhiteRecovery."""
    videos = np.where(hidden[..., None], np.uint8(0), videos)  # from here on, hidden values are gone
    filled = np.stack([interpolate_linear(*pair) for pair in zip(videos, hidden, strict=True)])
    field = ConditionalField.fit(filled, hidden, device)
    fields = field.expected
    if fitted:
        fields = [field.draw(k, utils.generator(device, seed, "guess", k)) for k in range(len(videos))]
    guesses = torch.stack([field.video(k, v) for k, v in enumerate(fields)])
    full = torch.where(torch.from_numpy(hidden)[:, None].to(device), guesses, to_tensor(videos).to(device))
    if not fitted:
        return full, {}
    return full, {"field": field.state(), "fields": fields, "slopes": [torch.zeros_like(v) for v in fields]}


def load_recovery(saved, hidden, mean, batch_size):
    """The recovery that a checkpoint keeps, or `first_guess` gives, of clips "I" with these masks, bool (N, T, H, W);
    mean: the reference's, which is taken from grey levels."""
    masks = list(torch.from_numpy(hidden)[:, None].to(mean.device).split(batch_size))
    if "field" in saved:
        if "trust" not in saved["field"]:
            raise InputError("this run filled in hidden pixels in an earlier way: begin anew (-overwrite)")
        field = ConditionalField(hidden, **saved["field"])
        return FieldRecovery(masks, saved["I"], field, mean, saved["fields"], saved["slopes"])
    return WhiteRecovery(masks, saved["I"], saved.get("average", saved["I"]))


def save_recovered(folder, mean, sample, videos, hidden, rate, beside):
    """Frames and films of recovered clips, the mean of samples and one sample of them, all uint8 (N, T, H, W, 3);
    beside: more films, by name."""
    masked = np.where(hidden[..., None], np.uint8(128), videos)
    beside = beside | {f"masked_{k}": video for k, video in enumerate(masked)}
    beside |= {f"sample_{k}": video for k, video in enumerate(sample)}
    utils.save_videos(folder, "recovered_mean", mean, beside, rate)
    utils.save_frames(folder / "recovered_sample_sequence", sample)


class WhiteRecovery:
    """Hidden pixels as the paper moves them, by the Langevin steps that chains take.

    Differs from the paper: they start where a Gaussian field expects them, not at noise.
    """

    def __init__(self, hidden, I, average):
        """average: the clips over the last epochs."""
        self.hidden, self.I, self.average = hidden, I, average

    def move(self, b, I, gradient, sampler, delta, sigma, generators):
        """The clips I of mini-batch number b with new hidden pixels: sampler(I, delta, generators, free) moves them."""
        return sampler(I, delta, generators, self.hidden[b])

    def update(self, I, done):
        self.I = I
        weight = 1 / min(MEMORY, done)
        self.average = [torch.lerp(a, new, weight) for a, new in zip(self.average, I, strict=True)]

    def sample(self):
        return self.I

    def mean(self, sigma):
        return self.average

    def guess(self):
        """Not kept."""

    def state(self):
        return {"I": self.I, "average": self.average}


class FieldRecovery:
    """Hidden pixels under p(hidden | visible) ~ exp(f) q(hidden | visible), q the clips' Gaussian field.

    With f = 0 samples are those of the field. The mean of samples is m + sigma^2 D S D E[df/dv] in the field's units
    (by parts: Stein's identity), m their expectation under q and D S D their covariance: so only the mean of f's
    gradient over epochs is needed, and with f = 0 there is no sampling error at all.
    """

    def __init__(self, hidden, I, field, mean, fields, slopes):
        """field: q(hidden | visible); mean: the reference's, to take from grey levels; fields: the clips', and slopes:
        the mean of f's gradient with respect to them."""
        self.hidden, self.I, self.field, self.level, self.fields, self.slopes = hidden, I, field, mean, fields, slopes
        self.found = {}

    def move(self, b, I, gradient, sampler, delta, sigma, generators):
        """The clips I of mini-batch number b with new hidden pixels."""
        first, new, slopes = b * len(self.I[0]), [], gradient(I) * self.hidden[b]
        for k, (slope, generator) in enumerate(zip(slopes, generators), start=first):
            slope = self.field.pull(k, slope)
            v = self.field.move(k, self.fields[k], slope, sigma, RHO, generator)
            self.found[k] = v, slope
            new.append(self.field.video(k, v))
        return torch.where(self.hidden[b], torch.stack(new) - self.level, I)

    def update(self, I, done):
        self.I, weight = I, 1 / min(MEMORY, done)
        for k, (v, slope) in self.found.items():
            self.fields[k], self.slopes[k] = v, torch.lerp(self.slopes[k], slope, weight)

    def sample(self):
        return self.I

    def mean(self, sigma):
        return self.clips(self.field.expected[k] + sigma**2 * self.field.spread(k, slope)
                          for k, slope in enumerate(self.slopes))

    def clips(self, fields):
        """The clips with hidden pixels as fields have them."""
        videos = torch.stack([self.field.video(k, v) for k, v in enumerate(fields)]).split(len(self.I[0]))
        return [torch.where(free, x - self.level, I) for free, x, I in zip(self.hidden, videos, self.I, strict=True)]

    def guess(self):
        """The clips as expected with f = 0."""
        return self.clips(self.field.expected)

    def state(self):
        return {"I": self.I, "field": self.field.state(), "fields": self.fields, "slopes": self.slopes}
