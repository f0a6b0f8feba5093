"""The manifests: Kubernetes takes them, their parts fit each other, and kustomize makes the same of them."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner, Result
from kubernetes_schema import problems

from deploy import config
from deploy.command import main
from deploy.kubernetes import manifest
from deploy.kubernetes.manifest import COMPONENTS, HERE, Choices, ManifestError, build, build_clean, render
from node.facts import Kept
from node.settings import Settings

Object = dict[str, Any]
VARIANTS = [(), *((name,) for name in COMPONENTS)]


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["kubernetes", *words])


def everything() -> list[Object]:
    found = [each for names in VARIANTS for each in build(Choices(components=names, api_server=("192.0.2.1", 6443)))]
    return [*found, *build_clean(Choices())]


def pod_specs(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    for each in objects:
        if "template" in each.get("spec", {}):
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]


def containers(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    for name, spec in pod_specs(objects):
        for each in (*spec.get("initContainers", ()), *spec["containers"]):
            yield f"{name}/{each['name']}", each


def named(objects: list[Object], kind: str, name: str) -> Object:
    return next(each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name))


# Kubernetes takes them ------------------------------------------------------------------------------------------------


def test_kubernetes_knows_every_field_and_misses_none() -> None:
    assert [problem for each in everything() for problem in problems(each)] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda spec: spec.update(hostNetwrok=True), "spec.hostNetwrok is unknown"),
        (lambda spec: spec.update(hostNetwork="yes"), "spec.hostNetwork is 'yes', which is no bool"),
        (lambda spec: spec.update(tolerations={"operator": "Exists"}), "spec.tolerations must be a list"),
        (lambda spec: spec["containers"][0].pop("name"), "spec.containers[0]: "),
        (lambda spec: spec["volumes"][0]["hostPath"].pop("path"), "spec.volumes[0].hostPath: "),
    ],
)
def test_what_kubernetes_would_refuse_is_found(change: Any, said: str) -> None:
    found = copy.deepcopy(named(build(Choices()), "DaemonSet", "signalbox-ovs"))
    assert problems(found) == []
    change(found["spec"]["template"]["spec"])
    assert any(said in each for each in problems(found)), problems(found)


@pytest.mark.skipif(not shutil.which("kubectl"), reason="takes kubectl, which has kustomize built in")
@pytest.mark.parametrize("names", VARIANTS, ids=lambda names: names[0] if names else "base")
def test_kustomize_makes_the_same_objects(names: tuple[str, ...], tmp_path: Path) -> None:
    shutil.copytree(HERE, tmp_path / "kubernetes")
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["../kubernetes/base"],
        "components": [f"../kubernetes/components/{name}" for name in names],
    }
    (tmp_path / "overlay").mkdir()
    (tmp_path / "overlay/kustomization.yaml").write_text(yaml.safe_dump(overlay))
    done = subprocess.run(
        ["kubectl", "kustomize", str(tmp_path / "overlay")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

    def ordered(objects: list[Object]) -> list[str]:
        return sorted(json.dumps(each, sort_keys=True) for each in objects)

    ours = render(HERE / "base", [HERE / "components" / name for name in names])
    assert ordered(list(yaml.safe_load_all(done.stdout))) == ordered(ours)


def settings() -> Settings:
    """What an agent is told by the manifests' configuration, as far as it isn't said there."""
    network = ip_network("10.244.0.0/16")
    return Settings(
        name="n1", pod_cidrs=(network,), cluster_cidrs=(network,), node_ips=(ip_address("192.0.2.11"),),
        controllers=("ssl:192.0.2.1:6653",),
    )  # fmt: skip


# Their parts fit each other -------------------------------------------------------------------------------------------


def test_selectors_choose_their_own_pods_and_no_others() -> None:
    objects = [*build(Choices()), *build_clean(Choices())]
    labels = {each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"]
              for each in objects if "template" in each.get("spec", {})}  # fmt: skip
    selecting = [each for each in objects if isinstance(each.get("spec", {}).get("selector"), dict)]
    for each in selecting:
        wanted = each["spec"]["selector"]["matchLabels"].items()
        assert [name for name, have in labels.items() if wanted <= have.items()] == [each["metadata"]["name"]]
    assert len(selecting) == 5
    (spread,) = named(objects, "Deployment", "signalbox-controller")["spec"]["template"]["spec"]["affinity"][
        "podAntiAffinity"
    ]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert spread["labelSelector"]["matchLabels"].items() <= labels["signalbox-controller"].items()


def test_all_that_is_referred_to_is_there() -> None:
    objects = everything()
    accounts = {each["metadata"]["name"] for each in objects if each["kind"] == "ServiceAccount"}
    maps = {each["metadata"]["name"] for each in objects if each["kind"] == "ConfigMap"}
    namespaces = {each["metadata"]["name"] for each in objects if each["kind"] == "Namespace"}
    for name, spec in pod_specs(objects):
        assert spec.get("serviceAccountName", "signalbox-node") in accounts
        volumes = {each["name"] for each in spec["volumes"]}
        mounted = {mount["name"] for each in (*spec.get("initContainers", ()), *spec["containers"])
                   for mount in each.get("volumeMounts", ())}  # fmt: skip
        assert mounted == volumes, name
        assert {each["configMap"]["name"] for each in spec["volumes"] if "configMap" in each} <= maps
        assert spec["hostNetwork"] and spec["tolerations"] == [{"operator": "Exists"}]
        assert spec["priorityClassName"].startswith("system-")
    for each in objects:
        assert each["metadata"].get("namespace", "signalbox") in namespaces | {"cert-manager"}
        for subject in each.get("subjects", ()):
            assert subject["name"] in accounts and subject["namespace"] == "signalbox"
            assert named(objects, each["roleRef"]["kind"], each["roleRef"]["name"])


def test_containers_call_commands_that_there_are_with_options_that_they_have() -> None:
    called = set()
    for name, each in containers(everything()):
        if not each["image"].startswith("signalbox:") or "args" not in each:
            continue
        words = list(each["args"])
        command: click.Command = main
        while isinstance(command, click.Group):
            called.add(words[0])
            command = command.commands[words.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, name
        for variable in (entry["name"] for entry in each.get("env", ()) if entry["name"].startswith("SIGNALBOX_")):
            known = {str(option.envvar) for option in command.params if isinstance(option, click.Option)}
            # The one whose option is still awaited.
            assert variable in known | {"SIGNALBOX_CONTROLLER_REPLICA_ID"}, name
        mounts = {mount["mountPath"] for mount in each["volumeMounts"]}
        for path in (word for word in words if word.startswith("/")):
            assert any(path == mount or path.startswith(f"{mount}/") for mount in mounts), f"{name}: {path}"
    assert called == {"controller", "node"}


def test_the_configuration_has_no_key_that_isn_t_an_option() -> None:
    assert config.check(HERE / "base/config.yaml") == []


def test_paths_of_the_configuration_are_mounted_where_they_are_used() -> None:
    content = yaml.safe_load((HERE / "base/config.yaml").read_text())
    specs = dict(pod_specs(build(Choices())))

    def mounted(spec: Object, container: str) -> set[str]:
        (found,) = (each for each in spec["containers"] if each["name"] == container)
        return {mount["mountPath"] for mount in found["volumeMounts"]}

    kept = Kept(Path("/var/lib/signalbox")).tls.certificate
    for what, name, path in [
        *((key, "signalbox-controller/controller", content["controller"][key]) for key in content["controller"]
          if key.startswith("tls")),
        ("--state-dir", "signalbox-node/agent", str(kept)),
        *((key, "signalbox-node/agent", f"{content['node'][key]}/x") for key in ("cniConfDir", "cniBinDir")),
    ]:  # fmt: skip
        workload, _, container = name.partition("/")
        assert any(path.startswith(f"{mount}/") for mount in mounted(specs[workload], container)), (what, name, path)


def test_open_vswitch_finds_the_agent_s_copies_of_the_certificate_under_the_agent_s_path() -> None:
    specs = dict(pod_specs(build(Choices())))
    copies = settings().tls_copies
    for workload, container in (
        ("signalbox-node", "agent"), ("signalbox-ovs", "database"), ("signalbox-ovs", "switch"),
    ):  # fmt: skip
        spec = specs[workload]
        (found,) = (each for each in spec["containers"] if each["name"] == container)
        places = {each["name"]: each["hostPath"]["path"] for each in spec["volumes"] if "hostPath" in each}
        assert any(
            f"{copies}/".startswith(f"{mount['mountPath']}/") and places.get(mount["name"]) == mount["mountPath"]
            for mount in found["volumeMounts"]
        ), f"{workload}/{container}"


def test_nothing_has_limits_and_everything_has_requests() -> None:
    for name, each in containers(everything()):
        assert each["resources"].keys() == {"requests"}, name
        assert each["resources"]["requests"].keys() == {"cpu", "memory"}, name


def test_only_the_agent_is_privileged_and_the_rest_gives_up_what_it_doesn_t_need() -> None:
    objects = everything()
    privileged = {name for name, each in containers(objects) if each["securityContext"].get("privileged")}
    assert privileged == {"signalbox-node/agent", "signalbox-clean/clean"}
    for name, each in containers(objects):
        if name not in privileged:
            assert each["securityContext"]["capabilities"]["drop"] == ["ALL"], name
            assert each["securityContext"]["readOnlyRootFilesystem"], name


def test_an_upgrade_of_signalbox_leaves_open_vswitch_as_it_is() -> None:
    old, new = build(Choices()), build(Choices(image="registry.example/signalbox:2", settings={"node": {"mtu": 1400}}))
    changed = [each["metadata"]["name"] for each, other in zip(old, new, strict=True) if each != other]
    assert changed == ["signalbox-controller", "signalbox-node", "signalbox-config"]
    assert named(old, "DaemonSet", "signalbox-ovs")["spec"]["updateStrategy"] == {"type": "OnDelete"}


# A cluster's own choices ----------------------------------------------------------------------------------------------


def test_choices_are_in_the_configuration_and_the_rest_of_it_stays() -> None:
    result = run(
        "manifest", "--cluster-cidr", "10.1.0.0/16", "--cluster-cidr", "fd00:1::/48", "--service-cidr", "10.2.0.0/16",
        "--encap", "geneve", "--mtu", "1400", "--load-balancer-pool", "192.0.2.0/24", "--image", "r.example/s:1",
        "--ovs-image", "r.example/o:1", "--replicas", "3", "--api-server", "192.0.2.10:6443",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    objects = list(yaml.safe_load_all(result.output))
    content = yaml.safe_load(named(objects, "ConfigMap", "signalbox-config")["data"]["config.yaml"])
    assert content["node"]["clusterCidr"] == ["10.1.0.0/16", "fd00:1::/48"]
    assert content["shared"]["serviceCidr"] == ["10.2.0.0/16"]
    assert content["controller"]["loadBalancerPool"] == ["192.0.2.0/24"]
    assert (content["controller"]["encap"], content["node"]["mtu"]) == ("geneve", 1400)
    assert content["controller"]["listen"] == ["ssl:0.0.0.0:6653"]
    assert {each["image"] for _, each in containers(objects)} == {"r.example/s:1", "r.example/o:1"}
    assert named(objects, "Deployment", "signalbox-controller")["spec"]["replicas"] == 3
    assert named(objects, "ConfigMap", "signalbox-api-server")["data"] == {"host": "192.0.2.10", "port": "6443"}
    assert [problem for each in objects for problem in problems(each)] == []


def test_probes_and_ports_follow_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "apiVersion: signalbox.io/v1alpha1\nkind: Configuration\n"
        'controller: {listen: ["tcp:[::]:7000"], health: "[::1]:7001", serviceCidr: [10.0.0.0/16]}\n'
        'node: {health: "127.0.0.1:7002"}\n'
    )
    objects = build(Choices(config=file, settings={"shared": {"serviceCidr": ["10.2.0.0/16"]}}))
    (controller,) = named(objects, "Deployment", "signalbox-controller")["spec"]["template"]["spec"]["containers"]
    (agent,) = named(objects, "DaemonSet", "signalbox-node")["spec"]["template"]["spec"]["containers"]
    assert controller["ports"][0]["hostPort"] == 7000
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert (controller[name]["httpGet"]["host"], controller[name]["httpGet"]["port"]) == ("::1", 7001)
    assert agent["readinessProbe"]["httpGet"]["port"] == agent["livenessProbe"]["httpGet"]["port"] == 7002
    # What is asked for counts, wherever the file has it.
    content = yaml.safe_load(named(objects, "ConfigMap", "signalbox-config")["data"]["config.yaml"])
    assert content["shared"]["serviceCidr"] == ["10.2.0.0/16"] and "serviceCidr" not in content["controller"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cluster-cidr", "10.1.0.1/16"), "node.clusterCidr[0] can't be: 10.1.0.1/16 has host bits set"),
        (("--service-node-port-range", "9"), "shared.serviceNodePortRange can't be: '9' are no ports"),
        (("--api-server", "192.0.2.1"), "--api-server 192.0.2.1: give host and port, as 192.0.2.10:6443"),
        (("--component", "magic"), "'magic' is not one of"),
    ],
)
def test_a_choice_that_can_t_be_is_named(words: tuple[str, ...], said: str) -> None:
    result = run("manifest", *words)
    assert result.exit_code != 0 and said in result.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("node: {mtux: 1}", "config.yaml:3: node.mtux is unknown"),
        ("node: {}", "controller.health is missing in the configuration"),
        ("controller: {health: '127.0.0.1:1', listen: ['unix:/x']}", "controller.listen must have one port"),
        (
            "controller: {health: '127.0.0.1:1', listen: ['ssl:0.0.0.0:7000']}\nnode: {controller: ['ssl:a/b:6653']}",
            "node.controller ssl:a/b:6653: controllers listen on ssl:0.0.0.0:7000; write that port",
        ),
    ],
)
def test_a_configuration_that_pods_can_t_run_with_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"apiVersion: signalbox.io/v1alpha1\nkind: Configuration\n{text}\n")
    with pytest.raises(ManifestError) as problem:
        build(Choices(config=file))
    assert said in str(problem.value)


def test_a_changed_configuration_starts_pods_anew() -> None:
    def digests(choices: Choices) -> set[str]:
        objects = build(choices)
        pods = [named(objects, "Deployment", "signalbox-controller"), named(objects, "DaemonSet", "signalbox-node")]
        return {each["spec"]["template"]["metadata"]["annotations"]["signalbox.io/config"] for each in pods}

    assert len(digests(Choices())) == 1
    assert digests(Choices()) != digests(Choices(settings={"node": {"mtu": 1400}}))


def test_certificates_become_secrets_where_the_pods_look_for_them(tmp_path: Path) -> None:
    (tmp_path / "nodes").mkdir()
    for name in ("ca", "controller", "nodes/n1", "nodes/n2.example"):
        for suffix in (".crt", ".key"):
            (tmp_path / f"{name}{suffix}").write_text(f"{name}{suffix}\n")
    (tmp_path / "ca.key").unlink()
    result = run("secrets", "-d", str(tmp_path))
    assert result.exit_code == 0, result.output
    found = list(yaml.safe_load_all(result.output))
    assert [problem for each in found for problem in problems(each)] == []
    places = [f"{each['metadata']['namespace']}/{each['metadata']['name']}" for each in found]
    assert places == [
        "signalbox/signalbox-controller",
        "signalbox-nodes/signalbox-node-n1",
        "signalbox-nodes/signalbox-node-n2.example",
    ]
    assert found[2]["stringData"] == {
        "tls.crt": "nodes/n2.example.crt\n", "tls.key": "nodes/n2.example.key\n", "ca.crt": "ca.crt\n",
    }  # fmt: skip
    volumes = dict(pod_specs(build(Choices())))["signalbox-controller"]["volumes"]
    assert manifest.CONTROLLER_SECRET in [each.get("secret", {}).get("secretName") for each in volumes]
    missing = run("secrets", "-d", str(tmp_path / "nowhere"))
    assert missing.exit_code == 1 and "No such file or directory; 'signalbox pki init'" in missing.output


def test_cert_manager_is_asked_for_a_certificate_that_names_the_node() -> None:
    first, second = yaml.safe_load_all(run("certificates", "n1", "n2").output)
    assert first["spec"]["uris"] == ["signalbox:node:n1"]
    assert second["metadata"] == {"name": "signalbox-node-n2", "namespace": "signalbox-nodes"}
    issuers = [each["metadata"]["name"] for each in build(Choices(components=("cert-manager",)))
               if each["kind"] == "ClusterIssuer"]  # fmt: skip
    assert first["spec"]["issuerRef"]["name"] in issuers
