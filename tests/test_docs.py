"""Documentation generated from the code, and that the names in the documentation exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from typer.main import get_command

from cxrreport import cli
from cxrreport.settings import Settings

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_setting_is_on_its_page_with_what_it_is(hooks: ModuleType) -> None:
    page = hooks.on_page_markdown((DOCS / "configuration.md").read_text())
    models = hooks.models()
    assert len(models) > 10
    for model in models:
        section = page.partition(f"\n## {model.__name__}\n")[2].partition("\n## ")[0]
        for name, field in model.model_fields.items():
            (row,) = [line for line in section.splitlines() if line.startswith(f"| `{name}` |")]
            assert len(re.split(r"(?<!\\)\|", row)) == 6, row
            nested = isinstance(field.default, Settings) or "](#" in row
            assert field.description or nested, f"{model.__name__}.{name} does not say what it is"


def test_links_of_the_tables_resolve(hooks: ModuleType) -> None:
    page = hooks.on_page_markdown((DOCS / "configuration.md").read_text())
    headings = {heading.lower() for heading in re.findall(r"^## (\w+)$", page, re.MULTILINE)}
    assert set(re.findall(r"\]\(#(\w+)\)", page)) <= headings


def test_every_page_is_in_the_navigation_and_there() -> None:
    text = re.sub(r"!!python\S*", "", (ROOT / "mkdocs.yml").read_text())
    nav = yaml.safe_load(text)["nav"]

    def pages(entries: list) -> set[str]:
        found = set()
        for entry in entries:
            value = next(iter(entry.values())) if isinstance(entry, dict) else entry
            found |= pages(value) if isinstance(value, list) else {value}
        return found

    notebooks = {f"notebooks/{path.stem}.md" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert pages(nav) == notebooks | {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}


def test_every_command_and_option_is_on_its_page(hooks: ModuleType) -> None:
    page = hooks.on_page_markdown((DOCS / "commands.md").read_text())
    commands = get_command(cli.app).commands  # type: ignore[attr-defined]
    assert len(commands) > 15
    for name, command in commands.items():
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        for parameter in command.params:
            if getattr(parameter, "hidden", False):
                continue
            (row,) = [line for line in section.splitlines() if f"| `{parameter.opts[0]}`" in line] or [""]
            assert row or parameter.param_type_name == "argument", f"{name} {parameter.opts}"
            assert len(re.split(r"(?<!\\)\|", row)) in (1, 5), row


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))], ids=lambda path: path.name)
def test_commands_that_it_shows_exist(path: Path) -> None:
    commands = get_command(cli.app).commands  # type: ignore[attr-defined]
    for block in re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            words = re.sub(r"^\S+=\S+ ", "", line.partition("  #")[0].strip()).split()
            if len(words) < 2 or words[0] != "cxrreport":
                continue
            words = words[3:] if words[1] == "--weights" else words[1:]
            if words[0].startswith("--"):
                continue  # of the application itself, like --install-completion
            assert words[0] in commands, line
            parameters = commands[words[0]].params
            known = {option for one in parameters for option in (*one.opts, *one.secondary_opts)}
            given = {word.partition("=")[0] for word in words[1:] if word.startswith("-")}
            assert given <= known | {"--help"}, line


def test_the_messages_that_troubleshooting_explains_are_in_the_source() -> None:
    source = "".join(path.read_text() for path in (ROOT / "cxrreport").rglob("*.py"))
    rows = re.findall(r"^\| (`.*?) \|", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    messages = [message for row in rows for message in re.findall(r"`(.*?)`", row)]
    assert len(messages) > 10
    assert [message for message in messages if message not in source] == []


def test_the_architecture_names_every_package_and_only_files_that_exist() -> None:
    page = (DOCS / "architecture.md").read_text()
    package = ROOT / "cxrreport"
    packages = {".".join(path.parent.relative_to(package).parts) for path in package.rglob("__init__.py")} - {""}
    modules = {path.stem for path in package.glob("[!_]*.py")}
    named = set(re.findall(r"[\w.]*\w", page))
    assert packages | modules <= named
    tables, _, rest = page.partition("## Where to add")
    for names, files in re.findall(r"^\| (`[^|]*) \|[^|]*\| ([^|]*) \|$", tables, re.MULTILINE):
        folders = [package / name.replace(".", "/") for name in re.findall(r"`([\w.]+)`", names)]
        for file in re.findall(r"`([\w/]+(?:\.py|/))`", files):
            assert any((folder / file).exists() for folder in folders), (names, file)
    where_to_add = rest.partition("\n## ")[0]
    files = re.findall(r"`([a-z_/]+(?:\.py|\.txt|/))`", where_to_add)
    assert len(files) > 20
    missing = [file for file in files if not ((package / file).exists() or (ROOT / file).exists())]
    assert not missing
