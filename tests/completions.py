"""Completions made by hand."""

from actadd_lens.generation.completions import Completion


def completions(*texts: str, prompt: str = "A prompt") -> list[Completion]:
    return [Completion(prompt, text, (), (), index, 0) for index, text in enumerate(texts)]
