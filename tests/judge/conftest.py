"""Made-up runs, and a browser that looks at their pages."""

import json

import numpy as np
import pytest
from browser import Browser, find_chromium

import utils

BITS = 5  # of the number that a frame shows
COLOURS = {"observed_0": (255, 255, 0), "sequence_0": (0, 255, 255), "sequence_1": (255, 0, 255)}


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A Chromium without a screen; tests that need one are skipped where there is none."""
    if not find_chromium():
        pytest.skip("there is no Chromium here (Debian: apt-get install chromium)")
    browser = Browser(find_chromium(), tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def numbered(frames, colour=(255, 255, 255)):
    """A video whose frame k shows k in BITS squares of 16 pixels, set ones in a colour, uint8 (T, 16, 80, 3)."""
    bits = np.arange(frames)[:, None] >> np.arange(BITS) & 1  # (T, BITS)
    squares = bits[:, :, None] * np.array(colour)  # (T, BITS, 3)
    return squares[:, None].repeat(16, 1).repeat(16, 2).astype(np.uint8)


@pytest.fixture(scope="session")
def films():
    """MP4s of numbered videos, one colour each, by name: encoded once."""
    return {name: utils.mp4_bytes(numbered(25, colour)) for name, colour in COLOURS.items()}


@pytest.fixture
def make_run(films):
    """make_run(folder, epochs, **settings): what a run leaves after so many of its 6 epochs."""

    def make(folder, epochs=6, **settings):
        settings = {"category": folder.name, "net_type": "ST", "num_epochs": 6, "im_size": [16, 80]} | settings
        rows = [{"name": "observed", "std_ratio": 1.0}, {"name": "mean of 2", "std_ratio": 0.5}]
        metrics = "".join(f"{k},{0.5**k},{'' if k % 2 else k}\n" for k in range(1, epochs + 1))
        files = {
            "config.json": json.dumps({"settings": settings, "torch": "2.13.0"}),
            "metrics.csv": "epoch,gap,f\n" + metrics,
            "evaluation.json": json.dumps({"settings": settings, "rows": rows}),
        }
        for name, text in files.items():
            utils.write_atomically(folder / name, text.encode())
        for name, film in films.items():
            utils.write_atomically(folder / f"final_results/{name}.mp4", film)
        for k in range(2, epochs + 1, 2):
            sheet = np.full((20, 60, 3), 40 * k, np.uint8)
            utils.write_atomically(folder / f"progress/epoch_{k:04d}.png", utils.png_bytes(sheet))
        return folder

    return make
