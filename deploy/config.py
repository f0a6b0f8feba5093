"""The configuration file: every option of `signalbox controller` and `signalbox node`, under the same names.

Owns: what the file looks like, what may be in it, and which of file, environment and command line wins. What there is
to be given is read from the commands' own declarations, so an option that a command gets tomorrow is a key of the file
without a word here. Files are read with their lines, and what is wrong is said with file, line and remedy.

    command line  beats  environment (SIGNALBOX_NODE_MTU)  beats  file (node, then shared)  beats  default
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import click
import msgspec

from controller.cli.run import controller
from node.cli import node
from topology.yaml_tree import FieldError, Tree, YamlError, documents

API_VERSION = "signalbox.io/v1alpha1"
KIND = "Configuration"
#: The section of what both commands have and must have alike.
SHARED = "shared"
SECTIONS: dict[str, click.Command] = {"controller": controller, "node": node}
#: Options that are acts, not settings: in a file they would be done at each start.
_ACTS = frozenset({"--clean"})
#: What is no key of a file: the file itself, and click's own.
_NO_KEYS = frozenset({"--config", "--help", "--version"})
#: What both commands have, but never alike: what they listen on.
_OWN = frozenset({"--socket", "--health"})
#: Where a family may be there once only.
_ONE_OF_EACH_FAMILY = frozenset({"--service-cidr", "--pod-cidr", "--cluster-cidr"})
_MAX_BYTES = 1 << 20
#: Where a context keeps what its files said.
_META = "signalbox.config"


class ConfigError(Exception):
    """Files that can't be used; each problem is a line with file, line and remedy."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Setting(msgspec.Struct, frozen=True):
    """An option's value out of a file, as the command line would give it, and where it stands there."""

    value: Any
    path: Path
    line: int

    @property
    def place(self) -> str:
        return f"{self.path}:{self.line}"


def key_of(option: click.Option) -> str:
    """The option's name as a key: --pod-cidr is podCidr."""
    first, *rest = long_name(option).removeprefix("--").split("-")
    return first + "".join(word.capitalize() for word in rest)


def long_name(option: click.Option) -> str:
    """The option as it is spelled out: --pod-cidr."""
    return next(name for name in option.opts if name.startswith("--"))


def keys(section: str) -> dict[str, click.Option]:
    """What may be in a section, in the order of the command's help. In `shared`: what all have, with one default."""
    if section != SHARED:
        options = [each for each in SECTIONS[section].params if isinstance(each, click.Option)]
        return {key_of(each): each for each in options if long_name(each) not in _NO_KEYS | _ACTS}
    first, *others = map(keys, SECTIONS)
    return {key: option for key, option in first.items() if all(_alike(option, other.get(key)) for other in others)}


def _alike(option: click.Option, other: click.Option | None) -> bool:
    # A default that differs says that each has its own.
    if other is None or long_name(option) in _OWN:
        return False
    return repr(option.default) == repr(other.default) and option.type.to_info_dict() == other.type.to_info_dict()


def environment_name(section: str, option: click.Option) -> str:
    """The variable that gives an option: SIGNALBOX_NODE_POD_CIDR."""
    return f"SIGNALBOX_{section}_{long_name(option).removeprefix('--')}".upper().replace("-", "_")


# Files ----------------------------------------------------------------------------------------------------------------


def check(path: Path) -> list[str]:
    """Everything that is wrong with a file, whichever command it is for, in the order of its lines."""
    problems: list[tuple[int, str]] = []
    _sections(path, ("controller", "node"), problems, here=False)
    return [f"{path}:{line}: {text}" for line, text in sorted(problems)]


def load(section: str, paths: Iterable[Path], *, here: bool = True) -> dict[str, Setting]:
    """What files give to a command, by the parameter's name; later files win. Raises ConfigError.

    Another command's section may have keys that this version doesn't know. `here` says that paths are of this machine.
    """
    found: dict[str, Setting] = {}
    told: list[str] = []
    for path in paths:
        problems: list[tuple[int, str]] = []
        found |= _sections(path, (section,), problems, here=here).get(section, {})
        told += [f"{path}:{line}: {text}" for line, text in sorted(problems)]
    if told:
        raise ConfigError(told)
    return found


def _sections(
    path: Path, wanted: Sequence[str], problems: list[tuple[int, str]], *, here: bool
) -> dict[str, dict[str, Setting]]:
    """The settings of one file, by section."""

    def problem(line: int, text: str) -> None:
        if (line, text) not in problems:
            problems.append((line, text))

    try:
        top = _document(path)
        fields = _fields(top, problem)
    except _Unusable as error:
        problem(error.line, str(error))
        return {}
    for name, only in (("apiVersion", API_VERSION), ("kind", KIND)):
        value = fields.get(name)
        try:
            if not value:
                problem(top.line, f"{name} is missing; write '{name}: {only}'")
            elif value.text() != only:
                problem(value.line, f"{name} is {value.text()!r}; this version reads {only}")
        except FieldError as error:
            problem(error.line, str(error))
    for name, value in fields.items():
        if name not in ("apiVersion", "kind", SHARED, *SECTIONS):
            problem(value.line, f"{name} is no section{_instead(name, (SHARED, *SECTIONS))}")
    found: dict[str, dict[str, Setting]] = {}
    for section in wanted:
        mine: dict[str, Setting] = {}
        for name in (SHARED, section):
            if tree := fields.get(name):
                mine |= _settings(path, name, section, tree, problem, here=here)
        found[section] = mine
        for line, text in _together(section, mine):
            problem(line, text)
    return found


class _Unusable(Exception):
    """A file of which nothing can be used."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


def _document(path: Path) -> Tree:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise _Unusable(1, f"can't be read: {error.strerror}; check that it is there and who may read it") from error
    if len(data) > _MAX_BYTES:
        raise _Unusable(1, f"has more than {_MAX_BYTES >> 20} MiB; no configuration has")
    try:
        found = list(documents(data))
    except YamlError as error:
        raise _Unusable(error.line, f"the file {error.reason}") from error
    if len(found) != 1:
        line = found[1].line if found else 1
        raise _Unusable(line, f"has {len(found)} documents; write one, with a section for each command")
    return found[0]


def _fields(tree: Tree, problem: Callable[[int, str], None]) -> dict[str, Tree]:
    """The fields of a mapping; where one is given twice, that is a problem and all are left out."""
    try:
        return tree.fields()
    except FieldError as error:
        problem(error.line, str(error))
        return {}


def _settings(
    path: Path, name: str, section: str, tree: Tree, problem: Callable[[int, str], None], *, here: bool
) -> dict[str, Setting]:
    """One section's settings, by the parameter's name."""
    known = keys(name)
    found: dict[str, Setting] = {}
    for key, value in _fields(tree, problem).items():
        option = known.get(key)
        if option is None:
            problem(value.line, f"{name}.{key} {_unknown(name, key)}")
        elif value:
            try:
                # The same key of the command itself: parameters may be called otherwise there.
                option = keys(section)[key]
                found[str(option.name)] = Setting(_value(option, value, here=here), path, value.line)
            except FieldError as error:
                problem(error.line, str(error))
    return found


def _unknown(name: str, key: str) -> str:
    if f"--{key}" in _ACTS:
        return "is an act and no setting; give it on the command line"
    if name == SHARED:
        having = [section for section in SECTIONS if key in keys(section)]
        if having:
            return f"isn't shared; write it in {' and '.join(having)}"
    # The option's own spelling, or another way to write capitals.
    plain = {re.sub(r"[-_]", "", known).lower(): known for known in keys(name)}
    meant = plain.get(re.sub(r"[-_]", "", key).lower())
    if meant is not None:
        return f"is unknown; it is written {meant}"
    return f"is unknown{_instead(key, list(keys(name)))}"


def _instead(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"; is {near[0]} meant?"
    return f"; there are {', '.join(known)}"


def _value(option: click.Option, tree: Tree, *, here: bool) -> Any:
    """A value as the command line would give it: checked, but not yet converted. Raises FieldError."""
    if option.multiple:
        return [_one(option, each, here=here) for each in tree.items()]
    return _one(option, tree, here=here)


def _one(option: click.Option, tree: Tree, *, here: bool) -> Any:
    if option.is_flag:
        return tree.flag()
    numeric = isinstance(option.type, click.types.IntParamType | click.types.FloatParamType)
    text = tree.digits() if numeric else tree.text()
    kind = option.type
    if isinstance(kind, click.Path) and not here:
        # Whether a path is there is the node's or the controller's machine to say.
        kind = click.Path()
    try:
        kind.convert(text, option, None)
        promise = _PROMISES.get(option.metavar or "")
        if promise is not None:
            promise(text)
    except click.BadParameter as error:
        raise tree.error(f"can't be: {error.message}") from error
    except ValueError as error:
        raise tree.error(f"can't be: {error}") from error
    return text


# What a metavar in the help promises of the value. --------------------------------------------------------------------


def _target(text: str) -> None:
    kind, _, rest = text.partition(":")
    if kind == "unix":
        good = rest.startswith("/")
    else:
        host, _, port = rest.rpartition(":")
        good = kind in ("tcp", "ssl") and port.isdecimal() and int(port) <= 65535
        good = good and bool(re.fullmatch(r"\[[0-9A-Fa-f:.]+\]|[^\[\]:]+", host))
    if not good:
        raise ValueError(f"{text!r} is no target; write ssl:ADDRESS:PORT, tcp:ADDRESS:PORT or unix:/PATH")


def _ports(text: str) -> None:
    low, _, high = text.partition("-")
    if not (low.isdecimal() and high.isdecimal() and 1 <= int(low) <= int(high) <= 65535):
        raise ValueError(f"{text!r} are no ports; write two, the lower first, as 30000-32767")


def _address_port(text: str) -> None:
    host, _, port = text.rpartition(":")
    try:
        ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
        good = port.isdecimal() and int(port) <= 65535
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"{text!r} is no address with a port; write it as 127.0.0.1:9879 or [::1]:9879")


_PROMISES: Mapping[str, Callable[[str], object]] = {
    "CIDR": ip_network,
    "ADDRESS": ip_address,
    "ADDRESS:PORT": _address_port,
    "TARGET": _target,
    "LOW-HIGH": _ports,
}


def _together(section: str, settings: Mapping[str, Setting]) -> Iterator[tuple[int, str]]:
    """What is wrong with CIDRs that are each fine: a family that is there twice, where one of each is asked for."""
    for key, option in keys(section).items():
        setting = settings.get(str(option.name))
        if setting is None or long_name(option) not in _ONE_OF_EACH_FAMILY:
            continue
        versions = [ip_network(text).version for text in setting.value]
        if not versions or len(set(versions)) != len(versions):
            yield setting.line, f"{section}.{key} must have one CIDR for each family in use"


# Commands -------------------------------------------------------------------------------------------------------------


def attach(section: str) -> None:
    """Give a command --config, and each of its options a variable in the environment."""
    command = SECTIONS[section]
    for option in keys(section).values():
        option.envvar = option.envvar or environment_name(section, option)
    command.params.insert(0, _config_option(section))
    assert command.callback is not None
    command.callback = _placed(command, command.callback)


def _config_option(section: str) -> click.Option:
    def read(context: click.Context, parameter: click.Parameter, paths: tuple[Path, ...]) -> None:
        if context.resilient_parsing:
            return
        try:
            use(context, load(section, paths))
        except ConfigError as error:
            raise click.ClickException(str(error)) from error

    return click.Option(
        ["--config"],
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        envvar="SIGNALBOX_CONFIG",
        is_eager=True,
        expose_value=False,
        callback=read,
        help="A configuration file, which gives what the command line doesn't; of several, later ones win.",
    )


def use(context: click.Context, settings: Mapping[str, Setting]) -> None:
    """Have a command take settings where neither the command line nor the environment says anything."""
    context.default_map = {name: setting.value for name, setting in settings.items()}
    context.meta[_META] = settings


def _placed(command: click.Command, run: Callable[..., Any]) -> Callable[..., Any]:
    """Errors about an option that is out of a file say where it stands."""

    @functools.wraps(run)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return run(*args, **kwargs)
        except click.ClickException as error:
            places = list(_places(command, click.get_current_context(), error.message))
            if not places:
                raise
            raise click.ClickException("".join([error.message, *places])) from error

    return wrapped


def _places(command: click.Command, context: click.Context, message: str) -> Iterator[str]:
    settings: Mapping[str, Setting] = context.meta.get(_META, {})
    for option in command.params:
        if not isinstance(option, click.Option) or str(option.name) not in settings:
            continue
        from_file = context.get_parameter_source(str(option.name)) is click.core.ParameterSource.DEFAULT_MAP
        if from_file and re.search(rf"{re.escape(long_name(option))}(?![\w-])", message):
            yield f"\n{settings[str(option.name)].place}: {long_name(option)} is given here"
