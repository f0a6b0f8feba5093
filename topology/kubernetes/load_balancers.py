"""Addresses of load balancers: which Service has which, out of the pool.

Owns the giving. A Service keeps what it has; else it has what its status says, which is what was given to it before a
restart; else one at a place that is a hash of its name, so that processes that begin without any status agree but for
the rare two whose places meet. Pure; changed only by `settle`.
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
        self.given: dict[Key, tuple[Address, ...]] = {}
        self._taken: dict[Address, dict[Key, frozenset[_Port]]] = {}
        #: Services that didn't get what they want, and why.
        self.wanting: dict[Key, str] = {}

    def settle(
        self, changed: Iterable[Key], services: Mapping[Key, Balanced], unfit: Callable[[Address], str]
    ) -> set[Key]:
        """Give anew to these, and to whoever has gone without; returns all whose addresses may be others now."""
        concerned = set(changed) | self.wanting.keys()
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
        for key, balanced in wanting.items():
            self._keep(key, balanced, former[key], unfit)
        for key, balanced in wanting.items():
            self._complete(key, balanced, unfit)
        return concerned

    def is_ours(self, text: str) -> bool:
        """Whether an address, as a status has it, is one of those that are given here."""
        try:
            address = ip_address(text)
        except ValueError:
            return False
        return any(address in pool for pool in self.pools)

    def _keep(self, key: Key, wish: Balanced, former: tuple[Address, ...], unfit: Callable[[Address], str]) -> None:
        kept: dict[int, Address] = {}
        for address in (wish.asked,) if wish.asked is not None else (*former, *wish.status):
            if address.version not in wish.wants or address.version in kept:
                continue
            reason = self._refusal(address, wish, unfit, shared=wish.asked is not None)
            if not reason:
                kept[address.version] = address
                self._take(key, wish, address)
            elif wish.asked is not None:
                self.wanting[key] = f"spec.loadBalancerIP {address} {reason}; choose another"
        self.given[key] = tuple(kept.values())

    def _complete(self, key: Key, wish: Balanced, unfit: Callable[[Address], str]) -> None:
        """Whoever asks for one address has that one or none."""
        if wish.asked is not None:
            return
        by_family: dict[int, Address] = {address.version: address for address in self.given[key]}
        for version in wish.wants:
            pools = [pool for pool in self.pools if pool.version == version]
            if version in by_family or not pools:
                continue
            address = self._free(key, pools, unfit)
            if address is None:
                self.wanting[key] = f"no load balancer's address is free in {', '.join(map(str, pools))}; add a pool"
                continue
            by_family[version] = address
            self._take(key, wish, address)
        self.given[key] = tuple(by_family[version] for version in wish.wants if version in by_family)

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


def _ports(wish: Balanced) -> frozenset[_Port]:
    return frozenset((port.protocol, port.port) for port in wish.service.ports) if wish.service else frozenset()
