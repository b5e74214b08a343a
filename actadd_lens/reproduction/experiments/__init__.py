"""The experiments of Turner et al. (2308.10248) and of its reviewers, one a file.

Each file has a docstring with its question, set-up and criteria, what the paper reports, what
differs, and ``run(setup)``. ``catalogue`` lists them, ``running`` runs them, so that they can be
interrupted, and writes the reports.
"""
