"""Resizing, cropping and sampling, one output pixel at a time."""

from __future__ import annotations

import itertools

import numpy as np
from coreml_cases import Array, Draw, Example, both_of, conforms, floats, integers, one_of, wide
from hypothesis import strategies as st

MODES = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS")


def grid_point(mode: str, i: int, size_in: int, size_out: int) -> float:
    """Where output ``i`` samples the input, as the documentation of resize_bilinear says."""
    if mode == "ALIGN_CORNERS" and size_out == 1:
        return (size_in - 1) / 2
    if mode in {"STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"}:
        where = i * ((size_in - 1) / (size_out - 1)) if size_out > 1 else 0
    elif mode == "DEFAULT":
        where = i * ((size_in - size_in / size_out) / (size_out - 1)) if size_out > 1 else 0
    elif mode == "OFFSET_CORNERS":
        where = 0.5 * max(1, size_in - 1) / size_out + i * max(1, size_in - 1) / size_out
    else:
        where = i * size_in / size_out + 0.5 * size_in / size_out - 0.5
    return min(size_in - 1, max(0, where))


def linear_at(x: Array, y: float, z: float) -> Array:
    """Bilinear value of ``[..., H, W]`` at one point inside."""
    top, left = int(np.floor(y)), int(np.floor(z))
    down, right = min(top + 1, x.shape[-2] - 1), min(left + 1, x.shape[-1] - 1)
    dy, dz = y - top, z - left
    upper = x[..., top, left] * (1 - dz) + x[..., top, right] * dz
    return upper * (1 - dy) + (x[..., down, left] * (1 - dz) + x[..., down, right] * dz) * dy


def resized(x: Array, height: int, width: int, mode: str) -> Array:
    result = np.zeros((*x.shape[:-2], height, width))
    for i, j in itertools.product(range(height), range(width)):
        at = grid_point(mode, i, x.shape[-2], height), grid_point(mode, j, x.shape[-1], width)
        result[..., i, j] = linear_at(x, *at)
    return result


def picture(draw: Draw, *, least: int = 3) -> Array:
    lead = tuple(draw(st.integers(1, 2)) for _ in range(draw(st.integers(least, 4)) - 2))
    return floats(draw, (*lead, draw(st.integers(1, 5)), draw(st.integers(1, 5))))


@conforms("resize_bilinear")
def resize_bilinear(draw: Draw, op: str) -> Example:
    x, mode = picture(draw), one_of(draw, *MODES)
    height, width = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    constants = {"target_size_height": height, "target_size_width": width, "sampling_mode": mode}
    return Example(inputs={"x": x}, constants=constants, expected=resized(wide(x), height, width, mode), atol=1e-5)


@conforms("resize")
def resize(draw: Draw, op: str) -> Example:
    """The target shape may name fewer axes than the input, and 0 keeps a size."""
    x, mode = picture(draw), one_of(draw, *MODES)
    dims = draw(st.integers(1, 2))
    wanted = [draw(st.integers(0, 7)) for _ in range(dims)]
    shape = [9] * draw(st.integers(0, x.ndim - dims)) + wanted
    after = [size or known for size, known in zip(wanted, x.shape[-dims:], strict=True)]
    height, width = after if dims == 2 else (x.shape[-2], after[0])
    nearest = draw(st.booleans())
    constants = {"shape": np.array(shape, np.int32), "resized_dims": np.uint32(dims), "sampling_mode": mode}
    # an axis that is not resized is left alone whatever the mode
    rows = [grid_point(mode, i, x.shape[-2], height) for i in range(height)] if dims == 2 else list(range(height))
    columns = [grid_point(mode, i, x.shape[-1], width) for i in range(width)]
    if nearest:
        constants["interpolation_mode"] = "NEAREST_NEIGHBOR"

        def take(where):  # the nearest centre, the later of two
            return np.floor(np.asarray(where) + 0.5)

        picked = x[..., np.array(take(rows), int)[:, None], np.array(take(columns), int)]
        return Example(inputs={"x": x}, constants=constants, expected=picked)
    expected = np.stack([np.stack([linear_at(wide(x), y, z) for z in columns], -1) for y in rows], -2)
    return Example(inputs={"x": x}, constants=constants, expected=expected, atol=1e-5)


@conforms("resize_nearest_neighbor", "upsample_nearest_neighbor")
def nearest(draw: Draw, op: str) -> Example:
    x = picture(draw)
    if op == "resize_nearest_neighbor":
        height, width = draw(st.integers(1, 7)), draw(st.integers(1, 7))
        constants = {"target_size_height": height, "target_size_width": width}
    else:
        scales = [one_of(draw, 1, 2, 3, 1.5, 2.5) for _ in range(2)]
        scales = [np.float32(s) for s in scales] if any(isinstance(s, float) for s in scales) else scales
        height, width = (int(s * n) for s, n in zip(scales, x.shape[-2:], strict=True))
        constants = {"scale_factor_height": scales[0], "scale_factor_width": scales[1]}
    rows, columns = ([i * n // m for i in range(m)] for n, m in zip(x.shape[-2:], (height, width), strict=True))
    return Example(inputs={"x": x}, constants=constants, expected=x[..., np.array(rows)[:, None], columns])


@conforms("upsample_bilinear")
def upsample_bilinear(draw: Draw, op: str, opset: str) -> Example:
    x = picture(draw)
    scales = [one_of(draw, 1, 2, 3) for _ in range(2)]
    height, width = (s * n for s, n in zip(scales, x.shape[-2:], strict=True))
    aligned = draw(st.booleans())
    constants = {"scale_factor_height": scales[0], "scale_factor_width": scales[1], "align_corners": aligned}
    mode = "STRICT_ALIGN_CORNERS" if aligned else "UNALIGN_CORNERS"
    if opset == "iOS16" and not aligned and draw(st.booleans()):
        constants["half_pixel_centers"] = False
        mode = "DEFAULT"
    return Example(inputs={"x": x}, constants=constants, expected=resized(wide(x), height, width, mode), atol=1e-5)


@conforms("crop")
def crop(draw: Draw, op: str) -> Example:
    x = picture(draw)
    cuts = []
    for size in x.shape[-2:]:
        first = draw(st.integers(0, size - 1))
        cuts.append([first, draw(st.integers(0, size - 1 - first))])
    (top, bottom), (left, right) = cuts
    expected = x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]
    return Example(inputs={"x": x}, constants={"crop_height": cuts[0], "crop_width": cuts[1]}, expected=expected)


def folded(position: int, size: int, padding: str) -> int | None:
    """The pixel that stands at a position outside; None for a constant border."""
    if 0 <= position < size:
        return position
    if padding == "constant":
        return None
    if padding == "border":
        return min(max(position, 0), size - 1)
    mirror = list(range(size)) + (list(range(size - 2, 0, -1)) if padding == "reflection" else list(range(size - 1, -1, -1)))
    return mirror[position % len(mirror)]


def turned(position: float, size: int, padding: str) -> float:
    """Walk back from the mirrors until inside."""
    low, high = (-0.5, size - 0.5) if padding == "symmetric" else (0.0, size - 1.0)
    if padding in {"reflection", "symmetric"}:
        while not low <= position <= high:
            position = 2 * low - position if position < low else 2 * high - position
    return position if padding == "constant" else min(max(position, 0.0), size - 1.0)


def sample(x: Array, y: float, z: float, padding: str, value: float, mode: str) -> Array:
    if mode == "nearest":  # a position outside is brought inside first: then a tie goes to the even pixel
        around = [(int(np.rint(turned(y, x.shape[1], padding))), int(np.rint(turned(z, x.shape[2], padding))), 1.0)]
    else:
        top, left = int(np.floor(y)), int(np.floor(z))
        around = [(top + a, left + b, (1 - abs(y - top - a)) * (1 - abs(z - left - b))) for a in (0, 1) for b in (0, 1)]
    total = np.zeros(x.shape[0])
    for row, column, share in around:
        r, c = folded(row, x.shape[1], padding), folded(column, x.shape[2], padding)
        total += share * (value if r is None or c is None else x[:, r, c])
    return total


@conforms("resample")
def resample(draw: Draw, op: str, opset: str) -> Example:
    size = draw(st.integers(2, 5)), draw(st.integers(2, 5))
    x = floats(draw, (draw(st.integers(1, 2)), draw(st.integers(1, 2)), *size))
    out = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    unit = one_of(draw, "unnormalized", "normalized_minus_one_to_one", "normalized_zero_to_one")
    padding = one_of(draw, "constant", "border", "reflection", "symmetric")
    aligned, mode = draw(st.booleans()), one_of(draw, "bilinear", "nearest")
    value = x.dtype.type(0.5 if padding == "constant" and draw(st.booleans()) else 0)
    low, high = {"unnormalized": (-2.5, 6.5), "normalized_minus_one_to_one": (-1.8, 1.8)}.get(unit, (-0.4, 1.4))
    where = floats(draw, (x.shape[0], *out, 2), low, high, dtype="float32")
    if unit == "unnormalized" and draw(st.booleans()):
        where = integers(draw, (x.shape[0], *out, 2), -2, 6)
    expected = np.zeros((x.shape[0], x.shape[1], *out))
    for n, i, j in itertools.product(range(x.shape[0]), *map(range, out)):
        z, y = (to_pixels(float(v), n_in, unit, aligned) for v, n_in in zip(where[n, i, j], (size[1], size[0]), strict=True))
        expected[n, :, i, j] = sample(wide(x[n]), y, z, padding, float(value), mode)
    constants = {
        "sampling_mode": mode, "padding_mode": padding, "padding_value": value, "coordinates_mode": unit,
        "align_corners": aligned,
    }  # fmt: skip
    return Example(inputs={"x": x, "coordinates": where}, constants=constants, expected=expected, atol=1e-4)


def to_pixels(value: float, size: int, unit: str, aligned: bool) -> float:
    """Normalized ends are the centres of the corner pixels if aligned, else their outer edges."""
    if unit == "unnormalized":
        return value
    share = (value + 1) / 2 if unit == "normalized_minus_one_to_one" else value
    return share * (size - 1) if aligned else share * size - 0.5


test_conforms, test_conforms_widely = both_of(__name__)
