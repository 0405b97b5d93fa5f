"""The command line: parse, call `runs`, print. No other package prints.

Each module adds its commands to `app` when it is imported, in the order of `cxrreport --help`.
"""

from cxrreport.cli import pipeline, pacs, evaluation, models, demo, environment  # noqa: I001
from cxrreport.cli.app import app as app
