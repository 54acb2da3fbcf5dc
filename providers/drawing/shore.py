"""Scenes with a level horizon: the open sea, and a city by its river."""

import numpy as np
import numpy.typing as npt

from providers.drawing.colour import Plane, along, mix, ramp
from providers.drawing.noise import Line, field, line, smoothstep
from providers.drawing.sheet import Sheet
from providers.drawing.sky import Sun, mirror, paint_sky, place_sun


def sea(sheet: Sheet) -> None:
    """The open sea under a low sun, its glitter on the waves, a headland and a sail."""
    horizon = float(sheet.rng.uniform(0.52, 0.60))
    sun = place_sun(sheet, horizon, 0.48, 0.84)
    paint_sky(sheet, horizon, sun, clouds=float(sheet.rng.uniform(0.45, 0.85)))
    _headlands(sheet, sun, horizon)
    _water(sheet, sun, sheet.row(horizon))
    _sail(sheet, sun, horizon)


def _headlands(sheet: Sheet, sun: Sun, horizon: float) -> None:
    """Capes that run out to sea on the side away from the sun."""
    away = -1 if sun.x > sheet.right / 2 else 1
    across = sheet.x / np.float32(sheet.right)
    from_side = across if away < 0 else 1 - across
    for layer, (length, high) in enumerate(((0.62, 0.030), (0.44, 0.060), (0.27, 0.095))):
        near = (layer + 1) / 3
        slope = np.clip(1 - from_side / length, 0, 1) ** 0.75
        rough = 0.75 + 0.5 * line(sheet.rng, sheet.x * 5 + layer * 9, 6)
        profile = ((horizon - high * slope * np.clip(rough, 0.25, 1.5)) * sheet.height).astype(np.float32)
        top, end = max(0, int(profile.min()) - 1), sheet.row(horizon)
        if top >= end:
            continue
        alpha = sheet.edge(profile, sheet.below(profile, top, end)) * (slope > 0)
        sheet.over(mix(sheet.palette.haze, sheet.palette.near, 0.18 + 0.5 * near), alpha, top)


def _water(sheet: Sheet, sun: Sun, top: int) -> None:
    count = sheet.height - top
    depth = (np.arange(count, dtype=np.float32) + np.float32(0.5)) / np.float32(count)
    # Rows of waves crowd together towards the horizon: noise read along the logarithm of the distance.
    far = np.log1p(depth * np.float32(22)) * np.float32(11)
    fine = field(sheet.rng, far * 5.2, sheet.x * 17, 2, 0.6)
    broad = field(sheet.rng, far * 1.5, sheet.x * 3.1, 3, 0.55)
    small = smoothstep(0.0, 0.6, 1 - depth)[:, None]
    waves = fine * (np.float32(0.62) + small * np.float32(0.2)) + broad * (np.float32(0.62) - small * np.float32(0.25))
    sky = sheet.palette.sky
    deep = mix(sky[0], sheet.palette.near, 0.42)
    colours = ramp((deep, mix(deep, sky[1], 0.6), mix(sky[1], sky[2], 0.6), sky[-2], sky[-1]), (0, 0.3, 0.55, 0.85, 1))
    level = np.float32(0.80) * (1 - depth[:, None]) ** 1.25 + np.float32(0.12)
    sheet.light[:, top:] = along(colours, level + waves * (np.float32(0.05) + depth[:, None] * np.float32(0.12)))
    spread = np.float32(0.045) + depth[:, None] * np.float32(0.20)
    path = np.exp(-(((sheet.x[None, :] - np.float32(sun.x)) / spread) ** 2))
    sparkle = smoothstep(0.10, 0.75, waves + path * np.float32(0.40)) * path
    strength = np.float32(0.55 if sheet.palette.night else 0.92)
    sheet.over(sheet.palette.light, np.minimum(sparkle * strength, 1), top)
    seam = np.exp(-depth * np.float32(60))[:, None] * np.float32(0.45)
    sheet.over(sheet.palette.haze, np.broadcast_to(seam, (count, sheet.width)), top)


def _sail(sheet: Sheet, sun: Sun, horizon: float) -> None:
    """One small boat, heeling a little, with its reflection."""
    size = sheet.unit * float(sheet.rng.uniform(0.040, 0.062))
    side = 1 if sun.x < sheet.right / 2 else -1
    x = (sun.x + side * sheet.right * float(sheet.rng.uniform(0.17, 0.27))) * sheet.unit
    y = sheet.height * (horizon + float(sheet.rng.uniform(0.030, 0.075)))
    top, end = max(0, int(y - size * 1.2)), min(sheet.height, int(y + size * 1.3))
    left, right = max(0, int(x - size)), min(sheet.width, int(x + size))
    if right <= left or end <= top:
        return
    rows = np.arange(top, end, dtype=np.float32)[:, None] + np.float32(0.5) - np.float32(y)
    columns = np.arange(left, right, dtype=np.float32)[None, :] + np.float32(0.5) - np.float32(x)
    patch = sheet.light[:, top:end, left:right]
    dark = mix(sheet.palette.near, sheet.palette.sky[0], 0.15)[:, None, None]
    sail = mix(sheet.palette.light, sheet.palette.accent, 0.12)[:, None, None]
    for flip, strength in ((-1, 0.35), (1, 1.0)):
        up = rows * flip
        lean = columns + up * np.float32(0.06)
        patch += _sail_shape(lean, up, size) * np.float32(strength * 0.95) * (sail - patch)
        hull = _soft(up + size * 0.02) * _soft(size * 0.11 - up) * _soft(size * 0.36 - up * 0.9 - np.abs(columns))
        patch += hull * np.float32(strength) * (dark - patch)


def _sail_shape(columns: Plane, rows: Plane, size: float) -> Plane:
    """A main sail and a jib: two triangles that share the mast."""
    height = (rows + size) / np.float32(size)
    inside = _soft(rows + size) * _soft(-rows - size * 0.05)
    main = _soft(columns - size * 0.02) * _soft(size * 0.40 * height - columns)
    jib = _soft(-columns - size * 0.02) * _soft(size * 0.26 * (height - 0.12) + columns)
    sails: Plane = inside * np.maximum(main, jib)
    return sails


def _soft(distance: Plane) -> Plane:
    """1 inside an edge, 0 outside, antialiased over a pixel."""
    share: Plane = np.clip(distance + np.float32(0.5), 0, 1)
    return share


def city(sheet: Sheet) -> None:
    """A skyline in the evening: towers that fade into the air, lit windows, a river that gives it all back."""
    shore = float(sheet.rng.uniform(0.70, 0.76))
    sun = place_sun(sheet, shore, 0.24, 0.50)
    paint_sky(sheet, shore, sun, clouds=float(sheet.rng.uniform(0.25, 0.6)))
    layers = 4
    for layer in range(layers):
        _towers(sheet, shore, layer / (layers - 1), layer)
    mirror(sheet, shore, calm=0.35, tint=0.16)


def _towers(sheet: Sheet, shore: float, near: float, layer: int) -> None:
    rng, unit = sheet.rng, sheet.unit
    heights = np.full(sheet.width, sheet.height * shore)
    lots = np.zeros(sheet.width, dtype=np.int32)
    x, number = -int(rng.uniform(0, 0.05) * unit), 0
    crown = sheet.width * rng.uniform(0.3, 0.7)
    while x < sheet.width:
        wide = max(3, int(unit * rng.uniform(0.020, 0.052) * (0.75 + 0.5 * near)))
        # Towers gather around a centre, as cities do.
        centre = np.exp(-(((x + wide / 2 - crown) / (sheet.width * 0.30)) ** 2))
        high = unit * (0.05 + rng.random() ** 1.6 * 0.12 + 0.30 * centre * rng.random() ** 1.1) * (1.15 - 0.45 * near)
        _tower(rng, heights, (x, wide), sheet.height * shore - high, unit)
        number += 1
        lots[max(0, x) : max(0, x + wide)] = number
        x += wide + (int(unit * rng.uniform(0.0, 0.012)) if sheet.chance(0.5) else 0)
    top, end = max(0, int(heights.min()) - 1), sheet.row(shore)
    if top >= end:
        return
    rows = np.arange(top, end)
    body = mix(sheet.palette.haze, sheet.palette.near, 0.20 + 0.72 * near)
    base = mix(body, sheet.palette.haze, 0.55 * (1 - near) + 0.12)
    fall = np.clip((rows - top) / np.float32(max(1, end - top)), 0, 1).astype(np.float32)[:, None]
    mask = (rows[:, None] >= np.round(heights)[None, :]).astype(np.float32)
    sheet.over(along(ramp((body, base)), np.broadcast_to(fall**2, mask.shape)), mask, top)
    if layer > 0:
        _windows(sheet, heights.astype(np.float32), lots, top, end, near)


def _tower(
    rng: np.random.Generator, heights: npt.NDArray[np.float64], span: tuple[int, int], top: float, unit: float
) -> None:
    """One building: plain, stepped, or with a spire."""
    x, wide = span
    width = len(heights)

    def raise_to(left: int, right: int, level: float) -> None:
        part = slice(max(0, min(width, left)), max(0, min(width, right)))
        heights[part] = np.minimum(heights[part], level)

    raise_to(x, x + wide, top)
    stepped, spired = rng.random(2) < (0.30, 0.24)
    if stepped:
        raise_to(x + wide // 5, x + wide - wide // 5, top - unit * 0.014)
        raise_to(x + wide // 3, x + wide - wide // 3, top - unit * 0.026)
    if spired:
        middle = x + wide // 2
        raise_to(middle, middle + max(1, round(unit / 700)), top - unit * rng.uniform(0.035, 0.07))


def _windows(sheet: Sheet, heights: Line, lots: npt.NDArray[np.int32], top: int, end: int, near: float) -> None:
    rng = sheet.rng
    pitch = max(3, round(sheet.unit * (0.0052 + 0.0030 * near)))
    tall = max(3, round(pitch * 1.35))
    rows, columns = np.arange(top, end), np.arange(sheet.width)
    grid_rows, grid_columns = rows // tall, columns // pitch
    chance = rng.random((grid_rows.max() - grid_rows.min() + 1, grid_columns.max() + 1), dtype=np.float32)
    mood = rng.uniform(0.10, 0.55, lots.max() + 1).astype(np.float32)
    lit = chance[grid_rows - grid_rows.min()][:, grid_columns] < (mood[lots] * (0.45 + 0.4 * near))[None, :]
    pane = ((rows % tall) < tall * 0.55)[:, None] & ((columns % pitch) < max(1, pitch * 0.62))[None, :]
    inside = rows[:, None] > heights[None, :] + tall * 0.8
    warmth = chance[grid_rows - grid_rows.min()][:, grid_columns] * 2.2 + 0.35
    glow = (lit & pane & inside).astype(np.float32) * np.minimum(warmth, 1)
    lamp = mix(sheet.palette.accent, sheet.palette.light, 0.45)
    sheet.over(lamp, glow * np.float32(0.35 + 0.5 * near), top)
