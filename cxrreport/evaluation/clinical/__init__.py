"""What reports state about CheXpert's 14 findings, and how far two reports agree."""

from cxrreport.evaluation.clinical.change_scores import HALLUCINATED_CHANGE, changes_by_group
from cxrreport.evaluation.clinical.change_scores import METRIC as CHANGES
from cxrreport.evaluation.clinical.chexpert import mentions, reading
from cxrreport.evaluation.clinical.comparison import (
    METRIC,
    SCORED,
    SCORED_PLACES,
    Compared,
    ReadReports,
    by_finding,
    compare,
    stated_positive,
    write_findings,
)
from cxrreport.evaluation.clinical.readings import METRIC as READINGS
from cxrreport.evaluation.clinical.severity import severity_metric
from cxrreport.evaluation.clinical.vocabulary import Finding
