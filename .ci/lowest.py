"""Run the quick tests with the lowest versions that pyproject.toml allows.

Every direct dependency, also of the extras for tests, is pinned to its lower bound, and what these depend on is as new
as they allow: the resolution `lowest-direct` of uv, by pip alone, which also finds wheels on a machine without the
internet. torch is not pinned: for x86-64 the public index has its lowest release as CUDA builds only, which take
gigabytes. Its build for aarch64 is for the CPU; `import torch` took 381 s in an emulator, so no test was run. Exits
with pytest's status, or 1 if the versions do not go together.

Usage: `make test-lowest`, or `python .ci/lowest.py --venv FOLDER [tests or options of pytest]`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Type stubs have other version numbers than what they describe, and no test imports them.
NEWEST = frozenset({"torch", "pandas-stubs", "types-psutil", "types-pyyaml"})


def floors() -> list[str]:
    """`name==version` for the lower bound of each direct dependency and each dependency of the tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    installed = extras.keys() - {"docs", "parity"}
    lines = [*project["dependencies"], *(line for extra in installed for line in extras[extra])]
    found = {}
    for line in lines:
        if (bound := re.match(r"([\w.-]+)(?:\[[\w,]+\])?>=([\w.]+)", line)) and bound[1] not in NEWEST:
            found[bound[1]] = f"{bound[1]}=={bound[2]}"
    return sorted(found.values())


def main() -> int:
    """Install, list, test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, required=True, help="Folder of the environment, made if it is not there.")
    options, arguments = parser.parse_known_args()
    python = options.venv / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    if not python.exists():
        venv.create(options.venv, with_pip=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("\n".join(floors()))
        constraints.flush()
        wanted = [*pip, "install", "--quiet", "--constraint", constraints.name, "--editable", f"{ROOT}[dev]"]
        if subprocess.run(wanted, check=False).returncode:
            return 1
    subprocess.run([*pip, "list", "--format=freeze"], check=True)
    return subprocess.run([str(python), "-m", "pytest", *arguments], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
