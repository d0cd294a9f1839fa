"""Judge the videos of a run by the clips that it learned from."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

import data
from judge.pictures import draw_texture_report
from judge.tables import SetTable, TextureTable, save_report


def table_of_clips(settings, size, stride):
    """The table for a run's videos: a TextureTable, with later frames if the clip has them, or, of several clips, a
    SetTable.

    settings: of the run, plain types, whose data_path and category name the clips; size: of the videos, (T, H, W);
    stride: layer 1's in time."""
    frames, size, stride = size[0], tuple(size[1:]), stride if stride < size[0] - 1 else None
    paths = data.list_clips(data.category_folder(settings["data_path"], settings["category"]))
    part = {"start": settings.get("start_frame", 0), "step": settings.get("frame_step", 1)}
    if len(paths) > 1:
        return SetTable(np.stack([data.read(path, frames, size, **part)[0] for path in paths]), stride)
    clip, _ = data.read(paths[0], None, size, at_most=2 * frames, **part)
    return TextureTable(clip[:frames], clip[frames:] if len(clip) == 2 * frames else None, stride=stride)


class Judge:
    """Judges the videos of a run. The table that they are added to may be made while the run learns."""

    def __init__(self, name, make_table, settings):
        """name: of the files that are written; make_table(): a TextureTable, SetTable or RecoveryTable; settings: of
        the run, plain types."""
        self.name, self.table, self.settings = name, make_table, settings

    def prepare(self):
        """Begin to make the table, in a thread of its own: a run's outputs would wait for it in theirs."""
        self.table = ThreadPoolExecutor(1).submit(self.table).result

    def report(self, folder, videos):
        """Print the table of videos, uint8 by name, and write it and its picture, if it has one, to `folder`."""
        try:
            table = self.table()
            rows, portraits = table.report(videos)
        except data.InputError as error:  # a clip that does not move, say
            return print(f"not judged: {error}")
        if portraits:
            draw_texture_report(folder / f"{self.name}.png", portraits, table.stride)
        save_report(folder, self.name, rows, self.settings)
