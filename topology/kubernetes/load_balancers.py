"""Addresses of load balancers: which Service has which, out of the pool.

Owns the giving. A Service keeps what it has; else it has what its status says, which is what was given to it before a
restart; else one at a place that is a hash of its name. Where there are several processes only one of them `gives`:
two could give one address to two Services, each to the one that it heard of first. To the others what a status says
goes before all, and without it they wait, with their switches. Pure; changed only by `settle`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address

from topology.kubernetes.objects import Balanced
from topology.model import Key
from topology.naming import Address, Network
from topology.services import hash_place

#: What a Service's port is taken by: protocol and number.
_Port = tuple[str, int]
#: Places beyond the taken ones that are looked at: with so many unfit ones in a row a pool is given up.
_TRIED = 1 << 12


class LoadBalancers:
    """Who has which addresses. `unfit` says why an address can't be given to anybody; empty where it can."""

    def __init__(self, pools: Iterable[Network]) -> None:
        self.pools = tuple(pools)
        #: Whether it is here that addresses are given.
        self.gives = True
        self.given: dict[Key, tuple[Address, ...]] = {}
        self._taken: dict[Address, dict[Key, frozenset[_Port]]] = {}
        #: Services that didn't get what they want, and why.
        self.wanting: dict[Key, str] = {}
        #: Services that don't have what their statuses say, because somebody else has it yet.
        self._waiting: set[Key] = set()

    def settle(
        self, changed: Iterable[Key], services: Mapping[Key, Balanced], unfit: Callable[[Address], str]
    ) -> set[Key]:
        """Give anew to these, and to whoever has gone without; returns all whose addresses may be others now."""
        concerned = self._with_holders({*changed, *self.wanting, *self._waiting}, services)
        former = {key: self.given.pop(key, ()) for key in concerned}
        for key, addresses in former.items():
            for address in addresses:
                self._release(key, address)
        self.wanting = {}
        wanting = {
            key: found
            for key in sorted(concerned)
            if (found := services.get(key)) is not None and found.service is not None and found.wants and self.pools
        }
        # All keep what they have before any gets what is left.
        told = {key: balanced.status for key, balanced in wanting.items()}
        for source in (former, told) if self.gives else (told, former):
            for key, balanced in wanting.items():
                self._keep(key, balanced, source[key], unfit)
        for key, balanced in wanting.items():
            self._complete(key, balanced, unfit)
        self._waiting = {key for key in wanting if not set(told[key]) <= set(self.given[key])}
        return concerned

    def _with_holders(self, keys: set[Key], services: Mapping[Key, Balanced]) -> set[Key]:
        """These, and whoever has what the status of one of them says: it may be theirs instead."""
        found: set[Key] = set()
        waiting = list(keys)
        while waiting:
            key = waiting.pop()
            if key not in found:
                found.add(key)
                wish = services.get(key)
                for address in wish.status if wish is not None and wish.wants else ():
                    waiting += self._taken.get(address, ())
        return found

    def is_ours(self, text: str) -> bool:
        """Whether an address, as a status has it, is one of those that are given here."""
        try:
            address = ip_address(text)
        except ValueError:
            return False
        return any(address in pool for pool in self.pools)

    def _keep(self, key: Key, wish: Balanced, addresses: Iterable[Address], unfit: Callable[[Address], str]) -> None:
        """Of these addresses those that the Service may have, one of each family."""
        kept: dict[int, Address] = {address.version: address for address in self.given.get(key, ())}
        for address in addresses:
            if address.version not in wish.wants or address.version in kept or wish.asked not in (None, address):
                continue
            if not self._refusal(address, wish, unfit, shared=wish.asked is not None):
                kept[address.version] = address
                self._take(key, wish, address)
        self.given[key] = _in_order(kept, wish)

    def _complete(self, key: Key, wish: Balanced, unfit: Callable[[Address], str]) -> None:
        """What is still to be had. Whoever asks for one address has that one or none."""
        by_family: dict[int, Address] = {address.version: address for address in self.given[key]}
        if wish.asked is not None:
            if not by_family:
                self._give_what_is_asked(key, wish, wish.asked, unfit)
            return
        for version in wish.wants:
            pools = [pool for pool in self.pools if pool.version == version]
            if version in by_family or not pools or not self.gives:
                continue
            address = self._free(key, pools, unfit)
            if address is None:
                self.wanting[key] = f"no load balancer's address is free in {', '.join(map(str, pools))}; add a pool"
                continue
            by_family[version] = address
            self._take(key, wish, address)
        self.given[key] = _in_order(by_family, wish)

    def _give_what_is_asked(self, key: Key, wish: Balanced, asked: Address, unfit: Callable[[Address], str]) -> None:
        reason = "" if asked.version in wish.wants else "is of no family of the Service"
        reason = reason or self._refusal(asked, wish, unfit, shared=True)
        if reason:
            self.wanting[key] = f"spec.loadBalancerIP {asked} {reason}; choose another"
        elif self.gives:
            self.given[key] = (asked,)
            self._take(key, wish, asked)

    def _free(self, key: Key, pools: Iterable[Network], unfit: Callable[[Address], str]) -> Address | None:
        title = f"Service {key[1]}/{key[2]}/load-balancer"
        for pool in pools:
            for address in hash_place(title, pool, len(self._taken) + _TRIED):
                if address not in self._taken and not unfit(address):
                    return address
        return None

    def _refusal(self, address: Address, wish: Balanced, unfit: Callable[[Address], str], *, shared: bool) -> str:
        """Why an address can't be a Service's."""
        if not any(address in pool for pool in self.pools):
            return f"is in no pool ({', '.join(map(str, self.pools))})"
        reason = unfit(address)
        if reason:
            return reason
        for (_, namespace, name), used in self._taken.get(address, {}).items():
            if not shared or used & _ports(wish):
                return f"is Service {namespace}/{name}'s already"
        return ""

    def _take(self, key: Key, wish: Balanced, address: Address) -> None:
        self._taken.setdefault(address, {})[key] = _ports(wish)

    def _release(self, key: Key, address: Address) -> None:
        holders = self._taken.get(address, {})
        holders.pop(key, None)
        if not holders:
            self._taken.pop(address, None)


def _in_order(by_family: Mapping[int, Address], wish: Balanced) -> tuple[Address, ...]:
    return tuple(by_family[version] for version in wish.wants if version in by_family)


def _ports(wish: Balanced) -> frozenset[_Port]:
    return frozenset((port.protocol, port.port) for port in wish.service.ports) if wish.service else frozenset()
