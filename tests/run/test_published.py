"""The command lines that the released programs are published with: each parses as it is, and does what it says or ends
in one clear line."""

import shutil
from pathlib import Path

import pytest
from calls import call, frames_of, narrow, succeeds
from tools import assert_refused

import dyngen.settings
import main
import main_dyn_G
import main_videogan
import stg.settings
import videogan.generate
import videogan.settings

pytestmark = pytest.mark.usefixtures("undrawn")
ROOT = Path(__file__).parents[2]
TEST = "--category fire --isTraining False --num_sections_in_test 4 --num_batches_in_test 2"
STGCONVNET = {  # command line: some of what it means
    "-data_path ./trainingVideo -category fire_pot -output_dir ./output -sz 224 -num_chain 3 -batch_size 1 -lr 0.001 "
    "-num_frames 70": {"im_size": (224, 224), "num_chain": 3, "lr": 0.001, "num_frames": 70, "category": "fire_pot"},
    "-data_path ./trainingVideo -category fire_pot -output_dir ./output -im_size 224 -num_chain 3 -batch_size 1 "
    "-lr 0.001": {"im_size": (224, 224), "batch_size": 1, "output_dir": "./output"},
    "-data_path ./trainingVideo -category fire_pot -output_dir ./output -sample_batch 3": {"num_chain": 3},
    "-data_path ./trainingVideo/data_synthesis -category fire_pot -output_dir ./output -sz 224 -num_chain 3 "
    "-batch_size 1 -lr 0.001 -num_frames 70": {"data_path": "./trainingVideo/data_synthesis"},
}
DYNAMIC_GENERATOR = {  # those of the released scripts for other tasks have a -task before them
    "--category fire --isTraining True": {"test": False, "task": "scene", "im_size": 64, "num_epochs": 3000},
    TEST: {"test": True, "num_sections_in_test": 4, "num_batches_in_test": 2, "output_dir": "./output_synthesis"},
    f"{TEST} --ckpt_name model.ckpt-2960": {"test": True, "ckpt": "model.ckpt-2960"},
    "--category rock --data_dir ./data/scene --output_dir ./output --net_type scene --image_size 64":
        {"data_path": "./data/scene", "task": "scene", "test": False},
    "--category fire --isTraining False --net_type scene --image_size 64 --output_dir ./output "
    "--ckpt ./output/rock/checkpoints/model.ckpt-82000":
        {"test": True, "ckpt": "./output/rock/checkpoints/model.ckpt-82000", "output_dir": "./output"},
    "-task motion --category animal30_running --isTraining True": {"num_frames": 30, "content_size": 100},
    "-task recovery --category ocean --training_mode incomplete --mask_type external --mask_file region_type.mat":
        {"im_size": 150, "mask_file": "region_type.mat", "output_dir": "./output_recovery"},
    "-task recovery --category ocean --mask_type missingFrames": {"mask_type": "missingFrames", "mask_file": None},
    "-task inpainting --category boats --isTraining True":
        {"im_size": 128, "num_frames": 150, "mask_file": "mask128.mat"},
}
VIDEOGAN = {  # whose options are environment variables, here flags of the same names
    "-lr 0.001": {"lr": 0.001, "batch_size": 64, "category": "beach"},
    "-conditional": {"batch_size": 32, "mask_penalty": 0.0},
    "-data_root /data -data_list lists-full/_b_beach.txt.train": {"data_path": "/data", "lr": 0.0002},
    "-generate": {"test": True, "seed": 0},
}
PARSERS = ((stg.settings, STGCONVNET), (dyngen.settings, DYNAMIC_GENERATOR), (videogan.settings, VIDEOGAN))
SMALL = "-device cpu -num_epochs 1 -num_frames 8 -sample_steps 1"


@pytest.mark.parametrize("settings, line, means", [(s, *item) for s, lines in PARSERS for item in lines.items()])
def test_a_published_command_line_means_what_it_meant(settings, line, means):
    args, _ = settings.parse([*line.split(), "-device", "cpu"])
    assert {name: getattr(args, name) for name in means} == means


@pytest.fixture(autouse=True)
def at_home(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_stgconvnet_synthesises_three_videos(tmp_path):
    succeeds(main, [*STGCONVNET][0], SMALL, "-im_size 16 -net_type FC_S -output_dir", tmp_path)
    assert frames_of(tmp_path / "fire_pot/synthesized_sequence") == [8, 8, 8]


def test_the_dynamic_generator_learns_and_makes_new_videos_with_a_checkpoint_of_the_released_name(tmp_path):
    small = "-im_size 8 -truncated_backprop_length 4 -state_size 4 -z_size 4 -output_dir"
    succeeds(main_dyn_G, [*DYNAMIC_GENERATOR][0], SMALL, small, tmp_path)
    model, made = tmp_path / "fire/model", tmp_path / "fire/test/synthesized_sequence"
    named = (TEST, "--ckpt_name model.ckpt-2960 -device cpu -output_dir", tmp_path)
    assert_refused(call(main_dyn_G, *named), "has epoch_0001.pt", "-keep")
    (model / "epoch_0001.pt").rename(model / "epoch_2960.pt")
    for flags in (named, (TEST, "-device cpu -output_dir", tmp_path)):
        succeeds(main_dyn_G, *flags)
        assert frames_of(made) == [4 * 4, 4 * 4]
        shutil.rmtree(made)


def test_videogan_learns_and_generates(tmp_path, monkeypatch):
    assert videogan.generate.SAMPLES == 128
    monkeypatch.setattr("videogan.generate.SAMPLES", 3)
    small = "-device cpu -batch_size 2 -workers 0 -num_iterations 1 -held_out 0 -output_dir"
    with narrow(4):
        succeeds(main_videogan, [*VIDEOGAN][0], small, tmp_path)
        succeeds(main_videogan, [*VIDEOGAN][-1], "-device cpu -output_dir", tmp_path)
    assert frames_of(tmp_path / "beach/test/synthesized_sequence") == [32] * 3


@pytest.mark.parametrize("program, line, said", [
    (main, [*STGCONVNET][3], "data_path './trainingVideo/data_synthesis' is not a folder"),
    (main_dyn_G, [*DYNAMIC_GENERATOR][3], "data_path './data/scene' is not a folder"),
    (main_dyn_G, [*DYNAMIC_GENERATOR][4], "no checkpoint './output/rock/checkpoints/model.ckpt-82000'"),
    (main_dyn_G, [*DYNAMIC_GENERATOR][5], "no category 'animal30_running'"),
    (main_dyn_G, [*DYNAMIC_GENERATOR][6], "region_type.mat"),
    (main_dyn_G, [*DYNAMIC_GENERATOR][8], "no category 'boats'"),
    (main_videogan, [*VIDEOGAN][2], "cannot read list 'lists-full/_b_beach.txt.train'"),
])
def test_a_published_command_without_its_data_ends_in_one_line(program, line, said, tmp_path):
    assert_refused(call(program, line, "-device cpu -output_dir", tmp_path), said)


@pytest.mark.parametrize("program", [main, main_dyn_G, main_videogan])
def test_a_category_in_two_places_is_an_error_that_names_both(program, tmp_path):
    for folder in ("fire", "dynamicTexture/fire"):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(ROOT / "trainingVideo/fire/fire.mp4", tmp_path / folder)
    assert_refused(call(program, "--category fire -device cpu -data_path", tmp_path),
                   "'./fire' and './dynamicTexture/fire'")
