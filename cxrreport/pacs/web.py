"""DICOMweb archives and FHIR servers; the only importer of dicomweb_client and requests."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from dicomweb_client.web import DICOMwebClient
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from requests.auth import AuthBase

from cxrreport.errors import CxrReportError, PeerError
from cxrreport.ingestion.dicom import text
from cxrreport.pacs.peers import LEVELS, MB, Listings, Record, is_uid, read_credentials
from cxrreport.settings import LimitSettings, WebSettings

_PAGE = 200
_SMALLEST_PAGE = 50
"""Servers that limit their answers allow at least this many rows; a page of fewer is the last."""
_LARGEST_ANSWER = 64 * MB
_WHOLE = 10
"""An answer may take this many times the timeout as a whole, however steadily it trickles."""
_MAY_PASS = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.LOCKED}
_OUT_OF_RESOURCES = range(0xA700, 0xA800)


class _Credentials(AuthBase):
    """Credentials of the settings, read again for each request, so that a token can be renewed."""

    def __init__(self, source: str) -> None:
        self._source = source

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        secret = read_credentials(self._source)
        user, colon, password = secret.partition(":")
        if colon:
            return requests.auth.HTTPBasicAuth(user, password)(request)
        request.headers["Authorization"] = f"Bearer {secret}"
        return request


def _session(settings: WebSettings) -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # neither .netrc nor a proxy, nor certificates, of the environment
    session.max_redirects = 0  # credentials stay with the server that they are for
    tls = settings.tls
    session.verify = True if tls.authority is None else str(tls.authority)
    if tls.certificate is not None:
        session.cert = str(tls.certificate) if tls.key is None else (str(tls.certificate), str(tls.key))
    if settings.credentials is not None:
        read_credentials(settings.credentials)  # missing ones are an error of the settings, before the first request
        session.auth = _Credentials(settings.credentials)
    return session


def _bounded(limit: int, seconds: float) -> Callable[..., requests.Response]:
    """A response hook that reads the body, at most `limit` bytes in `seconds`, before anything else does."""

    def read(response: requests.Response, **_: Any) -> requests.Response:
        body, until = bytearray(), time.monotonic() + seconds
        with response:
            for part in response.iter_content(1 << 16):
                body += part
                if len(body) > limit:
                    raise PeerError(f"an answer has more than {limit // MB} MB", again=False)
                if time.monotonic() > until:
                    raise PeerError(f"an answer took more than {seconds:g} s")
        whole = requests.Response()
        whole.status_code, whole.reason, whole.url = response.status_code, response.reason, response.url
        whole.headers, whole.request, whole.encoding = response.headers, response.request, response.encoding
        whole.raw = io.BytesIO(bytes(body))
        return whole

    return read


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """Whatever the libraries raise, as PeerError. Causes are dropped: their messages hold URLs with ids."""
    try:
        yield
    except PeerError as error:
        raise PeerError(f"{name}: {error}", again=error.again) from None
    except CxrReportError:
        raise
    except requests.HTTPError as error:
        response: requests.Response = error.response  # type: ignore[assignment]  # of `raise_for_status`
        status = response.status_code
        again = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _MAY_PASS or _is_full(response)
        raise PeerError(f"{name}: refused with HTTP status {status}", again=again) from None
    except requests.TooManyRedirects:
        raise PeerError(f"{name}: redirects to another address; set that one", again=False) from None
    except requests.exceptions.SSLError:
        raise PeerError(f"{name}: its certificate cannot be verified; set tls.authority", again=False) from None
    except requests.RequestException as error:
        raise PeerError(f"{name}: cannot be reached ({type(error).__name__})") from None
    except Exception as error:
        raise PeerError(f"{name}: its answer cannot be read ({type(error).__name__})") from None


def _is_full(response: requests.Response) -> bool:
    """True if a STOW-RS answer says that the archive is out of resources (PS3.18 table I.2-2)."""
    try:
        answer = Dataset.from_json(response.json())
        return any(int(item.FailureReason) in _OUT_OF_RESOURCES for item in answer.get("FailedSOPSequence") or ())
    except Exception:
        return False


def _name(settings: WebSettings) -> str:
    parts = urlsplit(settings.url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"


class DicomwebPeer(Listings):
    """See `Peer`."""

    def __init__(self, settings: WebSettings, limits: LimitSettings) -> None:
        self.name = _name(settings)
        limit = max(_LARGEST_ANSWER, limits.instance_mb * MB + MB)
        self._client = DICOMwebClient(
            settings.url,
            session=_session(settings),
            callback=_bounded(limit, _WHOLE * settings.timeout_s),
            timeout=settings.timeout_s,
        )
        self._client.set_http_retry_params(retry=False)

    def can_read_back(self) -> bool:
        """See `Peer`."""
        return True

    def find(self, level: str, known: Mapping[str, str], wanted: Sequence[str]) -> list[Dataset]:
        """See `Search`: the pages of a query. A server that ignores the offset sends the first page again."""
        above = [uid for uid in (LEVELS["STUDY"], LEVELS["SERIES"]) if uid in known and uid != LEVELS[level]]
        names = {LEVELS["STUDY"]: "study_instance_uid", LEVELS["SERIES"]: "series_instance_uid"}
        options: dict[str, Any] = {names[uid]: known[uid] for uid in above}
        options["search_filters"] = {name: value for name, value in known.items() if name not in above}
        options["fields"] = [f"{tag_for_keyword(name):08X}" for name in wanted]
        client = self._client
        searches = {"STUDY": client.search_for_studies, "SERIES": client.search_for_series}
        search: Any = searches.get(level, client.search_for_instances)
        rows: dict[str, Dataset] = {}
        with _translated(self.name):
            while True:
                page = [Dataset.from_json(row) for row in search(**options, limit=_PAGE, offset=len(rows))]
                new = {text(row, LEVELS[level]): row for row in page}
                if not all(map(is_uid, new)):
                    raise PeerError("lists a UID that is not valid", again=False)
                done = new.keys() <= rows.keys() or len(page) < _SMALLEST_PAGE
                rows |= new
                if done:
                    return list(rows.values())

    def retrieve(self, instances: Sequence[Record], save: Callable[[bytes], None]) -> None:
        """See `Peer`."""
        for one in instances:
            with _translated(self.name):
                dataset = self._client.retrieve_instance(
                    one.study_uid, one.series_uid, one.sop_uid, media_types=(("application/dicom", "*"),)
                )
                with io.BytesIO() as file:
                    dataset.save_as(file, enforce_file_format=True)
                    content = file.getvalue()
            save(content)

    def store(self, path: Path) -> None:
        """See `Peer`."""
        with _translated(self.name):
            dataset = dcmread(path)
            answer = self._client.store_instances([dataset], study_instance_uid=str(dataset.StudyInstanceUID))
            failed = answer.get("FailedSOPSequence") or ()
            if failed:
                reason = int(failed[0].get("FailureReason") or 0)
                raise PeerError(f"did not store a document (reason {reason:04X})", again=reason in _OUT_OF_RESOURCES)


class FhirServer:
    """A FHIR server that takes transactions."""

    def __init__(self, settings: WebSettings) -> None:
        self.name = _name(settings)
        self._settings = settings
        self._session = _session(settings)
        self._session.hooks = {"response": [_bounded(_LARGEST_ANSWER, _WHOLE * settings.timeout_s)]}

    def post(self, bundle: str) -> None:
        """Post a transaction.

        Raises:
            PeerError: the server cannot be reached or refuses, or its answer is not that of a transaction with as many
                entries.
        """
        with _translated(self.name):
            response = self._session.post(
                self._settings.url,
                data=bundle.encode(),
                headers={"Content-Type": "application/fhir+json", "Accept": "application/fhir+json"},
                timeout=self._settings.timeout_s,
            )
            response.raise_for_status()
            answer = response.json()
            statuses = [entry["response"]["status"] for entry in answer.get("entry", ())]
            if answer.get("type") != "transaction-response" or len(statuses) != len(json.loads(bundle)["entry"]):
                raise PeerError("answers a transaction with something else", again=False)
            if wrong := next((status for status in statuses if not status.startswith("2")), None):
                raise PeerError(f"answers an entry with status {wrong[:3]}", again=False)
