"""Checklists that journals ask for, filled from the records of the runs."""

from cxrreport.reporting.checklist import Answer, answers
from cxrreport.reporting.documents import write_documents
from cxrreport.reporting.study import Study, read_study
