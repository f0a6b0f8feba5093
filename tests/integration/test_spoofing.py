"""A pod can only speak as itself. Every forged frame is sent beside an honest one, which must arrive."""

from __future__ import annotations

import contextlib
import json
import struct
import subprocess
import time
from ipaddress import ip_address
from pathlib import Path

import pytest
from probes import Ear, addresses, inside, pod_netns, until

from deploy.lab.cluster import Lab
from deploy.lab.layout import netns_path
from topology.naming import POD_MAC_PREFIX, ROUTER_MAC, link_local, mac_of

FRAMES = str(Path(__file__).parent / "frames.py")
OTHER_MAC = 0x0A58_0A09_0909
ROUTER_V4, ROUTER_V6 = "10.244.1.1", "fd00:10:244:1::1"


def checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packed(address: str) -> bytes:
    return ip_address(address).packed


def ethernet(source: int, payload: bytes, kind: int, target: int = ROUTER_MAC) -> bytes:
    return target.to_bytes(6, "big") + source.to_bytes(6, "big") + struct.pack("!H", kind) + payload


def udp(mac: int, source: str, target: str, mark: str) -> bytes:
    payload = mark.encode() + b" " * 8
    length = 8 + len(payload)
    header = struct.pack("!HHHH", 4242, 4242, length, 0)
    pseudo = packed(source) + packed(target) + struct.pack("!HHI", 0, 17, length)
    total = checksum(pseudo + header + payload)
    segment = struct.pack("!HHHH", 4242, 4242, length, total) + payload
    if ":" in source:
        ip = struct.pack("!IHBB", 6 << 28, length, 17, 64) + packed(source) + packed(target)
        return ethernet(mac, ip + segment, 0x86DD)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 7, 0, 64, 17, 0) + packed(source) + packed(target)
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    return ethernet(mac, ip + segment, 0x0800)


def arp(mac: int, sender_mac: int, sender: str, target: str, operation: int = 1) -> bytes:
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + sender_mac.to_bytes(6, "big") + packed(sender)
    return ethernet(mac, body + bytes(6) + packed(target), 0x0806, 0xFFFF_FFFF_FFFF)


def solicitation(mac: int, source: str, target: str, *, kind: int = 135, option_mac: int | None = None) -> bytes:
    group = b"\xff\x02" + bytes(9) + b"\x01\xff" + packed(target)[-3:]
    option = struct.pack("!BB", 1 if kind == 135 else 2, 1) + (mac if option_mac is None else option_mac).to_bytes(
        6, "big"
    )
    body = struct.pack("!BBHI", kind, 0, 0, 0 if kind == 135 else 0x2000_0000) + packed(target) + option
    total = checksum(packed(source) + group + struct.pack("!II", len(body), 58) + body)
    body = body[:2] + struct.pack("!H", total) + body[4:]
    ip = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + packed(source) + group
    return ethernet(mac, ip + body, 0x86DD, int.from_bytes(b"\x33\x33" + group[-4:], "big"))


@pytest.mark.parametrize("receiver", ["a2", "b1"])
def test_packets_with_another_s_mac_or_address_are_dropped(lab: Lab, receiver: str) -> None:
    own, other, targets = addresses(lab, "a1"), addresses(lab, "c1"), addresses(lab, receiver)
    mac = mac_of(POD_MAC_PREFIX, ip_address(own[0]))
    local = str(link_local(mac))
    frames = [
        udp(mac, own[0], targets[0], "mark-honest4"),
        udp(OTHER_MAC, own[0], targets[0], "mark-forged-mac4"),
        udp(mac, other[0], targets[0], "mark-forged-ip4"),
        udp(mac, "192.0.2.77", targets[0], "mark-foreign-ip4"),
        udp(mac, ROUTER_V4, targets[0], "mark-gateway-ip4"),
        udp(mac, own[1], targets[1], "mark-honest6"),
        udp(OTHER_MAC, own[1], targets[1], "mark-forged-mac6"),
        udp(mac, other[1], targets[1], "mark-forged-ip6"),
        udp(mac, "2001:db8::77", targets[1], "mark-foreign-ip6"),
        udp(mac, local, targets[1], "mark-link-local6"),
        udp(mac, own[0], targets[0], "mark-last4"),
        udp(mac, own[1], targets[1], "mark-last6"),
    ]
    wanted = {"mark-honest4", "mark-honest6", "mark-last4", "mark-last6"}
    with contextlib.closing(Ear(pod_netns(lab, receiver), "mark-")) as ear:
        sent = inside(pod_netns(lab, "a1"), ["python3", "-I", FRAMES, "send", *(frame.hex() for frame in frames)])
        assert sent.returncode == 0, sent.stderr
        until(lambda: ear.marks >= wanted, "the last are there")
        # They were sent last; yet a new flow is made in the slow path.
        time.sleep(0.5)
        assert ear.marks == wanted


def answer(lab: Lab, frame: bytes, kind: int) -> bytes:
    """The same, which must come."""
    found: list[bytes] = []
    until(lambda: bool(found.extend(answers(lab, frame, kind)) or found), "an answer")
    return found[0]


def answers(lab: Lab, frame: bytes, kind: int) -> list[bytes]:
    """What comes back to pod a1 about the address that is asked for: ARP, or neighbour advertisements."""
    done = inside(pod_netns(lab, "a1"), ["python3", "-I", FRAMES, "ask", "0.4", frame.hex()])
    frames = [bytes.fromhex(text) for text in json.loads(done.stdout)]
    if kind == 0x0806:
        return [x for x in frames if x[12:14] == b"\x08\x06" and x[20:22] == b"\0\2" and x[28:32] == frame[38:42]]
    found = [each for each in frames if each[12:14] == b"\x86\xdd" and each[20] == 58 and each[54] == 136]
    return [each for each in found if each[62:78] == frame[62:78]]


def test_arp_is_answered_by_the_router_and_only_to_the_pod_s_own_address(lab: Lab) -> None:
    own, other, far = addresses(lab, "a1"), addresses(lab, "a2"), addresses(lab, "b1")[0]
    mac = mac_of(POD_MAC_PREFIX, ip_address(own[0]))
    # The pod's kernel asks for its gateway itself now and then, and never for another pod.
    for target in (ROUTER_V4, far):
        told = answer(lab, arp(mac, mac, own[0], target), 0x0806)
        assert told[22:28] == ROUTER_MAC.to_bytes(6, "big") and told[28:32] == packed(target)
    assert not answers(lab, arp(mac, mac, other[0], far), 0x0806)
    assert not answers(lab, arp(mac, OTHER_MAC, own[0], far), 0x0806)
    assert not answers(lab, arp(OTHER_MAC, OTHER_MAC, own[0], far), 0x0806)


def test_neighbour_solicitations_are_answered_by_the_router_and_only_to_the_pod_s_own_address(lab: Lab) -> None:
    own, other, far = addresses(lab, "a1"), addresses(lab, "a2"), addresses(lab, "b1")[1]
    mac = mac_of(POD_MAC_PREFIX, ip_address(own[0]))
    for target in (ROUTER_V6, far):
        told = answer(lab, solicitation(mac, own[1], target), 0x86DD)
        assert told[62:78] == packed(target) and told[80:86] == ROUTER_MAC.to_bytes(6, "big")
    assert answer(lab, solicitation(mac, str(link_local(mac)), far), 0x86DD)
    assert not answers(lab, solicitation(mac, other[1], far), 0x86DD)
    assert not answers(lab, solicitation(OTHER_MAC, own[1], far), 0x86DD)
    assert not answers(lab, solicitation(mac, own[1], far, option_mac=OTHER_MAC), 0x86DD)


def test_nobody_hears_a_forged_announcement(lab: Lab) -> None:
    """Neither ARP replies nor neighbour advertisements of a pod reach another pod, whatever they claim."""
    own, other, target = addresses(lab, "a1"), addresses(lab, "b1"), addresses(lab, "a2")
    mac = mac_of(POD_MAC_PREFIX, ip_address(own[0]))
    frames = [
        arp(mac, mac, other[0], target[0], operation=2),
        arp(mac, mac, own[0], own[0], operation=1),
        solicitation(mac, own[1], other[1], kind=136),
        udp(mac, own[0], target[0], "mark-end"),
    ]
    netns = pod_netns(lab, "a2")
    with subprocess.Popen(
        ["nsenter", f"--net={netns_path(netns)}", "--", "tcpdump", "-nn", "-e", "-l", "-i", "eth0", "-Q", "in"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as dump:
        assert dump.stderr is not None and dump.stdout is not None
        while "listening on" not in dump.stderr.readline():
            assert dump.poll() is None
        inside(pod_netns(lab, "a1"), ["python3", "-I", FRAMES, "send", *(frame.hex() for frame in frames)])
        lines = []
        for line in dump.stdout:
            lines.append(line)
            if ".4242" in line:
                break
        dump.terminate()
    assert not [line for line in lines if "ARP" in line or "neighbor advertisement" in line], lines
