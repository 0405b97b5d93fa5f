"""Versions of installed packages, and errors about those that this package does not support."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata

from packaging.requirements import Requirement

from cxrreport.errors import UnsupportedVersionError


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Versions of packages by name, without those that are not installed."""
    versions = {}
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def listed(packages: Iterable[str]) -> str:
    """Names and versions of installed packages, for messages."""
    return ", ".join(f"{name} {version}" for name, version in installed(packages).items())


def requirements() -> list[Requirement]:
    """The requirements of this package, without its extras; none if it runs from source."""
    try:
        lines = metadata.requires("cxrreport") or ()
    except metadata.PackageNotFoundError:
        return []
    found = map(Requirement, lines)
    return [each for each in found if each.marker is None or each.marker.evaluate({"extra": ""})]


@contextmanager
def supported_names(packages: Sequence[str]) -> Iterator[None]:
    """Translate a name that is missing from a library.

    Args:
        packages: the libraries whose versions decide.

    Raises:
        UnsupportedVersionError: an import or an attribute within the block does not exist.
    """
    try:
        yield
    except (ImportError, AttributeError) as error:
        raise unsupported(str(error), packages) from error


def unsupported(reason: str, packages: Sequence[str]) -> UnsupportedVersionError:
    """The error for a name that the installed versions spell differently; it states the supported ones."""
    ranges = [f"{one.name}{one.specifier}" for one in requirements() if one.name in packages]
    supported = ", ".join(ranges) or "supported ones"
    return UnsupportedVersionError(f"{reason}; installed are {listed(packages)}; install {supported}")
