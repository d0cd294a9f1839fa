"""Where a stationary transition and its generator start: a linear dynamical system fitted to the clips."""

import torch

COUPLING = 0.5  # how much of the lagged correlations between different components of the state is kept
LARGEST = 0.99  # singular value of A


@torch.no_grad()
def start(net, videos):
    """Give F and G's linear part the weights of a linear dynamical system of the videos (N, 3, T, H, W), which are in
    [-1, 1] and on the CPU, and let the rest of G draw nothing yet. Returns the latents xi (N, T, dim xi) and s = s_0
    (N, dim s) that make these videos again, but for what their first dim s principal components leave out.

    After Doretto, Chiuso, Wu, Soatto, "Dynamic Textures", IJCV 2003. Differs from it: the components are whitened, so
    that states have the prior of s_0, N(0, 1); A in s_t = A s_{t-1} + B xi_t is their correlation at lag 1 rather than
    a regression, that of different components halved: so many components of so few frames correlate by chance.
    """
    (n, _, t), (motion_size, xi_size, d) = videos.shape[:3], net.transition.inputs
    y = videos.transpose(1, 2).reshape(n * t, -1).double()  # (N T, 3 H W)
    mean = y.mean(0)
    y -= mean
    s = torch.linalg.eigh(y @ y.T)[1].flip(1)[:, :d] * len(y) ** 0.5  # (N T, dim s), each column of mean square 1
    linear, convolution, layer = net.generator.linear, net.generator.layers[-1], net.transition.layers[0]
    linear.weight.copy_(y.T @ s / len(y))
    linear.bias.copy_(mean)
    convolution.weight.zero_()

    s = s.view(n, t, d)
    before, after = s[:, :-1], s[:, 1:]
    size = ((before.square() + after.square()).sum((0, 1)) / 2).sqrt()
    A = torch.einsum("ntj,ntk->jk", after, before) / size / size[:, None]
    U, values, V = torch.linalg.svd(COUPLING * A + (1 - COUPLING) * A.diag().diag())
    A = U * values.clamp_max(LARGEST) @ V
    L = torch.linalg.cholesky(torch.eye(d).to(A) - A @ A.T).inverse()  # F's own L, for W = 1
    layer.weight.zero_()
    layer.weight[:, motion_size : motion_size + d].fill_diagonal_(1)
    layer.weight[:, motion_size + xi_size :] = L @ A

    s_0 = s[:, 0] @ A  # what is expected before s_1: backwards in time A is A'
    before = torch.cat([s_0[:, None], s[:, :-1]], dim=1)
    xi = s.new_zeros(n, t, xi_size)
    xi[..., :d] = (s - before @ A.T) @ L.T
    return {"xi": xi.to(videos), "s": s_0.to(videos)}
