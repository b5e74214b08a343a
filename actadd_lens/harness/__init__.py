"""What the experiments share: material to steer on, measured cells, criteria, and outcomes.

``sizes`` says how much is measured; ``concepts`` what a model is asked, and ``bundled`` and
``real`` make it, for the testbed and for hub models with real data; ``setup`` measures;
``readings`` takes figures out of what was measured; ``criteria`` holds them against what the
docstring of the experiment says; ``outcome`` is what an experiment gives, on disk too, and
``report`` writes it down. ``work`` counts what it costs.
"""
