"""The manifests, with a cluster's own ranges and images: what `signalbox kubernetes manifest` prints.

Owns: reading the kustomizations in this folder, and what is changed in them. `kubectl kustomize` makes the same objects
of the same files (a test compares), for those who keep overlays of their own. Of kustomize no more is known here than
these files use, and anything else is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from deploy import config
from node.facts import label_of
from topology.naming import node_secret

HERE = Path(__file__).parent
COMPONENTS = tuple(sorted(path.parent.name for path in HERE.glob("components/*/kustomization.yaml")))
NAMESPACE, NODES_NAMESPACE = "signalbox", "signalbox-nodes"
CONTROLLER_SECRET = "signalbox-controller"
#: What the images are called in the files.
IMAGE, OVS_IMAGE = "signalbox:0.1.0", "signalbox-openvswitch:3.1.0"
_CONFIG_MAP, _CONFIG_FILE = "signalbox-config", "config.yaml"
_KNOWN = {"apiVersion", "kind", "resources", "components", "patches", "configMapGenerator", "generatorOptions"}

Object = dict[str, Any]


class ManifestError(Exception):
    """Manifests that can't be made; the text says what to change."""


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """What a cluster's manifests have of their own. `settings`, by section and key, go before the file's."""

    components: tuple[str, ...] = ()
    config: Path | None = None
    settings: dict[str, dict[str, Any]] = {}
    image: str = IMAGE
    ovs_image: str = OVS_IMAGE
    replicas: int = 2
    api_server: tuple[str, int] | None = None


def build(choices: Choices) -> list[Object]:
    """Every object, in the order in which to create them. Raises ManifestError."""
    objects = render(HERE / "base", [HERE / "components" / name for name in choices.components])
    text = _config(choices)
    _find(objects, "ConfigMap", _CONFIG_MAP)["data"] = {_CONFIG_FILE: text}
    _find(objects, "Deployment", "signalbox-controller")["spec"]["replicas"] = choices.replicas
    _agree(objects, text)
    if choices.api_server is not None:
        host, port = choices.api_server
        where = {"name": "signalbox-api-server", "namespace": NAMESPACE}
        at = next(index for index, each in enumerate(objects) if each["kind"] == "Deployment")
        objects.insert(
            at, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": where, "data": {"host": host, "port": str(port)}}
        )
    return _with_images(objects, choices)


def build_clean(choices: Choices) -> list[Object]:
    """What takes everything off the nodes again."""
    return _with_images(render(HERE / "uninstall"), choices)


def secrets(directory: Path) -> Iterator[Object]:
    """The Secrets for what `signalbox pki` has made in a directory. Raises ManifestError."""
    try:
        ca = (directory / "ca.crt").read_text()
        yield _secret(NAMESPACE, CONTROLLER_SECRET, ca, directory / "controller")
        for path in sorted((directory / "nodes").glob("*.crt")):
            yield _secret(NODES_NAMESPACE, node_secret(path.stem), ca, path.with_suffix(""))
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
        raise ManifestError(f"{reason}; 'signalbox pki init', 'pki controller' and 'pki node' make it") from error


def _secret(namespace: str, name: str, ca: str, stem: Path) -> Object:
    certificate, key = (stem.with_name(stem.name + suffix).read_text() for suffix in (".crt", ".key"))
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": {"tls.crt": certificate, "tls.key": key, "ca.crt": ca},
    }


def certificate(node: str, issuer: str) -> Object:
    """What cert-manager is to make for a node. The certificate says which node it is of by a URI, as the controller
    wants it (docs/install.md)."""
    return {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {"name": node_secret(node), "namespace": NODES_NAMESPACE},
        "spec": {
            "secretName": node_secret(node),
            "duration": "2160h",
            "uris": [f"signalbox:node:{node}"],
            "usages": ["client auth", "digital signature"],
            "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
            "issuerRef": {"name": issuer, "kind": "ClusterIssuer", "group": "cert-manager.io"},
        },
    }


class _Dumper(yaml.SafeDumper):
    """YAML as people write it: texts of several lines as such, nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


_Dumper.add_representer(str, _text)


def to_yaml(objects: Iterable[Object]) -> str:
    """Objects as one text."""
    return "---\n".join(yaml.dump(each, Dumper=_Dumper, sort_keys=False, width=1000) for each in objects)


# Kustomizations -------------------------------------------------------------------------------------------------------


def render(directory: Path, components: Sequence[Path] = ()) -> list[Object]:
    """What a kustomization makes, and components make of it."""
    objects: list[Object] = []
    for each in (directory, *components):
        _apply(each, objects)
    return objects


def _apply(directory: Path, objects: list[Object]) -> None:
    kustomization = yaml.safe_load((directory / "kustomization.yaml").read_text())
    strange = kustomization.keys() - _KNOWN
    if strange:
        raise ManifestError(f"{directory}: {', '.join(sorted(strange))} can't be read here; use kubectl kustomize")
    for name in kustomization.get("resources", ()):
        objects += filter(None, yaml.safe_load_all((directory / name).read_text()))
    for generator in kustomization.get("configMapGenerator", ()):
        metadata = {"name": generator["name"], "namespace": generator["namespace"]}
        data = {name: (directory / name).read_text() for name in generator["files"]}
        objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    for name in kustomization.get("components", ()):
        _apply(directory / name, objects)
    for patch in kustomization.get("patches", ()):
        _patch(directory, objects, patch)


def _patch(directory: Path, objects: list[Object], patch: Object) -> None:
    """A patch that deletes an object, or a JSON patch (RFC 6902) that adds and replaces."""
    what = yaml.safe_load(patch["patch"])
    if isinstance(what, dict):
        if what.get("$patch") != "delete":
            raise ManifestError(f"{directory}: only JSON patches can be read here; use kubectl kustomize")
        objects.remove(_find(objects, what["kind"], what["metadata"]["name"]))
        return
    target = _find(objects, patch["target"]["kind"], patch["target"]["name"])
    for step in what:
        *way, last = step["path"].removeprefix("/").split("/")
        place: Any = target
        for word in way:
            place = place[int(word) if isinstance(place, list) else word]
        match step["op"], place:
            case "add", list():
                place.insert(len(place) if last == "-" else int(last), step["value"])
            case "add" | "replace", dict():
                place[last] = step["value"]
            case "replace", list():
                place[int(last)] = step["value"]
            case _:
                raise ManifestError(f"{directory}: {step['op']} can't be done here; use kubectl kustomize")


def _find(objects: list[Object], kind: str, name: str) -> Object:
    for each in objects:
        if (each["kind"], each["metadata"]["name"]) == (kind, name):
            return each
    raise ManifestError(f"there is no {kind} {name}")


# What a cluster has of its own ----------------------------------------------------------------------------------------


def _config(choices: Choices) -> str:
    """The configuration file's text."""
    path = choices.config or HERE / "base" / _CONFIG_FILE
    if choices.config is not None and (problems := config.check(path)):
        raise ManifestError("\n".join(problems))
    text = path.read_text()
    if not any(choices.settings.values()):
        return text
    content = yaml.safe_load(text)
    for section, settings in choices.settings.items():
        for key, value in settings.items():
            # It may stand elsewhere, and would win there.
            for other in config.SECTIONS if section == config.SHARED else ():
                (content.get(other) or {}).pop(key, None)
            content[section] = (content.get(section) or {}) | {key: value}
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False)


def _agree(objects: list[Object], text: str) -> None:
    """Ports are written in the configuration alone; probes follow it. A changed configuration starts pods anew."""
    content = yaml.safe_load(text)
    listen = (content.get("controller") or {}).get("listen") or ()
    for target in (content.get("node") or {}).get("controller") or ():
        if label_of(target) and _kind_and_port(target) not in map(_kind_and_port, listen):
            raise ManifestError(f"node.controller {target}: controllers listen on {', '.join(listen)}; write that port")
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    for section, kind, name in (
        ("controller", "Deployment", "signalbox-controller"),
        ("node", "DaemonSet", "signalbox-node"),
    ):
        template = _find(objects, kind, name)["spec"]["template"]
        template["metadata"]["annotations"] = {"signalbox.io/config": digest}
        settings = content.get(section) or {}
        host, _, port = str(settings.get("health", "")).rpartition(":")
        if not port.isdecimal():
            raise ManifestError(f"{section}.health is missing in the configuration; write 127.0.0.1:9879 or the like")
        container = template["spec"]["containers"][0]
        for probe in (value for key, value in container.items() if key.endswith("Probe")):
            probe["httpGet"] |= {"host": host.strip("[]"), "port": int(port)}
        if section == "controller":
            container["ports"] = [
                {"name": "openflow", "containerPort": each, "hostPort": each, "protocol": "TCP"}
                for each in _ports(settings.get("listen") or ())
            ]


def _kind_and_port(target: str) -> tuple[str, str]:
    return target.partition(":")[0], target.rpartition(":")[2]


def _ports(targets: Iterable[str]) -> list[int]:
    found = {int(target.rpartition(":")[2]) for target in targets if not target.startswith("unix:")}
    if len(found) != 1:
        raise ManifestError("controller.listen must have one port in the configuration, as ssl:0.0.0.0:6653")
    return sorted(found)


def _with_images(objects: list[Object], choices: Choices) -> list[Object]:
    names = {IMAGE: choices.image, OVS_IMAGE: choices.ovs_image}
    for each in objects:
        spec = each.get("spec", {}).get("template", {}).get("spec", {})
        for container in (*spec.get("initContainers", ()), *spec.get("containers", ())):
            container["image"] = names.get(container["image"], container["image"])
    return objects
