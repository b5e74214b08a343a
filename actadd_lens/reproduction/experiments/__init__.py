"""The experiments of Turner et al. (2308.10248) and of its reviewers; those of one kind in a file.

Each is registered with ``@experiment``: its question, design and criteria as data, and the
functions that measure, judge, tabulate and draw. ``registry`` imports all files in this folder.
"""
