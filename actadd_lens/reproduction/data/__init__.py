"""The published data sets of the Activation Addition paper, from files or from the hub.

A directory with a folder named like each data set (``imdb``, ``realtoxicityprompts``,
``openwebtext``, ``conceptnet``) serves all. Files are read as far as needed, in the order of their
names; nothing in them is executed.
"""

from actadd_lens.reproduction.data.corpora import ToxicityPrompt as ToxicityPrompt
from actadd_lens.reproduction.data.corpora import conceptnet as conceptnet
from actadd_lens.reproduction.data.corpora import imdb as imdb
from actadd_lens.reproduction.data.corpora import openwebtext as openwebtext
from actadd_lens.reproduction.data.corpora import pages as pages
from actadd_lens.reproduction.data.corpora import toxicity_prompts as toxicity_prompts
