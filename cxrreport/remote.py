"""What may send text away says so, and is refused unless the user allows it.

A function that is handed in (a rewriter of reports, a metric) declares itself by an attribute `remote`: True where it
sends what it is given to another machine, False where it does not.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from cxrreport.errors import SettingsError


def check_allowed(function: Callable[..., Any], what: str, *, allow_remote: bool) -> None:
    """Refuse a function that sends text away, unless that is allowed.

    Args:
        function: what will be given the text of reports.
        what: its name in messages.
        allow_remote: the user's word, `--allow-remote`.

    Raises:
        SettingsError: it is remote and not allowed, or has to say whether it is and does not.
    """
    remote = getattr(function, "remote", None)
    if not isinstance(remote, bool):
        raise SettingsError(
            f"{what} does not say whether it sends reports to another machine: set its attribute 'remote' to True or "
            "False"
        )
    if remote and not allow_remote:
        raise SettingsError(
            f"{what} sends reports to another machine; give --allow-remote (or allow_remote: true) if the data's "
            "terms permit that"
        )


def load_function(spec: str, field: str) -> Callable[..., Any]:
    """Import `module:function`.

    Raises:
        SettingsError: the text is not of that form, or there is no such function.
    """
    module_name, sign, name = spec.partition(":")
    if not (module_name and sign and name):
        raise SettingsError(f"{field}: write module:function, e.g. my_rewriter:rewrite")
    try:
        function = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise SettingsError(
            f"{field}: {spec} cannot be imported ({type(error).__name__}); its module must be on PYTHONPATH"
        ) from error
    if not callable(function):
        raise SettingsError(f"{field}: {spec} is not a function")
    loaded: Callable[..., Any] = function
    return loaded
