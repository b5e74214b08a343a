"""What a model makes of given text: log-probabilities, perplexity, facts, the logit lens."""
