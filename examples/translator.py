"""Translate: numbers in words, from English to German, where the ones come before the tens.

python examples/translator.py                       # on data that it makes, in a minute
python examples/translator.py pairs.tsv             # on yours: two columns, without a header
"""

import sys

import numpy as np

import gatewise as gw
from gatewise.config import TranslatorData, TranslatorTraining
from gatewise.training.observer import Observer

ENGLISH = {
    "ones": ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    "tens": ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"],
}
GERMAN = {
    "ones": ["ein", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"],
    "tens": ["zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"],
}


class Progress(Observer):
    """Prints what was decided, and each validation."""

    def on_message(self, message: str) -> None:
        """Print it."""
        print(f"  {message}")

    def on_validation(self, metrics, sample) -> None:
        """Print the perplexity and what is written by now."""
        print(f"  epoch {metrics['epoch']}: perplexity {metrics['perplexity']:.2f}; {sample['text'].splitlines()[0]}")


def in_words(number: int, language: dict[str, list[str]]) -> str:
    """A number from 21 to 999, without teens and tens, in words."""
    hundreds, rest = divmod(number, 100)
    ones, tens = language["ones"][rest % 10 - 1], language["tens"][rest // 10 - 2]
    german = language is GERMAN
    words = [language["ones"][hundreds - 1], "hundert" if german else "hundred"] if hundreds else []
    return " ".join([*words, *([ones, "und", tens] if german else [tens, ones])])


def pairs() -> tuple[list[str], list[str]]:
    """All such numbers, in an order that is the same each time."""
    numbers = [n for n in range(21, 1000) if n % 100 > 20 and n % 10]
    numbers = np.random.default_rng(0).permutation(numbers).tolist()
    return [in_words(n, ENGLISH) for n in numbers], [in_words(n, GERMAN) for n in numbers]


def main() -> None:
    """Fit, judge, translate."""
    if len(sys.argv) > 1:
        model = gw.Translator().fit(sys.argv[1], run="runs/translator", overwrite=True, observer=Progress())
        return print(model.result.evaluation.metrics["bleu"])
    english, german = pairs()
    quick = TranslatorTraining(epochs=30, learning_rate=0.005)
    model = gw.Translator(64, embedding_size=32, data=TranslatorData(tokenizer="word"), training=quick)
    model.fit(english[:500], german[:500], test=(english[500:], german[500:]), observer=Progress())
    (best, *_) = next(model.translate(["four hundred eighty seven"]))
    print(f"four hundred eighty seven: {best.text}")
    for piece, looks in zip(best.pieces, best.attention, strict=True):
        print(f"  {piece:8} looks at {best.source_pieces[int(looks.argmax())]}")
    bleu = model.result.evaluation.metrics["bleu"]
    return print(f"BLEU {bleu.value:.1f} ({bleu.low:.1f} to {bleu.high:.1f}) on numbers that it has not seen")


if __name__ == "__main__":
    main()
