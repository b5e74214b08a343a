"""Completions: sampling, decoding, clean and steered runs next to each other."""
