"""Services where nodes reach one another without tunnels, or not by tunnels alone: tests of other modules, a choice.

Two L2 segments: node-1 and node-2 are on the first, node-3 on the second.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import make_service_lab
from test_service_calls import (  # noqa: F401
    made_for_calls,
    test_a_pod_that_calls_its_own_service_is_seen_as_the_hairpin_address,
    test_a_service_answers_by_all_its_addresses_over_tcp_and_udp_and_both_families,
    test_host_ports_lead_to_the_pod_on_this_node,
    test_pods_of_the_host_s_network_are_endpoints,
    test_what_nobody_serves_is_refused_at_once,
)

from deploy.lab.cluster import Lab


@pytest.fixture(scope="module", params=["routed", "hybrid"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("modes")
    for here in make_service_lab("n", directory, mode=request.param, encap="gre", segments=2):
        with made_for_calls(here) as served:
            yield served
