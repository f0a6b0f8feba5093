"""Fields that many kinds of object have - names, labels, selectors, addresses - read from a tree, or refused in words.

Must not know any kind. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv6Network, ip_address, ip_network

import msgspec

from topology.naming import Address, Network
from topology.selectors import Operator, Requirement, Selector
from topology.yaml_tree import FieldError, Tree

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_PORT_NAME = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
PROTOCOLS = ("TCP", "UDP", "SCTP")


class Remarks(msgspec.Struct, frozen=True):
    """Where to say more of an object than its value does.

    `report` is for what is wrong with an object that is there all the same, `note` for what was passed over.
    """

    report: Callable[[FieldError], None]
    note: Callable[[Tree, str], None]


def name(tree: Tree, longest: int) -> str:
    """A DNS label (63 characters) or subdomain (253)."""
    text = tree.text()
    pattern, dots = (_LABEL, "") if longest == 63 else (_SUBDOMAIN, ", dots")
    if len(text) > longest or not pattern.fullmatch(text):
        raise tree.error(
            f"is {text!r}; a name has lower-case letters, digits, hyphens{dots}, a letter or digit at each end, "
            f"and at most {longest} characters"
        )
    return text


def labels(tree: Tree | None) -> dict[str, str]:
    """Labels, or a selector's matchLabels."""
    found: dict[str, str] = {}
    if tree is None:
        return found
    for key, value in tree.fields().items():
        check_label_key(value, key)
        # Written without a value (`app:`), a label is empty text in Kubernetes.
        found[key] = value.text() if value else ""
        check_label_value(value, found[key])
    return found


def check_label_key(tree: Tree, key: str) -> None:
    """Raise FieldError where a label can't have this key."""
    prefix, slash, name = key.rpartition("/")
    good_prefix = len(prefix) <= 253 and _SUBDOMAIN.fullmatch(prefix) if slash else True
    if not good_prefix or not name or not _LABEL_VALUE.fullmatch(name):
        raise tree.error(
            f"has the key {key!r}; a key is a DNS name and a slash, or neither, then up to 63 letters, digits, "
            "hyphens, underscores and dots"
        )


def check_label_value(tree: Tree, value: str) -> None:
    """Raise FieldError where a label can't have this value."""
    if not _LABEL_VALUE.fullmatch(value):
        raise tree.error(
            f"is {value!r}; a label's value has up to 63 letters, digits, hyphens, underscores and dots, "
            "and a letter or digit at each end"
        )


def address(tree: Tree, *, loopback: bool = False) -> Address:
    """An address that others can send to, or, if `loopback` ones may be, processes of the node itself."""
    text = tree.text()
    try:
        found = ip_address(text)
    except ValueError as error:
        raise tree.error(f"is {text!r}; it must be an IPv4 or IPv6 address, as 192.0.2.1 or 2001:db8::1") from error
    if "%" in text:
        raise tree.error(f"is {text!r}, an address with a zone; write it without")
    if found.is_loopback and loopback:
        return found
    if found.is_loopback or found.is_link_local or found.is_multicast or found.is_unspecified:
        raise tree.error(f"is {found}, which no other node can send to; give the address that nodes reach it by")
    return found


def network(tree: Tree) -> Network:
    """A range of addresses, as 192.0.2.0/24."""
    found = _range(tree)
    if ip_address(tree.text().partition("/")[0]) != found.network_address:
        raise tree.error(f"is {tree.text()}, which is no network's address; write {found}")
    return found


def network_around(tree: Tree, remarks: Remarks) -> Network:
    """A range of addresses, given by any address in it, as Kubernetes allows: 192.0.2.7/24, which is noted."""
    found = _range(tree)
    if ip_address(tree.text().partition("/")[0]) != found.network_address:
        remarks.note(tree, f"is {tree.text()}: read as {found}, as Kubernetes does")
    return found


def _range(tree: Tree) -> Network:
    text = tree.text()
    # Python would take a netmask, its inverse and a zone as well.
    if not re.fullmatch(r"[0-9A-Fa-f:.]+(/[0-9]+)?", text):
        raise _not_a_cidr(tree)
    try:
        found = ip_network(text, strict=False)
    except ValueError as error:
        raise _not_a_cidr(tree) from error
    if "/" not in text:
        raise tree.error(f"is {text}, which is no network's address; write {found}")
    if isinstance(found, IPv6Network) and found.network_address.ipv4_mapped is not None:
        raise tree.error(f"is {text}, IPv4 addresses in the form of IPv6; write them as IPv4")
    return found


def _not_a_cidr(tree: Tree) -> FieldError:
    return tree.error(f"is {tree.text()!r}; it must be a CIDR, as 192.0.2.0/24 or 2001:db8::/64")


def selector(tree: Tree | None) -> Selector:
    """A label selector; where there is none, or it is empty, it selects everything."""
    if tree is None:
        return ()
    known(tree, "matchLabels", "matchExpressions")
    requirements = [Requirement(key, Operator.IN, (value,)) for key, value in labels(tree.get("matchLabels")).items()]
    expressions = tree.get("matchExpressions")
    requirements += map(_requirement, expressions.items() if expressions else [])
    return tuple(requirements)


def _requirement(tree: Tree) -> Requirement:
    known(tree, "key", "operator", "values")
    key = tree.require("key", remedy="name the label to look at")
    check_label_key(key, key.text())
    names = ", ".join(Operator)
    operator = tree.require("operator", remedy=f"give one of {names}")
    if operator.text() not in list(Operator):
        raise operator.error(f"is {operator.text()!r}; it must be one of {names}")
    values = tree.get("values")
    for value in values.items() if values else []:
        check_label_value(value, value.text())
    texts = values.texts() if values else ()
    takes_values = operator.text() in (Operator.IN, Operator.NOT_IN)
    if takes_values != bool(texts):
        remedy = "list the values to compare with" if takes_values else f"{operator.text()} takes none: remove them"
        raise (values or tree).error(f"has {'values' if texts else 'no values'}; {remedy}")
    return Requirement(key.text(), Operator(operator.text()), texts)


def known(tree: Tree, *names: str) -> None:
    """Raise FieldError where a mapping has other fields: passed over, they might change what the rest means."""
    for name, value in tree.fields().items():
        if name not in names:
            raise value.error(f"is not a field that is known here; it must be one of {', '.join(names)}")


def port_number(tree: Tree) -> int:
    """The number of a port."""
    return tree.number(1, 65535)


def port_name(tree: Tree) -> str:
    """The name of a container's port."""
    if not _PORT_NAME.fullmatch(tree.text()):
        raise tree.error(
            f"is {tree.text()!r}; the name of a port has up to 15 lower-case letters, digits and single hyphens, a "
            "letter among them, and no hyphen at an end (a number is written without quotes)"
        )
    return tree.text()


def protocol(tree: Tree | None) -> str:
    """TCP, UDP or SCTP; TCP where nothing is said."""
    if tree is None:
        return "TCP"
    if tree.text() not in PROTOCOLS:
        raise tree.error(f"is {tree.text()!r}; it must be one of {', '.join(PROTOCOLS)}")
    return tree.text()


def one_of(tree: Tree | None, choices: tuple[str, ...], default: str) -> str:
    """One of some words."""
    if tree is None:
        return default
    if tree.text() not in choices:
        raise tree.error(f"is {tree.text()!r}; it must be one of {', '.join(choices)}")
    return tree.text()


def flag(tree: Tree | None, default: bool) -> bool:
    """True or false."""
    return default if tree is None else tree.flag()
