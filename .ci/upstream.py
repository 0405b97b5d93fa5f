"""Run the tests that compare with other libraries against the newest releases of those libraries.

A fresh environment gets the dependencies of pyproject.toml without their upper bounds and without constraints.txt; only
torch keeps its bound, as newer wheels need gigabytes of CUDA on a machine without a GPU. The environment is removed at
the end. Exits with 1 if a test fails. Usage: `make upstream`, or `python .ci/upstream.py --keep FOLDER`.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
NEEDED_BY_TESTS = ("hypothesis", "pydicom-data", "pytest", "pytest-timeout")
MARK = re.compile(r"^pytestmark = pytest\.mark\.stock\((.*)\)$", re.MULTILINE)


def requirements() -> dict[str, str]:
    """Requirements of the package by name, upper bounds removed except that of torch."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = {}
    for line in project["dependencies"]:
        name = re.match(r"[\w.-]+", line)[0]
        found[name] = line if name == "torch" else re.sub(r",?<[^,]*", "", line)
    return found


def constrained() -> dict[str, str]:
    """Versions of constraints.txt by name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {normalised(line.split("==")[0]): line.split("==")[1] for line in lines if "==" in line}


def normalised(name: str) -> str:
    """Name of a package as the index writes it."""
    return re.sub(r"[-_.]+", "-", name.lower())


def marked() -> dict[Path, list[str]]:
    """Test files with the mark `stock`, and the packages that it names."""
    files = {
        path: MARK.search(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "tests").rglob("test_*.py"))
    }
    return {path: re.findall(r"[\w.-]+", found[1]) for path, found in files.items() if found}


def install(folder: Path, wanted: dict[str, str]) -> tuple[Path, dict[str, str]]:
    """Make the environment; its Python and the installed versions by name."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", *wanted.values(), *NEEDED_BY_TESTS], check=True)
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--editable", str(ROOT)], check=True)
    listed = json.loads(subprocess.run([*pip, "list", "--format=json"], check=True, capture_output=True).stdout)
    return python, {normalised(one["name"]): one["version"] for one in listed}


def outcomes(python: Path, files: dict[Path, list[str]], report: Path) -> dict[str, Counter[str]]:
    """Numbers of passed, failed and skipped tests for each package."""
    command = [str(python), "-m", "pytest", "-q", "-m", "stock and not slow", f"--junitxml={report}", *map(str, files)]
    subprocess.run(command, cwd=ROOT, check=False)
    by_module = {".".join(path.relative_to(ROOT).with_suffix("").parts): packages for path, packages in files.items()}
    counts: dict[str, Counter[str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        kind = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        name = f"{case.get('classname')}.{case.get('name')}"
        for package in next((found for module, found in by_module.items() if module in name), []):
            counts.setdefault(package, Counter())[kind] += 1
    return counts


def main() -> int:
    """Install, test, print the table; 1 if a test fails or none ran."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="Make the environment in FOLDER and keep it.")
    options = parser.parse_args()
    wanted, before = requirements(), constrained()
    with tempfile.TemporaryDirectory(prefix="upstream-") as temporary:
        python, now = install(options.keep or Path(temporary) / "venv", wanted)
        counts = outcomes(python, marked(), Path(temporary) / "report.xml")
    row = "{:<22}{:<16}{:<16}{:<9}{}".format
    print(row("package", "constrained", "newest", "changed", "tests"))
    for name in wanted:
        old, new = before.get(name, "-"), now[name].partition("+")[0]
        tests = ", ".join(f"{number} {kind}" for kind, number in sorted(counts.get(name, Counter()).items()))
        print(row(name, old, new, "no" if old == new else "yes", tests or "-"))
    return int(not counts or any(count["failed"] for count in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
