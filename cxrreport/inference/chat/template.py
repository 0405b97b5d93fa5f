"""The prompt of a chat model, from a file, and the sections of its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import computed_field, model_validator

from cxrreport.errors import SettingsError
from cxrreport.records import Report
from cxrreport.reports.sections import split_generated
from cxrreport.settings import build
from cxrreport.settings.base import PositiveInt, Settings

_MOST_BYTES = 1 << 16
_GIVEN = ("indication", "comparison", "technique")
"""Sections that a prompt may use. Findings and impression are what the model is asked for."""
_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=False)


class ChatTemplate(Settings):
    """A prompt file."""

    user: str
    """Message of the user, a Jinja template with `indication`, `comparison` and `technique` of the study."""
    system: str = ""
    """System message; empty for none."""
    images: Literal["first", "last"] = "first"
    """Place of the images in the user's message."""
    max_images: PositiveInt = 1
    """Images of a study, best view first."""
    section: Literal["findings", "impression"] = "findings"
    """Section of an answer, or of its beginning, without a header."""
    after: str = ""
    """Only what follows the last occurrence of this text is the report, for example `</think>`."""
    before: str = ""
    """Of that, only what precedes the first occurrence of this text, for example `</answer>`."""
    resolution: PositiveInt = 896
    """Side length to which `generate` ingests a folder of DICOM, pixels."""
    resize: Literal["squash", "pad"] = "pad"
    """How it makes images square."""
    source: str = ""
    """Where the prompt is published."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def indication(self) -> bool:
        """Whether the prompt uses the study's indication, which is a condition of every score."""
        probe = "\ue000"
        return probe in render(self.user, Report(indication=probe))

    @model_validator(mode="after")
    def _renders(self) -> ChatTemplate:
        render(self.user, Report())
        return self


def render(template: str, report: Report) -> str:
    """Fill a template of `ChatTemplate.user`.

    Raises:
        ValueError: it is not a template, or uses what a prompt is not given.
    """
    try:
        return _ENVIRONMENT.from_string(template).render({name: getattr(report, name) for name in _GIVEN})
    except TemplateError as error:
        raise ValueError(f"user: {error}; use {', '.join(_GIVEN)}") from error


def read_template(path: Path) -> ChatTemplate:
    """Read a prompt file in YAML.

    Raises:
        SettingsError: it is missing or invalid.
    """
    try:
        text = path.read_bytes()
        if len(text) > _MOST_BYTES:
            raise ValueError(f"over {_MOST_BYTES} bytes")
        values = yaml.safe_load(text)
        if not isinstance(values, dict):
            raise ValueError("no keys")
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SettingsError(f"prompt_template: {path} cannot be read as YAML with the key user ({error})") from error
    return build(ChatTemplate, values, where=str(path))


class ChatLayout:
    """Messages of a study, and sections of an answer.

    Args:
        settings: the prompt file.
    """

    image_tokens = 0

    def __init__(self, settings: ChatTemplate) -> None:
        self.settings = settings

    def messages(self, report: Report, images: list[Any]) -> list[dict[str, Any]]:
        """The conversation in the form of transformers' chat templates."""
        settings = self.settings
        shown = [{"type": "image", "image": image} for image in images]
        asked = [{"type": "text", "text": render(settings.user, report)}]
        content = [*shown, *asked] if settings.images == "first" else [*asked, *shown]
        system = [{"role": "system", "content": [{"type": "text", "text": settings.system}]}] if settings.system else []
        return [*system, {"role": "user", "content": content}]

    def prompt(self, report: Report) -> str:
        """System and user message as one text, for the predictions."""
        return "\n".join(part for part in (self.settings.system, render(self.settings.user, report)) if part)

    def answer(self, text: str) -> str:
        """The report in what the model wrote."""
        after, before = self.settings.after, self.settings.before
        text = text.rpartition(after)[2] if after else text
        return (text.partition(before)[0] if before else text).strip()

    def parse(self, text: str) -> tuple[str, str]:
        """Findings and impression of an answer; text without a header belongs to `section`."""
        parts = split_generated(text, headers_of=("findings", "impression"))
        first = self.settings.section
        parts[first] = f"{parts.pop('', '')} {parts.get(first, '')}"
        findings, impression = (" ".join(parts.get(name, "").split()) for name in ("findings", "impression"))
        return findings, impression
