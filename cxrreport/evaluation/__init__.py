"""Scores of generated reports against references, with patient-level intervals, beside baselines.

Public modules: `evaluate`, `compare`, `published`, `conditions`, `results`, `tables`; public packages: `metrics`,
`clinical`, `radgraph`, `statistics`. They are imported one by one, because some load torch.
"""
