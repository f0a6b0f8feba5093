"""The configuration file: what it takes from the commands, what it refuses, and what wins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from deploy import config
from deploy.command import main

HEAD = "apiVersion: signalbox.io/v1alpha1\nkind: Configuration\n"
NODE = """
node:
  name: n1
  podCidr: [10.244.1.0/24]
  clusterCidr: [10.244.0.0/16]
  nodeIp: [192.0.2.11]
  controller: ["ssl:192.0.2.1:6653"]
"""


def run(*words: str, **env: str) -> Result:
    return CliRunner().invoke(main, list(words), env=env)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def shown(command: str, file: Path, *words: str, **env: str) -> dict[str, tuple[Any, str]]:
    result = run("config", "show", command, "--config", str(file), "-o", "json", *words, **env)
    assert result.exit_code == 0, result.output
    return {row["key"]: (row["value"], row["from"]) for row in json.loads(result.output)["items"]}


def value_for(option: click.Option) -> Any:
    """Something that the option takes."""
    if option.is_flag:
        return True
    promised = {
        "CIDR": "10.0.0.0/8",
        "ADDRESS": "192.0.2.1",
        "ADDRESS:PORT": "127.0.0.1:9879",
        "TARGET": "ssl:192.0.2.1:6653",
        "LOW-HIGH": "30000-30001",
    }
    match option.type:
        case click.Choice():
            one: Any = option.type.choices[-1]
        case click.types.IntRange():
            one = int(option.type.min or 0) + 1
        case click.types.IntParamType() | click.types.FloatParamType():
            one = 7
        case _:
            one = promised.get(option.metavar or "", "/some/word")
    return [one] if option.multiple else one


@pytest.mark.parametrize("section", list(config.SECTIONS))
def test_every_option_of_the_command_but_acts_is_a_key(section: str, file: Path) -> None:
    given = {key: value_for(option) for key, option in config.keys(section).items()}
    file.write_text(HEAD + yaml.safe_dump({section: given}))
    assert config.check(file) == []
    rows = shown(section, file)
    assert {key for key, (_, origin) in rows.items() if origin.startswith(str(file))} == set(given)
    options = {option: each.opts for each in config.SECTIONS[section].params for option in each.opts}
    covered = {config.long_name(option) for option in config.keys(section).values()}
    assert {option for option, names in options.items() if option.startswith("--") and covered.isdisjoint(names)} == (
        {"--config", "--clean"} if section == "node" else {"--config"}
    )


def test_the_command_line_beats_the_environment_and_that_the_file_and_that_the_default(file: Path) -> None:
    file.write_text(HEAD + "shared: {logLevel: debug}\n" + NODE + "  mtu: 1400\n")
    rows = shown("node", file)
    assert rows["mtu"] == (1400, f"{file}:11")
    assert rows["logLevel"] == ("debug", f"{file}:3")
    assert rows["datapathType"] == ("system", "default")
    rows = shown("node", file, SIGNALBOX_NODE_MTU="1300", SIGNALBOX_NODE_POD_CIDR="10.244.1.0/24 fd00::/64")
    assert rows["mtu"] == (1300, "SIGNALBOX_NODE_MTU")
    assert rows["podCidr"] == (["10.244.1.0/24", "fd00::/64"], "SIGNALBOX_NODE_POD_CIDR")
    assert shown("node", file, "--mtu", "1200", SIGNALBOX_NODE_MTU="1300")["mtu"] == (1200, "command line")


def test_a_section_of_its_own_beats_what_is_shared_and_a_later_file_an_earlier_one(file: Path) -> None:
    file.write_text(HEAD + "shared: {logLevel: debug}\ncontroller: {logLevel: error}\n")
    assert shown("controller", file)["logLevel"] == ("error", f"{file}:4")
    assert shown("node", file)["logLevel"] == ("debug", f"{file}:3")
    later = file.with_name("later.yaml")
    later.write_text(HEAD + "shared: {logLevel: warning}\n")
    assert shown("controller", file, "--config", str(later))["logLevel"] == ("warning", f"{later}:3")


def test_what_is_missing_is_shown_as_that(file: Path) -> None:
    file.write_text(HEAD)
    assert shown("node", file)["clusterCidr"] == ([], "nowhere: it must be given")


def test_a_shown_file_says_the_same_again(file: Path) -> None:
    file.write_text(HEAD + NODE)
    text = run("config", "show", "node", "--config", str(file), "--mtu", "1280", "-o", "file").output
    again = file.with_name("again.yaml")
    again.write_text(text)
    assert config.check(again) == []
    values = {key: value for key, (value, _) in shown("node", again).items()}
    assert values == {key: value for key, (value, _) in shown("node", file, "--mtu", "1280").items()}


def test_the_command_takes_what_the_file_says(file: Path) -> None:
    file.write_text(HEAD + NODE.replace("clusterCidr: [10.244", "clusterCidr: [10.9"))
    result = run("node", "--config", str(file))
    assert result.exit_code == 1
    assert "Error: --pod-cidr 10.244.1.0/24 is in no --cluster-cidr (10.9.0.0/16)\n" in result.output
    assert f"{file}:6: --pod-cidr is given here\n{file}:7: --cluster-cidr is given here\n" in result.output
    # What is not out of the file isn't looked for there.
    assert f"{file}:6" not in run("node", "--config", str(file), "--pod-cidr", "10.244.1.0/24").output
    assert "is in no --cluster-cidr" in run("node", SIGNALBOX_CONFIG=str(file)).output


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("node: {podCidrs: [10.0.0.0/8]}", 3, "node.podCidrs is unknown; is podCidr meant?"),
        ("node: {pod-cidr: [10.0.0.0/8]}", 3, "node.pod-cidr is unknown; it is written podCidr"),
        ("node: {podCIDR: [10.0.0.0/8]}", 3, "node.podCIDR is unknown; it is written podCidr"),
        ("controller: {zzz: 1}", 3, "controller.zzz is unknown; there are listen, "),
        ("nodes: {}", 3, "nodes is no section; is node meant?"),
        ("node: {podCidr: 10.0.0.0/8}", 3, "node.podCidr is '10.0.0.0/8'; it must be a list"),
        ("node:\n  podCidr:\n  - 10.0.0.1/8", 5, "node.podCidr[0] can't be: 10.0.0.1/8 has host bits set"),
        ("node: {nodeIp: [node-1]}", 3, "node.nodeIp[0] can't be: 'node-1' does not appear to be an IPv4 or IPv6"),
        ("controller: {encap: stt}", 3, "controller.encap can't be: 'stt' is not one of 'vxlan', 'geneve', 'gre'"),
        ("controller: {subnet: [10.0.0.1/8]}", 3, "controller.subnet[0] can't be: 10.0.0.1/8 has host bits set"),
        ("node: {mtu: 10}", 3, "node.mtu can't be: 10 is not in the range 576<=x<=65535"),
        ("node: {mtu: large}", 3, "node.mtu is 'large'; it must be a number"),
        ("node: {name: 7}", 3, 'node.name is 7 (a number); it must be a string: write it in quotes, "7"'),
        ("node: {clean: true}", 3, "node.clean is an act and no setting; give it on the command line"),
        ("node: [a]", 3, "node is a list; it must be a mapping"),
        ("node: {mtu: 1400, mtu: 1500}", 3, "node.mtu is given twice; keep one of them"),
        ("controller: {listen: ['tcp:6653']}", 3, "controller.listen[0] can't be: 'tcp:6653' is no target; write ssl:"),
        ("shared: {serviceNodePortRange: 9-8}", 3, "shared.serviceNodePortRange can't be: '9-8' are no ports"),
        ("shared: {socket: /x}", 3, "shared.socket isn't shared; write it in controller and node"),
        ("shared: {mtu: 1400}", 3, "shared.mtu isn't shared; write it in node"),
        ("shared: {serviceCidr: [10.0.0.0/8, 11.0.0.0/8]}", 3, "serviceCidr must have one CIDR for each family in use"),
        ("node: {", 4, "the file is not YAML: "),
        ("---\nnode: {}", 3, "has 2 documents; write one"),
    ],
)  # fmt: skip
def test_what_can_t_be_is_refused_with_file_line_and_remedy(file: Path, text: str, line: int, said: str) -> None:
    file.write_text(f"{HEAD}{text}\n")
    result = run("config", "check", str(file))
    assert result.exit_code == 1
    assert any(each.startswith(f"{file}:") and said in each for each in result.output.splitlines()), result.output
    if "YAML" not in said and "documents" not in said:
        assert result.output.startswith(f"{file}:{line}: ")


def test_every_problem_is_said_in_the_order_of_lines(file: Path) -> None:
    file.write_text("kind: Config\ncontroller: {auditInterval: x}\nnode: {mtu: x}\nshared: {y: 1}\n")
    problems = [line.removeprefix(f"{file}:") for line in config.check(file)]
    assert [line.partition(":")[0] for line in problems] == ["1", "1", "2", "3", "4"]
    assert problems[0] == "1: apiVersion is missing; write 'apiVersion: signalbox.io/v1alpha1'"
    assert problems[1] == "1: kind is 'Config'; this version reads Configuration"


def test_a_command_refuses_a_file_with_all_of_its_own_problems(file: Path) -> None:
    file.write_text(HEAD + "node: {mtu: x, datapathType: y}\ncontroller: {fromTheFuture: true}\n")
    result = run("node", "--config", str(file))
    assert result.exit_code == 1
    assert result.output.count(str(file)) == 2 and "fromTheFuture" not in result.output
    assert "controller.fromTheFuture is unknown" in run("controller", "--config", str(file)).output


def test_a_file_that_isn_t_there_is_named() -> None:
    result = run("node", "--config", "/nowhere.yaml")
    assert result.exit_code == 1 and "/nowhere.yaml:1: can't be read: No such file" in result.output


def test_paths_of_other_machines_are_only_looked_at_where_they_are_used(file: Path) -> None:
    file.write_text(HEAD + "controller: {listen: ['unix:/x'], manifests: /nowhere}\n")
    assert run("config", "check", str(file)).output == f"{file}: nothing is wrong\n"
    said = run("controller", "--config", str(file)).output
    assert f"{file}:3: controller.manifests can't be: Directory '/nowhere' does not exist" in said
