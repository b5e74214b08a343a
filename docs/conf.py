"""Sphinx settings of the documents."""

from actadd_lens import __version__

project = "actadd-lens"
author = "actadd-lens contributors"
copyright = author
release = __version__
extensions = ["myst_parser"]
html_theme = "furo"
myst_heading_anchors = 3
exclude_patterns = ["images"]
