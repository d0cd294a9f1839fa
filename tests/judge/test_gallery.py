"""The gallery of many runs, and the study that asks people which of two videos is real."""

import base64
import json
import os
import re
import sys
from urllib.parse import unquote

import imageio.v3 as iio
import numpy as np
import pytest
from calls import call, succeeds
from test_page import WICKED, decoded, elements, in_step
from tools import assert_refused

import gallery
import utils

MEMORY = 200  # MB, of the process that shows the gallery of 300 runs
SECONDS = 2  # until it is there


@pytest.fixture
def study_run(tmp_path, moving, write_clip):
    """A run of 12 frames of a clip of 24, whose chains are grey."""
    clip = moving(24)
    write_clip(tmp_path / "clips/waves/clip.mp4", clip)
    run = tmp_path / "output/waves"
    settings = {"category": "waves", "data_path": str(tmp_path / "clips"), "num_frames": 12, "net_type": "ST"}
    utils.write_atomically(run / "config.json", json.dumps({"settings": settings}).encode())
    utils.save_frames(run / "observed_sequence", [clip[:12]])
    utils.save_frames(run / "synthesized_sequence", np.full((2, 12, 24, 24, 3), 99, np.uint8))
    return run


# --------------------------------------------------------------------------------------------------------- gallery


def test_it_finds_runs_once_and_tells_them_apart(make_run, tmp_path):
    assert_refused(call(gallery, tmp_path), str(tmp_path))  # no run
    for k, name in enumerate(("a/b/run 1", "a/run 2", WICKED)):
        make_run(tmp_path / name, lr=k, device=f"cuda:{k}")
    (tmp_path / "a/no run").mkdir()
    succeeds(gallery, tmp_path, tmp_path / "a", "-out", tmp_path / "here/all.html")
    found = elements(tmp_path / "here/all.html")
    tiles = [json.loads(attributes["data-films"]) for tag, attributes in found if tag == "article"]
    assert [len(films) for films in tiles] == [3, 3, 3]
    for film in sum(tiles, []):
        assert (tmp_path / "here" / unquote(film["url"].partition("?")[0])).stat().st_size > 0
    assert not any("onerror" in attributes for _, attributes in found)
    text = (tmp_path / "here/all.html").read_text()
    assert [text.count(f"<span>-lr {k}</span>") for k in range(3)] == [1, 1, 1]
    assert "-device" not in text and "-num_epochs" not in text  # where it ran; what is the same everywhere
    assert text.count("std ratio</span> 0.50") == 3


def test_tiles_sort_play_and_compare_by_key_and_click(browser, make_run, tmp_path):
    for k, value in enumerate((0.9, 0.1, 0.5)):
        run = make_run(tmp_path / f"run {k}")
        rows = [{"name": "mean of 2", "std_ratio": value}]
        utils.write_atomically(run / "evaluation.json", json.dumps({"rows": rows}).encode())
    succeeds(gallery, tmp_path)
    browser.open(tmp_path / "gallery.html")
    names = "[...document.querySelectorAll('.tile h2')].map(each => each.textContent.at(-1)).join('')"
    browser.js("sort.focus()")
    for letter in "std":
        browser.key(letter)
    assert browser.js(f"[sort.value, {names}]") == ["std_ratio", "120"]
    browser.click("#down")
    assert browser.js(names) == "021"
    browser.click("#find")
    browser.key("2")
    assert browser.js("tiles.filter(tile => !tile.hidden).length") == 1
    browser.key("Backspace")

    browser.click(".tile .go")
    browser.until("document.querySelector('.tile video')?.currentTime > 0.1")
    browser.js("document.querySelector('.tile .go').focus()")
    browser.key("Enter")
    assert browser.js("document.querySelector('.tile video')") is None
    browser.click(".tile:nth-child(1) .pick")
    browser.js("document.querySelector('.tile:nth-child(3) .pick').focus()")
    browser.key("Enter")
    decoded(browser)
    assert in_step(browser) and browser.js("Player.all[0].films.length") == 6
    browser.key("w")
    assert browser.js("Player.all[0].wiping")
    browser.key("Escape")
    browser.until("!document.querySelector('dialog').open && Player.all.length === 0")
    assert browser.errors == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_three_hundred_runs_open_fast_and_small(browser, make_run, tmp_path):
    first, names = make_run(tmp_path / "run 0"), ("config.json", "evaluation.json", "final_results/sequence_0.mp4")
    poster = utils.png_bytes(np.random.default_rng(0).integers(0, 255, (224, 224, 3), np.uint8))
    for k in range(300):
        run = tmp_path / f"run {k}"
        utils.write_atomically(run / "synthesized_sequence/sequence_0/000.png", poster)
        (run / "final_results").mkdir(exist_ok=True)
        for name in names if k else ():
            os.link(first / name, run / name)
    succeeds(gallery, tmp_path)
    browser.open(tmp_path / "gallery.html")
    browser.until("document.readyState == 'complete'")
    times = browser.js("(({loadEventEnd, startTime}) => (loadEventEnd - startTime) / 1000)"
                       "(performance.getEntriesByType('navigation')[0])")
    assert browser.js("tiles.length") == 300 and times < SECONDS
    browser.js("scrollTo(0, 1e6), new Promise(done => setTimeout(done, 500))")
    assert 0 < browser.memory() < MEMORY


# ----------------------------------------------------------------------------------------------------------- study


def test_a_study_shows_real_synthesised_and_later_frames_encoded_alike(study_run, tmp_path, moving):
    out = tmp_path / "study.html"
    gallery.write_study([study_run], 10, 1.5, out)
    text = out.read_text()
    films, pairs = (json.loads(re.search(rf"const {name} = (.*?);( |$)", text, re.M)[1]) for name in ("FILMS", "PAIRS"))
    assert len(pairs) == 10 and [pair["kind"] for pair in pairs].count("later") == 2
    assert {pair["other"].split("/")[-1] for pair in pairs} == {"sequence_0", "sequence_1", "clip.mp4"}
    wanted = {"/real/": moving(24)[:12], "/later/": moving(24)[12:], "/synthesised/": np.full((12, 24, 24, 3), 99)}
    for name, film in films.items():
        video = iio.imread(base64.b64decode(film), plugin="pyav", extension=".mp4")
        kind = next(kind for kind in wanted if kind in name)
        assert video.shape == (12, 24, 24, 3) and np.abs(video - wanted[kind].astype(float)).mean() < 12  # of 100


def test_later_frames_begin_where_learning_ended(study_run, tmp_path, moving):
    config = json.loads((study_run / "config.json").read_text())
    config["settings"] |= {"start_frame": 2, "frame_step": 2, "num_frames": 6}
    (tmp_path / "config.json").write_text(json.dumps(config))
    [later] = gallery.later_frames(tmp_path, 4, (24, 24)).values()
    assert np.abs(later - moving(24)[14:22:2].astype(float)).mean() < 12


def test_answers_of_the_page_are_counted(browser, study_run, tmp_path):
    out = tmp_path / "study.html"
    gallery.write_study([study_run], 5, 0.2, out)
    counts = {}
    for wrong in (False, True):
        browser.open(out)
        browser.key("Enter")
        for k in range(5):
            browser.until("now")
            real = browser.js("now.side")
            choice = {"left": "right", "right": "left"}[real] if wrong else real
            browser.key(f"Arrow{choice.title()}") if k % 2 else browser.click(f".pair button[value={choice}]")
        saved = browser.until("document.querySelector('textarea').value")
        assert json.loads(saved)["seconds"] == 0.2 and browser.errors == []
        path = tmp_path / "answers.json"
        path.write_text(saved)
        counts[wrong] = [row[1:4] for row in gallery.tally(gallery.read_answers([path]))]
    assert counts == {False: [("synthesised", 4, 0), ("later frames", 1, 0)],
                      True: [("synthesised", 4, 1), ("later frames", 1, 1)]}


def test_a_tally_pools_people_and_gives_wilsons_interval(tmp_path):
    def saved(number, answers):
        """A file as the study's page saves it; answers: (kind, fooled) each."""
        rows = [{"run": "fire", "kind": kind, "side": "left", "answer": "right" if fooled else "left"}
                for kind, fooled in answers]
        (tmp_path / f"{number}.json").write_text(json.dumps({"id": number, "answers": rows}))
        return tmp_path / f"{number}.json"

    one = saved("a", [("synthesised", k < 7) for k in range(10)])
    two = saved("b", [("synthesised", k < 3) for k in range(10)] + [("later", True)])
    rows = gallery.tally(gallery.read_answers([one, two, two]))
    assert [row[:4] for row in rows] == [("fire", "synthesised", 20, 0.5), ("fire", "later frames", 1, 1)]
    z2 = 1.959964**2  # Wilson 1927, for 10 of 20 and 1 of 1
    half = z2**0.5 / (20 + z2) * (5 + z2 / 4) ** 0.5
    assert rows[0][4:] == pytest.approx((0.5 - half, 0.5 + half), abs=1e-6)
    assert rows[1][4:] == pytest.approx((1 / (1 + z2), 1), abs=1e-6)
    assert "50%  30% to 70%" in succeeds(gallery, "-tally", one, two)


@pytest.mark.parametrize("text", ["", "[]", '{"id": 1, "answers": [{"run": "x"}]}', '{"id": 1, "answers": []}', None])
def test_a_file_without_answers_is_an_error_of_one_line(text, tmp_path):
    if text is not None:
        (tmp_path / "answers.json").write_text(text)
    assert_refused(call(gallery, "-tally", tmp_path / "answers.json"), "answers")


def test_a_run_without_frames_cannot_be_studied(make_run, tmp_path):
    assert_refused(call(gallery, "-study", make_run(tmp_path / "run")), "observed_sequence")
