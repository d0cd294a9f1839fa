"""A hidden frame between two visible ones, by what moves: an estimate from optical flow, and its precision."""

import numpy as np

SMALLEST = 16  # side of a frame, in pixels, that optical flow takes
SURE = 4  # variance of an estimate at the least, grey levels^2
NEAR = 7  # side of the square over which two estimates of a frame are compared


def move_between(video, hidden):
    """Wholly hidden frames, estimated half way along the motion from the frame before to the one after.

    video: (T, H, W, 3), grey levels; hidden: bool (T, H, W). Returns the video, float32, with every such frame that has
    two visible neighbours (further apart, motion may not be known), and the precision of these estimates, float32
    (T, H, W), 1 / grey level^2, else 0. An estimate is the mean of both neighbours, moved; half of the square by which
    these differ, the variance of one of them, is taken for its own, since both can be wrong in the same way. Flow:
    dense inverse search (Kroeger et al. 2016).
    """
    video, trust = video.astype(np.float32), np.zeros(hidden.shape, np.float32)
    whole, seen = hidden.all((1, 2)), ~hidden.any((1, 2))
    between = 1 + np.flatnonzero(whole[1:-1] & seen[:-2] & seen[2:])
    if min(video.shape[1:3]) < SMALLEST or not between.size:
        return video, trust
    import cv2

    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    places = np.stack(np.meshgrid(*map(np.arange, video.shape[2:0:-1])), 2).astype(np.float32)  # (H, W, 2): x, y
    for t in between:
        frames = video[[t - 1, t + 1]].round().clip(0, 255).astype(np.uint8)
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
        half = (search.calc(*grey, None) - search.calc(*grey[::-1], None)) / 4
        before, after = (cv2.remap(video[s], places + way, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
                         for s, way in ((t - 1, -half), (t + 1, half)))
        video[t] = (before + after) / 2
        trust[t] = 1 / (cv2.blur(((before - after) ** 2).mean(2), (NEAR, NEAR)) / 2 + SURE)
    return video, trust
