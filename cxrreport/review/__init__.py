"""The HTML page on which people read generated reports beside their radiographs."""

from cxrreport.review.blind import blinded, write_key
from cxrreport.review.evaluation import read_evaluation
from cxrreport.review.locked import key_file, locked_page
from cxrreport.review.page import write_page
from cxrreport.review.predictions import read_predictions
from cxrreport.review.priors import read_priors
