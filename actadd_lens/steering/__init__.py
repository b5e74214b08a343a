"""How it acts: interventions, positions, and the hooks of a steered pass."""
