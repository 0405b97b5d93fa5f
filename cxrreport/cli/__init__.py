"""The command line: parse, call `runs`, print. The only place that prints.

A module of commands adds them to `app` when it is imported; the order here is the order of `cxrreport --help`.
"""

from cxrreport.cli import commands, compare, export, merge, plan, demo, serving, machine, tools  # noqa: I001, F401
from cxrreport.cli.app import app as app
