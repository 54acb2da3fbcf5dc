"""Skies: the gradient, the sun or moon with its glow, clouds, stars, aurora; and the water that mirrors them."""

from dataclasses import dataclass

import numpy as np

from providers.drawing.colour import Plane, along, mix, ramp
from providers.drawing.noise import field, line, smoothstep
from providers.drawing.sheet import Sheet


@dataclass(frozen=True, slots=True)
class Sun:
    """The sun or moon: its place and radius, in units."""

    x: float
    y: float
    radius: float


def place_sun(sheet: Sheet, horizon: float, low: float = 0.3, high: float = 0.8) -> Sun:
    """A sun between those shares of the sky's height, off the middle as the golden section likes it."""
    side = 0.382 if sheet.chance(0.5) else 0.618
    return Sun(
        x=sheet.right * (side + sheet.rng.uniform(-0.06, 0.06)),
        y=sheet.bottom * horizon * sheet.rng.uniform(low, high),
        radius=float(sheet.rng.uniform(0.042, 0.072)),
    )


def paint_sky(sheet: Sheet, horizon: float, sun: Sun, clouds: float = 0.5) -> None:
    """The whole sky down to the horizon (a share of the height) and, faintly, below it."""
    end = min(sheet.height, sheet.row(horizon) + 8)
    drift = sheet.noise(1.1, 1.6, octaves=2)[:end] * np.float32(0.035)
    fall = (np.arange(end, dtype=np.float32) / np.float32(max(1, sheet.row(horizon))))[:, None]
    sheet.light[:, :end] = along(sheet.palette.sky_ramp, fall ** np.float32(0.92) + drift)
    sheet.light[:, end:] = sheet.palette.haze[:, None, None]
    if sheet.palette.night:
        paint_stars(sheet, horizon, 260)
    away = sheet.distance(sun.x, sun.y, end=end)
    glow = np.exp(away * np.float32(-4.4)) * np.float32(0.32) + np.exp(away * np.float32(-11)) * np.float32(0.42)
    shine = mix(sheet.palette.sky[-1], sheet.palette.light, 0.2 if sheet.palette.night else 0.55)
    sheet.over(shine, glow * np.float32(0.62 if sheet.palette.night else 0.85))
    if clouds > 0:
        paint_clouds(sheet, end, sun, clouds)
    _paint_disc(sheet, sun, away)


def _paint_disc(sheet: Sheet, sun: Sun, away: Plane) -> None:
    pixel = np.float32(1 / sheet.unit)
    disc = np.clip((np.float32(sun.radius) - away) / (pixel * 1.5) + np.float32(0.5), 0, 1)
    disc_light = sheet.palette.light[:, None, None] * np.float32(1.08)
    if sheet.palette.night:
        # Maria: the quiet grey patches of a moon.
        spots = smoothstep(-0.1, 0.6, sheet.noise(16, 16, octaves=3)[: away.shape[0]])
        disc_light = disc_light * (1 - np.float32(0.10) * spots)
    sheet.over(np.broadcast_to(disc_light, (3, *away.shape)), disc * np.float32(0.96))


def paint_clouds(sheet: Sheet, end: int, sun: Sun, cover: float) -> None:
    """
    Banks of soft cloud, lit where they face the sun; `cover` in [0, 1].

    The light on a cloud is the difference between its thickness here and a little further towards the sun.
    """
    fall = (np.arange(end, dtype=np.float32) / np.float32(end))[:, None]
    shape = sheet.noise(1.5, 5.2, octaves=5, gain=0.5)[:end]
    band = np.sin(np.float32(np.pi) * np.clip(fall * 0.9 + 0.08, 0, 1))
    thick = shape * np.float32(0.9) + band * np.float32(0.35) + np.float32(cover * 0.9 - 0.62)
    dense = smoothstep(0.0, 0.62, thick)
    step = max(2, round(sheet.unit * 0.012))
    rows = np.arange(end) + (-step if sun.y * sheet.unit < end * 0.6 else step)
    towards = thick[np.clip(rows, 0, end - 1)]
    facing = np.clip((thick - towards) * np.float32(1.9) + np.float32(0.42), 0, 1)
    away = sheet.distance(sun.x, sun.y, end=end)
    near = np.exp(away * np.float32(-1.7))
    lit = mix(sheet.palette.sky[-1], sheet.palette.light, 0.6)
    shade = mix(sheet.palette.sky[1], sheet.palette.sky[2], 0.55)
    colours = along(ramp((shade, sheet.palette.sky[-2], lit)), facing * (np.float32(0.45) + near * np.float32(0.7)))
    sheet.over(colours, dense * np.float32(0.72))


def paint_stars(sheet: Sheet, depth: float, count: int) -> None:
    """Stars over the rows down to `depth`, few bright and many faint, tinted as real ones are."""
    rng = sheet.rng
    amount = int(count * sheet.right * sheet.bottom * 4)
    xs, ys = rng.uniform(0, sheet.width, amount), rng.uniform(0, 1, amount) ** 1.25 * depth * sheet.height
    power = rng.pareto(1.7, amount) * 0.09 + 0.05
    warm = rng.uniform(-1, 1, amount)
    reach = max(2, round(sheet.unit / 170))
    offsets = np.arange(-reach, reach + 1)
    for x, y, strength, tint in zip(xs, ys, np.minimum(power, 1.6), warm, strict=True):
        left, top = int(x), int(y)
        if not (reach <= left < sheet.width - reach and reach <= top < min(sheet.height - reach, depth * sheet.height)):
            continue
        size = 0.5 * sheet.unit / 1024 * (1.05 + strength)
        spot = np.exp(-((offsets + left - x + 0.5) ** 2)[None, :] / (2 * size**2)) * np.exp(
            -((offsets + top - y + 0.5) ** 2)[:, None] / (2 * size**2)
        )
        colour = np.array([1 + 0.16 * tint, 1.0, 1 - 0.16 * tint])[:, None, None]
        part = sheet.light[:, top - reach : top + reach + 1, left - reach : left + reach + 1]
        part += (colour * spot * min(1.1, strength * 1.5)).astype(np.float32)


def paint_aurora(sheet: Sheet, horizon: float) -> None:
    """Curtains of light: a sharp lower hem, rays upward, green below and violet above."""
    rng, end = sheet.rng, sheet.row(horizon)
    green = mix(sheet.palette.accent, sheet.palette.sky[-1], 0.15)
    colours = ramp(
        (green, green, mix(green, sheet.palette.sky[2], 0.5), mix(sheet.palette.sky[2], sheet.palette.light, 0.1))
    )
    y = sheet.y[:end, None] / np.float32(sheet.bottom * horizon)
    for curtain in range(3):
        base = 0.80 - 0.2 * curtain + 0.30 * line(rng, sheet.x * 0.9 + curtain * 7, 3) + rng.uniform(-0.05, 0.05)
        rays = 0.55 + 0.75 * line(rng, sheet.x * 15, 4, 0.65)
        folds = np.clip(0.55 + 0.9 * line(rng, sheet.x * 1.7, 2), 0, 1.3)
        tall = 0.26 + 0.16 * line(rng, sheet.x * 3.1, 3)
        above = (base[None, :] - y) / np.maximum(tall, 0.08)[None, :]
        rise = smoothstep(-0.10, 0.06, above) * np.exp(-np.maximum(above, 0) * np.float32(1.55))
        strength = rise * (np.clip(rays, 0.12, 1.4) * folds)[None, :] * np.float32(0.85 - 0.2 * curtain)
        sheet.light[:, :end] += along(colours, above * np.float32(0.36)) * strength


def mirror(sheet: Sheet, shore: float, calm: float = 0.5, tint: float = 0.24) -> None:
    """
    Still water: what stands above the shore, upside down, rippled more the nearer it lies.

    Args:
        sheet: Drawn down to the shore.
        shore: Share of the height.
        calm: 1 is glass.
        tint: How much of the water's own colour is mixed in.
    """
    top = sheet.row(shore)
    count = sheet.height - top
    if min(count, top) <= 1:
        return
    depth = np.arange(count, dtype=np.float32) / np.float32(count)
    stretch = np.log1p(depth * np.float32(9)) * np.float32(16)
    waves = field(sheet.rng, stretch * 2.6, sheet.x * 5, 3)
    sway = np.float32((1 - calm) * 0.020 * sheet.unit) * (depth[:, None] * 1.6 + np.float32(0.08))
    rows = (
        top
        - 1
        - (np.arange(count, dtype=np.float32) * np.float32(min(1.0, (top - 1) / count)))[:, None]
        - waves * sway * 2.2
    )
    columns = np.arange(sheet.width, dtype=np.float32)[None, :] + waves * sway * np.float32(0.45)
    row_index = np.clip(np.abs(rows), 0, top - 1).astype(np.int32)
    column_index = np.clip(columns, 0, sheet.width - 1).astype(np.int32)
    flat = row_index * np.int32(sheet.width) + column_index
    for channel in sheet.light:
        channel[top:] = channel[:top].reshape(-1)[flat]
    deep = mix(sheet.palette.sky[0], sheet.palette.near, 0.35)
    shade = np.float32(tint) + depth[:, None] * np.float32(0.42)
    sheet.over(deep, np.broadcast_to(shade, (count, sheet.width)) * np.float32(0.9), top)
    glint = smoothstep(0.55, 1.25, waves) * (1 - depth[:, None]) * np.float32(0.16)
    sheet.shine(sheet.palette.sky[-1], glint, top)
    line_of_shore = np.exp(-depth * np.float32(34))[:, None] * np.float32(0.34)
    sheet.over(sheet.palette.haze, np.broadcast_to(line_of_shore, (count, sheet.width)), top)
