"""Numbers as a reader sees them: one form for the terminal, the page and the notebook.

Three significant digits, a unit, and no rounding that flatters: 99.997 % is never shown as 100 %.
"""

from __future__ import annotations

import datetime as dt
import math

__all__ = [
    "NOTHING",
    "amount",
    "count",
    "decibels",
    "duration",
    "large",
    "measured",
    "megabytes",
    "milliseconds",
    "moment",
    "points",
    "probability",
    "ratio",
    "share",
    "significant",
    "size",
    "steps",
]

NOTHING = "–"
"""Stands where there is no number."""

_COUNT_UNITS = ("", "k", "M", "G", "T")
_SIZE_UNITS = ("B", "kB", "MB", "GB", "TB")


def significant(value: float) -> str:
    """Three significant digits, thousands separated, never in exponents.

    >>> significant(0.41234), significant(41.234), significant(4123.4)
    ('0.412', '41.2', '4,123')
    """
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(float(f"{value:.2e}"))))
    decimals = min(max(2 - magnitude, 0), 9)
    return f"{value:,.{decimals}f}"


def milliseconds(value: float | None) -> str:
    """A time in milliseconds.

    >>> milliseconds(0.41234)
    '0.412 ms'
    """
    return NOTHING if value is None else f"{significant(value)} ms"


def duration(seconds: float) -> str:
    """A time that a person waited.

    >>> duration(0.0421), duration(8.21), duration(754.0)
    ('42 ms', '8.2 s', '12 min 34 s')
    """
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def size(size_bytes: float | None) -> str:
    """A size in decimal units.

    >>> size(999), size(51_300), size(3_612_345)
    ('999 B', '51.3 kB', '3.61 MB')
    """
    if size_bytes is None:
        return NOTHING
    value, unit = float(size_bytes), 0
    while value >= 999.5 and unit < len(_SIZE_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} B" if unit == 0 else f"{significant(value)} {_SIZE_UNITS[unit]}"


def megabytes(size_bytes: float) -> float:
    """Bytes as decimal megabytes, for axes."""
    return size_bytes / 1e6


def share(value: float | None, *, decimals: int = 2) -> str:
    """A share in percent; only exactly 1 is shown as 100 %, only exactly 0 as 0 %.

    >>> share(1.0), share(0.99999), share(0.8731, decimals=1), share(0.000001), share(0.0)
    ('100 %', '>99.99 %', '87.3 %', '<0.01 %', '0 %')
    """
    if value is None:
        return NOTHING
    if value in {0.0, 1.0}:
        return f"{100 * value:.0f} %"
    text = f"{100 * value:.{decimals}f}"
    step = 10.0**-decimals
    if 0 < value < 1 and float(text) >= 100:
        return f">{100 - step:.{decimals}f} %"
    if 0 < value < 1 and float(text) <= 0:
        return f"<{step:.{decimals}f} %"
    return f"{text} %"


def points(value: float | None, *, signed: bool = False) -> str:
    """Hundredths of the metric.

    >>> points(0.1234), points(0.1234, signed=True), points(-0.001, signed=True)
    ('0.12', '+0.12', '0.00')
    """
    if value is None:
        return NOTHING
    rounded = round(value, 2) + 0.0
    return f"{rounded:+.2f}" if signed and rounded else f"{rounded:.2f}"


def decibels(value: float | None) -> str:
    """A signal-to-noise ratio; None means that there is no noise.

    >>> decibels(25.34), decibels(None)
    ('25.3 dB', 'identical')
    """
    return "identical" if value is None else f"{value:.1f} dB"


def ratio(value: float | None) -> str:
    """How many times, to the hundredth at least.

    >>> ratio(2.1345), ratio(0.9456), ratio(None)
    ('2.13×', '0.95×', '–')
    """
    if value is None:
        return NOTHING
    return f"{value:.2f}×" if 0.1 <= value < 1 else f"{significant(value)}×"


def count(value: int | None) -> str:
    """A whole number, thousands separated.

    >>> count(12345)
    '12,345'
    """
    return NOTHING if value is None else f"{value:,}"


def large(value: int) -> str:
    """A count of many things, three digits of it.

    >>> large(987), large(10_322_048), large(1_814_073_344)
    ('987', '10.3 M', '1.81 G')
    """
    amount, unit = float(value), 0
    while amount >= 999.5 and unit < len(_COUNT_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{value}" if unit == 0 else f"{significant(amount)} {_COUNT_UNITS[unit]}"


def steps(value: int) -> str:
    """A difference on an integer grid.

    >>> steps(0), steps(1)
    ('0 steps', '1 step')
    """
    return f"{value:,} step" if value == 1 else f"{value:,} steps"


def amount(value: object) -> str:
    """Any value a step recorded.

    >>> amount(33415), amount(31.4192), amount(["a", 2]), amount({"conv": 3})
    ('33,415', '31.4', 'a, 2', 'conv: 3')
    """
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: NOTHING}[value]
    if isinstance(value, int):
        return count(value)
    if isinstance(value, float):
        return significant(value)
    if isinstance(value, list | tuple):
        return ", ".join(amount(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name}: {amount(item)}" for name, item in value.items())
    return str(value)


def moment(written: str) -> str:
    """A moment as a reader wants it, in UTC; anything that is not ISO 8601 stays as it is.

    >>> moment("2026-11-22T09:30:00+00:00")
    '2026-11-22 09:30 UTC'
    """
    try:
        found = dt.datetime.fromisoformat(written)
    except ValueError:
        return written
    return found.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M UTC") if found.tzinfo else written


def measured(value: float, unit: str) -> str:
    """A measurement's value in its unit.

    >>> measured(0.8912, "share"), measured(51300, "bytes"), measured(0.0941, "ms"), measured(1142048.0, "MACs")
    ('89.12 %', '51.3 kB', '0.0941 ms', '1,142,048 MACs')
    """
    if unit == "share":
        return share(value)
    if unit == "bytes":
        return size(value)
    if unit == "points":
        return f"{points(value)} pts"
    words = f"{value:,.0f}" if value == round(value) and abs(value) >= 1 else significant(value)
    return words if unit == "ratio" else f"{words} {unit}"


def probability(value: float | None) -> str:
    """A p-value.

    >>> probability(0.7539), probability(0.00002)
    ('0.75', '<0.001')
    """
    if value is None:
        return NOTHING
    return "<0.001" if value < 0.001 else f"{value:.2g}"
