"""The page of a run: what it holds, its curves, and what it does in a browser."""

import json
import re
import shlex
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
from calls import PROGRAMS, narrow, succeeds

import dyngen.settings
import stg.settings
import utils
import videogan.settings
from judge import page

WICKED = """<img src=x onerror=hacked=1> '"&#%?.\\{{7*7}}"""


def written(folder):
    """The path of the page of a run, just written."""
    page.write_page(folder)
    return folder / "index.html"


def elements(path):
    """The elements of a page: [(tag, attributes), ...]."""
    found, parser = [], HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.append((tag, dict(attributes)))
    parser.feed(path.read_text())
    return found


# ----------------------------------------------------------------------------------------------- what a page holds


def test_every_link_leads_to_a_file_and_every_file_has_one_but_many_frames_have_one_together(make_run, tmp_path):
    folder = make_run(tmp_path / "run")
    for name in ("test/final_results/sequence_0.mp4", "log/a#b%20?.txt", "model/latest.pt"):
        utils.write_atomically(folder / name, (folder / "final_results/sequence_0.mp4").read_bytes())
    links = {value.partition("?")[0] for _, attributes in elements(written(folder))
             for name, value in attributes.items() if name in ("href", "src") and not value.startswith(("#", "data:"))}
    files = {path.resolve() for path in folder.rglob("*") if path.is_file()}
    own = {(folder / name).resolve() for name in ("index.html", "page_parts.js")}
    assert {(folder / unquote(link)).resolve() for link in links} == files - own
    for k in range(70):
        utils.write_atomically(folder / f"observed_sequence/sequence_0/{k:03d}.png", b"")
    text = written(folder).read_text()
    assert "000.png to 069.png" in text and "70 files" in text and "035.png" not in text


def test_names_are_text_wherever_they_stand(make_run, tmp_path):
    folder = make_run(tmp_path / WICKED, note=WICKED, **{WICKED: 1})
    rows, quoted = [{"name": WICKED, WICKED: 0.5}], WICKED.replace('"', '""')
    utils.write_atomically(folder / "evaluation.json", json.dumps({"rows": rows}).encode())
    utils.write_atomically(folder / "metrics.csv", f'epoch,"{quoted}"\n1,2\n2,3\n'.encode())
    utils.write_atomically(folder / f"test/{WICKED}", b"")
    found = elements(written(folder))
    assert not any("onerror" in attributes or attributes.get("src") == "x" for _, attributes in found)
    text = (folder / "index.html").read_text()
    assert "{{7*7}}" in text and "49" not in re.sub(r"[\d.?,:-]{6,}", "", text[text.index("<main") :][:3000])


def test_an_empty_or_half_written_folder_has_a_page(make_run, tmp_path):
    (tmp_path / "empty").mkdir()
    assert written(tmp_path / "empty").exists()
    folder = make_run(tmp_path / "half")
    (folder / "evaluation.json").write_text('{"rows": [')
    (folder / "final_results/sequence_0.mp4").write_bytes(b"no film")
    (folder / "final_results/sequence_1.mp4.tmp").write_bytes(b"")
    with open(folder / "metrics.csv", "a") as file:
        file.write("7,0.0")
    names = [attributes["data-name"] for _, attributes in elements(written(folder)) if "data-name" in attributes]
    assert names == ["observed_0", "sequence_1"]
    assert "finished: 6 epochs" in (folder / "index.html").read_text()


def test_a_film_is_opened_once_and_again_when_it_has_changed(make_run, tmp_path, monkeypatch):
    folder, opened, shorter = make_run(tmp_path / "run"), [], utils.mp4_bytes(np.zeros((4, 16, 16, 3), np.uint8))
    monkeypatch.setattr(page.av, "open", lambda path, real=page.av.open: opened.append(path) or real(path))
    assert written(folder) == written(folder) and len(opened) == 3
    film = folder / "final_results/sequence_0.mp4"
    utils.write_atomically(film, shorter)
    assert 'data-frames="4" data-rate="25.0" data-width="16"' in written(folder).read_text()
    assert opened[3:] == [str(film)]


def test_a_recovery_shows_what_was_seen_what_was_made_of_it_and_the_truth(make_run, tmp_path):
    folder = make_run(tmp_path / "run", mask_type="region")
    (folder / "recovered_sequence").mkdir()
    (folder / "final_results/sequence_1.mp4").rename(folder / "final_results/masked_0.mp4")
    for mask_type, last in (("region", "truth"), ("external", "observed")):  # with what is to be removed: no truth
        films = page.films_of(folder, "final_results", {"mask_type": mask_type})
        assert [film["label"] for film in films] == ["masked", "recovered", last]


@pytest.mark.parametrize("program, parser, flags", [
    ("main.py", stg.settings, "-category x -im_size 30x40 -preset quality -anneal 0.25"),
    ("main.py", stg.settings, "-category x -mask_type external -mask_file 'a b.mat' -device cpu"),
    ("main_dyn_G.py", dyngen.settings, "-task recovery -category x -mask_type region -seed 3"),
    ("main_dyn_G.py", dyngen.settings, "-category x -encoder -num_frames 10"),
    ("main_videogan.py", videogan.settings, "-category x -conditional -lr 1e-5"),
])
def test_the_command_makes_the_same_run(program, parser, flags):
    wanted = parser.settings_of(parser.parse(shlex.split(flags))[0])
    command = shlex.split(" ".join(page.command_of(page.program_of({"settings": wanted}), {"settings": wanted})))
    assert command[:2] == ["python", program] and parser.settings_of(parser.parse(command[2:])[0]) == wanted


def test_a_curve_runs_through_its_values_and_a_long_one_keeps_its_peaks():
    def points(x, y):
        chart = page.chart_of("gap", np.array(x), np.array(y))
        return chart, [tuple(map(float, point.split(","))) for point in chart["points"].split()]

    assert points([1.0, 2, 5], [-1.0, 1, 0])[1] == [(0, 1050), (750, 50), (3000, 550)]
    assert points([1.0, 2, 3], [1.0, 100, 10000])[1] == [(0, 1050), (1500, 550), (3000, 50)]  # logarithmic
    y = np.zeros(20000)
    y[12345], y[777] = 7, -3
    chart, curve = points(np.arange(1.0, 20001), y)
    assert len(curve) <= page.POINTS and (chart["high"], chart["low"]) == ("7", "-3")
    assert {50, 1050} <= {height for _, height in curve}


# ------------------------------------------------------------------------------------------------- in a browser


def numbers_shown(browser, selector=".film canvas"):
    """The numbers that the films of conftest show, read off the picture of the page."""
    boxes = browser.js(f"""[...document.querySelectorAll("{selector}")].map(canvas => {{
        const box = canvas.getBoundingClientRect(); return [box.x, box.y, box.width, box.height]; }})""")
    picture, numbers = browser.screenshot(), []
    for x, y, width, height in boxes:
        row = picture[round(y + height / 2), [round(x + width * (k + 0.5) / 5) for k in range(5)]]
        numbers.append(sum(1 << k for k, pixel in enumerate(row) if pixel.max() > 128))
    return numbers


def in_step(browser):
    """The numbers that all films show together, at six moments; a busy computer paints some canvas later at a few."""
    seen = [set(numbers_shown(browser)) for _ in range(6)]
    alike = [numbers for numbers in seen if len(numbers) == 1]
    assert len(alike) >= 3, seen
    return set().union(*alike)


def decoded(browser, player=0):
    """Wait until all is there: nothing moves on the page any more, and the films are decoded."""
    browser.until(f"document.readyState == 'complete' && Player.all.length > {player} && "
                  f"Player.all[{player}].films.every(film => film.have.every(Boolean))")


def test_films_are_in_step_and_controls_work_by_key_and_click(browser, make_run, tmp_path):
    browser.open(written(make_run(tmp_path / WICKED)))
    decoded(browser)
    assert len(in_step(browser)) > 2

    browser.key(" ")
    browser.js("Player.all[0].seek(23), new Promise(done => setTimeout(done, 100))")
    for press, number in ((lambda: browser.key("."), 24), (lambda: browser.key("ArrowRight"), 0),
                          (lambda: browser.click("[data-do=back]"), 24), (lambda: browser.key(","), 23),
                          (lambda: browser.click("[data-do=next]"), 24)):
        press()
        browser.until(f"Player.all[0].shown == {number}")
        assert numbers_shown(browser) == [number] * 3
    browser.key("s")
    assert browser.js("document.querySelector('[data-do=speed]').value") == "0.5"
    browser.click("[data-do=loop]")
    browser.click("[data-do=play]")
    browser.until("!Player.all[0].playing")  # at the end, since it does not loop
    assert browser.js("Player.all[0].frame") == 24

    browser.js("document.activeElement.blur()")
    browser.key("w")
    browser.until("Player.all[0].shown == 24")
    left, right = stage_colours(browser)
    assert left[2] < 60 < left[0] and right[0] < 60 < right[2]  # observed is yellow, chain 0 is cyan
    browser.key("x")
    browser.js("new Promise(done => setTimeout(done, 100))")
    assert [colour.tolist() for colour in stage_colours(browser)] == [right.tolist(), left.tolist()]
    browser.key("[")
    assert browser.js("Player.all[0].split") == 45
    browser.click("[data-do=wipe]")
    assert browser.js("document.querySelector('.wipe').hidden") is True
    assert browser.errors == [] and browser.js("typeof hacked") == "undefined"


def stage_colours(browser):
    """The colour of the wipe's picture in its first and last square (24 is binary 11000, so of two last ones)."""
    browser.js("document.querySelector('.stage').scrollIntoView({block: 'center', behavior: 'instant'})")
    x, y, width, height = browser.js("""(() => { const box = document.querySelector(".stage").getBoundingClientRect();
        return [box.x, box.y, box.width, box.height]; })()""")
    browser.js("Player.all[0].divide(80), new Promise(done => setTimeout(done, 100))")
    picture = browser.screenshot()
    browser.js("Player.all[0].divide(50), new Promise(done => setTimeout(done, 100))")
    return [picture[round(y + height / 2), round(x + width * share)].astype(int) for share in (0.7, 0.9)]


def test_the_slider_of_sheets_works_by_key_and_click_and_marks_the_curves(browser, make_run, tmp_path):
    browser.open(written(make_run(tmp_path / "run")))
    shown = "document.querySelector('#progress img').src.match(/epoch_(\\d+)/)[1]"
    assert browser.js(shown) == "0006"
    browser.key("p")
    assert browser.js(shown) == "0004"
    epoch, _, value = browser.js("document.querySelector('.chart output').textContent").partition(": ")
    assert epoch == "4" and float(value) == pytest.approx(0.0625, abs=1e-3)
    browser.click("[data-do=previous]")
    assert browser.js(shown) == "0002"
    browser.js("document.querySelector('[data-do=sheet]').focus()")
    browser.key("ArrowRight")
    assert browser.js(shown) == "0004" and browser.errors == []


def test_a_page_renews_itself_while_the_run_goes_on(browser, make_run, films, tmp_path):
    folder = make_run(tmp_path / "run", epochs=2)
    browser.open(written(folder))
    decoded(browser)
    browser.key("w")
    browser.js("window.kept = true")
    make_run(folder, epochs=6)
    utils.write_atomically(folder / "final_results/sequence_1.mp4", films["sequence_0"])
    page.write_page(folder)
    browser.until("document.querySelector('#state').textContent.includes('finished: 6 epochs')")
    assert browser.js("window.kept") and browser.js("document.querySelector('#progress [data-do=sheet]').max") == "2"
    assert browser.js("Player.all.length") == 1 and browser.js("Player.all[0].wiping") is True
    decoded(browser)
    assert browser.errors == []


def test_it_fits_a_phone_and_tells_what_its_pictures_are(browser, make_run, tmp_path):
    path = written(make_run(tmp_path / "run", a_setting_with_a_long_name="x" * 200))
    for scheme in ("light", "dark"):
        browser.open(path, 390, 844, scheme)
        assert browser.js("document.documentElement.scrollWidth") <= 390
        assert (browser.screenshot()[5, 5].mean() < 128) == (scheme == "dark")
    unnamed = "[...document.querySelectorAll('img, video, canvas, svg, input, select')].filter(each => " \
              "!(each.alt || each.ariaLabel || each.labels?.length)).map(each => each.outerHTML)"
    assert browser.js(unnamed) == [] and browser.errors == []


@pytest.fixture(scope="module")
def clips(tmp_path_factory, write_clip, moving):
    root = tmp_path_factory.mktemp("clips")
    write_clip(root / "waves/clip.mp4", moving(80, 64, 64))
    return root


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name, more, films", [
    ("main.py", ("", "-test -test_steps 1 -sample_size 2"), (2, 5)), ("main.py", ("-mask_type region",), (4,)),
    ("main_dyn_G.py", ("",), (3,)), ("main_videogan.py", ("-streams 2",), (5,))])
def test_every_program_leaves_a_page_whose_films_play(name, more, films, browser, clips, tmp_path):
    program, small, unit = PROGRAMS[name]
    run = (small, f"-num_{unit}s 1 -category waves -data_path", clips, "-output_dir", tmp_path)
    for flags, count in zip(more, films, strict=True):
        with narrow():
            succeeds(program, *run, flags)
        browser.open(tmp_path / "waves/index.html")
        browser.js("document.querySelectorAll('.player').forEach(player => player.scrollIntoView())")
        browser.until(f"Player.all.flatMap(player => player.films).length === {count}")
        for k in range(browser.js("Player.all.length")):
            browser.js(f"Player.all[{k}].root.scrollIntoView()")
            decoded(browser, k)
        assert browser.js("Player.all.some(player => player.films.some(film => film.broken))") is False
        assert browser.errors == []
