"""signalbox kubernetes: what it takes to run in a Kubernetes cluster."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from deploy.kubernetes.manifest import COMPONENTS, IMAGE, OVS_IMAGE

_file = click.Path(path_type=Path)


@click.group()
def kubernetes() -> None:
    """Manifests for a Kubernetes cluster, and what their pods need."""


@kubernetes.command()
@click.option("--cluster-cidr", multiple=True, metavar="CIDR", help="What holds every node's pod CIDR.")
@click.option("--service-cidr", multiple=True, metavar="CIDR", help="Services' range; one for each family.")
@click.option("--service-node-port-range", metavar="LOW-HIGH", help="The node ports that Services may have.")
@click.option("--load-balancer-pool", multiple=True, metavar="CIDR", help="Load balancers' addresses.")
@click.option(
    "--mode", type=click.Choice(["overlay", "routed", "hybrid"]), help="How nodes reach one another (docs/topology.md)."
)
@click.option("--encap", type=click.Choice(["vxlan", "geneve", "gre"]), help="Encapsulation between nodes.")
@click.option("--subnet", multiple=True, metavar="CIDR", help="With --mode hybrid: an L2 segment of nodes.")
@click.option("--mtu", type=click.IntRange(576, 65535), help="MTU of pods.")
@click.option("--config", "file", type=_file, metavar="FILE", help="A configuration file to start from, with all else.")
@click.option("--image", default=IMAGE, show_default=True, help="Image of controller and agent.")
@click.option("--ovs-image", default=OVS_IMAGE, show_default=True, help="Image of Open vSwitch.")
@click.option("--replicas", type=click.IntRange(1, 9), default=2, show_default=True, help="How many controllers.")
@click.option(
    "--api-server",
    metavar="HOST:PORT",
    help="The API server's own address: needed where kube-proxy doesn't make its Service address work.",
)
@click.option(
    "--component", "components", multiple=True, type=click.Choice(COMPONENTS), help="Variants, of deploy/kubernetes."
)
@click.option("--clean", "only_clean", is_flag=True, help="Print what takes everything off the nodes again, instead.")
def manifest(file: Path | None, api_server: str | None, only_clean: bool, **options: Any) -> None:
    """Print all objects in one file, for kubectl apply -f."""
    from deploy.kubernetes import manifest as manifests

    shared = {
        "serviceCidr": list(options["service_cidr"]) or None,
        "serviceNodePortRange": options["service_node_port_range"],
    }
    node = {"clusterCidr": list(options["cluster_cidr"]) or None, "mtu": options["mtu"]}
    controller = {
        "loadBalancerPool": list(options["load_balancer_pool"]) or None,
        "mode": options["mode"],
        "encap": options["encap"],
        "subnet": list(options["subnet"]) or None,
    }
    settings = {"shared": shared, "controller": controller, "node": node}
    choices = manifests.Choices(
        components=options["components"],
        config=file,
        settings={name: {k: v for k, v in each.items() if v is not None} for name, each in settings.items()},
        image=options["image"],
        ovs_image=options["ovs_image"],
        replicas=options["replicas"],
        api_server=_host_port(api_server) if api_server else None,
    )
    try:
        _check(choices.settings)
        objects = manifests.build_clean(choices) if only_clean else manifests.build(choices)
    except manifests.ManifestError as error:
        raise click.ClickException(str(error)) from error
    _print(objects)


def _check(settings: dict[str, dict[str, Any]]) -> None:
    """The values of options, as a file of theirs would be checked."""
    import tempfile

    import yaml

    from deploy import config

    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        head = {"apiVersion": config.API_VERSION, "kind": config.KIND}
        yaml.safe_dump(head | settings, file)
        file.flush()
        problems = config.check(Path(file.name))
    if problems:
        raise click.ClickException("\n".join(each.split(": ", 1)[1] for each in problems))


def _host_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise click.ClickException(f"--api-server {text}: give host and port, as 192.0.2.10:6443")
    return host.strip("[]"), int(port)


@kubernetes.command()
@click.option(
    "-d", "--directory", type=_file, required=True, help="Where 'signalbox pki' has made the CA and certificates."
)
def secrets(directory: Path) -> None:
    """Print the Secrets of the certificates that 'signalbox pki' has made, for kubectl apply -f -."""
    from deploy.kubernetes import manifest as manifests

    try:
        _print(manifests.secrets(directory))
    except manifests.ManifestError as error:
        raise click.ClickException(str(error)) from error


@kubernetes.command()
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
@click.option("--issuer", default="signalbox-ca", show_default=True, help="The ClusterIssuer that signs them.")
def certificates(nodes: tuple[str, ...], issuer: str) -> None:
    """Print cert-manager's Certificate of each node, for kubectl apply -f -."""
    from deploy.kubernetes import manifest as manifests

    _print(manifests.certificate(node, issuer) for node in nodes)


def _print(objects: Iterable[dict[str, Any]]) -> None:
    from deploy.kubernetes.manifest import to_yaml

    click.echo(to_yaml(objects), nl=False)
