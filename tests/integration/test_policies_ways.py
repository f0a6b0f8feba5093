"""Policies by other ways from node to node: another encapsulation, and without a key that tells who sends.

The tests are those of other modules, a choice of what differs: who the sender is, where it is judged, where SNAT is.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import make_policy_lab
from test_offload_policies import (  # noqa: F401
    test_connections_that_policies_let_through_are_of_flows_that_tc_takes,
)
from test_policies_change import (  # noqa: F401
    afresh,
    guest,
    test_a_controller_that_comes_back_sends_nothing_and_cuts_nothing,
    test_a_pod_that_is_isolated_never_gets_a_packet_through,
    test_a_policy_that_comes_cuts_what_it_forbids_and_nothing_else,
    test_a_port_of_a_pod_that_nobody_knows_carries_nothing,
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


@pytest.fixture(scope="module", params=["geneve tunnel-key", "vxlan address"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    encap, source_identity = request.param.split()
    directory = tmp_path_factory.mktemp("ways")
    for here in make_policy_lab("w", directory, encap=encap, source_identity=source_identity):
        with with_services(here) as served:
            yield served
