"""The HTML page on which people read generated reports beside their radiographs."""

from cxrreport.review.blind import blinded as blinded
from cxrreport.review.blind import write_key as write_key
from cxrreport.review.evaluation import read_evaluation as read_evaluation
from cxrreport.review.page import write_page as write_page
from cxrreport.review.predictions import read_predictions as read_predictions
