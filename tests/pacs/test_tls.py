"""TLS: each side proves who it is, to servers and from clients that others wrote."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from pacs.conftest import write_radiograph
from pacs.fake_web import fake_web
from pacs.servers import STORESCU, free_port, needs_dcmtk, send, wait_for
from pacs.test_receive import node, receiving, wait_until

from cxrreport.errors import PeerError, SettingsError
from cxrreport.pacs.peers import Query, open_peer, tls_context
from cxrreport.settings import DimseSettings, LimitSettings, TlsSettings, WebSettings


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities, each with certificates of a server and a client."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificates")

    def run(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    for authority in ("ours", "theirs"):
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        run(
            "req",
            "-x509",
            *key,
            "-keyout",
            f"{authority}.key",
            "-out",
            f"{authority}.pem",
            "-days",
            "2",
            "-subj",
            "/CN=A",
        )
        for name in ("server", "client"):
            one = f"{authority}-{name}"
            run("req", *key, "-keyout", f"{one}.key", "-out", f"{one}.csr", "-subj", "/CN=127.0.0.1")
            (folder / "san").write_text("subjectAltName=IP:127.0.0.1\n")
            signed = ("-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial", "-days", "2")
            run("x509", "-req", "-in", f"{one}.csr", *signed, "-extfile", "san", "-out", f"{one}.pem")
    return folder


@needs_dcmtk
def test_tls_demands_a_certificate_of_our_authority(certificates: Path, tmp_path: Path) -> None:
    write_radiograph(tmp_path / "1.dcm", 1)
    files = {"certificate": "ours-server.pem", "key": "ours-server.key", "authority": "ours.pem"}
    tls = {name: str(certificates / file) for name, file in files.items()}
    with receiving(tls=tls) as (receiver, got, refused):

        def send_as(who: str) -> int:
            keys = [str(certificates / f"{who}-client{suffix}") for suffix in (".key", ".pem")]
            command = [str(STORESCU), "-aet", "STORESCU", "-aec", "CXRREPORT", "+tls", *keys, "+cf"]
            command += [str(certificates / "ours.pem"), "127.0.0.1", str(receiver.port), str(tmp_path / "1.dcm")]
            return subprocess.run(command, capture_output=True, timeout=60).returncode

        # A client that never finishes its handshake does not hold up the others.
        with socket.create_connection(("127.0.0.1", receiver.port)):
            assert send_as("ours") == 0
        assert len(got) == 1
        assert send_as("theirs") != 0
        assert send(node(receiver), tmp_path / "1.dcm")[0].returncode != 0
        assert len(got) == 1
        wait_until(lambda: refused.count("tls") >= 2)


def ours(certificates: Path, who: str, authority: str = "ours") -> TlsSettings:
    return TlsSettings(
        certificate=certificates / f"ours-{who}.pem",
        key=certificates / f"ours-{who}.key",
        authority=certificates / f"{authority}.pem",
    )


@needs_dcmtk
def test_a_document_goes_to_a_node_with_tls_that_we_can_verify(certificates: Path, tmp_path: Path) -> None:
    write_radiograph(tmp_path / "1.dcm", 1)
    port, stored = free_port(), tmp_path / "stored"
    stored.mkdir()
    keys = [str(certificates / f"ours-server{suffix}") for suffix in (".key", ".pem")]
    command = [str(STORESCU).replace("storescu", "storescp"), "-od", str(stored), "+tls", *keys]
    command += ["+cf", str(certificates / "ours.pem"), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, process)

        def peer(tls: TlsSettings | None):  # type: ignore[no-untyped-def]
            values = {"host": "127.0.0.1", "port": port, "ae_title": "ANY", "tls": tls, "timeout_s": 5}
            return open_peer(DimseSettings.model_validate(values), LimitSettings())

        peer(ours(certificates, "client")).store(tmp_path / "1.dcm")
        assert len(list(stored.iterdir())) == 1
        for wrong in (ours(certificates, "client", authority="theirs"), None):
            with pytest.raises(PeerError):
                peer(wrong).store(tmp_path / "1.dcm")
        assert len(list(stored.iterdir())) == 1
    finally:
        process.kill()
        process.wait()


def test_https_is_verified(certificates: Path) -> None:
    with fake_web(lambda *_: (200, [])) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "ours-server.pem", certificates / "ours-server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        url = server.url.replace("http://", "https://")
        for authority, reached in (("ours", True), ("theirs", False), (None, False)):
            tls = TlsSettings(authority=None if authority is None else certificates / f"{authority}.pem")
            peer = open_peer(WebSettings(url=url, tls=tls), LimitSettings())
            if reached:
                assert peer.studies(Query(patient_id="1")) == []
            else:
                with pytest.raises(PeerError, match="its certificate cannot be verified"):
                    peer.studies(Query(patient_id="1"))


def test_a_certificate_that_is_not_there_is_an_error_of_the_settings(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="a server needs certificate"):
        tls_context(TlsSettings(), server=True)
    with pytest.raises(SettingsError, match="cannot be read"):
        tls_context(TlsSettings(certificate=tmp_path / "nowhere.pem"), server=False)
