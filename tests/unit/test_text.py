"""Flows as people read them: in ovs-ofctl's words, and in plain ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from random_flows import flows

from flows import fields as f
from flows.cookies import Scope
from flows.registers import (
    CT_ZONE,
    DESTINATION_IDENTITY,
    ENDPOINT,
    EXIT,
    EXIT_PORT,
    FROM_POD,
    HAIRPIN,
    MARK_SERVICE,
    MARK_WORLD,
    SERVICE,
    SNAT_ZONE,
    SOURCE,
    SOURCE_IDENTITY,
    TO_NODE,
    TO_POD,
    TUNNEL_KEY,
    WIRE_KEY,
    ZONE,
    Exit,
    Identity,
    Source,
    Zone,
    whole,
)
from flows.tables.digest import digest_flow
from flows.tables.route import destination_pod
from flows.text import flow_text
from flows.values import (
    PORT_IN_PORT,
    Bucket,
    Conjunction,
    Ct,
    DecTtl,
    Flow,
    Goto,
    Group,
    GroupType,
    Learn,
    Move,
    Nat,
    Note,
    Output,
    OutputBits,
    SetField,
    ToGroup,
    load,
)
from flows.words import Names, flow_words
from topology.naming import ROUTER_MAC

_TO_WEB = (f.ETH_TYPE(f.ETH_IPV4), f.IPV4_DST(0x0AF40107))


@pytest.mark.parametrize(
    ("flow", "text"),
    [
        (Flow(35, 1, (), (), 0), "cookie=0x0,table=35,priority=1 actions=drop"),
        (Flow(0, 1, (f.IN_PORT(3),), (Output(4), Goto(5)), 7), "in_port=3 actions=output:4,goto_table:5"),
        (Flow(0, 1, (*_TO_WEB, ), (ToGroup(9),), 0), "ip,nw_dst=10.244.1.7 actions=group:9"),
        (Flow(0, 1, (f.ETH_TYPE(f.ETH_IPV6), f.IP_PROTO(6), f.TCP_DST(80, 0xFFF0)), (), 0), "tcp6,tcp_dst=0x50/0xfff0"),
        (Flow(0, 1, (f.IPV6_DST(0xFD << 120, 0xFF << 120),), (), 0), "ipv6_dst=fd00::/8"),
        (Flow(0, 1, (f.CT_STATE(0x21, 0x31),), (), 0), "ct_state=+new-inv+trk"),
        (Flow(0, 1, (SOURCE(2),), (load(EXIT, 1),), 0), "reg0=0x2/0xf actions=set_field:0x10/0xf0->reg0"),
        (Flow(0, 1, (), (Move(whole(f.ETH_SRC), whole(f.ETH_DST)),), 0), "move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[]"),
        (Flow(0, 1, (f.ETH_TYPE(f.ETH_IPV4),), (DecTtl(), Output(3)), 0), "ip actions=dec_ttl,output:3"),
        (Flow(0, 1, (), (Move(EXIT, SOURCE),), 0), "move:NXM_NX_REG0[4..7]->NXM_NX_REG0[0..3]"),
        (Flow(0, 1, (), (OutputBits(EXIT_PORT), Output(PORT_IN_PORT)), 0), "output:NXM_NX_REG1[],IN_PORT"),
        (Flow(0, 1, (), (Ct(5, commit=True, force=True, table=20),), 0), "ct(commit,force,table=20,zone=5)"),
        (Flow(0, 1, (), (Ct(5, nat=Nat()),), 0), "ct(zone=5,nat)"),
        (
            Flow(0, 1, (), (Ct(5, commit=True, nat=Nat("src", 1, 2, True, 10, 20)),), 0),
            "ct(commit,zone=5,nat(src=[::1]-[::2]:10-20))",
        ),
        (
            Flow(0, 1, (), (Ct(5, commit=True, execute=(SetField(f.CT_MARK, 1),)),), 0),
            "ct(commit,zone=5,exec(set_field:0x1->ct_mark))",
        ),
    ],
)  # fmt: skip
def test_a_flow_is_written_as_ovs_ofctl_does(flow: Flow, text: str) -> None:
    assert text in flow_text(flow)


def test_tables_go_by_name_where_names_are_wanted() -> None:
    flow = Flow(0, 1, (), (Goto(35),), 0)
    assert flow_text(flow, names=True) == "cookie=0x0,table=Classify,priority=1 actions=goto_table:Route"
    assert "table=99" in flow_text(Flow(99, 1, (), (), 0), names=True)


def test_a_group_is_a_line_too() -> None:
    group = Group(
        7, GroupType.SELECT, (Bucket(1, (Output(1),), 10), Bucket(2, (), 20)), "hash", 0, (f.IPV4_SRC, f.IPV4_DST)
    )
    assert flow_text(group) == (
        "group_id=7,type=select,selection_method=hash,fields(nw_src,nw_dst),"
        "bucket=bucket_id:1,weight:10,actions=output:1,bucket=bucket_id:2,weight:20,actions=drop"
    )


@pytest.mark.parametrize(
    ("flow", "words"),
    [
        (Flow(0, 1, (), (), 0), "everything else: drop"),
        (
            Flow(0, 1, (f.IN_PORT(3), f.ETH_TYPE(f.ETH_IPV4)), (load(SOURCE, Source.POD), Goto(15)), 0),
            "ip from pod default/web: it comes from a pod, go on in Track",
        ),
        (
            Flow(35, 1, _TO_WEB, (load(EXIT, Exit.PORT), SetField(EXIT_PORT.field, 3), Goto(60)), 0),
            "ip,nw_dst=10.244.1.7: it leaves by pod default/web, go on in Commit",
        ),
        (
            Flow(35, 1, _TO_WEB, (SetField(f.TUN_DST, 0xC000020B), load(EXIT, Exit.TUNNEL)), 0),
            "ip,nw_dst=10.244.1.7: tunnel to 192.0.2.11, it leaves by the tunnel",
        ),
        (Flow(65, 1, (EXIT(Exit.GATEWAY),), (Output(1),), 0), "bound for the host: send to port 1"),
        (Flow(5, 1, (), (SetField(f.ETH_SRC, ROUTER_MAC), Output(PORT_IN_PORT)), 0),
         "everything else: source MAC = the router's MAC, send to where it came from"),
        (Flow(15, 1, (), (Ct(Zone.IPV4, table=20, nat=Nat()),), 0),
         "look up the connection in zone IPV4, go on in TrackState"),
        (digest_flow(Scope.NODE, 0xABC), "no packet; the digest of the node's own flows: 0000000000000abc"),
        (Flow(60, 1, (), (Ct(Zone.IPV6, commit=True),), 0), "commit the connection in zone IPV6"),
        (Flow(32, 1, (), (Ct(Zone.IPV4, commit=True, table=33, nat=Nat("dst", 0x0AF40102, port_min=8080)),), 0),
         "commit the connection in zone IPV4 with the destination 10.244.1.2:8080, go on in ServiceStats"),
        (Flow(32, 1, (), (Ct(Zone.IPV6, commit=True, nat=Nat("dst", 1, ipv6=True, port_min=80)),), 0),
         "with the destination [::1]:80"),
        (Flow(60, 1, (), (Ct(Zone.SNAT_IPV4, commit=True, table=65, nat=Nat("src", 0x0AF401FE)),), 0),
         "with the source 10.244.1.254, go on in Output"),
        (Flow(30, 1, (SOURCE(Source.WORLD),), (ToGroup(7),), 0), "from the world: have group 7 choose"),
        (Flow(71, 1, (), (Note(b'{"kind":"port"} \0\0'),), 0),
         'everything else: no packet; a note for the host: {"kind":"port"}'),
    ],
)  # fmt: skip
def test_a_flow_in_words_names_ports_and_decodes_registers(flow: Flow, words: str) -> None:
    assert words in flow_words(flow, Names({3: "pod default/web"}))


_NAMES = Names(
    identities={300: "shop[app=web]"},
    rules={7: "ingress rule 0 of NetworkPolicy shop/db"},
    endpoints={5 << 32 | 6: "10.244.1.2:80 (pod shop/web)"}.get,
    groups=lambda number: {9: "10.244.1.2:80 (pod shop/web) or 10.244.1.3:80"}.get(number, ""),
)


@pytest.mark.parametrize(
    ("flow", "words"),
    [
        (Flow(51, 900, f.match(SOURCE_IDENTITY(300), DESTINATION_IDENTITY(301)), (Goto(60),), 0),
         "from shop[app=web] to identity 301: go on in Commit"),
        (Flow(51, 900, f.match(FROM_POD(1), DESTINATION_IDENTITY(300), f.ETH_TYPE(f.ETH_IPV4)), (), 0),
         "ip from any pod to shop[app=web]: drop"),
        (Flow(41, 900, f.match(SOURCE_IDENTITY(300), FROM_POD(1), TO_POD(1)), (), 0),
         "from shop[app=web] to any pod: drop"),
        (Flow(38, 1, f.match(EXIT(Exit.PORT), SOURCE_IDENTITY(Identity.OTHER_NODE)), (load(FROM_POD, 1),), 0),
         "bound for a port from another node: the sender is a pod"),
        (Flow(38, 1, f.match(SOURCE(Source.WORLD), EXIT(Exit.TUNNEL), TO_POD(1)), (), 0),
         "from the world bound for the tunnel to any pod: drop"),
        (Flow(38, 1, f.match(DESTINATION_IDENTITY(0)), (), 0), "to nobody: drop"),
        (Flow(38, 1, (SOURCE_IDENTITY(Identity.JUDGED),), (), 0), "from one who was judged already: drop"),
        (Flow(0, 1, f.match(f.IN_PORT(2), f.TUN_ID(Identity.THIS_HOST)), (load(SOURCE_IDENTITY, Identity.WORLD),), 0),
         "from port 2 with the key of this host: the sender is the world"),
        (Flow(0, 1, (), (Move(TUNNEL_KEY, SOURCE_IDENTITY),), 0), "the sender is who the tunnel's key says"),
        (Flow(65, 1, (), (Move(SOURCE_IDENTITY, TUNNEL_KEY),), 0), "the tunnel's key says who sends"),
        (Flow(0, 1, (), (load(SOURCE, Source.TUNNEL), Move(WIRE_KEY, SOURCE_IDENTITY)), 0),
         "it comes from another node, the sender is who the frame says"),
        (Flow(65, 1, (EXIT(Exit.FABRIC),), (Move(SOURCE_IDENTITY, WIRE_KEY),), 0),
         "bound for a wire: the frame says who sends"),
        (Flow(0, 1, (), (DecTtl(), Goto(66)), 0), "one hop less to go, go on in Fabric"),
        (Flow(35, 1, (), (destination_pod(300), load(SOURCE_IDENTITY, 300)), 0),
         "everything else: the receiver is shop[app=web], the sender is shop[app=web]"),
        (Flow(51, 800, (SOURCE_IDENTITY(300),), (Conjunction(7, 2, 3), Conjunction(8, 1, 2)), 0),
         "from shop[app=web]: part 2 of 3 of ingress rule 0 of NetworkPolicy shop/db, part 1 of 2 of conjunction 8"),
        (Flow(51, 800, (f.CONJ_ID(7),), (Goto(60),), 0),
         "all parts of ingress rule 0 of NetworkPolicy shop/db: go on in Commit"),
        (Flow(65, 1, f.match(TO_NODE(1), EXIT(Exit.TUNNEL)), (), 0),
         "bound for the tunnel to an address of a node: drop"),
        (Flow(26, 1, (), (load(TO_NODE, 1), Goto(30)), 0), "everything else: it is bound for an address of a node"),
        (Flow(20, 1, (MARK_SERVICE(1), MARK_WORLD(1)), (), 0),
         "of a connection to a Service of a connection from the world: drop"),
        (Flow(33, 1, (f.CT_LABEL(5 << 32 | 6),), (), 0), "of a connection to 10.244.1.2:80 (pod shop/web): drop"),
        (Flow(32, 1, (SERVICE(9),), (ToGroup(9),), 0),
         "for group 9: have group 9 choose 10.244.1.2:80 (pod shop/web) or 10.244.1.3:80"),
        (Flow(33, 1, (f.CT_LABEL(7),), (), 0), "of a connection to an endpoint that is labelled 0x7: drop"),
        (Flow(24, 1, (), (load(ZONE, 0x50),), 0), "this is topology zone 0x50"),
        (Flow(32, 1, f.match(SERVICE(9), ENDPOINT(6)), (Learn(31, 200, 0, 60, 9, (), (), ()),), 0),
         "for endpoint 0x6 for group 9: remember this client's endpoint until it was away for 60 s"),
        (Flow(65, 1, (HAIRPIN(1),), (Output(PORT_IN_PORT),), 0), "that goes back: send to where it came from"),
        (Flow(60, 1, (), (load(HAIRPIN, 1),), 0), "everything else: it goes back where it came from"),
        (Flow(15, 1, (), (SetField(f.REG8, 0x5B145B04),), 0), "everything else: the zones here are IPV4 and SNAT_IPV4"),
        (Flow(15, 1, (), (SetField(f.REG8, 0x5B345B24),), 0), "everything else: the zones here are 23332 and 23348"),
        (
            Flow(60, 1, (), (Ct(CT_ZONE, commit=True),), 0),
            "everything else: commit the connection in this bridge's zone",
        ),
        (
            Flow(60, 1, (), (Ct(SNAT_ZONE, commit=True),), 0),
            "everything else: commit the connection in this bridge's zone for other sources",
        ),
        (Flow(65, 1, (SOURCE(9),), (SetField(f.REG5, 0x8300_012C),), 0),
         "reg0=0x9/0xf: the sender is shop[app=web], set_field:0x82000000/0xfe000000->reg5"),
    ],
)  # fmt: skip
def test_a_flow_in_words_names_identities_and_rules(flow: Flow, words: str) -> None:
    assert words in flow_words(flow, _NAMES)


@given(flows)
def test_any_flow_at_all_has_words(flow: Flow) -> None:
    """A switch may hold what somebody has added by hand."""
    assert flow_words(flow, Names()) and flow_text(flow, names=True)
