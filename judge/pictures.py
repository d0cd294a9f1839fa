"""One picture of synthesised videos beside the clip: frames, maps, curves."""

import io
import warnings
from pathlib import Path

import numpy as np

import utils
from judge.metrics import SPATIAL_FLOOR, TEMPORAL_FLOOR

WIDTH = 1600  # pixels of the picture
SHOWN = 4  # synthesised videos whose frames and maps are drawn; curves are drawn for all


def portrait(video):
    """What a picture shows of a summary, by name: far less than the summary holds."""
    frames = video["video"]
    counts, edges = np.histogram(np.clip(frames, 0, 255), bins=64, range=(0, 256))
    return {
        "frames": len(frames),
        "middle": np.clip(frames[len(frames) // 2], 0, 255).round().astype(np.uint8),
        "std": video["std"].mean(axis=-1),  # (H, W)
        "autocorrelation": np.concatenate([[1], video["autocorrelation"]]),
        "temporal": 10 * np.log10(video["temporal"] + TEMPORAL_FLOOR),  # dB
        "spatial": 10 * np.log10(video["spatial"] + SPATIAL_FLOOR),
        "histogram": ((edges[1:] + edges[:-1]) / 2, 100 * counts / counts.sum()),
    }


def draw_texture_report(path: str | Path, portraits: dict[str, dict], stride: int | None = None) -> None:
    """One PNG for the portraits of `texture_report`: a frame and the map of temporal std of each video, then
    autocorrelation, spectra and histograms."""
    utils.write_atomically(path, texture_png(portraits, stride))


def texture_png(portraits, stride):
    """The picture of `draw_texture_report`, as bytes."""
    from matplotlib.figure import Figure

    portraits = {utils.printable(name): each for name, each in portraits.items()}
    colours = {"observed": "black", "later frames": "tab:green", "LDS": "tab:blue"}
    videos = [name for name in portraits if name not in colours]
    for shade, name in zip(np.linspace(0.0, 0.75, max(len(videos), 2)), videos):
        colours[name] = (0.85, 0.1 + 0.75 * shade, 0.1)
    pictured = {name: each for name, each in portraits.items() if name not in videos[SHOWN:]}
    height, width = portraits["observed"]["std"].shape
    cell = (WIDTH - 140) / max(5, len(pictured))  # wide, with a gap
    tall = (cell - 10) * height / width
    png = io.BytesIO()
    figure = Figure(figsize=(WIDTH / 100, (2 * tall + 520) / 100), dpi=100)
    draw_maps(figure, pictured, cell, tall)
    draw_curves(figure, portraits, colours, stride)
    draw_legend(figure, {name: colours[name] for name in pictured})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # letters that the font has not are boxes
        figure.savefig(png, format="png")
    return png.getvalue()


def axes_at(figure, left, top, width, height):
    """Axes at a place given in pixels from the upper left corner: a layout that arranges itself takes seconds."""
    wide, high = figure.get_size_inches() * 100
    return figure.add_axes((left / wide, 1 - (top + height) / high, width / wide, height / high))


def draw_maps(figure, pictured, cell, tall):
    """The middle frame of each video, and below it the map of its std over time; one scale for all maps."""
    highest = np.percentile(pictured["observed"]["std"], 99.5)
    letters = int(cell / 9)
    for k, (name, video) in enumerate(pictured.items()):
        above = axes_at(figure, 40 + k * cell, 40, cell - 10, tall)
        below = axes_at(figure, 40 + k * cell, 50 + tall, cell - 10, tall)
        above.imshow(video["middle"])
        title = name if len(name) <= letters else f"{name[: letters - 1]}\N{HORIZONTAL ELLIPSIS}"
        above.set_title(title, parse_math=False)  # a name with $ is no formula
        image = below.imshow(video["std"], cmap="magma", vmin=0, vmax=highest)
        below.set_xlabel(f"mean {video['std'].mean():.1f}")
        for ax, label in ((above, "middle frame"), (below, "std over time")):
            ax.set(xticks=[], yticks=[], frame_on=False)
            if k == 0:
                ax.set_ylabel(label, fontsize=12)
    figure.colorbar(image, cax=axes_at(figure, WIDTH - 85, 50 + tall, 15, tall), label="grey levels")


def draw_curves(figure, portraits, colours, stride):
    """Autocorrelation, temporal and spatial spectrum, histogram of the videos, each in its colour."""
    top, width = figure.get_size_inches()[1] * 100 - 380, (WIDTH - 30) / 4
    axes = [axes_at(figure, 65 + k * width, top, width - 70, 280) for k in range(4)]
    for name, video in reversed(portraits.items()):  # the clip on top
        style = {"color": colours[name], "linewidth": 2.2 if name == "observed" else 1.4}
        axes[0].plot(video["autocorrelation"], **style)
        axes[1].plot(np.arange(1, len(video["temporal"]) + 1) / video["frames"], video["temporal"], **style)
        axes[2].semilogx(np.arange(1, len(video["spatial"]) + 1), video["spatial"], **style)
        axes[3].semilogy(*video["histogram"], **style)
    axes[0].set(title="temporal autocorrelation, moving pixels", xlabel="lag (frames)")
    axes[0].axhline(0, color="0.7", linewidth=0.8)
    axes[1].set(title="temporal spectrum", xlabel="cycles per frame", ylabel="dB")
    if stride:
        axes[1].set_title(f"temporal spectrum (dotted: stride {stride})")
        for harmonic in range(1, stride // 2 + 1):
            axes[1].axvline(harmonic / stride, color="0.5", linewidth=1, linestyle=":")
    axes[2].set(title="spatial spectrum", xlabel="cycles per shorter side", ylabel="dB")
    axes[3].set(title="histogram of R, G, B", xlabel="grey level", ylabel="% of values")
    axes[3].set_ylim(bottom=5e-3)
    axes[2].xaxis.set_major_formatter("{x:g}")
    axes[3].yaxis.set_major_formatter("{x:g}")
    for ax in axes:
        ax.grid(alpha=0.25)


def draw_legend(figure, colours):
    """A line of each colour and its name, below all."""
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=colour) for colour in colours.values()]
    legend = figure.legend(lines, ["name"] * len(lines), loc="lower center", ncols=8, frameon=False)
    for text, name in zip(legend.get_texts(), colours):  # given as labels, names with a leading _ would be left out
        text.set(text=name, parse_math=False)
