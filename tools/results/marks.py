"""Marked texts: what they state, what the records say instead, and which numbers are not marked."""

import re
from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any

from relin.study._result import Interval

Evaluate = Callable[[str, str], Any]
"""From a folder of docs/results and an expression to its value."""

_MARK = re.compile(r"<!-- *(of:|=|holds:|write:|measured:|setting\b|end\b)(.*?)-->", re.DOTALL)
_CODE = re.compile(r"^```.*?^```|`(?:[^`\n]|\n(?!\n))+`", re.DOTALL | re.MULTILINE)
_NUMBER = r"[+−-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_UNIT = "(?: %| points)?"
_MEAN, _INTERVAL = rf"(?<![\w.,·])(?P<mean>{_NUMBER}){_UNIT}", rf" ?\[(?P<low>{_NUMBER}), (?P<high>{_NUMBER})\]"
_STATED = re.compile(rf"(?:{_MEAN})?(?:{_INTERVAL})?{_UNIT}\Z")
_HELD = re.compile(r"^ *# holds: (.+)$", re.MULTILINE)
_EXEMPT = [
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"!\[[^]]*\]|\]\([^)]*\)|(?m:^#[^\n]*$)",  # what a picture shows, where a link leads, headings
        r"\b\d{4}-\d\d-\d\d( to \d+)?|\bJAX [\d.]+",
        r"\b\d+(-\d+)+\b|[^\W\d](-?\d+)+\w*",  # layers of a network; CIFAR-10, mnist1d, parity-20-3
        r"K (=|of|up to) \d+(,\d{3})*(( or | and |, )\d+)*",
        r"[Cc]laim \d",
        r"95 % (interval|confidence)s?",
    )
]


class Reading:
    """A text, read once from its beginning to its end."""

    def __init__(self, text: str, evaluate: Evaluate, place: str = ""):
        self._evaluate, self._place, self._folder = evaluate, place, ""
        self._whole, self.problems = text, list[str]()
        self.restated = self._python(text) if place.endswith(".py") else self._markdown(text)

    def _markdown(self, text: str) -> str:
        pieces, position = list[str](), 0
        marks = marks_of(text)
        for mark in marks:
            before = text[position : mark.start()]
            position = mark.end()
            kind, rest = mark[1], mark[2].strip()
            match kind:
                case "of:":
                    self._folder = rest
                case "=":
                    before = self._number(before, rest, mark)
                case "holds:":
                    self._claim(rest, mark)
                case "write:":
                    end = self._end(marks, mark)
                    stands, position = text[mark.end() : end], end
                    pieces += [before, mark[0], self._block(stands, rest, mark)]
                    continue
                case "measured:":
                    self._end(marks, mark)
                    position = mark.end()
            pieces += [before, mark[0]]
        return "".join([*pieces, text[position:]])

    def _python(self, text: str) -> str:
        for held in _HELD.finditer(text):
            self._claim(held[1], held)
        return text

    def _end(self, marks: Iterator[re.Match[str]], begun: re.Match[str]) -> int:
        end = next(marks, None)
        if end is None or end[1] != "end":
            self._problem(begun, f"`{begun[0]}` has no `<!-- end -->`")
            return begun.end() if end is None else end.start()
        return end.start()

    def _value(self, expression: str, mark: re.Match[str]) -> Any:
        try:
            return self._evaluate(self._folder, expression)
        except Exception as error:
            self._problem(mark, f"`{expression}` has no value: {error}")
            return None

    def _number(self, before: str, expression: str, mark: re.Match[str]) -> str:
        stated, value = _STATED.search(before), self._value(expression, mark)
        if value is None:
            return before
        if stated is None or not any(stated.groups()) or (stated["low"] and not isinstance(value, Interval)):
            self._problem(mark, f"no number before `{expression}`, or an interval where the records have none")
            return before
        parts = value if isinstance(value, Interval) else Interval(mean=value, low=value, high=value)
        right = stated[0]
        for name in ("high", "low", "mean"):  # from the right, so that places stay as they are
            if stated[name] is not None:
                start, stop = (place - stated.start() for place in stated.span(name))
                right = right[:start] + as_stated(stated[name], getattr(parts, name)) + right[stop:]
        if right != stated[0]:
            self._problem(mark, f"states {stated[0].strip()}, the records say {right.strip()}: {expression}")
        return before[: stated.start()] + right

    def _claim(self, expression: str, mark: re.Match[str]) -> None:
        value = self._value(expression, mark)
        if value is not None and not value:
            self._problem(mark, f"what is said here is not so in the records: {expression}")

    def _block(self, stands: str, expression: str, mark: re.Match[str]) -> str:
        value = self._value(expression, mark)
        written = stands if value is None else f"\n\n{value}\n\n"
        if stands != written:
            pairs = zip_longest(stands.strip().split("\n"), written.strip().split("\n"), fillvalue="")
            stated, said = next((pair for pair in pairs if pair[0] != pair[1]), ("", ""))
            self._problem(mark, f"there stands {stated!r}, the records make it {said!r}: {expression}")
        return written

    def _problem(self, mark: re.Match[str], what: str) -> None:
        self.problems.append(f"{self._place}:{line_of(self._whole, mark.start())}: {what}")


def as_stated(stated: str, value: float) -> str:
    """A value with the decimals, the sign and the commas of a number that stands; that one itself if it is right."""
    decimals = len(stated.partition(".")[2])
    number = float(stated.replace(",", "").replace("−", "-"))
    if abs(number - value) <= 0.5 * 10.0**-decimals + 1e-6:  # of two roundings of a tie, either
        return stated
    commas = "," if "," in stated else ""
    text = f"{round(value, decimals) + 0.0:{commas}.{decimals}f}".replace("-", "−")
    return f"+{text}" if stated.startswith("+") and value >= 0 else text


def unmarked(text: str) -> list[tuple[int, str]]:
    """Lines and numbers that nothing marks: neither as a quantity of the records nor as a setting."""
    text, position = _blank(text, [code.span() for code in _CODE.finditer(text)]), 0
    spans, marks = list[tuple[int, int]](), marks_of(text)
    for mark in marks:
        start, before = mark.start(), text[position : mark.start()]
        if mark[1] == "=":
            stated = _STATED.search(before)
            start = position + stated.start() if stated else start
        elif mark[1] == "setting":
            clauses = [position, *(position + end.end() for end in re.finditer(r"[.:]\s|\n\n", before))]
            start = clauses[-1]
        position = mark.end()
        if mark[1] in ("write:", "measured:"):
            end = next(marks, None)
            position = end.end() if end else position
        spans.append((start, position))
    text = _blank(text, spans)
    for pattern in _EXEMPT:
        text = _blank(text, [found.span() for found in pattern.finditer(text)])
    return [(line_of(text, found.start()), found[0]) for found in re.finditer(_NUMBER, text)]


def marks_of(text: str) -> Iterator[re.Match[str]]:
    """The marks of a text, those in code aside, which explain how to mark."""
    code = [found.span() for found in _CODE.finditer(text)]
    return (mark for mark in _MARK.finditer(text) if not any(start <= mark.start() < end for start, end in code))


def line_of(text: str, position: int) -> int:
    return 1 + text.count("\n", 0, position)


def _blank(text: str, spans: list[tuple[int, int]]) -> str:
    for start, end in spans:
        text = text[:start] + re.sub(r"[^\n]", " ", text[start:end]) + text[end:]
    return text
