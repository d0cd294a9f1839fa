"""A linear dynamical system, the classical method that synthesised videos are compared with."""

import numpy as np

LDS_DRAWS = 6  # samples of the linear dynamical system, whose figures are averaged


def fit_dynamics(video, components):
    """The dynamic texture of Doretto, Chiuso, Wu, Soatto (IJCV 2003): y_t = mean + x_t C, x_{t+1} = x_t A + noise,
    states x as rows: (mean, C, A, std of x, noise), where white noise times `noise` has the noise's covariance.

    C: the leading principal components of the clip, by SVD; A: least squares; noise: what that leaves. Differs from the
    paper: eigenvalues of A beyond 0.99 are drawn back to it, since so few frames often give a system that explodes; and
    components are at most three quarters of the frames, or nothing would be left for the noise.
    """
    Y = video.reshape(len(video), -1).astype(np.float64)  # (T, H W 3)
    mean = Y.mean(axis=0)
    squares, U = np.linalg.eigh((Y - mean) @ (Y - mean).T)  # of T x T values: Y is far wider than tall
    s, U = np.sqrt(np.maximum(squares[::-1], 0)), U[:, ::-1]
    k = min(components, 3 * len(Y) // 4, int((s > 1e-6 * s[0]).sum()))
    X = U[:, :k] * s[:k]  # (T, k)
    C = (U[:, :k] / s[:k]).T @ (Y - mean)  # (k, H W 3)
    A = stabilised(np.linalg.lstsq(X[:-1], X[1:], rcond=None)[0])
    residuals = X[1:] - X[:-1] @ A
    return mean, C, A, X.std(axis=0), np.linalg.qr(residuals, mode="r") / np.sqrt(len(residuals))


def sample_dynamics(system, num_frames, rng):
    """Frames (num_frames, H W 3) of a system, clipped to [0, 255]; its first state is drawn like those of the clip."""
    mean, C, A, state_std, noise = system
    x = rng.standard_normal(len(A)) * state_std
    states = np.empty((num_frames, len(A)))
    for t in range(num_frames):
        states[t] = x
        x = x @ A + rng.standard_normal(len(noise)) @ noise
    return np.clip(mean + states @ C, 0, 255).astype(np.float32)


def stabilised(A, radius=0.99):
    """A with eigenvalues no larger than `radius`, and otherwise the same."""
    values, vectors = np.linalg.eig(A)
    values = values * np.minimum(1, radius / np.maximum(np.abs(values), 1e-12))
    return (vectors * values @ np.linalg.inv(vectors)).real


def lds_samples(observed, components):
    """Videos like the observed one, drawn from its linear dynamical system."""
    system = fit_dynamics(observed, components)
    rngs = [np.random.default_rng(seed) for seed in range(LDS_DRAWS)]
    return [sample_dynamics(system, len(observed), rng).reshape(observed.shape) for rng in rngs]
