"""Settings of `pull`, `push` and `listen`: archives, who may connect, limits, and what is done with a study."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from cxrreport.settings.base import EachOnce, PositiveInt, Settings
from cxrreport.settings.model import CheckpointSettings
from cxrreport.settings.tracking import CommandSettings

AeTitle = Annotated[
    str, Field(pattern=r"^[^\\\x00-\x1f\x7f-\uffff\s](?:[^\\\x00-\x1f\x7f-\uffff]{0,14}[^\\\x00-\x1f\x7f-\uffff\s])?$")
]
"""Application entity title: 1 to 16 ASCII characters (PS3.5 6.2)."""
Port = Annotated[int, Field(ge=1, le=65535)]
Uid = Annotated[str, Field(pattern=r"^[0-9.]{1,64}$")]
Seconds = Annotated[float, Field(gt=0)]
_PEER = re.compile(r"(?P<ae_title>[^@]+)@(?P<host>[^@]+):(?P<port>\d+)")


def is_loopback(host: str) -> bool:
    """True for `localhost` and addresses that do not leave this machine."""
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("write the URL with http:// or https:// and a host")
    if parts.username or parts.password:
        raise ValueError("a URL must not hold a user or password; set credentials to env:NAME or file:PATH")
    return url.rstrip("/")


Url = Annotated[str, AfterValidator(_without_password)]


class TlsSettings(Settings):
    """Certificates of TLS connections, in PEM files."""

    certificate: Path | None = None
    """Certificate of this node, with its chain. `None` for none: servers need one, clients where the server asks."""
    key: Path | None = None
    """Private key of `certificate`; `None` if it is in the same file."""
    authority: Path | None = None
    """Certificates of the authorities that peers must be certified by; `None` for those of the system. A DIMSE server
    with an authority demands a certificate of each client."""


class WebSettings(Settings):
    """A DICOMweb or FHIR server."""

    protocol: Literal["dicomweb"] = "dicomweb"
    """HTTP."""
    url: Url
    """Root of the service, for example `https://pacs.example.org/dicom-web`."""
    credentials: Annotated[str, Field(pattern=r"^(env:\w+|file:.+)$")] | None = None
    """Where credentials are read from, `env:NAME` or `file:PATH`: `user:password`, or a bearer token."""
    tls: TlsSettings = TlsSettings()
    """Certificates. Verification cannot be turned off."""
    allow_plain: bool = False
    """Allow `http://` to another machine, which sends patient data and credentials readable by all in between."""
    timeout_s: Seconds = 60.0
    """Seconds without an answer or without data."""

    @model_validator(mode="after")
    def _is_encrypted(self) -> Self:
        if self.url.startswith("http:") and not self.allow_plain and not is_loopback(urlsplit(self.url).hostname or ""):
            raise ValueError("url: http is not encrypted; use https, or set allow_plain: true for a protected network")
        return self


class DimseSettings(Settings):
    """A DICOM node (C-FIND, C-GET, C-MOVE, C-STORE)."""

    protocol: Literal["dimse"] = "dimse"
    """DICOM's own."""
    host: str
    """Name or address."""
    port: Port
    """TCP port."""
    ae_title: AeTitle
    """Title of the archive."""
    own_ae_title: AeTitle = "CXRREPORT"
    """Title of this node, which the archive must know."""
    retrieve: Literal["get", "move"] = "get"
    """C-GET sends images back on the same connection; C-MOVE opens one to this node, at the address that the archive
    has for `own_ae_title`."""
    receive_host: str = "127.0.0.1"
    """Address to listen at during C-MOVE."""
    receive_port: Port = 11113
    """Port to listen at during C-MOVE."""
    tls: TlsSettings | None = None
    """Certificates; `None` for no TLS."""
    timeout_s: Seconds = 60.0
    """Seconds without an answer or without data."""


def _archive_of_text(value: Any) -> Any:
    """`https://host/path` or `AE@host:port` as settings."""
    if isinstance(value, Mapping) and "protocol" not in value:
        return {"protocol": "dicomweb" if "url" in value else "dimse", **value}
    if not isinstance(value, str):
        return value
    if value.startswith(("http://", "https://")):
        return {"protocol": "dicomweb", "url": value}
    if found := _PEER.fullmatch(value):
        return {"protocol": "dimse", **found.groupdict()}
    raise ValueError("write https://HOST/PATH or AE_TITLE@HOST:PORT")


Archive = Annotated[
    Annotated[WebSettings | DimseSettings, Field(discriminator="protocol")], BeforeValidator(_archive_of_text)
]
"""An archive: settings, or `https://HOST/PATH` or `AE_TITLE@HOST:PORT`."""
FhirServer = Annotated[WebSettings, BeforeValidator(_archive_of_text)]
"""A FHIR server: settings, or its URL."""


class LimitSettings(Settings):
    """Limits of what a peer may send."""

    pdu_bytes: Annotated[int, Field(ge=4096, le=1 << 24)] = 131_072
    """Largest data unit of DIMSE; longer ones close the connection."""
    associations: PositiveInt = 10
    """DIMSE connections at a time. Each can hold one instance in memory."""
    instance_mb: PositiveInt = 128
    """Largest instance."""
    study_instances: PositiveInt = 500
    """Most instances of a study."""
    study_mb: PositiveInt = 2048
    """Largest study."""


class PullSettings(CommandSettings):
    """Retrieve chest radiographs from an archive into a folder."""

    archive: Archive
    """The archive."""
    studies: Path | None = None
    """Table (CSV, JSONL, Parquet) with a column `study_id` or `accession` of study UIDs or accession numbers: one query
    for each row, instead of the query below."""
    patient: str | None = None
    """Patient ID."""
    accession: str | None = None
    """Accession number."""
    study: Uid | None = None
    """Study Instance UID."""
    since: datetime.date | None = None
    """First study date."""
    until: datetime.date | None = None
    """Last study date."""
    description: str | None = None
    """Study description; `*` and `?` are wildcards."""
    modalities: Annotated[tuple[Annotated[str, Field(pattern=r"^[A-Z]{2,16}$")], ...], EachOnce] = ("CR", "DX")
    """Modalities of the studies that are asked for."""
    limit: PositiveInt | None = None
    """Retrieve only the first studies, by UID."""
    workers: Annotated[int, Field(ge=1, le=16)] = 2
    """Studies that are retrieved at a time."""
    per_second: Annotated[float, Field(gt=0)] | None = None
    """Most instances a second over all workers; `None` for no limit."""
    attempts: PositiveInt = 4
    """Attempts of each request, with growing pauses."""
    limits: LimitSettings = LimitSettings()
    """What the archive may send."""

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        query = (self.patient, self.accession, self.study, self.since, self.until, self.description)
        if self.studies is None and not any(query):
            raise ValueError(
                "name studies, patient, accession, study, since, until or description: not a whole archive"
            )
        if self.studies is not None and any(query):
            raise ValueError("studies: the table replaces patient, accession, study, since, until and description")
        return self


UnknownStudy = Literal["refuse", "send"]


class PushSettings(CommandSettings):
    """Send exported documents to the studies that they are about."""

    documents: Path
    """Output folder of `export`."""
    archive: Archive | None = None
    """Where Structured Reports and secondary captures are stored; `None` for none."""
    fhir: FhirServer | None = None
    """Where bundles (export format `imr`) are posted; `None` for none."""
    unknown_study: UnknownStudy = "refuse"
    """A study that the archive does not have: `refuse` the document, or `send` it (an archive of reports alone)."""
    attempts: PositiveInt = 4
    """Attempts of each request, with growing pauses."""

    @model_validator(mode="after")
    def _goes_somewhere(self) -> Self:
        if self.archive is None and self.fhir is None:
            raise ValueError("archive, fhir: set at least one of them")
        return self


class PeerSettings(Settings):
    """A node that may connect."""

    ae_title: AeTitle
    """Its title."""
    address: Annotated[str, AfterValidator(lambda text: str(ip_address(text)))]
    """Its IP address."""


class ReceiveSettings(Settings):
    """The storage SCP."""

    ae_title: AeTitle = "CXRREPORT"
    """Title of this node; other called titles are refused."""
    host: str = "127.0.0.1"
    """Address to listen at."""
    port: Annotated[int, Field(ge=0, le=65535)] = 11112
    """TCP port; 0 for any."""
    peers: tuple[PeerSettings, ...] = ()
    """Who may connect. Nobody else may."""
    tls: TlsSettings | None = None
    """Certificates; `None` for no TLS."""
    limits: LimitSettings = LimitSettings()
    """What a peer may send."""
    timeout_s: Seconds = 60.0
    """Seconds after which a silent connection is closed."""


class PollSettings(Settings):
    """Asking a DICOMweb server for new studies."""

    archive: WebSettings
    """The server."""
    every_s: Seconds = 60.0
    """Seconds between queries."""
    days: PositiveInt = 2
    """Study dates that are asked for, back from today."""
    modalities: tuple[str, ...] = ("CR", "DX")
    """Modalities that are asked for."""


class RuleSettings(Settings):
    """A routing rule. All of its patterns must match, in capitals; `*` and `?` are wildcards."""

    action: Literal["report", "ignore"]
    """What is done with an instance that the rule matches."""
    sender: str = "*"
    """AE title of the sender; the URL of a polled server."""
    modality: str = "*"
    """Modality (0008,0060)."""
    body_part: str = "*"
    """Body Part Examined (0018,0015)."""
    description: str = "*"
    """Study or series description."""

    def matches(self, values: Mapping[str, str]) -> bool:
        """True if it matches `sender`, `modality`, `body_part` and one of the descriptions."""

        def one(pattern: str, value: str) -> bool:
            return fnmatchcase(value.upper(), pattern.upper())

        return all(
            one(getattr(self, name), values.get(name, "")) for name in ("sender", "modality", "body_part")
        ) and any(one(self.description, values.get(name, "")) for name in ("study_description", "series_description"))


class ListenSettings(CommandSettings):
    """Receive studies, report them, and send the reports on, until stopped."""

    output: Path
    """Folder of the queue: received instances, documents, database, audit log."""
    receive: ReceiveSettings | None = ReceiveSettings()
    """The storage SCP; `None` to only poll."""
    poll: PollSettings | None = None
    """Ask a DICOMweb server for new studies."""
    rules: tuple[RuleSettings, ...] = ()
    """The first that matches an instance decides."""
    otherwise: Literal["report", "ignore"] = "report"
    """What is done with an instance that no rule matches."""
    quiet_s: Annotated[float, Field(ge=0)] = 60.0
    """A study is complete when nothing has arrived for this many seconds."""
    late: Literal["report", "ignore"] = "report"
    """An instance that arrives after its study was reported: `report` the study again, with all instances that are
    still kept (an unchanged report is not sent twice), or `ignore` it, with a row."""
    checkpoint: CheckpointSettings | None = None
    """As in `generate`."""
    adapter: Path | None = None
    """As in `generate`."""
    engine: Literal["torch", "openvino"] = "torch"
    """As in `generate`."""
    quantize: Literal["none", "int8"] = "none"
    """As in `generate`."""
    abstain_below: Annotated[float, Field(le=0)] | None = None
    """Reports with a lower mean log-probability per token are not sent; `None` to send all."""
    max_new_tokens: PositiveInt = 256
    """As in `generate`."""
    formats: Annotated[tuple[Literal["sr", "sc", "imr"], ...], EachOnce] = ("sr",)
    """As in `export`."""
    archive: Archive | None = None
    """Where documents are stored; `None` for none."""
    fhir: FhirServer | None = None
    """Where bundles are posted; `None` for none."""
    unknown_study: UnknownStudy = "refuse"
    """As in `push`."""
    attempts: PositiveInt = 8
    """Attempts of a study before it is given up."""
    backoff_s: Seconds = 5.0
    """Pause after the first failed attempt; doubled after each, up to an hour."""
    waiting_studies: PositiveInt = 1000
    """Studies that wait; more are refused with the status "out of resources", after which senders try again."""
    disk_mb: PositiveInt = 50_000
    """Space for received instances; more are refused in the same way."""
    keep_hours: Annotated[float, Field(ge=0)] = 24.0
    """Received instances and documents are removed this long after their study was sent or excluded."""
    keep_given_up_hours: Annotated[float, Field(ge=0)] = 720.0
    """The same after a study was given up; afterwards it cannot be requeued."""
    health_port: Annotated[int, Field(ge=0, le=65535)] | None = 9104
    """Port of the health endpoint on this machine (`/healthz`, `/metrics`); 0 for any, `None` for none."""
    studies: PositiveInt | None = None
    """Stop after this many studies have ended; `None` to run until stopped."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.receive is None and self.poll is None:
            raise ValueError("receive, poll: set at least one of them")
        if self.archive is None and self.fhir is None:
            raise ValueError("archive, fhir: set at least one of them")
        if self.archive is None and set(self.formats) - {"imr"}:
            raise ValueError("formats: sr and sc need archive")
        if ("imr" in self.formats) != (self.fhir is not None):
            raise ValueError("formats: imr and fhir need each other; set both or neither")
        return self
