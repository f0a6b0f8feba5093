"""Numbers of OpenFlow 1.5.1 and of its Nicira extensions that both the encoder and the decoder need."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

VERSION = 6
HEADER = Struct("!BBHI")
#: A message's length field has 16 bits.
MAX_MESSAGE = 0xFFFF
#: Bytes of a multipart reply before its items.
MULTIPART_HEADER = 16
#: Requests whose xid has these bits are answered with what flows and groups have counted: their answers aren't read in
#: full.
COUNTS_ALONE = 3 << 30

NICIRA = 0x0000_2320
#: Netronome, whose group property names the selection method (OVS: `NTR_VENDOR_ID`).
NETRONOME = 0x0000_154D


class Type(IntEnum):
    """Message types (OpenFlow 1.5.1, 7.1)."""

    HELLO = 0
    ERROR = 1
    ECHO_REQUEST = 2
    ECHO_REPLY = 3
    EXPERIMENTER = 4
    FEATURES_REQUEST = 5
    FEATURES_REPLY = 6
    GET_CONFIG_REQUEST = 7
    GET_CONFIG_REPLY = 8
    SET_CONFIG = 9
    PACKET_IN = 10
    FLOW_REMOVED = 11
    PORT_STATUS = 12
    PACKET_OUT = 13
    FLOW_MOD = 14
    GROUP_MOD = 15
    MULTIPART_REQUEST = 18
    MULTIPART_REPLY = 19
    BARRIER_REQUEST = 20
    BARRIER_REPLY = 21
    ROLE_REQUEST = 24
    ROLE_REPLY = 25
    SET_ASYNC = 28
    METER_MOD = 29
    ROLE_STATUS = 30
    BUNDLE_CONTROL = 33
    BUNDLE_ADD = 34


class Multipart(IntEnum):
    """Multipart types (7.3.5)."""

    DESC = 0
    FLOW_DESC = 1
    AGGREGATE = 2
    TABLE = 3
    PORT_STATS = 4
    GROUP = 6
    GROUP_DESC = 7
    PORT_DESC = 13


class FlowCommand(IntEnum):
    """What a flow-mod does (7.3.4.2)."""

    ADD = 0
    DELETE = 3
    DELETE_STRICT = 4


class GroupCommand(IntEnum):
    """What a group-mod does; ADD_OR_MODIFY is OVS's own (`OFPGC11_ADD_OR_MOD`)."""

    ADD = 0
    MODIFY = 1
    DELETE = 2
    ADD_OR_MODIFY = 0x8000


class MeterCommand(IntEnum):
    """What a meter-mod does (7.3.4.4)."""

    ADD = 0
    DELETE = 2


class BundleControl(IntEnum):
    """Steps of a bundle (7.3.9)."""

    OPEN_REQUEST = 0
    OPEN_REPLY = 1
    CLOSE_REQUEST = 2
    CLOSE_REPLY = 3
    COMMIT_REQUEST = 4
    COMMIT_REPLY = 5
    DISCARD_REQUEST = 6
    DISCARD_REPLY = 7


class Role(IntEnum):
    """Controller roles (7.3.8)."""

    NOCHANGE = 0
    EQUAL = 1
    MASTER = 2
    SLAVE = 3


class Reason(IntEnum):
    """Why a packet is sent to the controller (7.4.1): of these, that an action of a flow says so."""

    APPLY_ACTION = 1


#: Property of a port's description (7.2.1.1).
PORT_PROPERTY_ETHERNET = 0
#: Property of a set-async message: which packets a slave is sent (7.3.10).
ASYNC_PACKET_IN_SLAVE = 0

#: Names of error types (7.5.4), without their prefix OFPET_.
ERROR_TYPES = {
    0: "HELLO_FAILED",
    1: "BAD_REQUEST",
    2: "BAD_ACTION",
    3: "BAD_INSTRUCTION",
    4: "BAD_MATCH",
    5: "FLOW_MOD_FAILED",
    6: "GROUP_MOD_FAILED",
    11: "ROLE_REQUEST_FAILED",
    13: "TABLE_FEATURES_FAILED",
    17: "BUNDLE_FAILED",
}

#: Meter flags: packets a second, and with a burst; a band that drops.
METER_FLAGS = 0b0110
METER_BAND_DROP = 1
#: Bundle flags: all or nothing, and in order.
BUNDLE_FLAGS = 0b11
NO_BUFFER = 0xFFFF_FFFF
TABLE_ALL = 0xFF
GROUP_ALL = 0xFFFF_FFFC
BUCKET_ALL = 0xFFFF_FFFF

ACTION_OUTPUT, ACTION_GROUP, ACTION_DEC_TTL, ACTION_SET_FIELD, ACTION_COPY_FIELD = 0, 22, 24, 25, 28
ACTION_EXPERIMENTER = 0xFFFF
NX_NOTE, NX_RESUBMIT_TABLE, NX_OUTPUT_REG, NX_CONJUNCTION, NX_CT, NX_NAT, NX_LEARN2 = 8, 14, 15, 34, 35, 36, 45
#: Which way the parts of a learn action go: from a field or a value, to the match or to an action.
LEARN_IMMEDIATE, LEARN_LOAD = 1 << 13, 1 << 11
#: "The packet's own port" in the 16 bits that Nicira's actions have for one.
IN_PORT_16 = 0xFFF8
NX_CONTROLLER2 = 37
#: Its properties (OVS: `NXAC2PT_*`).
TELL_MAX_LEN, TELL_METER = 0, 5
NXT_CT_FLUSH = 32
CT_FLUSH_ORIGINAL, CT_FLUSH_REPLY, CT_FLUSH_ZONE = 0, 1, 2
CT_TUPLE_SOURCE, CT_TUPLE_SOURCE_PORT = 0, 2
INSTRUCTION_GOTO, INSTRUCTION_APPLY = 1, 4
NAT_SRC, NAT_DST = 1, 2
NAT_IPV4_MIN, NAT_IPV4_MAX, NAT_IPV6_MIN, NAT_IPV6_MAX, NAT_PORT_MIN, NAT_PORT_MAX = 1, 2, 4, 8, 16, 32
BUCKET_WEIGHT, BUCKET_WATCH_PORT = 0, 1
NO_TABLE = 0xFF


def padding(length: int) -> bytes:
    """Zeros that round a length up to a multiple of eight."""
    return bytes(-length % 8)
