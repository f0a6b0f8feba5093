"""The linter for offload: it agrees with Open vSwitch's rules, each both ways; chains; and which flow is to blame."""

from __future__ import annotations

import re

import pytest
from offload_corpus import CORPUS, TAKEN, Flow

from flows.offload import rules
from flows.offload.datapath import DatapathTextError, read_dump, read_flow, read_parts
from flows.offload.lint import Verdict, lint
from flows.offload.rules import Reason
from flows.offload.trace_text import blame, is_trace, read_trace


def judged(flow: Flow, port: str = "2") -> Verdict:
    match, actions = flow
    (verdict,) = lint(
        [read_flow(f"recirc_id(0),in_port({port}),{match}, packets:1, bytes:60, used:1s, actions:{actions}")]
    )
    return verdict


# Rules ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("about", "taken", "refused", "why"), CORPUS)
def test_each_rule_holds_both_ways(about: str, taken: Flow, refused: Flow, why: str) -> None:
    assert judged(taken).reasons == (), about
    (reason,) = judged(refused).reasons
    assert why in reason.why, reason


@pytest.mark.parametrize("match", TAKEN)
def test_what_flower_matches_may_have_any_value_and_mask(match: str) -> None:
    assert judged((match, "3")).reasons == ()


def test_the_corpus_has_every_rule() -> None:
    about = {each[0] for each in CORPUS}
    refusing = {
        name for name, check in rules.MATCHES.items() if check is not rules._taken and name not in ("ipv4.frag", "eth")
    }
    assert refusing <= about
    assert rules._FOREIGN.keys() <= about
    assert {f"set {each}" for each in rules._SETTABLE if each not in ("eth_type", "mpls")} <= about
    # And what is taken without a question is there at least once.
    text = " ".join([*TAKEN, *(flow[0] for each in CORPUS for flow in each[1:3])])
    for name, check in rules.MATCHES.items():
        if check is rules._taken and name not in ("recirc_id", "in_port", "mpls.lse0", "vlan.tpid"):
            layer, _, field = name.partition(".")
            assert re.search(rf"\b{layer}\([^)]*\b{field}[=(]" if field else rf"\b{layer}\(", text), name


def test_a_flow_has_all_its_reasons() -> None:
    verdict = judged((f"skb_mark(0x1),dp_hash(0x1/0x1),{TAKEN[0]}", "trunc(100),userspace(pid=1,sFlow(vid=0)),3"))
    assert [each.kind for each in verdict.reasons] == ["match", "match", "action", "action"]
    assert [each.what for each in verdict.reasons] == [
        *("skb_mark(0x1)", "dp_hash(0x1/0x1)"),
        *("trunc(100)", "userspace(pid=1,sFlow(vid=0))"),
    ]


# Text -----------------------------------------------------------------------------------------------------------------

VERBOSE = (
    "ufid:0f4a5ac0-8d35-4b51-8a1d-0c4b1a9d9f4e, skb_priority(0/0),tunnel(tun_id=0xcd348,src=172.30.0.1,dst=172.30.0.2,"
    "ttl=64/0,tp_src=59095/0,tp_dst=4789/0,flags(-df-csum+key)),skb_mark(0/0),ct_state(0x22/0x3d),ct_zone(0x5b06/0),"
    "ct_mark(0/0x3),ct_label(0/0),ct_tuple6(src=fd00:10:244:1::2/::,dst=fd00:10:244:2::3/::,proto=6/0,src_port=37900/0,"
    "dst_port=8080/0),recirc_id(0x5),dp_hash(0/0),in_port(vxlan_sys_4789),packet_type(ns=0,id=0),"
    "eth(src=0a:58:0a:f4:01:02,dst=0a:57:00:00:00:01),eth_type(0x86dd),ipv6(src=fd00:10:244:1::2,dst=fd00:10:244:2::3,"
    "label=0x133ab/0,proto=6/0,tclass=0/0,hlimit=64/0,frag=no),tcp(src=37900/0,dst=8080/0),tcp_flags(0/0), packets:19, "
    "bytes:1688, used:0.103s, flags:P., dp:ovs, "
    "actions:set(eth(src=0a:57:00:00:00:01,dst=0a:58:0a:f4:02:03)),pod4cf74dbc0d03, dp-extra-info:miniflow_bits(8,1)"
)
OF_KERNEL = (
    "recirc_id(0x5),tunnel(tun_id=0x5,src=10.0.0.2,dst=10.0.0.1,flags(-df-csum+key)),in_port(4),ct_state(-new+trk),"
    "eth(dst=0a:57:00:00:00:01),eth_type(0x0800),ipv4(frag=no), packets:7, bytes:420, used:0.5s, offloaded:yes, dp:tc, "
    "actions:set(eth(dst=0a:58:0a:f4:02:03)),9"
)


def test_flows_of_both_datapaths_are_read() -> None:
    userspace, kernel = read_dump(f"flow-dump from the main thread:\n{VERBOSE}\n\n{OF_KERNEL}\n")
    assert (userspace.ufid, userspace.packets, userspace.bytes) == ("0f4a5ac0-8d35-4b51-8a1d-0c4b1a9d9f4e", 19, 1688)
    assert (userspace.in_port, userspace.recirculation, userspace.offloaded) == ("vxlan_sys_4789", 5, "")
    assert userspace.match.startswith("skb_priority(0/0),tunnel(") and userspace.match.endswith("tcp_flags(0/0)")
    assert [each.text for each in userspace.actions] == [
        "set(eth(src=0a:57:00:00:00:01,dst=0a:58:0a:f4:02:03))",
        "pod4cf74dbc0d03",
    ]
    matched = {str(each) for each in userspace.matched}
    assert {"ct_state(0x22/0x3d)", "ipv6(src=fd00:10:244:1::2)", "tunnel(tun_id=0xcd348)"} <= matched
    assert userspace.value("ipv6.proto") == "6" and "ipv6(proto=6/0)" not in matched
    assert (kernel.in_port, kernel.recirculation, kernel.packets, kernel.offloaded) == ("4", 5, 7, "yes")


def test_a_pasted_flow_may_be_a_match_and_actions_alone() -> None:
    flow = read_flow("in_port(2),eth_type(0x0800),ipv4(frag=no) actions:ct(zone=5,nat),recirc(0x1)")
    assert (flow.in_port, flow.goes_on_to) == ("2", (1,))


@pytest.mark.parametrize(
    "text",
    [
        "what is this",
        "in_port(2),eth_type(0x0800)",
        "in_port(2, packets:0, bytes:0, used:never, actions:drop",
        "in_port(2)), packets:0, bytes:0, used:never, actions:drop)",
        " actions:drop",
    ],
)
def test_what_is_no_flow_is_said_to_be_none(text: str) -> None:
    with pytest.raises(DatapathTextError):
        read_dump(text)


def test_parts_keep_how_they_were_written() -> None:
    text = "tnl_push(tnl_port(vxlan_sys_4789),header(size=50,udp(src=0,dst=4789))),eth0,ct,nat(src=fd00::1)"
    parts = read_parts(text)
    assert ",".join(each.text for each in parts) == text
    assert [each.name for each in parts] == ["tnl_push", "eth0", "ct", "nat"]


def test_faults_that_open_vswitch_writes_are_kept_as_they_are() -> None:
    (part,) = read_parts("set(tunnel(tun_id=0x5,key6(bad key length 1, expected 0)(01)flags(key)))")
    assert [each.name for each in part.parts[0].parts] == ["tun_id", "key6(bad key length 1, expected 0)(01)flags(key)"]


# Chains ---------------------------------------------------------------------------------------------------------------


def flow(port: str, chain: int, rest: str = "eth_type(0x0800),ipv4(frag=no)", actions: str = "9") -> str:
    return f"recirc_id({chain:#x}),in_port({port}),{rest}, packets:1, bytes:60, used:1s, actions:{actions}"


def kinds(*lines: str) -> list[str]:
    """Of each flow: ok, or the kind of its reason."""
    return [each.reasons[0].kind if each.reasons else "ok" for each in lint(read_dump("\n".join(lines)))]


def test_a_chain_is_offloaded_only_behind_a_flow_that_is() -> None:
    good, bad = flow("2", 0, actions="ct(zone=5),recirc(0x1)"), flow("2", 0, actions="hash(l4(0)),recirc(0x1)")
    second, third = flow("2", 1, actions="ct(zone=6),recirc(0x2)"), flow("2", 2)
    assert kinds(third, second, good) == ["ok", "ok", "ok"]
    assert kinds(third, second, bad) == ["chain", "chain", "action"]
    # One is enough.
    assert kinds(second, bad, good) == ["ok", "action", "ok"]


def test_chains_are_each_port_s_own() -> None:
    bad = flow("2", 0, actions="trunc(100),recirc(0x1)")
    assert kinds(bad, flow("2", 1), flow("3", 0, actions="recirc(0x1)"), flow("3", 1)) == [
        "action",
        "chain",
        "ok",
        "ok",
    ]


def test_flows_in_a_circle_lead_to_nothing() -> None:
    assert kinds(flow("2", 1, actions="recirc(0x2)"), flow("2", 2, actions="recirc(0x1)")) == ["chain", "chain"]


def test_a_flow_whose_predecessor_is_not_here_is_said_to_hang_on_it() -> None:
    (verdict,) = lint(read_dump(flow("2", 7)))
    assert verdict.offloadable and verdict.dangling
    assert not lint(read_dump(flow("2", 0)))[0].dangling


def test_what_a_flow_goes_on_to_is_refused_with_it() -> None:
    bad = [flow("2", 0, actions=f"trunc(100),recirc({each:#x})") for each in (1, 2)]
    verdicts = lint(read_dump("\n".join([*bad, flow("2", 1), flow("2", 2), flow("3", 0)])))
    assert sum(each.offloadable for each in verdicts) == 1
    assert sorted(f"{reason.kind}: {reason.why}" for each in verdicts for reason in each.reasons) == [
        *["action: TC can't cut packets"] * 2,
        *["chain: no flow that goes on to this chain is offloadable"] * 2,
    ]


def test_what_is_for_no_established_connection_is_told_apart_and_so_is_what_follows() -> None:
    first = flow("2", 1, "ct_state(+new+trk),eth_type(0x0800),ipv4(frag=no)", "hash(l4(0)),recirc(0x2)")
    chosen = flow("2", 2, "dp_hash(0x1/0xf),eth_type(0x0800),ipv4(frag=no)", "ct(commit,nat(dst=1.2.3.4)),recirc(0x3)")
    rest = flow("2", 3, "ct_state(0x21/0x21),eth_type(0x0800),ipv4(frag=no)")
    begun = flow("2", 0, actions="ct(zone=5),recirc(0x1)")
    later = flow("2", 1, "ct_state(+est+trk-new),eth_type(0x0800),ipv4(frag=no)")
    asked = flow("2", 0, "eth_type(0x0806),arp(op=1)", "userspace(pid=0,slow_path(action))")
    solicits = flow("2", 0, "eth_type(0x86dd),ipv6(proto=58,frag=no),icmpv6(type=135/0)", "userspace(pid=0)")
    dhcp = flow("2", 0, "eth_type(0x0800),ipv4(proto=17,frag=no),udp(src=68,dst=67)", "userspace(pid=0)")
    lldp = flow("2", 0, "eth_type(0x88cc)", "userspace(pid=0)")
    verdicts = lint(read_dump("\n".join([rest, chosen, first, begun, later, asked, solicits, dhcp, lldp])))
    assert [each.occasion for each in verdicts] == [
        *(["first packets"] * 3),
        *("", "", "ARP", "neighbour discovery", "DHCP", "LLDP"),
    ]


def test_where_the_flow_before_is_gone_the_packet_that_made_it_tells() -> None:
    made_by = "ct_state({}/0),dp_hash(0x1/0xf),eth_type(0x0800),ipv4(frag=no)"
    dump = "\n".join(flow("2", 7, made_by.format(state)) for state in ("0x21", "0x22"))
    assert [each.occasion for each in lint(read_dump(dump))] == ["first packets", ""]
    # With that flow there, it is that one which tells: others may follow the first packet.
    dump = "\n".join([flow("2", 0, actions="hash(l4(0)),recirc(0x7)"), flow("2", 7, made_by.format("0x21"))])
    assert [each.occasion for each in lint(read_dump(dump))] == ["", ""]


# Traces ---------------------------------------------------------------------------------------------------------------

TRACE = """Flow: sctp,in_port=3,vlan_tci=0x0000,dl_src=0a:58:0a:f4:01:02,nw_src=10.244.1.2,nw_dst=10.244.2.3,nw_ttl=64

bridge("br-int")
----------------
 0. ip,in_port=3,dl_src=0a:58:0a:f4:01:02, priority 200, cookie 0x5b830033d3de344f
    set_field:0x1/0xf->reg0
    goto_table:15
15. ip, priority 200, cookie 0x5b01000000000000
    ct(table=20,zone=NXM_NX_REG8[0..15],nat)
     -> A clone of the packet is forked to recirculate.

Final flow: sctp,reg0=0x1,in_port=3
Megaflow: recirc_id=0,eth,ip,in_port=3,dl_src=0a:58:0a:f4:01:02,nw_src=10.244.1.2,nw_dst=10.244.2.0/23,nw_frag=no
Datapath actions: ct(zone=23300,nat),recirc(0x3)

===============================================================================
recirc(0x3) - resume conntrack with default ct_state=trk|new (use --ct-next to customize)
===============================================================================

Flow: recirc_id=0x3,ct_state=new|trk,ct_zone=23300,eth,sctp,reg0=0x1,in_port=3,nw_dst=10.244.2.3,nw_ttl=64

bridge("br-int")
----------------
    thaw
        Resuming from table 20
20. pkt_mark=0x1/0x1, priority 200, cookie 0x5b01000000000000
    goto_table:24
24. priority 0, cookie 0x5b01000000000001
    dec_ttl
    group:7
     -> using bucket 1
        bucket 1
            output:4

bridge("br-phy")
----------------
 0. priority 0
    NORMAL
     -> forwarding to learned port

Final flow: unchanged
Megaflow: recirc_id=0x3,pkt_mark=0x1/0x1,ct_state=+new-rpl+trk,ct_mark=0/0x3,eth,ip,in_port=3,nw_ecn=0,nw_ttl=64
Datapath actions: set(ipv4(ttl=63)),4
"""


def test_a_trace_s_megaflows_are_judged_as_a_dump_s_flows() -> None:
    assert is_trace(TRACE) and not is_trace(VERBOSE)
    first, second = lint(read_trace(TRACE).flows)
    assert first.offloadable and not second.offloadable and not second.dangling
    assert [each.kind for each in second.reasons] == ["match", "action"]
    assert "packet mark" in second.reasons[0].why and "protocol 132" in second.reasons[1].why
    assert second.flow.value("ipv4.proto") == "132"


def test_what_goes_through_the_slow_path_is_not_offloadable() -> None:
    slow = f"{TRACE}This flow is handled by the userspace slow path because it:\n  - Sends packets to the controller.\n"
    assert lint(read_trace(slow).flows)[1].reasons[-1].what == "userspace(slow_path)"


def test_openflow_s_names_of_matches_become_the_datapath_s() -> None:
    words = {
        "tcp,tp_src=80,tcp_flags=+syn-ack": "tcp.src tcp_flags ipv4.proto eth_type",
        "udp6,ipv6_dst=fd00::1,tp_dst=80/0xfff0": "ipv6.dst udp.dst ipv6.proto eth_type",
        "icmp6,icmp_type=135,nd_target=fd00::1,nd_sll=1": "icmpv6.type nd.target nd.sll ipv6.proto eth_type",
        "arp,arp_spa=10.0.0.1,arp_op=1": "arp.sip arp.op eth_type",
        "ip,nw_ecn=0,tun_id=0x5,tun_flags=-df+key,nw_ttl=64": "ipv4.tos tunnel.tun_id tunnel.flags ipv4.ttl eth_type",
        "ip,tun_metadata0=0x1,ct_nw_src=10.0.0.1": "tunnel.geneve ct_tuple4 eth_type",
        "reg0=0x1,dl_vlan=5": "reg0 vlan.vid",
    }
    for text, wanted in words.items():
        trace = f"Flow: {text}\n\nMegaflow: {text}\nDatapath actions: drop\n"
        (found,) = read_trace(trace).flows
        assert sorted(each.field for each in found.matched) == sorted(wanted.split()), text


def test_the_openflow_flow_that_brought_a_reason_in_is_named() -> None:
    steps = read_trace(TRACE).steps
    assert [(each.bridge, each.table) for each in steps] == [
        *(("br-int", "0"), ("br-int", "15"), ("br-int", "20"), ("br-int", "24"), ("br-phy", "0")),
    ]
    mark, ttl = lint(read_trace(TRACE).flows)[1].reasons
    assert blame(mark, steps) == ["br-int table=20 pkt_mark=0x1/0x1, priority 200, cookie 0x5b01000000000000"]
    (guilty,) = blame(ttl, steps)
    assert guilty.startswith("br-int table=24 priority 0, cookie 0x5b01000000000001 dec_ttl; group:7")
    hashed = Reason("match", "dp_hash(0x1/0xf)", "", ("group:",))
    assert [each.split()[1] for each in blame(hashed, steps)] == ["table=24"]


def test_what_tells_the_controller_says_itself_by_which_flow() -> None:
    told = "userspace(pid=0,controller(reason=1,rule_cookie=0x5b01000000000001,max_len=256))"
    (reason,) = judged((TAKEN[0], f"sample(sample=100.0%,actions(meter(0),{told})),3")).reasons
    assert "told to the controller" in reason.why
    (guilty,) = blame(reason, read_trace(TRACE).steps)
    assert guilty.startswith("br-int table=24 ")


def test_a_flow_that_lost_may_be_to_blame_for_a_match() -> None:
    steps = read_trace(TRACE).steps
    flows = [
        "table_id=15, duration=1s, n_packets=0, n_bytes=0, priority=100,nd_target=fd00::1,actions=drop",
        "table_id=15, duration=1s, n_packets=0, n_bytes=0, priority=100,ip,actions=set_field:1->nd_target",
        "duration=1s, n_packets=0, n_bytes=0, priority=100,pkt_mark=0x1,actions=drop",
        "table_id=99, duration=1s, n_packets=0, n_bytes=0, priority=100,nd_target=fd00::1,actions=drop",
    ]
    assert blame(Reason("match", "nd(target=fd00::1)", "", ("nd_target",)), steps, flows) == [flows[0]]
    assert blame(Reason("match", "skb_mark(0x1)", "", ("pkt_mark=0x1,",)), steps, flows) == [flows[2]]
    assert blame(Reason("action", "trunc(1)", "", ("max_len",)), steps, flows) == []
