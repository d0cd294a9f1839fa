"""The experiments of the three papers, as data: the commands, the sizes, and where the clips are to be had.

A command is what a user types. In braces: {clip}, a category, and whatever else a step names in `over` and `find`;
{run}, the folder of the run of that clip. The clip's -data_path and the -output_dir are added.
"""

from dataclasses import dataclass, field

STG_PAGE = "www.stat.ucla.edu/~jxie/STGConvNet/STGConvNet.html"
DYN_CODE = "github.com/jianwen-xie/Dynamic_generator"
SOURCES = {  # clips that do not ship with the project
    **dict.fromkeys(("boiling_water", "flag2", "flame", "flashing_light", "fountain", "animal30_running"), DYN_CODE),
    **dict.fromkeys(("boats_input.mp4", "boats/mask128.mat"), DYN_CODE),
    **dict.fromkeys(("cows", "animals", "flag", "playing", "sea_world", "traffic", "windmill"), STG_PAGE),
}
STREAMS = {"streams": ("2", "1")}
MASKS = ("region", "missing_frames", "salt_pepper")


@dataclass(frozen=True)
class Step:
    """A command, once for each clip and each value of `over`.

    command: program and flags, the same at both scales; paper, small: the flags that a scale adds, or None where it
    leaves the step out; clips: categories, or files by their names; over: other words of the command and the values
    that each takes; find: words that stand for files of the data; folder: where the runs are, below the experiment's.
    """

    command: str
    clips: tuple[str, ...]
    paper: str | None = ""
    small: str | None = ""
    over: dict[str, tuple[str, ...]] = field(default_factory=dict)
    find: dict[str, str] = field(default_factory=dict)
    folder: str = ""


@dataclass(frozen=True)
class Experiment:
    """Steps in their order, and the table they end in: 'videos' (new ones beside real ones), 'test' (the same, of
    those that -test makes), 'recovery' (errors on hidden pixels, mask by mask) or 'inpainting' (errors against the
    truth, where there is one)."""

    about: str
    steps: tuple[Step, ...]
    table: str = "videos"
    note: str = ""


BOAT = {"mask_file": "boat_truth/mask", "truth": "boat_truth/truth.mp4"}
BOATS = {"mask_file": "boats/mask128.mat"}
INPAINT = "main.py -category {clip} -preset quality -num_chain 1 -mask_type external -mask_file {mask_file}"
JUDGE = "evaluate.py -truth {{truth}} -mask {{mask_file}} -recovered {{run}}/{} -out {{run}}/truth"  # an inpainted clip
TEXTURES = ("fire_pot", "boiling_water", "flag2", "flame", "flashing_light")
ACTIONS = ("runner", "cows", "animals")
RECOVERED = ("ocean", "fire_pot", "fire", "flag", "fountain", "playing", "sea_world", "traffic", "windmill",
             "boiling_water", "flag2")
SMALL_HIDDEN = "-im_size 64 -num_frames 40"
DRAWN = ("Masks are drawn anew, as the paper describes them. Linear interpolation is below every published number on "
         "fountain, the one clip of the paper's table that can be had.")

# In order of value: what the whole gives when it is stopped early.
EXPERIMENTS = {
    "stg_time": Experiment(
        "STGConvNet, experiment 2.1: new videos of a clip that is stationary in time",
        steps=(
            Step("main.py -category {clip} -preset quality", TEXTURES, small="-im_size 64", folder="quality"),
            Step("main.py -category {clip}", TEXTURES, small=None, folder="released"),
        ),
    ),
    "stg_recovery": Experiment(
        "STGConvNet, experiment 4: hidden pixels recovered, three kinds of mask",
        steps=(
            Step("main.py -category {clip} -preset quality -num_chain 1 -mask_type {mask}", RECOVERED,
                 paper="-im_size 150", small=SMALL_HIDDEN, over={"mask": MASKS}, folder="{mask}"),
        ),
        table="recovery",
        note=DRAWN,
    ),
    "stg_space_time": Experiment(
        "STGConvNet, experiment 1: new videos of a clip that is stationary in space and time",
        steps=(
            Step("main.py -category {clip} -net_type ST -preset quality", ("ocean",), small="-im_size 64",
                 folder="quality"),
            Step("main.py -category {clip} -net_type ST", ("ocean",), small=None, folder="released"),
        ),
        note="The paper shows pictures only.",
    ),
    "stg_inpainting": Experiment(
        "STGConvNet, experiment 5: a moving object removed from its background",
        steps=(
            Step(INPAINT, ("boat",), paper="-im_size 128 -num_frames 72", small=SMALL_HIDDEN, find=BOAT),
            Step(JUDGE.format("recovered_mean_sequence"), ("boat",), find=BOAT),
            Step(INPAINT, ("boats_input.mp4",), paper="-im_size 128 -num_frames 150", small=SMALL_HIDDEN, find=BOATS),
        ),
        table="inpainting",
        note="The paper shows pictures only. The truth is the rendered sea without the boat; real boats have none.",
    ),
    "stg_many": Experiment(
        "STGConvNet, experiment 2.2: many clips of one pattern, and more new ones (the paper: 30 and 39)",
        steps=(
            Step("main.py -category {clip} -net_type FC_S_multi -num_frames 30 -batch_size 10 -num_chain 13",
                 ("fires", "animals"), paper="-im_size 100", small="-im_size 48 -preset quality -num_epochs 400"),
        ),
        note="The paper shows pictures only.",
    ),
    "stg_actions": Experiment(
        "STGConvNet, experiment 3: action patterns, which are not stationary",
        steps=(
            Step("main.py -category {clip} -net_type FC -batch_size 10 -num_chain 8", ACTIONS,
                 paper="-im_size 100x200", small="-im_size 48x96 -num_frames 36 -preset quality -num_epochs 400"),
        ),
        note="The paper shows pictures only.",
    ),
    "dyn_synthesis": Experiment(
        "Dynamic generator: new videos, longer than the clip, beside a linear dynamical system",
        steps=(
            Step("main_dyn_G.py -category {clip} -preset quality", ("fire", *TEXTURES), folder="quality"),
            Step("main_dyn_G.py -category {clip}", ("fire", *TEXTURES), small=None, folder="released"),
        ),
        note="The paper shows pictures, and people's choices between them as curves.",
    ),
    "dyn_recovery": Experiment(
        "Dynamic generator: hidden pixels recovered",
        steps=(
            Step("main_dyn_G.py -task recovery -category {clip} -preset quality -mask_type {mask}", RECOVERED,
                 small=SMALL_HIDDEN, over={"mask": ("region", "missing_frames")}, folder="{mask}"),
        ),
        table="recovery",
        note=DRAWN,
    ),
    "dyn_motion": Experiment(
        "Dynamic generator: many clips of one motion",
        steps=(
            Step("main_dyn_G.py -task motion -category {clip}", ("runner", "animal30_running", "cows"),
                 small="-dynamic_mode linear -sample_steps 5 -num_epochs 60"),
        ),
        note="The paper shows pictures only.",
    ),
    "dyn_inpainting": Experiment(
        "Dynamic generator: a moving object removed from its background",
        steps=(
            Step("main_dyn_G.py -task inpainting -category {clip} -preset quality -mask_file {mask_file}", ("boat",),
                 small=SMALL_HIDDEN, find=BOAT),
            Step(JUDGE.format("recovered_sequence"), ("boat",), find=BOAT),
            Step("main_dyn_G.py -task inpainting -category {clip} -preset quality -mask_file {mask_file}",
                 ("boats_input.mp4",), small=None, find=BOATS),
        ),
        table="inpainting",
        note="The paper shows pictures only. The truth is the rendered sea without the boat; real boats have none.",
    ),
    "dyn_animate": Experiment(
        "Dynamic generator: image to video, from a first frame",
        steps=(
            Step("main_dyn_G.py -category {clip} -encoder", ("fire",), small="-num_frames 30 -num_epochs 100"),
            Step("main_dyn_G.py -category {clip} -encoder -animate {run}/observed_sequence/sequence_0/000.png",
                 ("fire",)),
        ),
        table="test",
        note="The paper shows pictures only.",
    ),
    "gan_scenes": Experiment(
        "VideoGAN: new scenes from noise, with two streams and with one",
        steps=(
            Step("main_videogan.py -category {clip} -streams {streams}", ("beach",), over=STREAMS,
                 small="-batch_size 8 -num_iterations 100", folder="streams_{streams}"),
            Step("main_videogan.py -category {clip} -test -sample_size 16", ("beach",), over=STREAMS,
                 folder="streams_{streams}"),
        ),
        note="The paper learns from two million clips, which were not released. Its study asks people which of two "
             "videos is real: `python gallery.py -study RUN` makes one.",
    ),
    "gan_conditional": Experiment(
        "VideoGAN: a first frame in, its future out",
        steps=(
            Step("main_videogan.py -category {clip} -conditional", ("beach",),
                 small="-batch_size 4 -num_iterations 100"),
            Step("main_videogan.py -category {clip} -test -sample_size 16", ("beach",)),
        ),
        note="The paper shows pictures only.",
    ),
}
