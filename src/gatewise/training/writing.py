"""A prompt in, text out: between a language model's tokens and what people read."""

from collections.abc import Iterator, Sequence

from gatewise.config import TextConfig
from gatewise.data.text import clean
from gatewise.data.tokenizers import Tokenizer
from gatewise.errors import PromptError
from gatewise.models.decoding import generate
from gatewise.models.language_model import LanguageModelNetwork

MOST_NAMED = 10  # unknown characters that an error names


def read_prompt(prompt: str, tokenizer: Tokenizer, data: TextConfig) -> list[int]:
    """The tokens of a prompt, cleaned as the training text was; at least one.

    An empty prompt begins as a line does: the model reads a line break, or a space if it knows no line break, or
    else its most frequent token.

    Raises PromptError, naming them, for characters (or words) that the model never saw.
    """
    prompt = clean(prompt, data)
    if unknown := tokenizer.unknown_characters(prompt):
        named = ", ".join(map(repr, unknown[:MOST_NAMED]))
        more = f" and {len(unknown) - MOST_NAMED} more" if len(unknown) > MOST_NAMED else ""
        raise PromptError(f"prompt: the model never saw {named}{more}; leave that out")
    for text in (prompt, "\n", " "):
        tokens = tokenizer.encode(text).tolist()
        if tokens and not tokenizer.unknown_characters(text):
            return tokens
    return [0 if tokenizer.unknown_id is None else tokenizer.unknown_id + 1]  # they are sorted by falling frequency


def write(
    network: LanguageModelNetwork,
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    length: int,
    *,
    temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int,
) -> Iterator[str]:
    """The text that continues the prompt, in pieces, each as soon as it is complete; never the unknown token."""
    stream = tokenizer.decode_stream()
    for token in prompt:
        stream.push(token)
    tokens = generate(
        network,
        prompt,
        length,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        forbidden=tokenizer.unknown_id,
    )
    for token in tokens:
        if piece := stream.push(token):
            yield piece
    if rest := stream.finish():
        yield rest
