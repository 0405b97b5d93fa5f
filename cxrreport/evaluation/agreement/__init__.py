"""Agreement of readers with each other, and of metrics with readers."""

from cxrreport.evaluation.agreement.statistics import Agreement, agreement
