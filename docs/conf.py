"""Sphinx settings of the documents."""

import logging
import os
import shutil
import sys
from pathlib import Path

from actadd_lens import __version__

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for signatures.py
# Pages that are run begin in a directory of their own, quietly; what they print stands in the page.
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"  # how long a cell takes is not part of a page
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two pages are run side by side

# Importing every room for the reference sets up logging of TransformerLens's own.
logging.getLogger("traitlets").setLevel(logging.WARNING)

# The notebooks stand beside the documents; their pages are made of a copy of them.
shutil.rmtree(HERE / "notebooks", ignore_errors=True)
shutil.copytree(
    HERE.parent / "notebooks",
    HERE / "notebooks",
    ignore=lambda _, names: {name for name in names if not name.endswith(".ipynb")},
)

project = "actadd-lens"
author = "actadd-lens contributors"
copyright = author
release = __version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
    "signatures",
]
exclude_patterns = ["images"]
default_role = "code"  # a name in single backticks, as in some docstrings
smartquotes_action = "D"  # dashes alone: "front" is a value, with straight quotes
nitpicky = True
nitpick_ignore_regex = [
    # Types of others, which are found offline nowhere.
    (
        "py:class",
        r"(collections\.abc|contextlib|dataclasses|jaxtyping|matplotlib|os|pandas|pathlib|torch|transformer_lens)\..*"
        r"|AbstractContextManager|Path|Tensor|ndarray"
        r"|actadd_lens\.metrics\.registry\.Registered",  # a type variable
    ),
    # Rooms within, in the signatures of what stands in the reference.
    ("py:class", r"actadd_lens\.(harness|sweeps|vectors|models\.tokens|steering\.positions)\..*"),
]

html_theme = "furo"
html_title = "actadd-lens"
html_search_scorer = str(HERE / "scorer.js")
html_static_path = ["_static"]
html_css_files = ["notebook.css"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_excludepatterns = ["notebooks/*"]  # these are committed with their output
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_output_stderr = "remove-warn"
nb_merge_streams = True

autodoc_typehints_format = "short"  # DataFrame, not pandas.DataFrame
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
python_display_short_literal_types = True  # 'mean' | 'last', not Literal['mean', 'last']
maximum_signature_line_length = 80
napoleon_numpy_docstring = False
toc_object_entries_show_parents = "hide"

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
