"""Videos to blocks and back on a GPU, each in one kernel by Triton where routes.Blocks makes several passes over
memory. It does the same wherever Triton does not work."""

import torch
import triton
import triton.language as tl

ENTRIES = 1024  # of a tile


def to_blocks(x, layer, count, wide):
    """Maps x (N, C, T, H, W), padded for the layer, with each block of its stride as one position: (N, wide, *count),
    channels last, in its weights' type. Channels beyond a block's entries are ones."""
    n, c, *size = x.shape
    out = torch.empty(n, *count, wide, dtype=layer.weight.dtype, device=x.device)
    grid = n * count[0] * count[1], triton.cdiv(count[2] * wide, ENTRIES)
    to_blocks_kernel[grid](out, x, *x.stride(), *size, *edges(layer, size), *count, *layer.stride, c, wide, ENTRIES)
    return out.permute(0, 4, 1, 2, 3)


def edges(layer, size):
    """How many zeros stand before a map of size (T, H, W), on each axis."""
    return [before for before, _ in layer.padding(size)]


@triton.jit
def to_blocks_kernel(out, x, x_n, x_c, x_t, x_h, x_w, t_size, h_size, w_size, t_pad, h_pad, w_pad,
                     t_blocks, h_blocks, w_blocks, T: tl.constexpr, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr,
                     WIDE: tl.constexpr, ENTRIES: tl.constexpr):
    row = tl.program_id(0)  # of blocks
    n, block_t, block_h = row // (t_blocks * h_blocks), row // h_blocks % t_blocks, row % h_blocks
    entry = tl.program_id(1) * ENTRIES + tl.arange(0, ENTRIES)
    block_w, channel = entry // WIDE, entry % WIDE
    c, w, h, t = channel % C, channel // C % W, channel // (C * W) % H, channel // (C * W * H)
    t, h, w = block_t * T + t - t_pad, block_h * H + h - h_pad, block_w * W + w - w_pad
    real = channel < C * W * H * T
    inside = real & (t >= 0) & (t < t_size) & (h >= 0) & (h < h_size) & (w >= 0) & (w < w_size)
    x += n.to(tl.int64) * x_n
    value = tl.load(x + c * x_c + t * x_t + h * x_h + w * x_w, inside & (block_w < w_blocks), 0.0)
    value = tl.where(real, value, 1.0).to(out.dtype.element_ty)
    tl.store(out + row.to(tl.int64) * w_blocks * WIDE + entry, value, block_w < w_blocks)


def from_blocks(y, layer, size):
    """The transpose of `to_blocks`: maps (N, C, T, H, W) of this size, channels last, from blocks y (N, wide, ...); 0
    where no block reaches. Videos, of three channels, are float32."""
    n, (t, h, w), c = len(y), size, layer.weight.shape[1]
    out = torch.empty(n, t, h, w, c, dtype=torch.float32 if c == 3 else y.dtype, device=y.device)
    grid = n * t * h, triton.cdiv(w * c, ENTRIES)
    from_blocks_kernel[grid](out, y, *y.stride(), *y.shape[2:], *edges(layer, size), t, h, w, *layer.stride, c, ENTRIES)
    return out.permute(0, 4, 1, 2, 3)


@triton.jit
def from_blocks_kernel(out, y, y_n, y_c, y_t, y_h, y_w, t_blocks, h_blocks, w_blocks, t_pad, h_pad, w_pad,
                       t_size, h_size, w_size, T: tl.constexpr, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr,
                       ENTRIES: tl.constexpr):
    row = tl.program_id(0)  # of pixels
    n, t, h = row // (t_size * h_size), row // h_size % t_size + t_pad, row % h_size + h_pad
    entry = tl.program_id(1) * ENTRIES + tl.arange(0, ENTRIES)
    w, c = entry // C + w_pad, entry % C
    channel = ((t % T * H + h % H) * W + w % W) * C + c
    reached = tl.where((t // T < t_blocks) & (h // H < h_blocks), w_blocks, 0)
    inside = (entry < w_size * C) & (w // W < reached)
    y += n.to(tl.int64) * y_n
    value = tl.load(y + channel * y_c + t // T * y_t + h // H * y_h + w // W * y_w, inside, 0.0)
    tl.store(out + row.to(tl.int64) * w_size * C + entry, value.to(out.dtype.element_ty), entry < w_size * C)
