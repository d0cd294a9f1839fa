"""Render the training clips: two fires, thirty camp fires, an ocean, a gait in six disguises, a boat, forty beaches.

    python trainingVideo/render.py              # every clip
    python trainingVideo/render.py fire_pot     # only those named

Every clip is computed, with a fixed seed, so a rerun gives the same frames.
Fires, seas and beaches are pictures (height, width, 3) of linear light until `develop` makes them
sRGB; the runners are drawn in sRGB.  Rows count downwards; lengths are in pixels and times in frames unless
a docstring says otherwise.
"""

import sys
from pathlib import Path

import av
import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
FPS = 25


# ------------------------------------------------------------------------------ pictures


def write_clip(name, frames, crf=18):
    """Write uint8 RGB `frames` as H.264 under this folder.

    One thread, and no macroblock tree, keep the encoder's bytes the same from run to run.
    """
    path = HERE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        options = {"crf": str(crf), "preset": "slow", "threads": "1", "mbtree": "0"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    print(f"{name}: {len(frames)} frames, {path.stat().st_size // 1000} kB")


def develop(light):
    """Expose linear light like film, 1 - exp(-light), and encode it with the sRGB gamma, 2.2."""
    return np.uint8(255 * (1 - np.exp(-np.maximum(light, 0))) ** (1 / 2.2) + 0.5)


def step(edge0, edge1, x):
    """Return the cubic ramp that is 0 at `edge0` and 1 at `edge1`."""
    t = np.clip((x - edge0) / (edge1 - edge0), 0, 1)
    return t * t * (3 - 2 * t)


def over(picture, colour, coverage):
    """Lay `colour` over `picture` (or over a plain colour) as far as `coverage`, 0..1, says."""
    return picture + coverage[..., None] * np.subtract(colour, picture)


# --------------------------------------------------------------------- fields on a torus


def wavenumbers(shape):
    """Return ky, kx in radians per pixel, shaped to broadcast over `np.fft.rfft2` of `shape`."""
    ky = 2 * np.pi * np.fft.fftfreq(shape[0])[:, None]
    kx = 2 * np.pi * np.fft.rfftfreq(shape[1])[None, :]
    return ky, kx


def blur(field, sigma):
    """Convolve the last two axes with a Gaussian of width `sigma`, periodically."""
    ky, kx = wavenumbers(field.shape[-2:])
    kernel = np.exp(-(kx**2 + ky**2) * sigma**2 / 2)
    return np.fft.irfft2(np.fft.rfft2(field) * kernel, s=field.shape[-2:])


def sample(field, y, x):
    """Interpolate `field` (height, width) linearly at positions y, x, periodically."""
    height, width = field.shape
    y0, x0 = np.floor(y).astype(int), np.floor(x).astype(int)
    fy, fx = y - y0, x - x0
    top, bottom = y0 % height * width, (y0 + 1) % height * width
    left, right = x0 % width, (x0 + 1) % width
    flat = field.ravel()
    upper = flat[top + left] * (1 - fx) + flat[top + right] * fx
    lower = flat[bottom + left] * (1 - fx) + flat[bottom + right] * fx
    return upper * (1 - fy) + lower * fy


def smooth_noise(rng, shape, scale):
    """Draw Gaussian noise of unit variance whose detail is `scale` pixels wide."""
    return blur(rng.standard_normal(shape), scale) * (2 * scale * np.sqrt(np.pi))


def lasting_noise(rng, shape, scale, memory):
    """Yield smooth noise that forgets itself over `memory` steps (Ornstein-Uhlenbeck)."""
    keep, state = np.exp(-1 / memory), smooth_noise(rng, shape, scale)
    while True:
        yield state
        state = keep * state + np.sqrt(1 - keep**2) * smooth_noise(rng, shape, scale)


# ---------------------------------------------------------------------------------- fire


STEPS = 6  # steps of the flow per frame
PAD = 32  # pixels of air simulated beyond the picture on every side


class Flame:
    """A sheet of burning gas: Stam's stable fluid (1999) with the flame of Nguyen et al. (2002).

    Gas leaves the hearth with life 1 and burns at a constant rate; while it lives it is hot and
    rises.  Lengths are in pixels, times in steps; the gas must flow round what is `solid` (0..1).
    """

    DRAUGHT, DRAG = 2.5, 0.08  # speed of the rising air, and the rate at which gas takes it up
    BUOYANCY, GUST, CURL = 0.36, 0.20, 0.30  # accelerations; CURL is confinement's, per unit curl

    def __init__(self, rng, hearth, solid, lifetime):
        self.hearth, self.burn = hearth, 1 / lifetime
        height, width = hearth.shape
        self.y, self.x = np.mgrid[:height, :width].astype(float)
        to_edge = np.minimum.reduce([self.y, height - self.y, self.x, width - self.x])
        self.room = step(0, 12, to_edge) * (1 - solid)  # nothing wraps round the torus
        self.velocity = np.zeros((2, height, width))
        self.life = np.zeros((height, width))
        self.coarse = lasting_noise(rng, hearth.shape, 12, 40)
        self.fine = lasting_noise(rng, hearth.shape, 4, 10)
        self.gust = lasting_noise(rng, hearth.shape, 20, 30)

    def push(self):
        """Add the forces: buoyancy, drag towards the draught, gusts, vorticity confinement."""
        v, u = self.velocity
        curl = blur(np.gradient(u, axis=0) - np.gradient(v, axis=1), 1.5)
        ny, nx = np.gradient(np.abs(curl))
        norm = np.hypot(ny, nx) + 1e-3
        v = v - self.DRAG * (v + self.DRAUGHT) - self.BUOYANCY * self.life
        v += self.CURL * curl * nx / norm
        u = u - self.DRAG * u + self.GUST * next(self.gust) - self.CURL * curl * ny / norm
        self.velocity = np.stack([v, u])

    def project(self):
        """Remove the divergence (Helmholtz), and all motion inside the solid."""
        ky, kx = wavenumbers(self.life.shape)
        square = kx**2 + ky**2
        square[0, 0] = 1
        for _ in range(3):
            v, u = np.fft.rfft2(self.velocity * self.room)
            push = (ky * v + kx * u) / square
            flow = np.stack([v - ky * push, u - kx * push])
            self.velocity = np.fft.irfft2(flow, s=self.life.shape)

    def advance(self):
        """Move everything one step on."""
        self.push()
        self.project()
        y, x = self.y - self.velocity[0], self.x - self.velocity[1]
        life = sample(self.life, y, x)
        self.velocity = np.stack([sample(v, y, x) for v in self.velocity])
        fuel = step(-0.6, 1.2, next(self.coarse) + 0.6 * next(self.fine))
        life = np.maximum(life - self.burn, self.hearth * fuel)
        self.life = life * self.room


def glow(life):
    """Return the light of flame gas: Planck's law at 610, 550 and 465 nm, from 1000 to 1450 K."""
    kelvin = 1000 + 450 * np.clip(life, 0, 1)[..., None]
    wavelength = np.array([0.610, 0.550, 0.465])
    planck = wavelength**-5 * np.exp(-14388 / (wavelength * kelvin))
    white = 0.61**-5 * np.exp(-14388 / (0.61 * 1450))
    return planck / white * step(0, 0.2, life)[..., None]


def ellipse(y, x, centre, radii, power=2, soft=1.5):
    """Cover the superellipse |dy/ry|^p + |dx/rx|^p < 1 with an edge `soft` pixels wide."""
    (cy, cx), (ry, rx) = centre, radii
    radius = (np.abs((y - cy) / ry) ** power + np.abs((x - cx) / rx) ** power) ** (1 / power)
    return step(soft, -soft, (radius - 1) * min(ry, rx))


def pot(y, x):
    """Cover an iron pot with lid, knob, ears and bail, for a picture 224 pixels wide."""
    shape = ellipse(y, x, (88, 112), (44, 54), 3.5)
    shape = np.maximum(shape, ellipse(y, x, (56, 112), (13, 58)))
    shape = np.maximum(shape, ellipse(y, x, (42, 112), (5, 8)))
    shape = np.maximum(shape, ellipse(y, x, (66, 112), (5, 66)))
    bail = ellipse(y, x, (64, 112), (70, 62)) - ellipse(y, x, (64, 112), (68, 60))
    return np.maximum(shape, bail * (y < 66))


def burn(sheets, count, before=60):
    """Yield the light of the sheets of flame for `count` frames, once those `before` have made it steady."""
    for number in range(-before, count):
        for _ in range(STEPS):
            for sheet in sheets:
                sheet.advance()
        if number >= 0:
            yield [glow(sheet.life) for sheet in sheets]


def fire_pot():
    """An iron pot over a fire at night: one sheet of flame round the pot, one before it."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[-PAD : 224 + PAD, -PAD : 224 + PAD].astype(float)
    hearth = step(200, 210, y) * step(236, 226, y) * step(14, 40, x) * step(210, 184, x)
    iron = pot(y, x)
    sheets = [Flame(rng, hearth, iron, 60), Flame(rng, hearth, np.zeros_like(iron), 38)]
    grain = 1 + 0.15 * smooth_noise(rng, y.shape, 3)[..., None]
    lit = (0.3 + 2.0 * step(80, 40, y) + 0.8 * step(90, 60, x))[..., None]  # by the night sky
    warmed = (0.15 + step(60, 135, y))[..., None]  # by the fire, most on the underside
    frames = []
    for behind, before in burn(sheets, 80):
        behind, before = 40 * behind, 25 * before
        light = blur((behind + before).T, 22).T
        wall = grain * ([0.028, 0.034, 0.048] + 0.02 * light) + behind
        body = grain * ([0.020, 0.020, 0.021] * lit + 0.10 * warmed * light)
        frames.append(develop(over(wall, body, iron) + before)[PAD:-PAD, PAD:-PAD])
    write_clip("fire_pot/fire_pot.mp4", frames)


def fire():
    """Open flames as wide as the picture, three sheets deep."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[-PAD : 128 + PAD, -PAD : 128 + PAD].astype(float)
    hearth = step(116, 124, y) * step(146, 138, y) * step(-16, 0, x) * step(144, 128, x)
    sheets = [Flame(rng, hearth, np.zeros_like(y), lifetime) for lifetime in (44, 36, 28)]
    frames = []
    for lights in burn(sheets, 72):
        light = 14 * sum(lights)
        night = [0.004, 0.005, 0.008] + 0.01 * blur(light.T, 18).T
        frames.append(develop(night + light)[PAD:-PAD, PAD:-PAD])
    write_clip("fire/fire.mp4", frames)


def camp_fire(rng, size, count):
    """Return frames of a fire on logs at night; place, width, height, brightness, logs and night are drawn."""
    pad = PAD - 18  # 128 pixels for a picture of 100
    y, x = np.mgrid[-pad : size + pad, -pad : size + pad].astype(float)
    middle, half, ground = size * rng.uniform((0.4, 0.16, 0.84), (0.6, 0.4, 0.93))
    hearth = step(-5, 0, y - ground) * step(7, 2, y - ground) * step(half, 0.6 * half, np.abs(x - middle))
    sheets = [Flame(rng, hearth, np.zeros_like(y), lifetime) for lifetime in rng.uniform(26, 50) * np.array([1, 0.7])]
    exposure, night = rng.uniform(12, 30), rng.uniform(0.003, 0.04) * rng.uniform(0.6, 1.4, 3)
    logs = np.zeros_like(y)
    for _ in range(rng.integers(2, 5)):
        turn, radius = rng.uniform(-0.35, 0.35), rng.uniform(2, 4.5)
        dy, dx = y - ground - rng.uniform(0, 5), x - middle - rng.uniform(-0.4, 0.4) * half
        along, across = np.cos(turn) * dx + np.sin(turn) * dy, np.cos(turn) * dy - np.sin(turn) * dx
        logs = np.maximum(logs, ellipse(across, along, (0, 0), (radius, rng.uniform(0.8, 1.3) * half), 4))
    grain = 1 + 0.2 * smooth_noise(rng, y.shape, 2)[..., None]
    earth = step(-1, 4, y - ground)
    frames = []
    for behind, before in burn(sheets, count, before=16):
        behind, before = exposure * behind, 0.6 * exposure * before
        light = blur((behind + before).T, 18).T
        scene = over(night + 0.01 * light + behind, grain * (0.5 * night + 0.12 * light), earth)
        scene = over(scene, grain * (0.3 * night + 0.05 * light), logs)
        frames.append(develop(scene + before)[pad:-pad, pad:-pad])
    return frames


def fires(clips=30, count=30):
    """Camp fires, none like another: many clips of one pattern."""
    for number in range(clips):
        frames = camp_fire(np.random.default_rng(200 + number), 100, count)
        write_clip(f"fires/fire_{number:02d}.mp4", frames, crf=20)


# --------------------------------------------------------------------------------- ocean


class Ocean:
    """A periodic patch of wind sea after Tessendorf (2001), seen slantwise from far above.

    Waves of a Phillips spectrum travel by the deep-water law omega^2 = g k; `metres` is the side of
    the patch of `size` pixels.  The view is parallel, so every part of the picture is alike.
    """

    GRAVITY, WIND, CHOP, HEIGHT = 9.81, 3.6, 1.0, 0.16  # m/s^2, m/s, -, m (r.m.s. elevation)
    SLANT = np.radians(40)  # of the line of sight below the horizontal
    SUN = np.array([0.40, -0.74, 0.56])  # towards the sun: x right, y down the picture, z up

    def __init__(self, rng, size, metres):
        self.pixel = metres / size
        self.grid = np.mgrid[:size, :size].astype(float)
        axis = 2 * np.pi * np.fft.fftfreq(size, self.pixel)
        self.ky, self.kx = axis[:, None], axis[None, :]
        k = np.hypot(self.ky, self.kx) + 1e-9
        along = (0.89 * self.ky + 0.45 * self.kx) / k
        longest = self.WIND**2 / self.GRAVITY
        phillips = np.exp(-((k * longest) ** -2) - (k * 0.035) ** 2) / k**4
        phillips *= np.where(along > 0, 1.0, 0.1) * (0.1 + along**2)
        white = np.fft.fft2(rng.standard_normal((size, size)))
        spectrum = white * np.sqrt(phillips)
        self.spectrum = spectrum * self.HEIGHT / np.fft.ifft2(spectrum).std()
        self.omega = np.sqrt(self.GRAVITY * k)
        self.ty, self.tx = 1j * self.CHOP * self.ky / k, 1j * self.CHOP * self.kx / k
        self.foam = np.zeros((size, size))
        self.grain = np.clip(0.75 + 0.35 * smooth_noise(rng, (size, size), 0.8), 0, 1)

    def frames(self, count):
        """Yield the linear light of `count` frames; 30 before them bring up the lingering foam."""
        for number in range(-30, count):
            light = self.frame(number / FPS)
            if number >= 0:
                yield light

    def frame(self, seconds):
        """Return the linear light at a time; call in turn, since foam lingers."""
        wave = self.spectrum * np.exp(-1j * self.omega * seconds)
        ky, kx, ty, tx = 1j * self.ky, 1j * self.kx, self.ty, self.tx
        factors = [1, ty, tx, ky, kx, ky * ty, kx * tx, ky * tx]
        h, dy, dx, hy, hx, yy, xx, yx = (np.fft.ifft2(factor * wave).real for factor in factors)
        fold = (1 + yy) * (1 + xx) - yx**2  # how much the choppy shift stretches the surface
        self.foam = np.maximum(0.93 * self.foam, step(0.55, 0.15, fold))
        inverse = 1 / np.maximum(fold, 0.3)
        slope_y, slope_x = inverse * ((1 + xx) * hy - yx * hx), inverse * ((1 + yy) * hx - yx * hy)
        lift = dy - h / np.tan(self.SLANT)  # where a raised point appears on the mean plane
        y, x = self.grid
        for _ in range(8):  # find the point of the rest grid that is seen at each pixel
            shift = np.stack([sample(lift, y, x), sample(dx, y, x)])
            y, x = self.grid - shift / self.pixel
        seen = (h, slope_y, slope_x, self.foam * self.grain)
        return self.shade(*(sample(field, y, x) for field in seen))

    def shade(self, height, slope_y, slope_x, foam):
        """Light the water: Fresnel (Schlick) sky, upwelling blue-green, sun glint, foam."""
        normal = np.stack([-slope_x, -slope_y, np.ones_like(height)], -1)
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        eye = np.array([0, np.cos(self.SLANT), np.sin(self.SLANT)])
        facing = np.clip(normal @ eye, 0, 1)
        mirror = 2 * facing[..., None] * normal - eye
        sky = over([2.5, 2.7, 3.0], [0.65, 1.3, 2.5], np.clip(mirror[..., 2], 0, 1) ** 0.6)
        crest = step(-1.6 * self.HEIGHT, 2.2 * self.HEIGHT, height)
        deep = over([0.004, 0.035, 0.060], [0.02, 0.25, 0.24], crest)
        sun = np.clip(mirror @ (self.SUN / np.linalg.norm(self.SUN)), 0, 1) ** 80
        light = over(deep, sky, 0.02 + 0.98 * (1 - facing) ** 5) + 0.4 * sun[..., None]
        return over(light, [0.75, 0.85, 0.88], foam)


def ocean():
    """A wind sea without horizon, stationary in space and time."""
    sea = Ocean(np.random.default_rng(2), 224, 10)
    write_clip("ocean/ocean.mp4", [develop(light) for light in sea.frames(80)], crf=21)


# ---------------------------------------------------------------------------------- boat


def dinghy(y, x):
    """Return the colour and coverage of a boat 46 pixels long, its bow along +x, at the origin."""
    beam = 9 * (1 - 0.8 * np.clip(x / 23, 0, 1) ** 2)  # half of it; tapers to the bow
    inside = np.minimum(beam - np.abs(y), 23 - np.abs(x))  # pixels in from the side
    planks = step(1, 2, inside)
    colour = over([0.9, 0.9, 0.85], [0.45, 0.2, 0.07], planks)
    benches = step(2.5, 1.5, np.abs((x + 4) % 14 - 7)) * planks
    colour = over(colour, [1.2, 0.75, 0.35], benches)
    foredeck = step(9, 11, x) * planks
    return over(colour, [0.9, 0.12, 0.08], foredeck), step(-0.7, 0.7, inside)


def boat():
    """A dinghy crossing the ocean, the same ocean without it, and the pixels it may touch."""
    count, size = 72, 128
    sea = Ocean(np.random.default_rng(3), size, 7)
    y, x = np.mgrid[:size, :size].astype(float)
    with_boat, truth, masks = [], [], []
    for number, light in enumerate(sea.frames(count)):
        at_x, at_y = -24 + 176 * number / (count - 1), 66 + 3 * np.sin(number / 6)
        yaw = 0.10 * np.sin(number / 9)
        dy, dx = y - at_y, x - at_x
        across, along = np.cos(yaw) * dy - np.sin(yaw) * dx, np.cos(yaw) * dx + np.sin(yaw) * dy
        colour, coverage = dinghy(across, along)
        shade = 0.6 * ellipse(across - 3, along, (0, 0), (11, 25), 3, 3)
        masks.append(ellipse(across, along, (0, 1), (18, 31), 3) > 0)
        truth.append(develop(light))
        with_boat.append(develop(over(light * (1 - shade)[..., None], colour, coverage)))
    write_clip("boat/boat.mp4", with_boat, crf=8)
    write_clip("boat_truth/truth.mp4", truth, crf=8)
    folder = HERE / "boat_truth" / "mask"
    folder.mkdir(exist_ok=True)
    for number, mask in enumerate(masks):
        Image.fromarray(mask).save(folder / f"{number:03d}.png")


# -------------------------------------------------------------------------------- runner


GAIT = 20  # frames per stride; the ground moves 100 pixels in that time
# skin, shirt, trousers, ground, sky (sRGB in hexadecimal), girth, length of leg
LOOKS = (
    ("e0ac86", "c8321e", "20305a", "7a8a4a", "b8d0e8", 1.00, 1.00),
    ("8d5a3a", "f0c830", "303030", "a08058", "d8e0e0", 1.15, 0.96),
    ("f0c8a8", "2878c8", "d8d0c0", "5a6a70", "90a8c0", 0.88, 1.04),
    ("5c3a26", "38a050", "702838", "c0a878", "e8dcc0", 1.05, 1.00),
    ("c89068", "e8e8e8", "b04820", "405040", "687890", 0.95, 0.97),
    ("d8a078", "803890", "487848", "988880", "c8b8c8", 1.10, 1.03),
)


def rgb(code):
    """Return a hexadecimal colour as an array in 0..1."""
    return np.frombuffer(bytes.fromhex(code), np.uint8) / 255


def limb(picture, start, end, radius, colour):
    """Draw a capsule between two points (y, x), rounded by shading, over `picture`."""
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    y, x, dy, dx = y - start[0], x - start[1], end[0] - start[0], end[1] - start[1]
    along = np.clip((y * dy + x * dx) / (dy**2 + dx**2 + 1e-9), 0, 1)
    away = np.hypot(y - along * dy, x - along * dx) / radius
    shaded = colour * (1 - 0.35 * np.clip(away, 0, 1) ** 2)[..., None]
    return over(picture, shaded, step(0.7 / radius, -0.7 / radius, away - 1))


def reach(start, angle, length):
    """Return the point `length` pixels from `start`, `angle` radians forward of straight down."""
    return start[0] + length * np.cos(angle), start[1] + length * np.sin(angle)


def leg(hip, phase, length):
    """Return knee, ankle and toe: the thigh swings, the knee bends most as it comes forward."""
    thigh = 0.20 + 0.62 * np.sin(phase)
    shin = thigh - (0.80 + 0.70 * np.cos(phase + 0.3))
    knee = reach(hip, thigh, 21 * length)
    ankle = reach(knee, shin, 21 * length)
    return knee, ankle, reach(ankle, shin + 1.35, 7)


def arm(shoulder, phase):
    """Return elbow and hand; an arm swings against the leg of its side."""
    upper = -0.15 - 0.75 * np.sin(phase)
    elbow = reach(shoulder, upper, 14)
    return elbow, reach(elbow, upper + 1.45 - 0.3 * np.sin(phase), 13)


def lowest(phase, length):
    """Return how far below the hip the lower foot reaches."""
    points = leg((0, 0), phase, length) + leg((0, 0), phase + np.pi, length)
    return max(y for y, _ in points)


def runner_frame(look, number, turf):
    """Draw one runner on the spot; both feet leave the ground, row 91, between the footfalls."""
    skin, shirt, trousers, ground, sky = map(rgb, look[:5])
    girth, length = look[5:]
    turn = 2 * np.pi / GAIT
    phase = turn * number
    rows = np.arange(100)[:, None, None]
    moved = np.roll(np.tile(turf, (1, 2)), -number * 100 // GAIT, axis=1)[..., None]
    picture = np.where(rows < 86, sky * (0.85 + 0.15 * rows / 86), ground * (1 + 0.14 * moved))
    stand = max(lowest(turn * count, length) for count in range(GAIT))
    hip = 91 - 0.7 * stand - 0.3 * lowest(phase, length), 100
    neck = reach(hip, np.pi - 0.16, 28)
    face, crown = reach(neck, np.pi - 0.3, 9), reach(neck, np.pi - 0.1, 12)
    body = [(hip, neck, 6.4, shirt), (face, crown, 5.2, skin * 0.3), (face, face, 5.2, skin)]
    for side, shade, before in ((np.pi, 0.62, []), (0, 1, body)):
        knee, ankle, toe = leg(hip, phase + side, length)
        elbow, hand = arm(neck, phase + side)
        limbs = [(hip, knee, 4.6, trousers), (knee, ankle, 3.4, trousers)]
        limbs += [
            (ankle, toe, 2.4, skin * 0.35),
            (neck, elbow, 3.0, shirt),
            (elbow, hand, 2.4, skin),
        ]
        for start, end, radius, colour in before + limbs:
            picture = limb(picture, start, end, radius * girth, colour * shade)
    return np.uint8(255 * np.clip(picture, 0, 1) + 0.5)


def runner():
    """Six runners of different looks in step with one another, running on the spot."""
    turf = smooth_noise(np.random.default_rng(5), (100, 100), 2)
    for number, look in enumerate(LOOKS):
        frames = [runner_frame(look, count, turf) for count in range(76)]
        write_clip(f"runner/walker_{number}.mp4", frames)


# --------------------------------------------------------------------------------- beach


# height of the sun (degrees), its light, the sky's at the zenith and at the horizon, cloudiness
LIGHTS = (
    (14, (1.25, 0.95, 0.62), (0.22, 0.38, 0.70), (0.95, 0.80, 0.66), 0.5),  # morning
    (62, (1.65, 1.55, 1.36), (0.10, 0.30, 0.80), (0.62, 0.88, 1.15), 0.6),  # noon
    (50, (0.25, 0.25, 0.25), (0.42, 0.46, 0.52), (0.80, 0.84, 0.88), 0.8),  # grey
    (5, (1.50, 0.70, 0.25), (0.14, 0.18, 0.38), (1.30, 0.54, 0.23), 0.7),  # sunset
)
SANDS = ((0.62, 0.49, 0.33), (0.68, 0.58, 0.45), (0.50, 0.36, 0.23), (0.42, 0.38, 0.33))
WATERS = ((0.01, 0.13, 0.18), (0.02, 0.22, 0.24), (0.04, 0.12, 0.11), (0.02, 0.08, 0.16))


class Beach:
    """Waves that break on a sandy shore and run up it, seen by a camera at rest; lengths in metres.

    A front comes in as over ground of even slope, and runs up the sand and falls back like a ball
    thrown uphill.  Times and ages (since the front passed) are in wave periods.
    """

    SIZE, FOCUS = 128, 115  # of the picture and its lens, pixels
    TURN = 0.55  # from the still waterline to the highest reach

    def __init__(self, rng, light):
        height, *colours, self.cloudy = light
        self.sunlight, self.zenith, self.horizon = colours * rng.uniform(0.95, 1.05, 3)
        self.sand = rng.choice(SANDS) * rng.uniform(0.85, 1.15)
        self.water = rng.choice(WATERS) * rng.uniform(0.7, 1.3)
        self.period, self.time = rng.uniform(32, 48), rng.uniform(0, 20)  # the period is in frames
        self.reach, self.height, eye = rng.uniform(2, 3.5), rng.uniform(0.3, 0.6), rng.uniform(3, 4.5)
        self.speed, self.bend = 2 * self.reach / self.TURN, rng.uniform(1, 2.5)
        self.noise = [smooth_noise(rng, (256, 256), scale) for scale in (8, 4, 2)]
        top, turn = rng.uniform(28, 50), rng.choice([-1, 0, 1]) * rng.uniform(0.5, 1.05) + rng.uniform(-0.1, 0.1)
        row, column = np.mgrid[: self.SIZE, : self.SIZE] + 0.5
        down, right = row - top, column - self.SIZE / 2
        self.view = np.stack([right, np.full_like(row, self.FOCUS), -down], -1)  # x right, y away, z up
        self.view /= np.linalg.norm(self.view, axis=-1, keepdims=True)
        self.below, self.haze = step(-0.6, 0.6, down), 0.5 * np.exp(-np.maximum(down, 0) / 4)
        self.y = self.FOCUS * eye / np.maximum(down, 0.5)
        self.x, self.pixel = right * self.y / self.FOCUS, self.y**2 / (self.FOCUS * eye)  # metres to a row
        middle = self.FOCUS * eye / (rng.uniform(0.45, 0.7) * (self.SIZE - top))
        self.normal = np.array([np.sin(turn), np.cos(turn)])
        self.out = self.normal[0] * self.x + self.normal[1] * (self.y - middle)  # off the waterline
        self.along = self.normal[1] * self.x - self.normal[0] * self.y
        azimuth, height = rng.uniform(-0.45, 0.45), np.radians(height)
        self.sun = np.array([np.sin(azimuth), np.cos(azimuth), np.tan(height)]) * np.cos(height)
        self.root = np.sqrt(self.speed**2 + 4 * self.bend * np.maximum(self.out, 0))  # a front's speed
        self.wet = step(-1.5, -0.5, self.out + self.reach + 0.4 * self.at(0, self.along, 3))

    def at(self, level, y, x):
        """Return noise of a level of detail at a place."""
        return sample(self.noise[level], y + 0 * x, x + 0 * y)

    def sky(self, direction):
        """Return the clear sky's light from a direction (..., xyz): a gradient, and the sun's glow."""
        light = over(self.horizon, self.zenith, 1 - np.exp(-3.5 * np.maximum(direction[..., 2], 0)))
        near = np.clip(direction @ self.sun, 0, 1)[..., None]
        return light + self.sunlight * (0.2 * near**8 + 0.5 * near**60 + 6 * near**1500)

    def flood(self, time):
        """Return how far behind the water's edge each place is, and its front's age; wet the sand."""
        edge, age = 0.12 * self.at(1, 0, 2 * self.along), np.ones_like(self.out)
        for wave in np.floor(time) + np.arange(-1, 2):
            since = time - wave + 0.13 * self.at(0, 9 * wave, self.along)
            reach = self.at(0, 9 * wave + 99, self.along) + 0.3 * self.at(1, 9 * wave, 2 * self.along)
            reach = self.reach * np.maximum(0.9 + 0.2 * reach, 0.3)
            front = np.where(since > 0, reach * (1 - (1 - since / self.TURN) ** 2), -9)
            passed = self.TURN * (1 - np.sqrt(np.clip(1 + self.out / reach, 0, 1)))
            age = np.where(front + self.out > 0, since - passed, age)
            edge = np.maximum(edge, front)
        behind = edge + self.out
        self.wet = np.maximum(self.wet - 0.4 * (time - self.time), step(-0.1, 0.1, behind))
        self.time = time
        return behind, np.clip(age, 0, 0.85)

    def frame(self, time):
        """Return the linear light at a time; call in turn, since sand stays wet."""
        behind, age = self.flood(time)
        crest = time + (self.root - self.speed) / (2 * self.bend)  # constant as a front comes in
        crest += 0.13 * self.at(0, 9 * crest, self.along)
        age = np.where(self.out > 0, crest % 1, age)
        slope = np.maximum(0, 1 - age / 0.4) - 7 * step(0.8, 0.93, age) * step(1.02, 0.95, age)
        tall = self.height * np.clip(0.6 + 0.4 * self.at(0, 9 * crest + 50, self.along / 2), 0, 2)
        slope *= -2 * tall / self.root * step(0, 2, self.out) * np.exp(-self.pixel / 6)
        lead = step(1 - np.minimum(1.5 * self.pixel / self.root, 0.2), 1, age)  # the front's soft edge
        lace = self.at(2, 9 * self.out + 3 * behind, 7 * self.along) * np.exp(-self.pixel / 0.5)
        lace += 0.8 * self.at(1, 4 * self.out, 3 * self.along) * np.exp(-self.pixel / 1.5)
        left = 2.6 * np.exp(-age / 0.35)
        foam = np.maximum(0.85 * step(1.3 - left, 2.9 - left, lace), np.maximum(step(0.14, 0.02, age), lead))
        breaking = step(9, 4, self.out + 2 * self.at(0, 9 * crest + 20, self.along))
        ripple = np.exp(-self.pixel / 1.2) * step(0, 3, behind)
        ripple = [ripple * self.at(1, 3 * self.y + 5 * time, 3 * self.x + way * 5 * time) for way in (-1, 1)]
        tilt = 0.05 * np.stack([ripple[0] - ripple[1], ripple[0] + ripple[1]], -1)
        light = self.shade(behind, tilt + slope[..., None] * self.normal, foam * breaking)
        reach = 40 / (np.maximum(self.view[..., 2], 0) + 0.25)
        cloud = self.cloudy * step(0, 2, self.at(0, reach, self.view[..., 0] * reach))
        sky = over(self.sky(self.view), 0.6 * self.horizon + 0.4 * self.sunlight, cloud)
        return over(sky, over(light, self.horizon, self.haze), self.below)

    def shade(self, behind, slope, foam):
        """Light the ground: sand, dark where wet; water, clear where shallow; the sky in both; foam."""
        normal = np.concatenate([-slope, np.ones_like(slope[..., :1])], -1)
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        facing = np.clip(-(normal * self.view).sum(-1), 0.02, 1)
        mirror = self.sky(2 * facing[..., None] * normal + self.view)
        fresnel = 0.02 + 0.98 * (1 - facing) ** 5
        day = 0.5 * self.zenith + 0.4 * self.horizon + self.sunlight * (0.25 + 0.6 * self.sun[2])
        grain = 1 + 0.05 * self.at(1, 3 * self.y, 3 * self.x)
        sand = self.sand * day * (grain * (1 - 0.5 * step(0.2, 0.7, self.wet)))[..., None]
        water = over(sand, self.water * day, 1 - np.exp(-np.maximum(behind, 0) / 4))
        water = over(water, mirror, fresnel)
        sand = over(sand, mirror, 0.8 * fresnel * step(0.6, 1, self.wet))
        covered = step(-0.05, 0.25, behind)
        return over(over(sand, water, covered), 0.9 * day, 0.92 * covered * foam)


def beach(clips=40, count=32):
    """Beaches as strips, each frame under the one before it: what VideoGAN learns from."""
    folder = HERE / "beach"
    folder.mkdir(exist_ok=True)
    names = [f"{number:03d}.jpg" for number in range(clips)]
    for number, name in enumerate(names):
        shore = Beach(np.random.default_rng(100 + number), LIGHTS[number % len(LIGHTS)])
        for _ in range(12):  # leave the sand as the waves before leave it
            shore.flood(shore.time + 0.1)
        times = shore.time + np.arange(1, count + 1) / shore.period
        strip = np.concatenate([develop(shore.frame(time)) for time in times])
        Image.fromarray(strip).save(folder / name, quality=70, optimize=True, progressive=True)
    (folder / "list.txt").write_text("\n".join(names) + "\n")
    print(f"beach: {clips} strips of {count} frames")


CLIPS = {clip.__name__: clip for clip in (fire_pot, ocean, runner, boat, fire, fires, beach)}


def main(names):
    """Render the named clips, or all."""
    unknown = [name for name in names if name not in CLIPS]
    if unknown:
        print(f"no clip {', '.join(unknown)}; there are {', '.join(CLIPS)}", file=sys.stderr)
        return 2
    for name in names or CLIPS:
        CLIPS[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
