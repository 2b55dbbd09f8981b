"""Numbers and names in words, as reports and claims write them."""

import math
from collections.abc import Callable

MINUS = "\N{MINUS SIGN}"
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def percent(fraction: float | None) -> str:
    """Write a fraction in percent."""
    return "—" if fraction is None or math.isnan(fraction) else f"{100 * fraction:.2f} %"


def points(fraction: float | None) -> str:
    """Write a difference of fractions in points, with its sign."""
    return "—" if fraction is None else f"{100 * fraction:+.2f}".replace("-", MINUS)


def interval(low: float | None, high: float | None, text: Callable[[float], str] = points) -> str:
    """Write the ends of an interval."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return "—"
    return f"{text(low)} … {text(high)}"


def number(count: int) -> str:
    """Write a small number as a word."""
    return NUMBERS[count] if count < len(NUMBERS) else f"{count:,}"


def within(name: str) -> str:
    """Write a name within a sentence: its first letter small, an abbreviation as it is."""
    return name if name[1:2].isupper() else f"{name[0].lower()}{name[1:]}"


def many(count: int, noun: str) -> str:
    """Write a count of things."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def between(low: str, high: str) -> str:
    """Write a range, or the one value that it holds."""
    return low if low == high else f"{low} to {high}"


def power_of_ten(value: float) -> str:
    """Write a number, a power of ten as such: 0.0001 as 10⁻⁴, 0.0002 as it is."""
    exponent = round(math.log10(value)) if value > 0 else 0
    if exponent == 0 or value != 10.0**exponent:
        return f"{value:g}"
    return "10" + str(exponent).translate(SUPERSCRIPT)
