"""`python -m cxrreport`."""

from cxrreport.cli import app

app(prog_name="cxrreport")
