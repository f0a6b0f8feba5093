"""The OpenFlow port over TLS: whoever isn't what it says it is stays outside, is told of once, and harms nobody."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fake_switch import FakeSwitch
from test_channel import switch_of, until
from test_sync import UPLINKS, assert_in_sync, node, snapshot, started

from controller import channel as channels
from controller import fleet, views
from controller import session as sessions
from controller.channel import Channel, TargetError
from controller.sync import Phase
from controller.tls import Credentials, CredentialsError, TlsFiles
from deploy import certificates


def files(pki: Path) -> TlsFiles:
    return TlsFiles(pki / "controller.crt", pki / "controller.key", pki / "ca.crt")


def made(directory: Path, *nodes: str) -> Path:
    """A CA, the controller's certificate, and nodes'."""
    certificates.make_ca(directory)
    certificates.make_controller(directory, ["127.0.0.1"])
    for name in nodes:
        certificates.make_node(directory, name)
    return directory


def client(pki: Path, whose: str = "", ca: Path | None = None) -> ssl.SSLContext:
    """A switch's end: as Open vSwitch, it looks at the CA and not at the name."""
    context = ssl.create_default_context(cafile=ca or pki / "ca.crt")
    context.check_hostname = False
    if whose:
        context.load_cert_chain(pki / f"{whose}.crt", pki / f"{whose}.key")
    return context


class Served:
    """A controller of three nodes that listens on a TLS port."""

    def __init__(self, pki: Path) -> None:
        self.pki = pki
        self.controller = started(*map(node, range(1, 4)))
        self.credentials = Credentials(files(pki))
        self.channel = Channel(self.controller.fleet, time.monotonic)
        self.players: list[asyncio.Task[None]] = []

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.channel._servers[0].sockets[0].getsockname()
        return host, port

    def phase(self, name: str) -> Phase | None:
        return self.controller.fleet.phase(name)

    def refused(self) -> list[tuple[str, str, int]]:
        """(kind, reason, count) of every peer that was refused."""
        return [(row["kind"], row["reason"], row["count"]) for row in self.status()["refusedPeers"]]

    def status(self) -> dict[str, Any]:
        return views.status(self.controller.compiler, self.controller.fleet, (), "", time.monotonic())

    def play(self, switch: FakeSwitch, context: ssl.SSLContext | None) -> asyncio.Task[None]:
        task = asyncio.create_task(self._play(switch, context))
        self.players.append(task)
        return task

    async def _play(self, switch: FakeSwitch, context: ssl.SSLContext | None) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            reader, writer = await asyncio.open_connection(*self.address, ssl=context)
            switch.reset()
            writer.write(switch.hello())
            while data := await reader.read(1 << 16):
                writer.write(switch.receive(data))
            writer.close()

    async def synced(self, name: str) -> None:
        await until(lambda: self.phase(name) is Phase.SYNCED, f"{name} is in sync")


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setattr(channels, "TICK", 0.02)
    # However long the machine takes, nobody is given up for it but where a test says so.
    monkeypatch.setattr(channels, "TLS_LIMIT", 3600.0)
    monkeypatch.setattr(sessions, "HANDSHAKE_LIMIT", 3600.0)
    monkeypatch.setattr(sessions, "GIVE_UP_AFTER", 3600.0)
    here = Served(made(tmp_path / "pki", "n1", "n2", "n3"))
    await here.channel.listen("ssl:127.0.0.1:0", here.credentials)
    yield here
    for task in here.players:
        task.cancel()
    await asyncio.gather(*here.players, return_exceptions=True)
    await here.channel.close()


async def test_switches_with_certificates_of_their_nodes_come_into_sync(served: Served) -> None:
    switches = {f"n{number}": switch_of(number) for number in (1, 2, 3)}
    for name, switch in switches.items():
        served.play(switch, client(served.pki, f"nodes/{name}"))
    for name, switch in switches.items():
        await served.synced(name)
        assert_in_sync(served.controller, name, switch)
    served.controller.take(snapshot(*map(node, range(1, 60))))
    for name, switch in switches.items():
        await served.synced(name)
        assert_in_sync(served.controller, name, switch)
    assert not served.refused()
    assert not served.channel.greeting._connections


async def refusal_of(served: Served, context: ssl.SSLContext | None, number: int = 1) -> tuple[str, str]:
    """What the controller says of a switch that it doesn't let in."""
    await asyncio.wait_for(served.play(switch_of(number), context), 60)
    await until(lambda: bool(served.refused()), "it is refused")
    assert served.phase(f"n{number}") is None
    ((kind, reason, count),) = served.refused()
    assert count == 1 and served.status()["refusedConnections"] == {kind: 1}
    return kind, reason


async def test_no_certificate_no_entry(served: Served) -> None:
    assert await refusal_of(served, client(served.pki)) == ("no certificate", "it shows no certificate")


async def test_a_certificate_of_another_ca_is_not_taken(served: Served, tmp_path: Path) -> None:
    other = made(tmp_path / "other", "n1")
    kind, reason = await refusal_of(served, client(other, "nodes/n1", ca=served.pki / "ca.crt"))
    assert kind == "untrusted certificate" and reason.startswith("its certificate is not one of --tls-ca: ")


async def test_a_certificate_that_has_expired_is_not_taken(served: Served) -> None:
    certificates.make_node(served.pki, "n1", days=0, anew=True)
    assert await refusal_of(served, client(served.pki, "nodes/n1")) == (
        "expired certificate",
        "its certificate has expired",
    )


async def test_a_node_can_t_speak_for_another(served: Served) -> None:
    kind, reason = await refusal_of(served, client(served.pki, "nodes/n2"), number=1)
    assert kind == "wrong node"
    assert reason == f"its certificate is node n2's, its datapath id {node(1).datapath_id:016x} is of node n1"


async def test_a_node_can_t_push_another_out(served: Served) -> None:
    first = served.play(switch_of(1), client(served.pki, "nodes/n1"))
    await served.synced("n1")
    await asyncio.wait_for(served.play(switch_of(1), client(served.pki, "nodes/n2")), 60)
    assert served.refused()[0][0] == "wrong node"
    assert served.phase("n1") is Phase.SYNCED and not first.done()


async def test_a_node_that_isn_t_known_yet_can_only_wait_as_itself(served: Served) -> None:
    certificates.make_node(served.pki, "n9")
    stranger = FakeSwitch(node(9).datapath_id, UPLINKS)
    served.play(stranger, client(served.pki, "nodes/n9"))
    await until(lambda: bool(served.controller.fleet.unknown), "it waits")
    kind, reason = await refusal_of(served, client(served.pki, "nodes/n9"), number=1)
    assert kind == "wrong node" and "is of node n1" in reason
    served.controller.take(snapshot(*map(node, (1, 2, 3, 9))))
    await served.synced("n9")


async def test_the_controller_s_certificate_is_no_node_s(served: Served) -> None:
    assert await refusal_of(served, client(served.pki, "controller")) == (
        "untrusted certificate",
        "its certificate isn't for clients",
    )


async def test_a_switch_that_doesn_t_trust_the_controller_is_told_of(served: Served, tmp_path: Path) -> None:
    distrustful = client(served.pki, "nodes/n1", ca=made(tmp_path / "other") / "ca.crt")

    def connect() -> None:
        # A socket of the ssl module says why it goes, which asyncio's TLS doesn't.
        with socket.create_connection(served.address) as plain, pytest.raises(ssl.SSLCertVerificationError):
            distrustful.wrap_socket(plain)

    await asyncio.to_thread(connect)
    await until(lambda: bool(served.refused()), "it is told of")
    ((kind, reason, _),) = served.refused()
    assert kind == "doesn't trust this controller" and "another CA" in reason


async def test_a_switch_that_hangs_up_in_a_handshake_without_a_word_is_told_of(served: Served, tmp_path: Path) -> None:
    distrustful = client(served.pki, "nodes/n1", ca=made(tmp_path / "other") / "ca.crt")
    kind, reason = await refusal_of(served, distrustful)
    assert kind == "TLS handshake failed" and "does it trust this controller's certificate?" in reason


async def test_old_versions_of_tls_are_not_spoken(served: Served) -> None:
    old = client(served.pki, "nodes/n1")
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    kind, reason = await refusal_of(served, old)
    assert kind == "TLS handshake failed" and "1.2" in reason


async def test_plain_openflow_at_the_tls_port_is_refused_with_the_remedy(served: Served) -> None:
    kind, reason = await refusal_of(served, None)
    assert kind == "plain text where TLS is spoken" and "ssl:" in reason


async def test_tls_at_a_plain_port_is_refused_with_the_remedy(served: Served) -> None:
    await served.channel.listen("tcp:127.0.0.1:0")
    served.channel._servers.reverse()
    kind, reason = await refusal_of(served, client(served.pki, "nodes/n1"))
    assert kind == "TLS where plain text is spoken" and "tcp:" in reason


@pytest.mark.parametrize("rubbish", [b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x00\x05aaaaa", b"\x16" + bytes(70_000)])
async def test_rubbish_is_hung_up_on_and_others_don_t_notice(served: Served, rubbish: bytes) -> None:
    served.play(switch_of(2), client(served.pki, "nodes/n2"))
    await served.synced("n2")
    reader, writer = await asyncio.open_connection(*served.address)
    writer.write(rubbish)
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), 60)
    writer.close()
    await until(lambda: bool(served.refused()), "it is refused")
    assert served.phase("n2") is Phase.SYNCED


async def test_rubbish_after_the_handshake_is_hung_up_on(served: Served) -> None:
    reader, writer = await asyncio.open_connection(*served.address, ssl=client(served.pki, "nodes/n1"))
    writer.write(bytes(64))
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), 60)
    writer.close()
    await until(lambda: bool(served.refused()), "it is refused")
    assert served.refused()[0][0] == "not OpenFlow as it should be"


@pytest.mark.parametrize("how", ["says nothing", "stops in the middle of a handshake", "says nothing after it"])
async def test_who_takes_too_long_is_hung_up_on(served: Served, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    # The handshake that is to be whole has all the time that it takes.
    is_whole = how == "says nothing after it"
    monkeypatch.setattr(*(sessions, "HANDSHAKE_LIMIT") if is_whole else (channels, "TLS_LIMIT"), 0.1)
    context = client(served.pki, "nodes/n1") if is_whole else None
    reader, writer = await asyncio.open_connection(*served.address, ssl=context)
    if how == "stops in the middle of a handshake":
        writer.write(b"\x16\x03\x01\x02\x00")
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), 60)
    writer.close()
    await until(lambda: [kind for kind, _, _ in served.refused()] == ["too slow"], "it is told of")
    await until(lambda: not served.channel.connections, "nothing of it is left")


async def test_a_crowd_of_half_open_connections_pushes_out_only_its_own(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "GREETING_LIMIT", 20)
    crowd = [await asyncio.open_connection(*served.address, local_addr=("127.0.0.2", 0)) for _ in range(50)]
    await until(lambda: served.status()["refusedConnections"] == {"too many connections": 30}, "30 are too many")
    served.play(switch_of(1), client(served.pki, "nodes/n1"))
    await served.synced("n1")
    assert {row["peer"] for row in served.status()["refusedPeers"]} == {"127.0.0.2"}
    for _, writer in crowd:
        writer.close()


async def test_a_switch_that_tries_again_and_again_is_logged_once(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(5):
        await asyncio.wait_for(served.play(switch_of(1), client(served.pki, "nodes/n2")), 60)
    assert [count for _, _, count in served.refused()] == [5]
    (said,) = (record.message for record in caplog.records if record.name == fleet.__name__)
    assert said.startswith("127.0.0.1 is refused: its certificate is node n2's")


async def test_new_certificates_are_taken_and_connections_go_on(served: Served) -> None:
    served.play(switch_of(1), client(served.pki, "nodes/n1"))
    await served.synced("n1")
    before = served.credentials.context
    certificates.make_controller(served.pki, ["127.0.0.1"], anew=True)
    assert served.credentials.refresh() and served.credentials.context is not before
    assert not served.credentials.refresh()
    served.play(switch_of(2), client(served.pki, "nodes/n2"))
    await served.synced("n2")
    assert served.phase("n1") is Phase.SYNCED and not served.players[0].done()
    assert served.controller.fleet.syncs["n1"].counters.bundles <= 2


async def test_another_ca_is_taken_and_what_the_former_one_made_is_no_longer(served: Served, tmp_path: Path) -> None:
    other = made(tmp_path / "other", "n1")
    for name in ("ca.crt", "controller.key", "controller.crt"):
        (served.pki / name).write_bytes((other / name).read_bytes())
    assert served.credentials.refresh()
    served.play(switch_of(1), client(other, "nodes/n1"))
    await served.synced("n1")
    kind, _ = await refusal_of(served, client(served.pki, "nodes/n2"), number=2)
    assert kind == "untrusted certificate"


async def test_files_that_are_no_pair_leave_the_former_ones_in_use(served: Served) -> None:
    good = (served.pki / "controller.key").read_bytes()
    (served.pki / "controller.key").write_bytes((served.pki / "ca.key").read_bytes())
    assert not served.credentials.refresh()
    (trouble,) = served.credentials.troubles(datetime.now(UTC))
    assert "the key is not the certificate's; the former ones are still in use" in trouble
    served.play(switch_of(1), client(served.pki, "nodes/n1"))
    await served.synced("n1")
    (served.pki / "controller.key").write_bytes(good)
    assert not served.credentials.refresh()
    assert not served.credentials.troubles(datetime.now(UTC))


def test_a_certificate_that_ends_soon_is_a_problem(tmp_path: Path) -> None:
    credentials = Credentials(files(made(tmp_path)))
    now = datetime.now(UTC)
    assert not credentials.troubles(now)
    assert "it ends in 4.0 days" in credentials.troubles(now + timedelta(days=361))[0]
    assert "it has expired" in credentials.troubles(now + timedelta(days=366))[0]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("controller.crt", b"nothing", "--tls-cert "),
        ("controller.key", b"", "--tls-key "),
        ("ca.crt", b"nothing", "--tls-ca "),
        ("ca.crt", None, "--tls-ca .*: No such file"),
        ("controller.key", None, "--tls-key .*: No such file"),
    ],
)
def test_files_that_can_t_be_used_are_named(tmp_path: Path, name: str, text: bytes | None, said: str) -> None:
    made(tmp_path)
    if text is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(text)
    with pytest.raises(CredentialsError, match=said):
        Credentials(files(tmp_path))


async def test_a_tls_port_takes_credentials(served: Served) -> None:
    with pytest.raises(TargetError, match="takes --tls-cert"):
        await served.channel.listen("ssl:127.0.0.1:0")
