"""Land: ridges that fade into the air, pines, dunes."""

from dataclasses import dataclass

import numpy as np

from providers.drawing.colour import Colour, Plane, along, mix, ramp
from providers.drawing.noise import Line, line, smoothstep
from providers.drawing.sheet import Sheet
from providers.drawing.sky import Sun, mirror, paint_aurora, paint_sky, paint_stars, place_sun


def mountains(sheet: Sheet) -> None:
    """Ridge behind ridge into the haze, a low sun, mist in the valleys."""
    sun = place_sun(sheet, 0.70, 0.26, 0.56)
    paint_sky(sheet, 0.70, sun, clouds=float(sheet.rng.uniform(0.2, 0.7)))
    _paint_range(sheet, sun, Range(0.40, 1.0, layers=7, pines_from=5))


def lake(sheet: Sheet) -> None:
    """Mountains and pines around still water."""
    sun = place_sun(sheet, 0.64, 0.26, 0.56)
    paint_sky(sheet, 0.64, sun, clouds=float(sheet.rng.uniform(0.2, 0.7)))
    shore = float(sheet.rng.uniform(0.66, 0.71))
    _paint_range(sheet, sun, Range(0.36, shore, layers=5, pines_from=4))
    mirror(sheet, shore, calm=0.55)
    _foreground(sheet, 0.93)


def forest(sheet: Sheet) -> None:
    """Hills of pines, each fainter than the one before, and mist between them."""
    sun = place_sun(sheet, 0.6, 0.26, 0.52)
    paint_sky(sheet, 0.72, sun, clouds=0.35)
    _paint_range(sheet, sun, Range(0.34, 0.66, layers=3, pines_from=9, nearness=(0.12, 0.26)))
    _paint_range(sheet, sun, Range(0.50, 1.08, layers=6, pines_from=0, tall=1.0, nearness=(0.22, 1.0)))


def northern_lights(sheet: Sheet) -> None:
    """Aurora over dark ridges, given back by a lake."""
    shore = float(sheet.rng.uniform(0.68, 0.74))
    sheet.light[:] = along(
        sheet.palette.sky_ramp,
        np.broadcast_to((sheet.y / np.float32(sheet.bottom * 0.95))[:, None], sheet.light.shape[1:]),
    )
    paint_stars(sheet, 0.7, 420)
    paint_aurora(sheet, 0.74)
    sun = Sun(sheet.right * 0.5, sheet.bottom * 0.7, 0.01)
    _paint_range(sheet, sun, Range(0.52, shore, layers=3, pines_from=2, nearness=(0.6, 0.97)))
    mirror(sheet, shore, calm=0.6, tint=0.12)
    _foreground(sheet, 0.95)


def dunes(sheet: Sheet) -> None:
    """Dunes with a lit and a shaded face, crest lines drawn by the wind."""
    sun = place_sun(sheet, 0.5, 0.35, 0.75)
    paint_sky(sheet, 0.52, sun, clouds=0.15)
    lit = mix(sheet.palette.sky[-1], sheet.palette.light, 0.25)
    body = mix(sheet.palette.haze, sheet.palette.accent, 0.45)
    shade = mix(sheet.palette.near, sheet.palette.accent, 0.28)
    from_left = sun.x < sheet.right / 2
    haze = sheet.palette.haze
    layers = 5
    for layer in range(layers):
        near = layer / (layers - 1)
        base = 0.44 + 0.42 * near**1.15
        reach = 0.045 + 0.12 * near
        profile = (base + reach * line(sheet.rng, sheet.x * (2.2 - 1.1 * near) + layer * 5, 2, 0.3)) * sheet.height
        far = 1 - near
        colours = mix(shade, haze, 0.62 * far), mix(body, haze, 0.5 * far), mix(lit, haze, 0.3 * far)
        _dune(sheet, profile.astype(np.float32), colours, near, from_left=from_left)


def _dune(sheet: Sheet, profile: Line, colours: tuple[Colour, Colour, Colour], near: float, *, from_left: bool) -> None:
    top = max(0, int(profile.min()) - 1)
    if top >= sheet.height:
        return
    rows = sheet.below(profile, top)
    alpha = sheet.edge(profile, rows)
    below = rows / np.float32(sheet.unit)
    wobble = sheet.noise(2.4, 3.4, octaves=2, top=top)
    # A face keeps the light of its crest while it runs down sideways: what makes a dune's S-shaped shadow line.
    where = sheet.x[None, :] + below * np.float32(0.85 if from_left else -0.85) + wobble * np.float32(0.035)
    facing = np.tanh(_slope(profile, 17) * (5.5 if from_left else -5.5)).astype(np.float32)
    face = facing[np.clip(where * np.float32(sheet.unit), 0, sheet.width - 1).astype(np.int32)]
    bend = sheet.noise(1.6, 5.0, octaves=1, top=top)
    ripples = np.sin(below * np.float32(190 - 90 * near) + bend * np.float32(5) + where * np.float32(14))
    tone = (
        np.float32(0.5)
        - face * np.float32(0.40)
        + ripples * np.float32(0.03 * near)
        - np.clip(below, 0, 1) * np.float32(0.16)
    )
    sheet.over(along(ramp(colours), tone), alpha, top)
    rim = np.exp(-np.abs(below) * np.float32(120)) * np.clip(-face, 0, 1) * alpha * np.float32(0.28)
    sheet.shine(colours[2], rim, top)


def _slope(profile: Line, width: int) -> Line:
    """The slope of a skyline, smoothed over `width` columns."""
    half = width // 2
    smooth = np.convolve(np.pad(profile, half, mode="edge"), np.hanning(width + 2)[1:-1], mode="valid")
    slope: Line = np.gradient(smooth / np.hanning(width + 2).sum()).astype(np.float32)
    return slope


@dataclass(frozen=True, slots=True)
class Ridge:
    """One skyline of a range: bare and with its pines, in rows; `near` in [0, 1]."""

    bare: Line
    top: Line
    near: float


@dataclass(frozen=True, slots=True)
class Range:
    """
    Ridges between two shares of the height, from far to near.

    Attributes:
        pines_from: The first layer that bears pines, and how tall they are.
        nearness: How dark the farthest and the nearest ridge are, in [0, 1].
    """

    start: float
    end: float
    layers: int
    pines_from: int
    tall: float = 0.6
    nearness: tuple[float, float] = (0.15, 0.97)


def _ridges(sheet: Sheet, shape: Range) -> list[Ridge]:
    ridges = []
    for layer in range(shape.layers):
        share = layer / max(1, shape.layers - 1)
        near = shape.nearness[0] + (shape.nearness[1] - shape.nearness[0]) * share
        base = shape.start + (shape.end - shape.start) * (layer + 0.35) / shape.layers
        reach = (0.16 - 0.075 * share) * (1.25 if layer == 0 else 1)
        at = sheet.x * (1.7 + 0.9 * share) + layer * 11
        rough = line(sheet.rng, at, 7, 0.47)
        sharp = 1 - 2 * np.abs(line(sheet.rng, at * 0.8 + 3, 6, 0.5))
        bare = ((base - reach * (0.62 * rough + 0.46 * sharp)) * sheet.height).astype(np.float32)
        ridges.append(Ridge(bare, bare - _pines(sheet, near, shape.tall) if layer >= shape.pines_from else bare, near))
    return ridges


def _paint_range(sheet: Sheet, sun: Sun, shape: Range) -> None:
    ridges = _ridges(sheet, shape)
    mist = sheet.noise(1.3, 5, octaves=3) * np.float32(0.03)
    gullies = sheet.noise(9, 5, octaves=3) * np.float32(0.05)
    for ridge, following in zip(ridges, [*ridges[1:], None], strict=True):
        lowest = sheet.height if following is None else int(following.top.max()) + 2
        _paint_ridge(sheet, sun, ridge, lowest, mist, gullies)


def _paint_ridge(sheet: Sheet, sun: Sun, ridge: Ridge, lowest: int, mist: Plane, gullies: Plane) -> None:
    top, end = max(0, int(ridge.top.min()) - 1), min(sheet.height, lowest)
    if top >= end:
        return
    near = ridge.near
    rows = sheet.below(ridge.top, top, end)
    alpha = sheet.edge(ridge.top, rows)
    below = np.clip(sheet.below(ridge.bare, top, end), 0, None) / np.float32(sheet.unit)
    body = mix(sheet.palette.haze, sheet.palette.near, near**1.2)
    air = mix(sheet.palette.haze, sheet.palette.sky[-1], 0.4)
    valley = mix(body, air, 0.62 * (1 - near) + 0.08)
    fall = smoothstep(0.0, 0.27 - 0.07 * near, below + mist[top:end])
    sheet.over(along(ramp((body, valley)), fall), alpha, top)
    if ridge.top is not ridge.bare:
        return
    # Faces turned to the sun catch a little of it; the pattern runs down from the ridge as gullies do.
    side = np.float32(1.0 if sun.x > sheet.right / 2 else -1.0)
    slope = np.tanh(_slope(ridge.bare, max(9, round(sheet.unit / 34) | 1)) * np.float32(1.6)) * side
    run = sheet.x[None, :] - below * side * np.float32(0.5) + gullies[top:end]
    face = slope[np.clip(run * np.float32(sheet.unit), 0, sheet.width - 1).astype(np.int32)]
    lift = np.clip(face, 0, 1) * np.exp(below * np.float32(-12)) * np.float32(0.30 * (1 - near * 0.75))
    source = sheet.palette.sky[-2] if sheet.palette.night else sheet.palette.light
    sheet.over(mix(source, body, 0.35), lift * alpha, top)


def _pines(sheet: Sheet, near: float, tall: float) -> Line:
    """How far pines stand above a ridge at each column, in rows."""
    rng = sheet.rng
    size = (0.018 + 0.075 * near**2) * tall * sheet.unit
    count = int(sheet.width / (size * 0.26)) + 4
    xs = rng.uniform(-size, sheet.width + size, count)
    heights = (
        size * rng.uniform(0.35, 1.0, count) ** 1.1 * (0.75 + 0.25 * np.sin(xs / sheet.unit * 9 + rng.uniform(0, 6)))
    )
    columns = np.arange(sheet.width) + 0.5
    tops = np.zeros(sheet.width)
    for x, high in zip(xs, heights, strict=True):
        half = high * 0.21
        left, right = max(0, int(x - half)), min(sheet.width, int(x + half) + 2)
        if right <= left:
            continue
        away = np.abs(columns[left:right] - x) / half
        # Boughs: the flank goes down in steps, each with a drooping tip.
        bough = (away * 6.5) % 1.0
        flank = 1 - away - 0.055 * np.sin(bough * np.pi) * away
        tops[left:right] = np.maximum(tops[left:right], high * flank)
    return tops.astype(np.float32)


def _foreground(sheet: Sheet, base: float) -> None:
    """A dark near shore with grasses, to look over."""
    rng = sheet.rng
    tilt = np.linspace(0.05, -0.03, sheet.width) * (1 if sheet.chance(0.5) else -1)
    profile = (base + tilt + 0.025 * line(rng, sheet.x * 2.5, 4)) * sheet.height
    blades = (
        np.abs(line(rng, sheet.x * 90, 2, 0.6)) ** 2
        * 0.02
        * sheet.unit
        * np.clip(0.4 + line(rng, sheet.x * 4, 2), 0, 1)
    )
    profile = (profile - blades).astype(np.float32)
    top = max(0, int(profile.min()) - 1)
    if top < sheet.height:
        sheet.over(
            mix(sheet.palette.near, sheet.palette.sky[0], 0.12), sheet.edge(profile, sheet.below(profile, top)), top
        )
