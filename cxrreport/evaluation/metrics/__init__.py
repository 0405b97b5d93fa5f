"""Text and label metrics, and the interface of plug-in metrics."""

from cxrreport.evaluation.metrics.interface import GROUP, Metric, Pairs, check, load, metric, plugged_in
from cxrreport.evaluation.metrics.label_agreement import finding_scorer, finding_scores
