"""One picture of synthesised videos beside the clip: frames, maps, curves."""

import io
from pathlib import Path

import numpy as np

import utils
from judge.metrics import SPATIAL_FLOOR, TEMPORAL_FLOOR

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

    colours = {"observed": "black", "later frames": "tab:green", "LDS": "tab:blue"}
    videos = [name for name in portraits if name not in colours]
    for shade, name in zip(np.linspace(0.0, 0.75, max(len(videos), 2)), videos):
        colours[name] = (0.85, 0.1 + 0.75 * shade, 0.1)
    pictured = {name: each for name, each in portraits.items() if name not in videos[SHOWN:]}
    columns = max(5, len(pictured))
    height, width = portraits["observed"]["std"].shape
    tall = 2 * 15 / columns * height / width + 0.6  # inches, of two rows of pictures
    figure = Figure(figsize=(16, tall + 4.6), layout="constrained", dpi=100)
    figure.get_layout_engine().set(h_pad=0.06)
    top, bottom = figure.subfigures(2, 1, height_ratios=(tall, 4.6))
    draw_maps(top, pictured, columns)
    draw_curves(bottom, portraits, colours, pictured, stride)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def draw_maps(figure, pictured, columns):
    """The middle frame of each video, and below it the map of its std over time; one scale for all maps."""
    axes = figure.subplots(2, columns)
    highest = np.percentile(next(iter(pictured.values()))["std"], 99.5)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.set_frame_on(False)
    for (above, below), (name, video) in zip(axes.T, pictured.items()):
        above.imshow(video["middle"])
        above.set_title(name)
        image = below.imshow(video["std"], cmap="magma", vmin=0, vmax=highest)
        below.set_xlabel(f"mean {video['std'].mean():.1f}")
    axes[0, 0].set_ylabel("middle frame", fontsize=12)
    axes[1, 0].set_ylabel("std over time", fontsize=12)
    figure.colorbar(image, ax=axes, label="grey levels", shrink=0.42, anchor=(0, 0.1), aspect=15, pad=0.01)


def draw_curves(figure, portraits, colours, labelled, stride):
    """Autocorrelation, temporal and spatial spectrum, histogram of the videos, each in its colour."""
    axes = figure.subplots(1, 4)
    for name, video in reversed(portraits.items()):  # the clip on top
        label = name if name in labelled else None
        style = {"color": colours[name], "label": label, "linewidth": 2.2 if name == "observed" else 1.4}
        axes[0].plot(video["autocorrelation"], **style)
        axes[1].plot(np.arange(1, len(video["temporal"]) + 1) / video["frames"], video["temporal"], **style)
        axes[2].plot(np.arange(1, len(video["spatial"]) + 1), video["spatial"], **style)
        axes[3].plot(*video["histogram"], **style)
    axes[0].set(title="temporal autocorrelation, moving pixels", xlabel="lag (frames)")
    axes[0].axhline(0, color="0.7", linewidth=0.8)
    axes[1].set(title="temporal spectrum", xlabel="cycles per frame", ylabel="dB")
    if stride:
        axes[1].set_title(f"temporal spectrum (dotted: stride {stride})")
        for harmonic in range(1, stride // 2 + 1):
            axes[1].axvline(harmonic / stride, color="0.5", linewidth=1, linestyle=":")
    axes[2].set(title="spatial spectrum", xlabel="cycles per shorter side", ylabel="dB", xscale="log")
    axes[3].set(title="histogram of R, G, B", xlabel="grey level", ylabel="% of values", yscale="log")
    axes[3].set_ylim(bottom=5e-3)
    for ax in axes:
        ax.grid(alpha=0.25)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=8, frameon=False)
