"""Fields to colours and back on a GPU, each in one kernel by Triton where GaussianField makes a hundred passes over
memory. It does the same wherever Triton does not work."""

import torch
import triton
import triton.language as tl

FRAMES, PIXELS = 8, 64  # of a tile: the maps of its pixels are read once for all its frames


def colour(u, knots, bends, base, off, low, high):
    """GaussianField.colour: the videos x (N, 3, T, H, W), channels last, of fields u, by its knots and maps."""
    n, _, t, h, w = u.shape
    x = torch.empty(n, t, h, w, 3, device=u.device)
    maps = [each.contiguous() for each in (bends, base, off, low, high)]
    grid = triton.cdiv(h * w, PIXELS), triton.cdiv(t, FRAMES), n
    colour_kernel[grid](x, u.contiguous(), *maps, t, h * w, knots, base[0].numel() == 1, FRAMES, PIXELS)
    return x.permute(0, 4, 1, 2, 3)


@triton.jit
def colour_kernel(x, u, bends, base, off, low, high, frames, plane, KNOTS: tl.constexpr, ONE: tl.constexpr,
                  FRAMES: tl.constexpr, PIXELS: tl.constexpr):
    pixel, frame, inside, n = tile(frames, plane, FRAMES, PIXELS)
    here, place, map_size = pixel < plane, (pixel * 0 if ONE else pixel), (1 if ONE else plane)
    u += (n * 3 * frames + frame) * plane + pixel
    first = tl.load(u, inside, 0.0)
    red = first * 0 + tl.load(base + place, here, 0.0)
    green = first * 0 + tl.load(base + map_size + place, here, 0.0)
    blue = first * 0 + tl.load(base + 2 * map_size + place, here, 0.0)
    for k in tl.static_range(len(KNOTS)):
        hinge = tl.maximum(first, KNOTS[k])
        red += hinge * tl.load(bends + 3 * k * map_size + place, here, 0.0)
        green += hinge * tl.load(bends + (3 * k + 1) * map_size + place, here, 0.0)
        blue += hinge * tl.load(bends + (3 * k + 2) * map_size + place, here, 0.0)
    for k in tl.static_range(2):
        v = tl.load(u + (k + 1) * frames * plane, inside, 0.0)
        v = tl.maximum(v, tl.load(low + k * map_size + place, here, 0.0))
        v = tl.minimum(v, tl.load(high + k * map_size + place, here, 0.0))
        red += v * tl.load(off + 3 * k * map_size + place, here, 0.0)
        green += v * tl.load(off + (3 * k + 1) * map_size + place, here, 0.0)
        blue += v * tl.load(off + (3 * k + 2) * map_size + place, here, 0.0)
    x += 3 * ((n * frames + frame) * plane + pixel)
    tl.store(x, red, inside)
    tl.store(x + 1, green, inside)
    tl.store(x + 2, blue, inside)


def colour_transposed(u, g, knots, bends, base, off, low, high):
    """GaussianField.colour_transposed: (dx/du)^T g of fields u, both (N, 3, T, H, W)."""
    n, _, t, h, w = u.shape
    out, maps = torch.empty(u.shape, device=u.device), [each.contiguous() for each in (bends, off, low, high)]
    grid = triton.cdiv(h * w, PIXELS), triton.cdiv(t, FRAMES), n
    colour_transposed_kernel[grid](out, u.contiguous(), g, *g.stride(), *maps, t, h * w, w, knots,
                                   base[0].numel() == 1, FRAMES, PIXELS)
    return out


@triton.jit
def colour_transposed_kernel(out, u, g, g_n, g_c, g_t, g_h, g_w, bends, off, low, high, frames, plane, width,
                             KNOTS: tl.constexpr, ONE: tl.constexpr, FRAMES: tl.constexpr, PIXELS: tl.constexpr):
    pixel, frame, inside, n = tile(frames, plane, FRAMES, PIXELS)
    here, place, map_size = pixel < plane, (pixel * 0 if ONE else pixel), (1 if ONE else plane)
    entry = (n * 3 * frames + frame) * plane + pixel
    g += n * g_n + frame * g_t + pixel // width * g_h + pixel % width * g_w
    red, green, blue = tl.load(g, inside, 0.0), tl.load(g + g_c, inside, 0.0), tl.load(g + 2 * g_c, inside, 0.0)
    first = tl.load(u + entry, inside, 0.0)
    pulled = first * 0
    for k in tl.static_range(len(KNOTS)):
        slope = red * tl.load(bends + 3 * k * map_size + place, here, 0.0)
        slope += green * tl.load(bends + (3 * k + 1) * map_size + place, here, 0.0)
        slope += blue * tl.load(bends + (3 * k + 2) * map_size + place, here, 0.0)
        pulled += tl.where(first > KNOTS[k], slope, 0.0)
    tl.store(out + entry, pulled, inside)
    for k in tl.static_range(2):
        v = tl.load(u + entry + (k + 1) * frames * plane, inside, 0.0)
        within = v >= tl.load(low + k * map_size + place, here, 0.0)
        within &= v <= tl.load(high + k * map_size + place, here, 0.0)
        slope = red * tl.load(off + 3 * k * map_size + place, here, 0.0)
        slope += green * tl.load(off + (3 * k + 1) * map_size + place, here, 0.0)
        slope += blue * tl.load(off + (3 * k + 2) * map_size + place, here, 0.0)
        tl.store(out + entry + (k + 1) * frames * plane, tl.where(within, slope, 0.0), inside)


@triton.jit
def tile(frames, plane, FRAMES: tl.constexpr, PIXELS: tl.constexpr):
    """A tile of a few frames and pixels: which, whether they are in the video, and the video's number."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)[None]
    frame = tl.program_id(1) * FRAMES + tl.arange(0, FRAMES)[:, None]
    return pixel, frame, (pixel < plane) & (frame < frames), tl.program_id(2).to(tl.int64)
