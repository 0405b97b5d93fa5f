"""Detection of mentions of prior studies in one sentence."""

from cxrreport.reports.priors.detection.context import context_of, without_context
from cxrreport.reports.priors.detection.mentions import mentions_prior, statement_on_prior, without_future
