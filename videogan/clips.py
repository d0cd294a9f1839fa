"""The clips that VideoGAN learns from: windows of videos, or strips, in the order of the seed."""

import sys

import numpy as np
import torch
from torch.utils.data import Dataset

import data
import utils
from run.inputs import inputs_of, inputs_of_files
from videogan.nets import FRAMES, SIZE

BAD_SHARE = 0.1  # of the clips may be unreadable, and are skipped; a run with more of them stops


class Strips(Dataset):
    """Clips that are stored one a file, as vertical strips; read when they are needed."""

    def __init__(self, paths, start=0, step=1):
        self.paths, self.part = paths, (start, step)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, k):
        """Clip k, uint8 (32, 64, 64, 3), and what could not be read: by an unreadable file's number what is wrong; the
        next one that can be read takes its place. The clip is None if there is none."""
        bad = {}
        for j in range(k, k + len(self.paths)):
            try:
                return data.read_strip(self.paths[j % len(self.paths)], FRAMES, SIZE, *self.part), bad
            except data.InputError as error:
                bad[j % len(self.paths)] = str(error)
        return None, bad


class Windows(Dataset):
    """Windows of 32 frames of videos (T, 64, 64, 3), which are kept in memory; `starts`: (video, first frame)."""

    def __init__(self, videos, starts):
        self.videos, self.starts = videos, starts

    def __len__(self):
        return len(self.starts)

    def __getitem__(self, k):
        """Window k, uint8 (32, 64, 64, 3); a shorter video repeats its last frame. All of them can be read."""
        video, start = self.starts[k]
        frames = np.arange(start, start + FRAMES).clip(max=len(self.videos[video]) - 1)
        return self.videos[video][frames], {}


def load(*, data_path, data_list, category, window_step, share, start=0, step=1, fps=None):
    """The clips to learn from and those held out (a share of all), two datasets, and the Inputs that they are made of;
    start and step: the frames of each that are used."""
    if data_list:
        paths = data.list_strips(data_list, data_path)
        return *split_strips(paths, share, start, step), inputs_of_files(paths, "strips", fps)
    folder = data.category_folder(data_path, category)
    if (folder / "list.txt").exists():
        paths = data.list_strips(folder / "list.txt", folder)
        return *split_strips(paths, share, start, step), inputs_of_files(paths, "strips", fps)
    videos, records, bad = [], [], []
    for path in data.list_clips(folder):
        try:
            video, record = data.examined(*data.read(path, None, (SIZE, SIZE), start=start, step=step))
            videos.append(video)
            records.append(record)
        except data.InputError as error:
            bad.append(str(error))
            print(f"skipped: {error}", file=sys.stderr)
    check_bad(len(bad), len(bad) + len(videos))
    train, held_out = [], []
    for v, video in enumerate(videos):
        t = len(video)
        cut = t - max(FRAMES, round(t * share)) if share and t >= 3 * FRAMES else t
        train += [(v, start) for start in range(0, max(cut - FRAMES, 0) + 1, window_step)]
        held_out += [(v, start) for start in range(cut, t - FRAMES + 1, FRAMES)]
    return Windows(videos, train), Windows(videos, held_out), inputs_of(records, fps)


def split_strips(paths, share, start=0, step=1):
    """Every so many strips one is held out."""
    count = round(share * len(paths))
    held_out = {round((k + 0.5) * len(paths) / count) for k in range(count)}
    parts = [p for k, p in enumerate(paths) if k not in held_out], [p for k, p in enumerate(paths) if k in held_out]
    return tuple(Strips(part, start, step) for part in parts)


def check_bad(bad, clips):
    """Stop where too many clips cannot be read; what is skipped silently is not what a model learns from."""
    if bad == clips or (bad > 3 and bad > BAD_SHARE * clips):
        raise data.InputError(f"{bad} of {clips} clips cannot be read")


def order(clips, batch_size, seed, iteration):
    """Yield the clips' numbers of every mini-batch from `iteration` on, for ever: each epoch is the set once, in an
    order of its own that depends on the seed alone; a mini-batch may begin in one epoch and end in the next."""
    epoch, skip = divmod(iteration * batch_size, clips)
    numbers = []
    while True:
        shuffled = torch.randperm(clips, generator=utils.generator("cpu", seed, "order", epoch)).tolist()
        numbers += shuffled[skip:]
        epoch, skip = epoch + 1, 0
        while len(numbers) >= batch_size:
            yield numbers[:batch_size]
            numbers = numbers[batch_size:]


def collate(items):
    """Clips as one tensor uint8 (N, 32, 64, 64, 3), those that could be read, and all that could not."""
    clips = [torch.from_numpy(clip) for clip, _ in items if clip is not None]
    bad = {}
    for _, found in items:
        bad |= found
    return torch.stack(clips) if clips else None, bad


def first_of(dataset, count):
    """`count` clips evenly spread over a dataset, uint8 (N, 32, 64, 64, 3)."""
    picked = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    clips = [clip for clip, _ in (dataset[int(k)] for k in picked) if clip is not None]
    return np.stack(clips) if clips else np.empty((0, FRAMES, SIZE, SIZE, 3), np.uint8)


def unit(clips):
    """uint8 (N, T, H, W, 3) -> float32 (N, 3, T, H, W) in [-1, 1]."""
    return clips.permute(0, 4, 1, 2, 3).float().div_(127.5).sub_(1)


def grey(videos):
    """The inverse of `unit`; of masks, whose range is [0, 1], three equal channels."""
    if videos.shape[1] == 1:
        videos = 2 * videos.expand(-1, 3, -1, -1, -1) - 1
    return utils.to_uint8((videos + 1) * 127.5)
