"""Scores of reports against references: RadGraph F1, text overlap, findings, intervals by patient, controls."""
