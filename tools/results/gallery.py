"""The studies of docs/results as cards of Markdown, from what `relin gallery` shows of them."""

import re
from collections.abc import Iterable

from tools.results.quantities import RESULTS, study

from relin.report._gallery import Card, answered, by_question
from relin.report._page import parted

_TITLES = ("README.md", "table.csv")
"""What a card leads to: the text of a study, or its numbers."""


def gallery(folders: Iterable[str]) -> str:
    """A heading for each question, below it a card for each study: specimen, verdict, first figure that is stored."""
    cards = [answered(RESULTS / folder, *study(folder)) for folder in folders]
    return "\n\n".join(f"## {question}\n\n{_cards(inside)}" for question, inside in by_question(cards))


def _cards(cards: Iterable[Card]) -> str:
    inside = "\n\n".join(map(_card, cards))
    return f'<div class="grid cards" markdown>\n\n{inside}\n\n</div>'


def _card(card: Card) -> str:
    name = card.folder.name
    target = next(f"{name}/{title}" for title in _TITLES if (card.folder / title).is_file())
    answer, conditions = parted(card.words.replace("*", "\\*").replace("<", "&lt;"))
    lines = [
        f"-   [**{card.specimen}**]({target})",
        f"**{answer.removesuffix(';')}**" + (f"\n    {conditions}" if conditions else ""),
    ]
    plots = [plot for plot in card.plots if (card.folder / "figures" / f"{plot.name}.png").is_file()]
    if plots:
        title = re.sub(r"[\[\]]", "", plots[0].title)
        lines.append(f"[![{title}]({name}/figures/{plots[0].name}.png)]({target})")
    return "\n\n    ".join(lines)
