"""Output folders of the processes of a job array, which each run one `--shard i/n` of a command."""

from __future__ import annotations

import shutil
from pathlib import Path

from cxrreport.storage.output_folder import VOLATILE, OutputFolder, compare_settings, read_state


def part_folder(output: Path, shard: str | None) -> Path:
    """Return the folder that a process writes: `output`, or beside it a folder for `shard` `i/n` of a job array."""
    return output if shard is None else parts_folder(output) / shard.replace("/", "-of-")


def parts_folder(output: Path) -> Path:
    """Return the folder beside `output` that holds the parts of a job array."""
    return output.with_name(f"{output.name}.shards")


def parts_of(folder: OutputFolder, output: Path, *, inside: str = "") -> list[Path]:
    """Return the folders that a job array wrote with the settings of `folder`.

    Args:
        folder: of the run that collects the parts.
        output: the output folder in the settings of the jobs.
        inside: folder within that of each job; empty for the folder itself.

    Raises:
        OutputError: a part was written with other settings.
    """
    command = folder.record["verb"]
    found = sorted(path.parent for path in parts_folder(output).glob(f"*-of-*/{inside}/{command}.json"))
    for path in found:
        record = read_state(path, command)
        if record is not None:
            compare_settings(path, command, record["settings"], folder.record["settings"], VOLATILE | {"shard"})
    return found


def remove_parts(output: Path, command: str) -> None:
    """Remove the parts of a job array after their content was collected in `output`, unless a job is still running."""
    records = [read_state(path.parent, command) for path in parts_folder(output).glob(f"*/{command}.json")]
    if all(record is not None and record["finished"] for record in records):
        shutil.rmtree(parts_folder(output), ignore_errors=True)
