"""Functions that users provide: rewriters of reports and metrics.

Each declares with an attribute `remote` whether it sends text to another machine; one that does is refused unless the
user allows it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from cxrreport.errors import SettingsError


def check_allowed(function: Callable[..., Any], label: str, *, allow_remote: bool) -> None:
    """Refuse a function that sends text to another machine, unless the user allows it.

    Args:
        function: a function that receives the text of reports.
        label: its name in error messages.
        allow_remote: whether the user allows it (`--allow-remote`).

    Raises:
        SettingsError: the function is remote and not allowed, or does not declare whether it is remote.
    """
    remote = getattr(function, "remote", None)
    if not isinstance(remote, bool):
        raise SettingsError(
            f"{label} does not declare whether it sends reports to another machine: set its attribute 'remote' to "
            "True or False"
        )
    if remote and not allow_remote:
        raise SettingsError(
            f"{label} sends reports to another machine; add --allow-remote (or allow_remote: true) if the terms of "
            "the data permit that"
        )


def load_function(spec: str, field: str) -> Callable[..., Any]:
    """Import `module:function`.

    Raises:
        SettingsError: `spec` has another form, or there is no such function.
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
