"""Mentions of prior studies: detection, removal by rules, and the guards that every edit must pass."""

from cxrreport.reports.priors.detection import mentions_prior, statement_on_prior
from cxrreport.reports.priors.guards import passes
from cxrreport.reports.priors.removal import Edited, check_proposal, edit_sentence, prior_sentences, remove_priors
from cxrreport.reports.priors.vocabulary import CHANGE_WORDS, MENTION_WORDS, PLACES, STATES

__all__ = [
    "CHANGE_WORDS",
    "MENTION_WORDS",
    "PLACES",
    "STATES",
    "Edited",
    "check_proposal",
    "edit_sentence",
    "mentions_prior",
    "passes",
    "prior_sentences",
    "remove_priors",
    "statement_on_prior",
]
