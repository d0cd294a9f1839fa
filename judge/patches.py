"""Could a video's patches and colours be the clip's? Nearest neighbours see what averages over a video hide.

A patch is a block of frames x height x width pixels and their three colours. It moves if the clip's standard deviation
over time is high at its middle pixel (`metrics.moving_pixels`); others are left out, for a still background is easy.
Videos of 150 pixels or more are first averaged over blocks of pixels, so that a patch shows about as much at every
size. All videos are (T, H, W, 3) in grey levels; those compared have one size, and may differ in length.
"""

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, conv3d

from judge.metrics import moving_pixels

SHAPES = (1, 7, 7), (3, 5, 5)  # frames, height, width: what a frame shows, and how it moves
# about so many patches of a video are looked up: the ratios then have a standard error of about 0.5 %, copying one of
# 0.002 to 0.007, gamut (by COLOURS) one of 1 to 3 %, over other corners and draws, on three clips of 64 pixels
QUERIES = 1500
COMPONENTS, CANDIDATES = 12, 16  # principal components that are searched; so many near ones are measured in full
TOLERANCE = 1.5  # a candidate may be 2.5 times as far as one that is left out, for a fraction of the time
BANK, NEAR = 60000, 2  # visible patches at most, among which is searched, and frames that are too near in time
HIDDEN = 0.3  # share of a patch's pixels from which on it counts as hidden: one frame of three
COLOURS = 20000  # pixels whose colours are looked up


def realism(video: np.ndarray, clip: np.ndarray, reference: np.ndarray | None = None) -> float:
    """Distance of a video's patches to the clip's nearest, over the same of real frames; see `Patches.figures`."""
    return Patches(clip, reference).figures(video)["realism"]


def coverage(video: np.ndarray, clip: np.ndarray, reference: np.ndarray | None = None) -> float:
    """Distance of the clip's patches to the video's nearest, over the same of real frames; see `Patches.figures`."""
    return Patches(clip, reference).figures(video)["coverage"]


def copying(video: np.ndarray, clip: np.ndarray) -> float:
    """Share of neighbouring patches of a video that neighbours in the clip resemble most; see `Patches.figures`."""
    return Patches(clip).figures(video)["copying"]


def gamut(video: np.ndarray, clip: np.ndarray) -> float:
    """Mean distance of a video's colours to the nearest that the clip has; see `Patches.figures`."""
    return distance_of_colours(video[:, moving_pixels(clip).any(axis=-1)], colour_tree(clip))


def hidden_realism(video: np.ndarray, mask: np.ndarray) -> float | None:
    """Distance of a video's patches where pixels are hidden, mask (T, H, W), to the nearest visible ones, over the same
    figure of visible patches; nearest among moving patches more than NEAR frames away. About 1: one cannot tell what
    was hidden. Mean over the two SHAPES; None if there are no such patches."""
    small, hidden = reduced(video), reduced(np.repeat(mask[..., None], 3, axis=3)) > 0
    if (small == small[:1]).all():
        return None
    moving, ratios = moving_pixels(small), []
    for shape in SHAPES:
        whole = np.prod(shape)
        if any(n < k for n, k in zip(small.shape, shape)):
            return None
        share = blocks(hidden, shape)[..., 0].sum((3, 4, 5)) / whole
        inside = np.broadcast_to(middles(moving.any(axis=-1), shape), share.shape)
        places = [thinned(np.argwhere(inside & where), at_most) for where, at_most in
                  ((share > HIDDEN, QUERIES // 3), (share == 0, QUERIES // 3), (share == 0, BANK))]
        if not all(map(len, places)):
            return None
        patches = [torch.from_numpy(blocks(small, shape)[tuple(p.T)].reshape(len(p), -1)) for p in places]
        times = [torch.from_numpy(p[:, 0].copy()) for p in places]
        hidden_ones, visible_ones = (
            rms(nearest_apart(found, t, patches[2], times[2])) for found, t in zip(patches[:2], times))
        ratios.append(hidden_ones / max(visible_ones, 1e-9))
    return float(np.mean(ratios)) if np.isfinite(ratios).all() else None


def nearest_apart(found, t, bank, times):
    """Distances of patches (N, ...) at times t to the nearest of a bank more than NEAR frames away, a few patches at
    once, for the memory."""
    nearest = []
    for some, when in zip(found.split(100), t.split(100)):
        far = torch.cdist(some, bank)
        far[(when[:, None] - times).abs() <= NEAR] = torch.inf
        nearest.append(far.min(1).values)
    return torch.cat(nearest).numpy()


def thinned(places, at_most):
    """At most so many of the places (N, 3), at equal distances in the list."""
    return places[np.linspace(0, max(0, len(places) - 1), min(len(places), at_most)).round().astype(int)]


class Patches:
    """The moving patches and the colours of a clip, ready to be compared with those of many videos.

    reference: frames of the same scene that are not the clip's, later ones say, as real as can be; `usual` has their
    figures. Without, the clip's second half stands for them, and its first half for the clip, so that realism and
    coverage read up to a sixth lower, for there is half as much to choose from; and `usual` is None.
    """

    def __init__(self, clip, reference=None):
        self.clip, self.colours, self.coloured = reduced(clip), colour_tree(clip), moving_pixels(clip).any(axis=-1)
        half = len(clip) // 2
        past, future = (clip[:half], clip[half:]) if reference is None else (clip, reference)
        past, future = reduced(past), reduced(future)
        moving = moving_pixels(self.clip).any(axis=-1)  # (H, W)
        shapes = [np.minimum(shape, (min(len(past), len(future)), *moving.shape)) for shape in SHAPES]
        self.searches = [Search(self.clip, tuple(shape.tolist()), moving) for shape in shapes]
        searches = self.searches if reference is not None else [search.renewed(past) for search in self.searches]
        there = [search.nearest(future) for search in searches]
        self.there = [rms(distances) for distances, *_ in there]
        self.back = [rms(search.renewed(future).nearest(past)[0]) for search in searches]
        self.usual = None
        if reference is not None:
            self.usual = {"realism": 1.0, "coverage": 1.0, "copying": coherence(*there[0][1:], self.searches[0].shape),
                          "gamut": distance_of_colours(reference[:, self.coloured], self.colours)}

    def figures(self, video):
        """Four figures by name, of a video of the clip's size:

        realism: root mean square distance of its patches to the nearest of the clip's, over the same figure of the
        reference, mean over the two shapes. 1: as real as reality. Far above: patches the clip never has. Far below:
        a copy, or too smooth.

        coverage: the counterpart, from the clip's patches to the nearest of the video's. Far above 1: the clip shows
        what the video never does.

        copying: how coherent the field of nearest neighbours is. The frames are cut into tiles of 7x7 pixels, and each
        is moved onto its nearest patch of the clip; this is the share of adjacent tiles that stay adjacent, to a pixel
        and a frame. A copy has 1, be it shuffled, shifted, reversed or a mosaic of large parts: within a part all move
        alike. Later frames of real clips have 0.01 to 0.07. After Haim et al. 2022 (Diverse Generation from a Single
        Video Made Possible), who compress the field.

        gamut: mean distance of its colours, in whole grey levels, to the nearest that the clip has: Euclidean in R, G,
        B, over 20000 values of pixels that move in the clip, drawn at random (always the same).
        """
        small = reduced(video)
        there = [search.nearest(small) for search in self.searches]
        back = [search.renewed(small).nearest(self.clip)[0] for search in self.searches]
        return {
            "realism": mean_ratio([rms(distances) for distances, *_ in there], self.there),
            "coverage": mean_ratio(map(rms, back), self.back),
            "copying": coherence(*there[0][1:], self.searches[0].shape),
            "gamut": distance_of_colours(video[:, self.coloured], self.colours),
        }


class Search:
    """The moving patches of one shape (frames, height, width) of a video, and the nearest of them to any patch.

    Nearly exact: candidates are near in the leading principal components of the clip's patches, and the best of them
    is taken by its whole distance. On real clips distances come out about 1 % too long, and ratios right to 1 %.
    """

    def __init__(self, video, shape, moving, axes=None):
        self.shape, self.moving = shape, moving
        self.patches = blocks(video, shape)
        if axes is None:
            sample = self.at(video, tiles(video, self.shape, moving))
            sample = sample - sample.mean(axis=0)
            axes = np.linalg.eigh(sample.T @ sample)[1][:, ::-1][:, :COMPONENTS]
        self.axes = np.ascontiguousarray(axes, dtype=np.float32)  # (patch, components)
        y, x = np.nonzero(middles(moving, self.shape))
        kernel = torch.from_numpy(np.moveaxis(self.axes.T.reshape(-1, *shape, 3), 4, 1).copy())
        field = conv3d(torch.from_numpy(np.moveaxis(video, 3, 0).copy())[None], kernel)[0]  # (components, T', H', W')
        self.places = np.stack([a.ravel() for a in np.broadcast_arrays(np.arange(field.shape[1])[:, None], y, x)], 1)
        from scipy.spatial import KDTree  # takes a second, which -h need not wait for

        self.tree = KDTree(field.numpy()[:, :, y, x].reshape(len(kernel), -1).T, leafsize=40, balanced_tree=False,
                           compact_nodes=False)

    def renewed(self, video):
        """The same search among the patches of another video."""
        return Search(video, self.shape, self.moving, self.axes)

    def at(self, video, places):
        """The patches of a video at these places (N, 3), (N, patch)."""
        return blocks(video, self.shape)[tuple(places.T)].reshape(len(places), -1)

    def nearest(self, video):
        """For tiles of a video: rms differences to the nearest patches (N,), where the tiles are and where the patches
        (N, 3), as frame, row and column of their first corners."""
        where = tiles(video, self.shape, self.moving)
        found = self.at(video, where)  # (N, patch)
        count = min(CANDIDATES, len(self.places))
        candidates = look_up(self.tree, found @ self.axes, k=np.arange(1, count + 1), eps=TOLERANCE)[1]  # (N, count)
        squares = np.stack([((self.patches[tuple(self.places[c].T)].reshape(len(c), -1) - found) ** 2).mean(axis=1)
                            for c in candidates.T])
        best = candidates[np.arange(len(where)), squares.argmin(axis=0)]
        return np.sqrt(squares.min(axis=0)), where, self.places[best]


def look_up(tree, points, **how):
    """tree.query(points, **how), in half the time: points that follow each other are near each other, so that the
    part of the tree that they need is at hand."""
    order = np.argsort(points[:, 0])
    back = np.argsort(order)
    return [found[back] for found in tree.query(points[order], **how)]


def blocks(video, shape):
    """Every patch of a video by its place, a view (T', H', W', *shape, 3)."""
    return np.moveaxis(np.lib.stride_tricks.sliding_window_view(video, shape, axis=(0, 1, 2)), 3, -1)


def tiles(video, shape, moving):
    """Where to look in a video: frames at equal distances are cut into adjacent patches, from a corner drawn for each
    frame; those that move, about QUERIES. Frame, row and column of their first corners (N, 3)."""
    rng, inside = np.random.default_rng(0), middles(moving, shape)
    height, width = inside.shape
    starts = len(video) - shape[0] + 1
    frames = min(starts, int(np.ceil(QUERIES * shape[1] * shape[2] / inside.sum())))
    found = []
    for t in np.linspace(0, starts - 1, frames).round().astype(int):
        top, left = (rng.integers(min(n, size)) for n, size in zip(shape[1:], inside.shape))
        y, x = np.mgrid[top : height : shape[1], left : width : shape[2]].reshape(2, -1)
        found.append(np.stack([np.full_like(y, t), y, x], axis=1)[inside[y, x]])
    found = np.concatenate(found)
    return found if len(found) else np.argwhere(np.broadcast_to(inside, (starts, height, width)))


def middles(moving, shape):
    """Whether the patch with its first corner at each row and column moves; all, if none does."""
    height, width = (n - k + 1 for n, k in zip(moving.shape, shape[1:]))
    inside = moving[shape[1] // 2 :, shape[2] // 2 :][:height, :width]
    return inside if inside.any() else np.ones_like(inside)


def coherence(tiles, places, shape):
    """Share of pairs of tiles next to each other in a frame that are moved alike, to a pixel and a frame; 0 if there is
    no pair."""
    index, alike = {tuple(tile): k for k, tile in enumerate(tiles.tolist())}, []
    moves = places - tiles
    for (t, y, x), k in index.items():
        for neighbour in ((t, y + shape[1], x), (t, y, x + shape[2])):
            if neighbour in index:
                alike.append(np.abs(moves[k] - moves[index[neighbour]]).max() <= 1)
    return float(np.mean(alike)) if alike else 0.0


def rms(distances):
    return np.sqrt((distances**2).mean())


def mean_ratio(distances, usual):
    return float(np.mean([a / max(b, 1e-9) for a, b in zip(distances, usual)]))


def colour_tree(clip):
    """The colours of a clip, in whole grey levels, for a search."""
    codes = np.unique(as_bytes(clip).reshape(-1, 3) @ np.array([1, 256, 65536]))
    colours = np.stack([codes % 256, codes // 256 % 256, codes // 65536], axis=1)
    from scipy.spatial import KDTree

    return KDTree(colours, balanced_tree=False, compact_nodes=False)


def distance_of_colours(pixels, tree):
    values = pixels.reshape(-1, 3)
    drawn = values[np.random.default_rng(0).integers(len(values), size=COLOURS)]
    return float(look_up(tree, as_bytes(drawn))[0].mean())


def as_bytes(video):
    return np.clip(video, 0, 255).round().astype(np.uint8)


def reduced(video):
    """A video as float32, its frames averaged over blocks of pixels if they are larger than about 100 pixels."""
    factor = max(1, (min(video.shape[1:3]) + 50) // 100)
    frames = torch.from_numpy(np.ascontiguousarray(video, dtype=np.float32))
    return avg_pool2d(frames.movedim(3, 1), factor).movedim(1, 3).contiguous().numpy() if factor > 1 else frames.numpy()
