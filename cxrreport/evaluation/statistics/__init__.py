"""Scores of a set of studies, patient-level bootstrap intervals, paired tests and risk-coverage curves."""

from cxrreport.evaluation.statistics.measures import FORMS, Floats, Measure, Score, f1_of_counts, form, mean, ratio
from cxrreport.evaluation.statistics.resampling import CONFIDENCE, PatientBootstrap, holm, p_value
