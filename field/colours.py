"""From noise to colour: the curve of colours that a clip has at each pixel, fitted for GaussianField."""

import torch
import torch.nn.functional as F

KNOTS = (-2.5, -1.5, -0.75, 0.0, 0.75, 1.5, 2.5)  # of a pixel's colour curve, in standard deviations of its noise
WITHIN = (0.3, 0.7)  # quantiles of what leaves the curve: samples go no further
SAMPLES = 2000  # colours at most from which a pixel's curve is fitted
STRIP = 2**24  # entries of the colours that are sorted at once


def principal_colours(around, stationary):
    """The principal colours of videos less their mean image (N, 3, T, H, W): (3 of RGB, 3 axes, H, W), the axis of most
    variance first, all on the same side as the clip's. Covariances of neighbours are blended by a Gaussian of 1.5
    pixels."""
    covariance = torch.einsum("ncthw,ndthw->cdhw", around, around) / (len(around) * around.shape[2])
    if stationary:
        covariance = covariance.mean((2, 3), keepdim=True)
    else:
        reach = torch.arange(-6, 7, device=around.device)
        window = torch.exp(-(reach**2) / (2 * 1.5**2))
        window /= window.sum()
        blurred = covariance.reshape(9, 1, *covariance.shape[2:])
        blurred = F.conv2d(F.pad(blurred, (6, 6, 0, 0), mode="replicate"), window.view(1, 1, 1, -1))
        blurred = F.conv2d(F.pad(blurred, (0, 0, 6, 6), mode="replicate"), window.view(1, 1, -1, 1))
        covariance = blurred.reshape(covariance.shape)
    overall = torch.linalg.eigh(covariance.mean((2, 3)).double())[1].flip(-1)
    vectors = torch.linalg.eigh(covariance.permute(2, 3, 0, 1).double())[1].flip(-1)  # (H, W, 3, axis)
    same = (vectors * overall).sum(2, keepdim=True) >= 0
    return torch.where(same, vectors, -vectors).permute(2, 3, 0, 1).float().contiguous()


def colour_curves(around, axes, stationary):
    """How noise becomes colour at each pixel, fitted to the colours that it and its eight neighbours have in videos
    less their mean image (N, 3, T, H, W):

    bends (knots, 3, H, W), by how much the curve's slope changes at each knot, and base (3, H, W): the curve at u is
    base + sum of bends * max(u, knot); off (2, 3, H, W): s_2 e_2 and s_3 e_3; low and high (2, H, W): from where to
    where u_2 and u_3 count.
    """
    n, c, t, h, w = around.shape
    frames = around.transpose(1, 2).reshape(n * t, c, h, w)
    if stationary:
        colours = frames.movedim(1, -1).reshape(1, 1, -1, 3)
        chosen = torch.linspace(0, colours.shape[2] - 1, min(colours.shape[2], 2**20)).round().long()
        return fit_curves(colours[:, :, chosen.to(around.device)], axes)
    frames = frames[torch.linspace(0, n * t - 1, min(n * t, SAMPLES // 9)).round().long().to(around.device)]
    padded = F.pad(frames, (1, 1, 1, 1), mode="replicate")  # (S, 3, H + 2, W + 2)
    rows, strips = max(1, STRIP // (27 * len(frames) * w)), []
    for top in range(0, h, rows):
        strip = padded[:, :, top : top + rows + 2]
        near = [strip[:, :, i : strip.shape[2] - 2 + i, j : j + w] for i in range(3) for j in range(3)]
        colours = torch.cat(near).permute(2, 3, 0, 1)  # (rows, W, 9 S, 3)
        strips.append(fit_curves(colours, axes[:, :, top : top + rows]))
    return {name: torch.cat([strip[name] for strip in strips], dim=-2) for name in strips[0]}


def fit_curves(colours, axes):
    """`colour_curves` of the colours (H, W, S, 3) of pixels with these axes (3, 3, H, W).

    The colour of rank k among S belongs to the noise that has k / S of a Gaussian below it; least squares then give the
    polyline's corners.
    """
    axes, count = axes.permute(2, 3, 0, 1), colours.shape[2]  # (H, W, 3, axis)
    along = (colours @ axes[..., :1])[..., 0]  # (H, W, S)
    colours = colours.gather(2, along.argsort(2)[..., None].expand_as(colours))
    knots = torch.tensor(KNOTS, dtype=torch.float64, device=colours.device)
    noise = gaussian_ranks(count, colours.device).clamp(knots[0], knots[-1])
    ramps = (noise[:, None] - knots[:-1]).clamp(min=0).minimum(knots.diff())  # (S, knots - 1), each from knot to knot
    basis = torch.cat([torch.ones_like(ramps[:, :1]), ramps], dim=1)
    solve = torch.linalg.solve(basis.T @ basis + 1e-6 * torch.eye(len(KNOTS), device=basis.device), basis.T).float()
    curve = solve @ colours  # (H, W, knots, 3): the first colour, then slopes
    away = (colours - basis.float() @ curve) @ axes[..., 1:]  # (H, W, S, 2)
    std = away.square().mean(2).sqrt()  # (H, W, 2)
    low, high = (away.kthvalue(1 + round(share * (count - 1)), dim=2).values for share in WITHIN)
    low, high = low.clamp(max=0) / std.clamp(min=1e-6), high.clamp(min=0) / std.clamp(min=1e-6)
    off = (axes[..., 1:] * std[..., None, :]).permute(3, 2, 0, 1)
    curve = curve.permute(2, 3, 0, 1)  # (knots, 3, H, W)
    bends = F.pad(curve[1:], (0,) * 6 + (1, 1)).diff(dim=0)
    base = curve[0] - (bends * knots.float().view(-1, 1, 1, 1)).sum(0)
    maps = {"bends": bends, "base": base, "off": off, "low": low.permute(2, 0, 1), "high": high.permute(2, 0, 1)}
    return {name: each.contiguous() for name, each in maps.items()}


def gaussian_ranks(count, device):
    """Where the k-th of `count` Gaussian numbers lies in the middle, float64 (count,)."""
    return torch.special.ndtri((torch.arange(count, device=device, dtype=torch.float64) + 0.5) / count)
