"""The published data sets of the Activation Addition paper, from files or from the hub.

Each loader takes a ``source``: nothing for the data set's name on the Hugging Face hub; a file or a
directory, read offline; a directory with a folder named like the data set (``imdb``,
``realtoxicityprompts``, ``openwebtext``, ``conceptnet``), so that one directory serves all; or
another name on the hub. Files are read as far as needed, in the order of their names; nothing in
them is executed.
"""

from actadd_lens.reproduction.data.conceptnet import conceptnet as conceptnet
from actadd_lens.reproduction.data.imdb import imdb as imdb
from actadd_lens.reproduction.data.openwebtext import openwebtext as openwebtext
from actadd_lens.reproduction.data.openwebtext import pages as pages
from actadd_lens.reproduction.data.toxicity_prompts import ToxicityPrompt as ToxicityPrompt
from actadd_lens.reproduction.data.toxicity_prompts import toxicity_prompts as toxicity_prompts
