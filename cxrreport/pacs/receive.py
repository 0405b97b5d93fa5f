"""The storage SCP: known peers only, within limits, one callback for each instance.

pynetdicom has no limit for what a peer announces or sends before it hands an instance over, and finishes TLS
handshakes before it accepts the next connection. The subclasses here add both.
"""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self

from pydicom.uid import (
    JPEG2000,
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from cxrreport.errors import OutputError
from cxrreport.pacs.arrival import CANNOT_UNDERSTAND
from cxrreport.pacs.peers import MB, silence_libraries, tls_context
from cxrreport.settings import LimitSettings, ReceiveSettings

IMAGES: tuple[UID, ...] = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)
"""Classes in which radiographs are stored."""
SYNTAXES: tuple[UID, ...] = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    JPEGLosslessSV1,
    JPEGLossless,
    JPEG2000Lossless,
    JPEG2000,
    JPEGLSLossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    RLELossless,
)
"""Transfer syntaxes that `ingest` reads."""
_SMALLEST_LIMIT = 1 << 18
"""A request for an association with all its contexts is longer than small data units."""
_MESSAGE = 64  # bytes of headers for each data unit
logger = logging.getLogger(__name__)
_config.LOG_HANDLER_LEVEL = "none"  # logs of associations name senders and UIDs


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent an instance: its AE title and address."""

    ae_title: str
    address: str


Store = Callable[[bytes, Sender], int]
"""Takes the content of a DICOM file and returns a status of C-STORE once it is safe."""


class _BoundedSocket(AssociationSocket):
    """A socket that closes when a data unit or an instance is longer than the limits."""

    def __init__(self, plain: AssociationSocket, limits: LimitSettings) -> None:
        vars(self).update(vars(plain))  # its own constructor has announced the connection already
        self._longest = max(limits.pdu_bytes, _SMALLEST_LIMIT)
        self._largest = limits.instance_mb * MB
        self.received = 0
        """Bytes since the last complete instance."""

    def recv(self, nr_bytes: int) -> bytearray:
        """Exactly `nr_bytes`, or fewer if the peer closes.

        Raises:
            ConnectionError: it is more than the limits allow.
        """
        self.received += nr_bytes
        if nr_bytes > self._longest or self.received > self._largest + _MESSAGE * (self.received >> 12) + MB:
            raise ConnectionError("longer than the limits")
        data, read = bytearray(nr_bytes), 0
        view = memoryview(data)
        connection: Any = self.socket
        while read < nr_bytes:
            count = connection.recv_into(view[read:], nr_bytes - read)
            if not count:
                break
            read += count
        view.release()
        del data[read:]
        return data


class _Handler(RequestHandler):
    """A connection: refused unless its address is known, with a deadline for TLS."""

    server: _Server

    def handle(self) -> None:
        """Start an association."""
        if str(ip_address(self.client_address[0])) not in self.server.addresses:
            self.server.refused("address", Sender("", self.client_address[0]))
            self.server.shutdown_request(self.request)
            return
        connection: Any = self.request
        connection.settimeout(self.server.settings.timeout_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if isinstance(connection, ssl.SSLSocket):
            try:
                connection.do_handshake()
            except OSError:
                self.server.refused("tls", Sender("", self.client_address[0]))
                self.server.shutdown_request(self.request)
                return
        super().handle()

    def _create_association(self) -> Association:
        association = super()._create_association()
        plain: Any = association.dul.socket
        association.dul.socket = _BoundedSocket(plain, self.server.settings.limits)
        return association


class _Server(ThreadedAssociationServer):
    """A server whose handshakes happen in the threads of the connections."""

    request_queue_size = 64
    daemon_threads = True

    def __init__(
        self, entity: AE, settings: ReceiveSettings, refused: Callable[[str, Sender], None], handlers: list[Any]
    ) -> None:
        self.settings, self.refused = settings, refused
        self.addresses = {peer.address for peer in settings.peers}
        tls = None if settings.tls is None else tls_context(settings.tls, server=True)
        address = (settings.host, settings.port)
        super().__init__(entity, address, settings.ae_title, entity.supported_contexts, tls, handlers, _Handler)

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection."""
        listening: Any = self.socket
        client, address = listening.accept()
        if self.ssl_context:
            client.settimeout(self.settings.timeout_s)
            client = self.ssl_context.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
        return client, address

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """One line; the default prints a traceback."""
        logger.warning("receive: a connection failed (%s)", type(sys.exc_info()[1]).__name__)


class Receiver:
    """Listens within a `with` block.

    Args:
        settings: address, peers, limits.
        store: called for each instance, in threads; see `Store`.
        refused: called with a word and the sender when a connection is refused.

    Raises:
        OutputError: the address cannot be listened at.
        SettingsError: a certificate cannot be read.
    """

    def __init__(
        self, settings: ReceiveSettings, store: Store, refused: Callable[[str, Sender], None] = lambda *_: None
    ) -> None:
        silence_libraries()
        self._settings, self._store = settings, store
        self._known = {(peer.ae_title, peer.address) for peer in settings.peers}
        self._refused = refused
        entity = AE(settings.ae_title)
        entity.maximum_pdu_size = settings.limits.pdu_bytes
        entity.maximum_associations = settings.limits.associations
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = settings.timeout_s
        entity.require_called_aet = True
        entity.require_calling_aet = [peer.ae_title for peer in settings.peers]  # without any, every address is refused
        entity.add_supported_context(Verification)
        for kind in IMAGES:
            entity.add_supported_context(kind, list(SYNTAXES))
        handlers: list[Any] = [
            (evt.EVT_ACCEPTED, self._accepted),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_C_STORE, self._received),
        ]
        try:
            self._server = _Server(entity, settings, refused, handlers)
        except OSError as error:
            raise OutputError(
                f"receive: {settings.host}:{settings.port} cannot be listened at ({error.strerror}); stop the program "
                "that uses the port, or set another"
            ) from error
        entity._servers.append(self._server)
        self.port: int = self._server.server_address[1]
        """TCP port."""

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="receiver", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections. What was not acknowledged is sent again; what was stored meanwhile is known then."""
        with suppress(ValueError):  # it is no longer in pynetdicom's list
            self._server.shutdown()
        self._thread.join()
        active = self._server.active_associations
        for association in active:
            association.abort()
        for association in active:
            association.join(self._settings.timeout_s)

    def associations(self) -> int:
        """Open associations."""
        return len(self._server.active_associations)

    def _sender(self, event: evt.Event) -> Sender:
        requestor: Any = event.assoc.requestor
        return Sender(requestor.ae_title.strip(), str(ip_address(requestor.address_info.address)))

    def _accepted(self, event: evt.Event) -> None:
        sender = self._sender(event)
        if (sender.ae_title, sender.address) not in self._known:  # each is known, but not together
            self._refused("peer", sender)
            event.assoc.abort()

    def _rejected(self, event: evt.Event) -> None:
        self._refused("association", self._sender(event))

    def _received(self, event: evt.Event) -> int:
        connection: Any = event.assoc.dul.socket
        if connection is not None:
            connection.received = 0
        sender = self._sender(event)
        if (sender.ae_title, sender.address) not in self._known:
            return CANNOT_UNDERSTAND
        return self._store(event.encoded_dataset(), sender)
