"""A self-contained HTML page to read images, generated and reference reports and their scores side by side."""

from cxrreport.review.page import write_page
