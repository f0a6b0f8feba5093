"""Policies where nodes reach one another without tunnels: tests of other modules, a choice of what differs.

Who the sender is, where it is judged, where SNAT is. `test_modes` has a little of it in every mode.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import make_policy_lab
from policing import forget_flows
from probes import ping_all, until
from test_policies_change import (  # noqa: F401
    afresh,
    guest,
    test_a_controller_that_comes_back_sends_nothing_and_cuts_nothing,
    test_a_pod_that_is_isolated_never_gets_a_packet_through,
    test_a_policy_that_comes_cuts_what_it_forbids_and_nothing_else,
)
from test_policies_packets import test_pings_are_of_rules_without_ports_alone  # noqa: F401
from test_policies_reach import (  # noqa: F401
    outside,
    test_a_node_reaches_its_own_pods_whatever_their_policies_say_and_other_nodes_are_judged,
    test_both_selectors_of_one_peer_must_agree_and_two_peers_are_two_chances,
    test_nodes_are_allowed_by_their_addresses_their_own_and_others,
    test_what_comes_from_outside_is_judged_by_its_address,
)
from test_policies_services import (  # noqa: F401
    test_a_pod_that_calls_itself_through_its_service_is_judged_as_who_it_is,
    test_clients_outside_are_judged_by_their_address_whichever_node_they_enter_by,
    with_services,
)
from test_policies_tiers import test_the_admin_tier_has_the_last_word_before_network_policies  # noqa: F401

from deploy.lab.cluster import Lab


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    for here in make_policy_lab("m", tmp_path_factory.mktemp("modes"), mode="routed"):
        # Hosts have their routes some tenths of a second after switches have their flows. What was cached before is
        # another matter: see `forget_flows`.
        until(lambda here=here: not ping_all(pairs(here)), "every pod reaches every other")  # type: ignore[misc]
        forget_flows(here)
        with with_services(here) as served:
            yield served


def pairs(lab: Lab) -> list[tuple[str, str]]:
    """(namespace, address) from every pod to every other pod's addresses."""
    pods = {(row["namespace"], row["name"]): row["addresses"] for row in lab.ask("pods")["items"] if row["port"]}
    return [
        (lab.layout.pod_netns(*source), address)
        for source in pods
        for target, addresses in pods.items()
        if target != source
        for address in addresses
    ]
