"""The CNI plugin where the runtime looks for it, and the configuration that has the runtime use it.

A configuration in its place says that this node takes pods: kubelet and the runtime wait for it. So it is written when
the node is ready, and it stays while the agent restarts - running pods need it to be deleted, and ADD waits or fails by
itself. Everything is written beside and renamed, because the runtime reads at any moment.
"""

from __future__ import annotations

import json
from pathlib import Path

from node.cni.build import SOURCE
from node.files import place
from node.settings import Settings

PLUGIN = "signalbox-cni"
#: The runtime takes the first of all configurations by name.
CONFIGURATION = "10-signalbox.conflist"
#: Compiled when the package was built, and what serves in its place.
_COMPILED, _SCRIPT = SOURCE.with_name(PLUGIN), SOURCE.with_name("plugin.py")


def is_compiled() -> bool:
    """Whether this installation has the compiled plugin; a checkout that isn't installed has none."""
    return _COMPILED.exists()


def configuration(socket: Path) -> bytes:
    """The network configuration list of an agent that listens at `socket`."""
    document = {
        # Runtimes from before version 1.1.0 read this one; those since choose among the others.
        "cniVersion": "1.0.0",
        "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
        "name": "signalbox",
        "plugins": [
            {
                "type": PLUGIN,
                "socket": str(socket),
                "capabilities": {"portMappings": True, "bandwidth": True, "deviceID": True, "CNIDeviceInfoFile": True},
            }
        ],
    }
    return (json.dumps(document, indent=2) + "\n").encode()


def install_plugin(directory: Path) -> None:
    """Put the plugin into a directory, if it isn't there as it should be. Raises OSError."""
    source = _COMPILED if is_compiled() else _SCRIPT
    place(directory / PLUGIN, source.read_bytes(), 0o755)


def install_configuration(settings: Settings) -> None:
    """Tell the runtime that this node takes pods. Raises OSError."""
    if settings.cni_conf_dir is not None:
        place(settings.cni_conf_dir / CONFIGURATION, configuration(settings.socket), 0o644)


def remove(settings: Settings) -> None:
    """Take both away. Raises OSError."""
    if settings.cni_conf_dir is not None:
        (settings.cni_conf_dir / CONFIGURATION).unlink(missing_ok=True)
    if settings.cni_bin_dir is not None:
        (settings.cni_bin_dir / PLUGIN).unlink(missing_ok=True)
