"""The files below the input folder, each as a file to read or as a row of the exclusion log."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cxrreport.errors import InputError
from cxrreport.ingestion.images import refused_by_system
from cxrreport.records import Exclusion, Reason
from cxrreport.storage.decoding import parse_json
from cxrreport.storage.job_arrays import parts_folder

_STATE_FILES = tuple(f"{command}.json" for command in ("ingest", "train", "generate", "evaluate", "export", "compare"))
_SPECIAL = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a device", stat.S_IFCHR: "a device"}
_COMPANION = re.compile(
    r"\.(?:txt|csv|tsv|[ct]sv\.gz|json|jsonl|parquet|xlsx|xlsm|xml|html|md)$|(?:^|/)(?:LICENSE|README|SHA256SUMS)[^/]*$",
    re.I,
)

Identity = tuple[int, int]
"""Device and inode."""


@dataclass(slots=True)
class Files:
    """What a folder contains.

    Args:
        files: regular files in a fixed order, each with its path relative to the input folder, with `/`.
        excluded: everything else except folders that were listed.
    """

    files: list[tuple[Path, str]] = field(default_factory=list)
    excluded: list[Exclusion] = field(default_factory=list)
    _visited: set[Identity] = field(default_factory=set)

    def exclude(self, source: str, reason: Reason, detail: str) -> None:
        """Add a row to the exclusion log."""
        self.excluded.append(Exclusion(source=source, reason=reason, detail=detail))


_MAX_RECORD = 1 << 20  # characters of the settings of a command


def list_files(root: Path, output: Path) -> Files:
    """List everything below `root`. Links are followed, and nothing is opened except state files.

    Folders are listed before links to them, and each folder is listed once, so that links cannot form a loop. The
    folder `output`, an output folder that contains it, and the parts of their job arrays are skipped without a row.

    Raises:
        InputError: `root` cannot be listed.
    """
    result = Files()
    # `generate` ingests into a folder within its output, and so do the jobs of its array.
    arrays = [parts_folder(output), parts_folder(output.resolve().parent)]
    own = [output, *arrays, *filter(_is_output_folder, output.resolve().parents)]
    result._visited.update(identity for path in own if (identity := _identity(path)))
    links: list[Path] = []
    try:
        _list_folder(root, root, result, links)
    except OSError as error:
        raise InputError(f"{root}: the folder cannot be listed ({error.strerror})") from error
    seen = {identity for path, _ in result.files if (identity := _identity(path))} if links else set()
    while links:
        waiting, links = sorted(links), []
        for link in waiting:
            _follow(link, root, result, links, seen)
    result.files.sort(key=lambda entry: entry[1])
    return result


def is_companion(source: str) -> bool:
    """True for reports, tables and documents of a data set, which its layout does not count as images."""
    return _COMPANION.search(source) is not None


def is_regular(path: Path) -> bool:
    """True for a file that can be opened without blocking; links are followed.

    Raises:
        OSError: the file system fails.
    """
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if refused_by_system(error).reason == Reason.UNAVAILABLE:
            raise
        return False


def _list_folder(folder: Path, root: Path, result: Files, links: list[Path]) -> None:
    """List a folder and those below it.

    Raises:
        OSError: `folder` is the root and cannot be listed, or the file system fails.
    """
    pending = [folder]
    while pending:
        here = pending.pop()
        try:
            identity = _identity(here)
            with os.scandir(here) as entries:
                names = sorted(entry.name for entry in entries)
        except OSError as error:
            if here == root or refused_by_system(error).reason == Reason.UNAVAILABLE:
                raise
            detail = f"a folder that cannot be listed ({error.strerror})"
            result.exclude(_relative(here, root), Reason.NOT_READABLE, detail)
            continue
        if identity is not None:
            result._visited.add(identity)
        if here != root and _is_output_folder(here):
            result.exclude(_relative(here, root), Reason.NOT_DICOM, "an output folder of cxrreport")
            continue
        for name in names:
            path = here / name
            try:
                mode = path.lstat().st_mode
            except OSError as error:
                refusal = refused_by_system(error)
                if refusal.reason == Reason.UNAVAILABLE:
                    raise
                result.exclude(_relative(path, root), Reason.NOT_READABLE, refusal.detail)
                continue
            if stat.S_ISLNK(mode):
                links.append(path)
            elif stat.S_ISDIR(mode):
                if _identity(path) not in result._visited:
                    pending.append(path)
            else:
                _add(path, mode, root, result)


def _follow(link: Path, root: Path, result: Files, links: list[Path], seen: set[Identity]) -> None:
    """List the target of a link, unless it was listed under another name."""
    source = _relative(link, root)
    try:
        target = link.stat()
    except OSError as error:
        result.exclude(source, Reason.IMAGE_MISSING, f"a link that leads nowhere ({error.strerror})")
        return
    identity = (target.st_dev, target.st_ino)
    known = result._visited if stat.S_ISDIR(target.st_mode) else seen
    if identity in known:
        result.exclude(source, Reason.DUPLICATE, "a link to what is listed under another name, or to the output")
    elif stat.S_ISDIR(target.st_mode):
        _list_folder(link, root, result, links)
    else:
        seen.add(identity)
        _add(link, target.st_mode, root, result)


def _add(path: Path, mode: int, root: Path, result: Files) -> None:
    source = _relative(path, root)
    if stat.S_ISREG(mode):
        result.files.append((path, source))
    else:
        kind = _SPECIAL.get(stat.S_IFMT(mode), "a special file")
        result.exclude(source, Reason.NOT_READABLE, f"{kind}, not a file")


def _is_output_folder(folder: Path) -> bool:
    """True if a command wrote this folder."""
    for name in _STATE_FILES:
        if not is_regular(folder / name):
            continue
        try:
            with (folder / name).open(encoding="utf-8") as file:
                record = parse_json(file.read(_MAX_RECORD))
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and record.get("verb") == Path(name).stem and "settings" in record:
            return True
    return False


def _identity(path: Path) -> Identity | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _relative(path: Path, root: Path) -> str:
    # A name that is not UTF-8 must still go into tables, and remain distinct.
    return os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", errors="backslashreplace")
