"""DICOM nodes as archives: C-FIND, C-GET, C-MOVE and C-STORE."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedSRStorage
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from cxrreport.errors import CxrReportError, PeerError
from cxrreport.ingestion.dicom import text
from cxrreport.pacs.arrival import OUT_OF_RESOURCES, SUCCESS
from cxrreport.pacs.peers import LEVELS, MB, Listings, Record, is_uid, tls_context
from cxrreport.pacs.receive import IMAGES, SYNTAXES, Receiver
from cxrreport.settings import DimseSettings, LimitSettings, PeerSettings, ReceiveSettings

_RETRIEVED = (*IMAGES, EnhancedSRStorage)
_PENDING = (0xFF00, 0xFF01)
_WARNINGS = range(0xB000, 0xC000)
_OUT_OF_RESOURCES = range(0xA700, 0xA800)


class DimsePeer(Listings):
    """See `Peer`."""

    def __init__(self, settings: DimseSettings, limits: LimitSettings) -> None:
        self.name = f"{settings.ae_title}@{settings.host}:{settings.port}"
        self._settings, self._limits = settings, limits
        self._tls = None if settings.tls is None else (tls_context(settings.tls, server=False), settings.host)

    def can_read_back(self) -> bool:
        """See `Peer`."""
        return self._settings.retrieve == "get"

    def find(self, level: str, known: Mapping[str, str], wanted: Sequence[str]) -> list[Dataset]:
        """See `Search`: the answers of a C-FIND."""
        rows: dict[str, Dataset] = {}
        with self._association([build_context(StudyRootQueryRetrieveInformationModelFind)]) as association:
            query = _identifier(level, {**dict.fromkeys((LEVELS[level], *wanted), ""), **known})
            for status, row in association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind):
                if _code(status) in _PENDING and row is not None:
                    uid = text(row, LEVELS[level])
                    if not is_uid(uid):
                        raise PeerError("lists a UID that is not valid", again=False)
                    rows[uid] = row
                else:
                    _check(status, "a query")
        return list(rows.values())

    def retrieve(self, instances: Sequence[Record], save: Callable[[bytes], None]) -> None:
        """See `Peer`."""
        errors: list[CxrReportError] = []

        def keep(content: bytes) -> bool:
            try:
                if len(content) > self._limits.instance_mb * MB:
                    raise PeerError(f"{self.name}: sent more than limits.instance_mb allows", again=False)
                save(content)
            except CxrReportError as error:
                errors.append(error)
            return not errors

        get = self._settings.retrieve == "get"
        with self._getting(keep) if get else self._moving(keep) as send:
            for one in instances:
                keys = {"StudyInstanceUID": one.study_uid, "SeriesInstanceUID": one.series_uid}
                final = None
                for status, _ in send(_identifier("IMAGE", keys | {"SOPInstanceUID": one.sop_uid})):
                    final = status
                if errors:
                    raise errors[0]
                _check(final, "a retrieval")

    @contextmanager
    def _getting(self, keep: Callable[[bytes], bool]) -> Iterator[Callable[[Dataset], Any]]:
        # One syntax a context: the archive can then send each instance as it is stored.
        storage = [build_context(kind, syntax) for kind in _RETRIEVED for syntax in SYNTAXES]
        roles = [build_role(kind, scp_role=True) for kind in _RETRIEVED]

        def received(event: evt.Event) -> int:
            return SUCCESS if keep(event.encoded_dataset()) else OUT_OF_RESOURCES

        contexts = [build_context(StudyRootQueryRetrieveInformationModelGet), *storage]
        with self._association(contexts, roles, [(evt.EVT_C_STORE, received)]) as association:
            yield lambda query: association.send_c_get(query, StudyRootQueryRetrieveInformationModelGet)

    @contextmanager
    def _moving(self, keep: Callable[[bytes], bool]) -> Iterator[Callable[[Dataset], Any]]:
        settings = self._settings
        listening = ReceiveSettings(
            ae_title=settings.own_ae_title,
            host=settings.receive_host,
            port=settings.receive_port,
            tls=settings.tls,
            limits=self._limits,
            timeout_s=settings.timeout_s,
            peers=tuple(PeerSettings(ae_title=settings.ae_title, address=address) for address in _addresses(settings)),
        )
        contexts = [build_context(StudyRootQueryRetrieveInformationModelMove)]
        with (
            Receiver(listening, lambda content, _: SUCCESS if keep(content) else OUT_OF_RESOURCES),
            self._association(contexts) as association,
        ):
            yield lambda query: association.send_c_move(
                query, settings.own_ae_title, StudyRootQueryRetrieveInformationModelMove
            )

    def store(self, path: Path) -> None:
        """See `Peer`."""
        dataset = dcmread(path)
        context = build_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
        with self._association([context]) as association:
            _check(association.send_c_store(dataset), "a document")

    @contextmanager
    def _association(
        self,
        contexts: list[PresentationContext],
        roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
        handlers: Sequence[Any] = (),
    ) -> Iterator[Association]:
        """An association for the block; whatever pynetdicom and pydicom raise in it is a PeerError."""
        settings = self._settings
        entity = AE(settings.own_ae_title)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = settings.timeout_s
        entity.connection_timeout = settings.timeout_s
        association = None
        try:
            association = entity.associate(
                settings.host,
                settings.port,
                contexts,
                settings.ae_title,
                max_pdu=self._limits.pdu_bytes,
                ext_neg=list(roles),
                tls_args=self._tls,
                evt_handlers=list(handlers),
            )
            if association.is_rejected:
                raise PeerError("refuses the association; it must know both AE titles and the address of this machine")
            if not association.is_established:
                raise PeerError("cannot be reached, or accepts none of the services that are asked for")
            yield association
        except PeerError as error:
            raise PeerError(f"{self.name}: {error}", again=error.again) from None
        except CxrReportError:
            raise
        except Exception as error:
            raise PeerError(f"{self.name}: its answer cannot be read ({type(error).__name__})") from None
        finally:
            if association is not None and association.is_established:
                association.release()


def _addresses(settings: DimseSettings) -> list[str]:
    import socket

    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
    except OSError:
        raise PeerError(f"{settings.host}: no such host") from None
    return sorted({str(address[4][0]) for address in found})


def _identifier(level: str, keys: dict[str, str]) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    query.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    return query


def _code(status: Dataset | None) -> int | None:
    """The status of an answer; `None` if there was none."""
    return None if status is None or "Status" not in status else int(status.Status)


def _check(status: Dataset | None, what: str) -> None:
    """Raise PeerError unless a service succeeded (PS3.4 B.2.3, C.4)."""
    code = _code(status)
    if code is None:
        raise PeerError(f"closed the connection, or did not answer {what} in time")
    if code != SUCCESS and code not in _WARNINGS:
        raise PeerError(f"refused {what} with status {code:04X}", again=code in _OUT_OF_RESOURCES or code >= 0xC000)
    failed = int(status.get("NumberOfFailedSuboperations") or 0) if status is not None else 0
    if failed:
        raise PeerError("could not send an instance")
