"""The paper's experiments: harness, experiments, data sets and the settings of the paper."""
