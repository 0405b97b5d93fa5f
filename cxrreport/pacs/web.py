"""DICOMweb archives and FHIR servers; the only importer of dicomweb_client and requests."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from dicomweb_client.web import DICOMwebClient
from pydicom import dcmread
from pydicom.dataset import Dataset
from requests.auth import AuthBase

from cxrreport.errors import CxrReportError, PeerError
from cxrreport.ingestion.dicom import text
from cxrreport.pacs.peers import MB, Query, Record, is_uid, read_credentials
from cxrreport.settings import LimitSettings, WebSettings

_PAGE = 200
_LARGEST_ANSWER = 64 * MB
_WHOLE = 10
"""An answer may take this many times the timeout as a whole, however steadily it trickles."""
_MAY_PASS = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.LOCKED}
_STUDY = ("00100020", "00080050", "00081030", "00201208")
_SERIES = ("00080060", "00180015", "0008103E")
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


def _number(row: Dataset, keyword: str) -> int:
    value = text(row, keyword)
    return int(value) if value.isdecimal() else 0


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


class DicomwebPeer:
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

    def studies(self, query: Query) -> list[Record]:
        """See `Peer`."""
        wanted = {
            "StudyInstanceUID": query.study_uid,
            "PatientID": query.patient_id,
            "AccessionNumber": query.accession,
            "StudyDate": query.dates,
            "StudyDescription": query.description,
        }
        filters = {name: value for name, value in wanted.items() if value}
        found: dict[str, Record] = {}
        # One query for each modality: servers read a list of them differently.
        for modality in query.modalities or ("",):
            chosen = filters | ({"ModalitiesInStudy": modality} if modality else {})
            for row in self._pages(self._client.search_for_studies, "StudyInstanceUID", chosen, _STUDY):
                uid = text(row, "StudyInstanceUID")
                found[uid] = Record(
                    study_uid=uid,
                    patient_id=text(row, "PatientID"),
                    accession=text(row, "AccessionNumber"),
                    study_description=text(row, "StudyDescription"),
                    instances=_number(row, "NumberOfStudyRelatedInstances"),
                )
        return [found[uid] for uid in sorted(found)]

    def series(self, study_uid: str) -> list[Record]:
        """See `Peer`."""

        def search(**options: Any) -> list[dict[str, Any]]:
            return self._client.search_for_series(study_instance_uid=study_uid, **options)

        return [
            Record(
                study_uid=study_uid,
                series_uid=text(row, "SeriesInstanceUID"),
                modality=text(row, "Modality").upper(),
                body_part=text(row, "BodyPartExamined"),
                series_description=text(row, "SeriesDescription"),
            )
            for row in self._pages(search, "SeriesInstanceUID", {}, _SERIES)
        ]

    def instances(self, series: Record) -> list[Record]:
        """See `Peer`."""

        def search(**options: Any) -> list[dict[str, Any]]:
            return self._client.search_for_instances(
                study_instance_uid=series.study_uid, series_instance_uid=series.series_uid, **options
            )

        return [
            Record(
                study_uid=series.study_uid,
                series_uid=series.series_uid,
                sop_uid=text(row, "SOPInstanceUID"),
                sop_class=text(row, "SOPClassUID"),
                modality=series.modality,
                body_part=text(row, "BodyPartExamined") or series.body_part,
                series_description=series.series_description,
            )
            for row in self._pages(search, "SOPInstanceUID", {}, ("00080016", "00180015"))
        ]

    def _pages(
        self, search: Callable[..., list[dict[str, Any]]], uid: str, filters: dict[str, str], fields: Sequence[str]
    ) -> list[Dataset]:
        """All rows of a query with valid UIDs, each once; a server that ignores the page sends the first again."""
        rows: dict[str, Dataset] = {}
        with _translated(self.name):
            while True:
                page = [
                    Dataset.from_json(row)
                    for row in search(search_filters=dict(filters), fields=list(fields), limit=_PAGE, offset=len(rows))
                ]
                new = {text(row, uid): row for row in page if text(row, uid) not in rows}
                if wrong := next((one for one in new if not is_uid(one)), None):
                    raise PeerError(f"lists {'a UID that is not valid' if wrong else 'a row without UID'}", again=False)
                rows |= new
                if not new or len(page) < _PAGE:
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
