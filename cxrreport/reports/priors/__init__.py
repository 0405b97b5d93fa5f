"""Mentions of prior studies: detection, and removal by rules."""

from cxrreport.reports.priors.mentions import mentions_prior
from cxrreport.reports.priors.removal import Edited, edit_sentence, remove_priors

__all__ = ["Edited", "edit_sentence", "mentions_prior", "remove_priors"]
