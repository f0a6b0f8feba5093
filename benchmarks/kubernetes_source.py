"""Kubernetes as the source: 100,000 pods and 10,000 Services listed and modelled, then a stream of watch events.

The API server is the tests' emulator, in a process of its own, over real HTTP; its pods have the size of real ones
(about 5 KB of JSON). Listing ends with the first batch, which has every object of the model; then a controller takes
it. After that the server changes pods as fast as it can, and the time runs until the last change is in a batch - once
to the model alone, once with a controller that compiles each batch. Each run is a process of its own, so that its peak
memory is its own.
"""

import asyncio
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import rig

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/unit"))

from api_server import ApiServer
from kubernetes_objects import Json, endpoint_slice, namespace, node, pod, service

from controller.app import Controller
from controller.process import collect_seldom
from topology.kubernetes.client import Client
from topology.kubernetes.source import KubernetesSource
from topology.kubernetes.state import Batch
from topology.services import ServiceRanges

PODS, SERVICES, ENDPOINTS, NODES, CHANGES, RUNS = 100_000, 10_000, 10, 1_000, 20_000, 3
QUICK_PODS, QUICK_SERVICES, QUICK_RUNS = 10_000, 1_000, 1
#: Pods that the server changes before it lets go of its event loop.
BURST = 200


def padded(index: int, generation: int) -> Json:
    """A pod as large as a real one: volumes, environment, tolerations, managed fields."""
    env = [{"name": f"VARIABLE_{i}", "value": f"value of variable {i}"} for i in range(12)]
    mounts = [{"name": f"volume-{i}", "mountPath": f"/var/lib/volume-{i}", "readOnly": True} for i in range(4)]
    container = {
        "name": "app",
        "image": "registry.example.com/team/app@sha256:" + "0" * 64,
        "env": env,
        "volumeMounts": mounts,
        "ports": [{"containerPort": 8080, "name": "http", "protocol": "TCP"}],
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
    }
    fields = {f"f:field-{i}": {f"f:inner-{j}": {} for j in range(6)} for i in range(16)}
    return pod(
        f"team-{index % 100}",
        f"app-{index % 1000}-{index:06x}",
        f"node-{index % NODES}",
        [f"10.{64 + index // 65536}.{index // 256 % 256}.{index % 256}"],
        labels={"app": f"app-{index % 1000}", "pod-template-hash": f"{index % 1000:08x}", "tier": "web"},
        spec={"containers": [container], "tolerations": [{"key": "k", "operator": "Exists"}] * 2},
        annotations={"generation": str(generation)},
        managedFields=[{"manager": "kubelet", "operation": "Update", "fieldsV1": fields}],
        ready=generation % 2 == 0,
    )


async def serve(pods: int, services: int, pipe: Connection) -> None:
    """The server's process: fill it, say where it is, then change what it is told to."""
    server = ApiServer()
    server.put(*(namespace(f"team-{i}") for i in range(100)), namespace("default"))
    for i in range(NODES):
        each = node(f"node-{i}", 1)
        each["spec"] = {"podCIDR": f"10.{i // 256 + 64}.{i % 256}.0/24"}
        each["status"]["addresses"] = [{"type": "InternalIP", "address": f"172.16.{i // 250}.{i % 250 + 1}"}]
        server.put(each)
    server.put(*(padded(i, 0) for i in range(pods)))
    for i in range(services):
        server.put(service("default", f"s-{i}", f"10.96.{i // 250}.{i % 250 + 1}"))
        places = ((i * ENDPOINTS + j) % pods for j in range(ENDPOINTS))
        addresses = (f"10.{64 + at // 65536}.{at // 256 % 256}.{at % 256}" for at in places)
        server.put(endpoint_slice("default", f"s-{i}-x", f"s-{i}", *addresses, nodeName=f"node-{i % NODES}"))
    server.forget()
    await server.start()
    pipe.send(server.kubeconfig())
    loop = asyncio.get_running_loop()
    generation = 0
    while (count := await loop.run_in_executor(None, pipe.recv)) > 0:
        generation += 1
        # Made before: what is measured is the other side.
        made = [server.encoded(padded(i, generation)) for i in range(count)]
        pipe.send(None)
        for start in range(0, count, BURST):
            server.put_encoded(made[start : start + BURST])
            await asyncio.sleep(0)
        # The last of them says that it is.
        server.put(namespace(f"done-{generation}"))
    await server.stop()


def serving(pods: int, services: int, pipe: Connection) -> None:
    asyncio.run(serve(pods, services, pipe))


async def follow(batches: AsyncIterator[Batch], controller: Controller | None, done: str, pods: int) -> tuple[int, int]:
    """Take batches until the server has said that it is done and all its pods have come; how many batches, and pods."""
    count, changed, said = 0, set(), False
    while not (said and len(changed) >= pods):
        batch = await anext(batches)
        count += 1
        changed |= {each.key for each in batch.changed if each.kind == "Pod"}
        said |= any(each.key == ("Namespace", "", done) for each in batch.changed)
        if controller is not None:
            controller.change(batch.changed, batch.gone, batch.problems)
    return count, len(changed)


async def measure(pods: int, services: int, changes: int) -> dict[str, Any]:
    """One run, all of it."""
    collect_seldom()
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serving, args=(pods, services, theirs))
    process.start()
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory() as directory:
        kubeconfig = Path(directory) / "kubeconfig"
        kubeconfig.write_text(await loop.run_in_executor(None, ours.recv))
        client = Client(kubeconfig)
        await client.connect()
        told: dict[str, Any] = {"start": rig.peak_memory()}
        source = KubernetesSource(client, ServiceRanges())
        begun, cpu = time.perf_counter(), time.process_time()
        batches = source.watch()
        first = await anext(batches)
        told |= {"listed": time.perf_counter() - begun, "listed_cpu": time.process_time() - cpu}
        told |= {"objects": len(first.changed), "listed_memory": rig.peak_memory()}
        for name, controller in (("model", None), ("controller", Controller(ServiceRanges()))):
            if controller is not None:
                begun = time.perf_counter()
                controller.change(source.state.objects().values(), [], ())
                told |= {"compiled": time.perf_counter() - begun}
            ours.send(changes)
            await loop.run_in_executor(None, ours.recv)
            begun, cpu = time.perf_counter(), time.process_time()
            done = "done-1" if controller is None else "done-2"
            count, _ = await follow(batches, controller, done, changes)
            told |= {name: time.perf_counter() - begun, f"{name}_cpu": time.process_time() - cpu}
            told |= {f"{name}_batches": count}
        told["peak"] = rig.peak_memory()
        ours.send(0)
        await client.close()
    process.join()
    return told


def rows(runs: list[dict[str, Any]], changes: int) -> list[list[str]]:
    def of(name: str) -> list[float]:
        return [float(each[name]) for each in runs]

    def middle(name: str) -> float:
        return sorted(of(name))[len(runs) // 2]

    found = [
        [f"{int(middle('objects')):,} objects: listed and modelled", rig.seconds(of("listed")),
         f"{middle('listed') / 10:.2f}", "aim, 10 s"],
        ["  its CPU", rig.seconds(of("listed_cpu")), f"{middle('listed_cpu') / middle('listed'):.2f}", "its time"],
        ["  peak memory", f"{middle('listed_memory'):.0f} MB", f"{middle('listed_memory') / 1500:.2f}", "aim, 1.5 GB"],
        ["  compiled by a controller", rig.seconds(of("compiled")), f"{middle('compiled') / middle('listed'):.2f}",
         "listing"],
    ]  # fmt: skip
    for name, words in (("model", "into the model"), ("controller", "into a controller, which compiles them")):
        rate, cpu = changes / middle(name), middle(f"{name}_cpu") / changes
        found += [
            [f"{changes:,} events of pods, {words}", f"{rate:,.0f}/s", f"{rate / 5000:.2f}", "aim, 5,000/s"],
            ["  CPU of an event", f"{cpu * 1e6:.0f} us", "", ""],
            ["  in batches", f"{int(middle(f'{name}_batches')):,}", "", ""],
        ]
    found.append(["peak memory of it all", f"{middle('peak'):.0f} MB", f"{middle('peak') / 1500:.2f}", "aim, 1.5 GB"])
    return found


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == "one":
        print(json.dumps(asyncio.run(measure(*map(int, sys.argv[2:])))))
        return
    quick = rig.arguments(__doc__ or "")
    pods, services = (QUICK_PODS, QUICK_SERVICES) if quick else (PODS, SERVICES)
    changes, count = min(CHANGES, pods), QUICK_RUNS if quick else RUNS
    runs = []
    for number in range(count):
        rig.progress(f"run {number + 1} of {count}")
        words = [sys.executable, __file__, "one", str(pods), str(services), str(changes)]
        runs.append(json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout))
    rig.progress("")
    rig.table([f"name (median of {count})", "median", "ratio", "compared with"], rows(runs, changes))


if __name__ == "__main__":
    main()
