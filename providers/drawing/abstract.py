"""Scenes without a horizon: deep space, folded silk, a flower."""

from dataclasses import dataclass

import numpy as np

from providers.drawing.colour import Colour, Plane, along, mix, ramp, turned
from providers.drawing.noise import Line, field, smoothstep
from providers.drawing.sheet import Sheet
from providers.drawing.sky import paint_stars


def space(sheet: Sheet) -> None:
    """A nebula with its stars, and a planet lit from one side."""
    palette = sheet.palette
    void = mix(palette.near, np.zeros(3, dtype=np.float32), 0.45)
    coarse = (sheet.y[::2], sheet.x[::2])
    warp_x, warp_y = (field(sheet.rng, coarse[0] * 1.3, coarse[1] * 1.3, 3) for _ in range(2))
    band = np.exp(-(((warp_x * np.float32(0.28) + _tilted(sheet, *coarse)) / np.float32(0.42)) ** 2))
    gas = sheet.enlarged(_warped(sheet.rng, coarse, (warp_x, warp_y), 0.42) + band * np.float32(0.9))
    dust = sheet.enlarged(_warped(sheet.rng, coarse, (warp_y, warp_x), 0.30))
    thick = smoothstep(-0.20, 1.50, gas)
    # Space stays dark, also in the colours of a bright day.
    sky = palette.sky if palette.night else tuple(mix(each, void, 0.34) for each in palette.sky)
    stops = (void, mix(void, sky[0], 0.8), sky[1], sky[2], sky[3], palette.light)
    colours = ramp(stops, (0, 0.2, 0.42, 0.62, 0.84, 1))
    sheet.light[:] = along(colours, thick * thick * np.float32(0.94))
    sheet.over(turned(palette.sky[2], 70), smoothstep(0.15, 1.1, dust) * thick * np.float32(0.30))
    sheet.over(void, smoothstep(0.1, 0.9, -dust) * np.float32(0.72))
    paint_stars(sheet, 1.0, 330)
    if sheet.chance(0.75):
        _planet(sheet, void)


def _tilted(sheet: Sheet, down: Line, across: Line) -> Plane:
    """How far each point lies from a line through the middle at a random angle."""
    angle = sheet.rng.uniform(-0.9, 0.9)
    slant = (across - np.float32(sheet.right / 2))[None, :] * np.float32(np.sin(angle))
    return slant + (down - np.float32(sheet.bottom / 2))[:, None] * np.float32(np.cos(angle))


def _warped(rng: np.random.Generator, at: tuple[Line, Line], warp: tuple[Plane, Plane], reach: float) -> Plane:
    """Noise read at displaced points: what turns blobs into filaments."""
    cells = 256
    lattice = np.arange(cells, dtype=np.float32) / np.float32(cells / 7)
    tile = field(rng, lattice, lattice, 5, 0.55)
    column = (at[1][None, :] + warp[0] * np.float32(reach)) * np.float32(150) + np.float32(600)
    row = (at[0][:, None] + warp[1] * np.float32(reach)) * np.float32(150) + np.float32(600)
    return _read(_mirrored(tile), column, row)


def _mirrored(tile: Plane) -> Plane:
    """The tile with its mirror images around it, so that it repeats without a seam."""
    return np.ascontiguousarray(np.block([[tile, tile[:, ::-1]], [tile[::-1], tile[::-1, ::-1]]]))


def _read(tile: Plane, column: Plane, row: Plane) -> Plane:
    """The tile, repeating, between its points."""
    size = tile.shape[0]
    left, top = column.astype(np.int32), row.astype(np.int32)
    right_share, low_share = column - left, row - top
    left, top = left % size, top % size
    right, low = (left + 1) % size, (top + 1) % size
    flat = tile.reshape(-1)
    upper = flat[top * size + left] * (1 - right_share) + flat[top * size + right] * right_share
    lower = flat[low * size + left] * (1 - right_share) + flat[low * size + right] * right_share
    result: Plane = upper * (1 - low_share) + lower * low_share
    return result


def _planet(sheet: Sheet, void: Colour) -> None:
    rng, palette = sheet.rng, sheet.palette
    radius = float(rng.uniform(0.13, 0.25))
    x = sheet.right * float(rng.choice([0.30, 0.36, 0.64, 0.70]))
    y = sheet.bottom * float(rng.uniform(0.36, 0.66))
    away = sheet.distance(x, y)
    across = (sheet.x[None, :] - np.float32(x)) / np.float32(radius)
    down = (sheet.y[:, None] - np.float32(y)) / np.float32(radius)
    toward = np.sqrt(np.maximum(1 - across**2 - down**2, 0))
    sun = np.array([0.72 if x < sheet.right / 2 else -0.72, -0.42, 0.52])
    lit = smoothstep(-0.10, 0.95, across * np.float32(sun[0]) + down * np.float32(sun[1]) + toward * np.float32(sun[2]))
    swirl = field(rng, (sheet.y - np.float32(y)) * 11, sheet.x * 2.2, 4) * np.float32(0.5)
    bands = np.sin(down * np.float32(9) + swirl * np.float32(2.4) + across * np.float32(0.6)) * np.float32(
        0.5
    ) + np.float32(0.5)
    surface = along(
        ramp((mix(palette.sky[1], palette.accent, 0.3), palette.sky[3], palette.light)),
        bands * np.float32(0.8) + swirl * np.float32(0.2),
    )
    pixel = np.float32(1 / sheet.unit)
    disc = np.clip((np.float32(radius) - away) / pixel + np.float32(0.5), 0, 1)
    halo = np.exp(-np.abs(away - np.float32(radius)) / np.float32(radius * 0.11))
    facing = np.clip(across * np.float32(sun[0]) + down * np.float32(sun[1]) + np.float32(0.35), 0, 1.3)
    sheet.shine(mix(palette.sky[3], palette.light, 0.4), halo * facing * np.float32(0.42))
    night = mix(void, palette.sky[1], 0.4)
    sheet.over(surface * lit + night[:, None, None] * np.float32(0.7), disc)
    rim = np.clip(1 - toward, 0, 1) ** 3 * facing * disc
    sheet.shine(palette.light, rim * np.float32(0.38))


def silk(sheet: Sheet) -> None:
    """Cloth in slow folds, with light running along them."""
    rng = sheet.rng
    angle = float(rng.uniform(0.35, 1.1)) * (1 if sheet.chance(0.5) else -1)
    x = sheet.x[None, :] - np.float32(sheet.right / 2)
    y = sheet.y[:, None] - np.float32(sheet.bottom / 2)
    u = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    v = y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle))
    for turn in range(5):
        scale = 1.7 * 1.62**turn
        u, v = (
            u + np.float32(0.42 / scale) * np.sin(v * np.float32(scale * 2.1) + np.float32(rng.uniform(0, 6.3))),
            v + np.float32(0.38 / scale) * np.sin(u * np.float32(scale * 1.7) + np.float32(rng.uniform(0, 6.3))),
        )
    phase = v * np.float32(rng.uniform(13, 18)) + np.float32(0.5) * np.sin(u * np.float32(2.3))
    broad: Plane = np.sin(phase)
    fine: Plane = np.sin(phase * np.float32(2.3) + u * np.float32(5))
    height = broad * np.float32(0.65) + fine * np.float32(0.24)
    depth = np.float32(sheet.unit * 0.024)
    slope_y, slope_x = np.gradient(height * depth)
    length = np.sqrt(slope_x**2 + slope_y**2 + 1)
    lit = (slope_x * np.float32(0.46) + slope_y * np.float32(0.58) + np.float32(0.67)) / length
    mirrored = (slope_x * np.float32(0.28) + slope_y * np.float32(0.36) + np.float32(0.89)) / length
    sheen = np.clip(mirrored, 0, 1) ** 26
    hue = np.float32(0.5) + u * np.float32(0.36) + sheet.noise(1.1, 1.1, octaves=2) * np.float32(0.10)
    palette = sheet.palette
    colours = ramp((palette.sky[0], palette.sky[1], palette.sky[2], palette.sky[3], palette.accent, palette.sky[4]))
    cloth = along(colours, hue + height * np.float32(0.10))
    shade = np.clip(lit, 0, 1) ** np.float32(1.25) * np.float32(1.12) + np.float32(0.045)
    fold = np.float32(0.62) + np.float32(0.38) * smoothstep(-0.85, 0.35, height)
    sheet.light[:] = cloth * (shade * fold)
    sheet.shine(palette.light, sheen * fold * np.float32(0.20))


def flower(sheet: Sheet) -> None:
    """One flower, petal over petal, before a soft ground."""
    rng, palette = sheet.rng, sheet.palette
    x, y = sheet.right * float(rng.uniform(0.46, 0.54)), sheet.bottom * float(rng.uniform(0.46, 0.53))
    away = sheet.distance(x, y)
    angle = np.arctan2(sheet.y[:, None] - np.float32(y), sheet.x[None, :] - np.float32(x))
    ground = smoothstep(0.0, 0.95, away + sheet.noise(1.4, 1.4, octaves=2) * np.float32(0.12))
    dark = mix(palette.near, palette.sky[0], 0.45)
    sheet.light[:] = along(ramp((mix(dark, palette.sky[1], 0.55), dark, mix(dark, palette.near, 0.6))), ground)
    bloom = turned(palette.petal, float(rng.uniform(-14, 14)))
    rose = mix(bloom, palette.sky[3], 0.35)
    petals = int(rng.integers(7, 12))
    rings = 8
    for ring in range(rings):
        share = ring / (rings - 1)
        colours = (
            mix(dark, bloom, 0.45 + 0.25 * share),
            mix(bloom, rose, share),
            mix(rose, palette.light, 0.35 + 0.35 * share),
        )
        petals_here = max(5, round(petals * (1.25 - 0.6 * share)))
        row = Petals(0.46 * (1 - share) ** 0.82 + 0.030, petals_here, float(rng.uniform(0, 6.3)), colours)
        _paint_petals(sheet, away, angle, row)
    heart = np.clip((np.float32(0.020) - away) * np.float32(sheet.unit) + np.float32(0.5), 0, 1)
    sheet.over(mix(palette.light, palette.accent, 0.3), heart * np.float32(0.85))


@dataclass(frozen=True, slots=True)
class Petals:
    """One ring of petals: how far it reaches, in units, how many, how it is turned, colours from heart to tip."""

    reach: float
    count: int
    turn: float
    colours: tuple[Colour, Colour, Colour]


def _paint_petals(sheet: Sheet, away: Plane, angle: Plane, petals: Petals) -> None:
    reach, count, turn = petals.reach, petals.count, petals.turn
    inside = away < np.float32(reach * 1.25)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if len(rows) == 0:
        return
    part = np.s_[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]
    away, angle, ground = away[part], angle[part], sheet.light[:, *part]
    ring = angle * np.float32(count / (2 * np.pi)) + np.float32(turn)
    petal = np.floor(ring)
    number = petal % np.float32(count)
    local = np.abs((ring - petal) * 2 - 1)
    varied = np.sin(number * np.float32(12.9898) + np.float32(turn * 7)) * np.float32(0.06)
    tip = np.float32(reach) * (1 + varied) * (np.float32(1) - local * local * np.sqrt(local) * np.float32(0.34))
    alpha = np.clip((tip - away) * np.float32(sheet.unit * 0.8) + np.float32(0.5), 0, 1)
    # The ring above casts its shadow outward: a soft dark line just beyond the petals' edge.
    shadow = np.exp(-np.clip(away - tip, 0, None) * np.float32(38)) * np.float32(0.40)
    ground *= 1 - shadow * (1 - alpha)
    along_petal = np.clip(away / tip, 0, 1)
    veins = np.cos(local * np.float32(26)) * np.float32(0.018) * along_petal
    tone = (
        along_petal * along_petal * np.sqrt(along_petal) * np.float32(0.78)
        + (1 - local) ** 2 * np.float32(0.16)
        + veins
    )
    crease = smoothstep(0.80, 1.0, local) * np.float32(0.26)
    ground += alpha * (along(ramp(petals.colours), tone - crease + np.float32(0.06)) - ground)
