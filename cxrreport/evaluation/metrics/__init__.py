"""Text metrics and label metrics, and the interface that plug-in metrics implement."""

from cxrreport.evaluation.metrics.interface import GROUP, Metric, Pairs, check, load, metric, plugged_in

__all__ = ["GROUP", "Metric", "Pairs", "check", "load", "metric", "plugged_in"]
