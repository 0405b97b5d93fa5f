"""Mentions of prior studies: detection, removal by rules, and the guards that every edit must pass."""

from cxrreport.reports.priors.detection import mentions_prior
from cxrreport.reports.priors.guards import passes
from cxrreport.reports.priors.removal import Edited, check_proposal, edit_sentence, prior_sentences, remove_priors

__all__ = ["Edited", "check_proposal", "edit_sentence", "mentions_prior", "passes", "prior_sentences", "remove_priors"]
