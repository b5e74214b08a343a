"""How a model is run: the one package that touches the insides of TransformerLens."""
