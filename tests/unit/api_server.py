"""An emulator of Kubernetes' API server, over real HTTP: list in pages, watch with bookmarks, selectors, 410, writes.

`put` and `remove` change what it holds, `settings` make it slow, absent, forgetful or repetitive. Every request is
recorded. Knows no validation and no kind's meaning: an object is what was put.

A kind that a CustomResourceDefinition was given for (`define`) is there, and objects of it that come by `create` or by
requests are pruned, defaulted and validated by its schema, and their status is written by its subresource alone.
Limits: of a definition its first version counts, of schemas what `custom_resources` knows (no CEL), no conversion, no
finalizers, no managed fields; patches are merge patches, whatever they are called.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import ssl
import sys
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web
from custom_resources import defaulted, faults, immutable_faults, pruned, structural_faults

from topology.kubernetes.resources import RESOURCES, TRACEFLOWS

Json = dict[str, Any]
#: Kind, namespace and name, and JSON before and after the object's version.
Encoded = tuple[str, tuple[str, str], bytes, bytes]
_VERSION = "@version@"
_FOLLOWED = (*RESOURCES, TRACEFLOWS)
#: Plural, by kind, of what isn't in the cluster's state.
_BESIDES = {
    "Event": ("events.k8s.io/v1", "events"),
    "Lease": ("coordination.k8s.io/v1", "leases"),
    "Secret": ("v1", "secrets"),
}


#: What is asked by making an object that isn't kept.
_REVIEWS = {
    ("authentication.k8s.io/v1", "tokenreviews"): "_reviewed_token",
    ("authorization.k8s.io/v1", "subjectaccessreviews"): "_reviewed_access",
}


@dataclass
class Settings:
    """How the server behaves."""

    #: Optional kinds that there are.
    optional: set[str] = field(default_factory=set)
    #: What is answered instead, by plural ("*" for all): an HTTP status.
    refuse: dict[str, int] = field(default_factory=dict)
    #: Seconds before any answer begins.
    delay: float = 0.0
    #: Requests are taken and never answered; watches say nothing.
    hang: bool = False
    #: How many of a hundred events are sent again, or an older version of the object after it, or after the next one.
    repeated: int = 0
    outdated: int = 0
    swapped: int = 0
    #: Seconds between bookmarks.
    bookmarks: float = 60.0


@dataclass
class Request:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, str]
    body: Any = None


@dataclass
class _Kind:
    objects: dict[tuple[str, str], bytes] = field(default_factory=dict)
    #: All events since the history was last cut: version, type, object, and the object's former version.
    history: list[tuple[int, str, bytes, bytes]] = field(default_factory=list)
    #: Versions before this one are forgotten.
    forgotten: int = 0


class ApiServer:
    """A server on a loopback port. Use as an async context manager, or `start` and `stop` as often as needed."""

    def __init__(self, chance: random.Random | None = None) -> None:
        self.settings = Settings()
        self.requests: list[Request] = []
        self.version = 1000
        self.port = 0
        self.token = "secret"
        #: Whose other tokens are, as a TokenReview's `user`; and who may do what: user or group, verb, URL or URL*.
        self.people: dict[str, Json] = {}
        self.rules: set[tuple[str, str, str]] = set()
        #: Set before `start`: HTTPS, and only that.
        self.tls: ssl.SSLContext | None = None
        self._chance = chance or random.Random(0)
        self._by_path = {(each.api, each.plural): each.kind for each in _FOLLOWED}
        self._by_path |= {place: kind for kind, place in _BESIDES.items()}
        self._namespaced = {each.kind for each in _FOLLOWED if each.namespaced} | _BESIDES.keys()
        self._definitions: dict[str, Json] = {}
        self._kinds: dict[str, _Kind] = {kind: _Kind() for kind in self._by_path.values()}
        self._news = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._epoch = 0
        self._snapshots: dict[tuple[str, str], list[bytes]] = {}

    # What it holds ------------------------------------------------------------------------------------------------

    def define(self, definition: Json) -> None:
        """Take a CustomResourceDefinition. Raises ValueError where it isn't one that a server takes."""
        (version, *_) = definition["spec"]["versions"]
        found = list(structural_faults(version["schema"]["openAPIV3Schema"]))
        if found:
            raise ValueError("; ".join(found))
        kind = definition["spec"]["names"]["kind"]
        place = f"{definition['spec']['group']}/{version['name']}", definition["spec"]["names"]["plural"]
        if self._by_path.get(place) != kind:
            raise ValueError(f"there is no place for {kind} at {place}")
        self._definitions[kind] = version

    def create(self, given: Json) -> tuple[int, Json]:
        """What a POST of an object comes to: status and body."""
        kind, meta = given["kind"], dict(given["metadata"])
        if kind in self._namespaced:
            meta.setdefault("namespace", "default")
        name = (meta.get("namespace", ""), meta["name"])
        if self.get(kind, *name) is not None:
            return 409, json.loads(_status_body(409, f"{meta['name']} already exists"))
        meta["creationTimestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        made, wrong = self._admitted(kind, given | {"metadata": meta}, None, "")
        if wrong:
            return 422, json.loads(_status_body(422, f'{kind} "{meta["name"]}" is invalid: {wrong}'))
        # An object that replaces one of its name is another one.
        made["metadata"].setdefault("uid", f"uid-{kind}-{'-'.join(name)}-{self.version}")
        self.put(made | {"kind": kind})
        return 201, self.get(kind, *name) or {}

    def _admitted(self, kind: str, new: Json, old: Json | None, part: str) -> tuple[Json, str]:
        """An object as it is taken, and what is wrong with it; `part` is the subresource that it came by."""
        version = self._definitions.get(kind)
        if version is None:
            return new, ""
        schema = version["schema"]["openAPIV3Schema"]
        if "status" in version.get("subresources", {}):
            mine, others = ("status", old or {}) if part == "status" else ("spec", {**new, **(old or {})})
            kept = {key: value for key, value in others.items() if key not in (mine, "status" if old is None else mine)}
            new = kept | {"metadata": new["metadata"]} | ({mine: new[mine]} if mine in new else {})
        ours = {key: value for key, value in new.items() if key in schema["properties"]}
        ours = defaulted(schema, pruned(schema, ours))
        wrong = list(faults(schema, ours))
        if old is not None:
            # What is stored has its defaults, too.
            wrong += immutable_faults(schema, ours, defaulted(schema, old))
        rest = {key: value for key, value in new.items() if key in ("apiVersion", "metadata")}
        return rest | ours, ", ".join(wrong)

    def put(self, *objects: Json) -> None:
        """Make or replace objects. Their metadata gets a version, and a uid if it has none."""
        self.put_encoded(map(self.encoded, objects))

    def encoded(self, given: Json) -> Encoded:
        """An object as `put_encoded` takes it."""
        kind, meta = given["kind"], dict(given["metadata"])
        if kind in self._namespaced:
            meta.setdefault("namespace", "default")
        name = (meta.get("namespace", ""), meta["name"])
        meta["uid"] = meta.get("uid") or f"uid-{kind}-{'-'.join(name)}"
        meta["resourceVersion"] = _VERSION
        # As in a server's lists: items don't say what they are.
        data = json.dumps({key: value for key, value in given.items() if key != "kind"} | {"metadata": meta})
        before, _, after = data.encode().partition(_VERSION.encode())
        return kind, name, before, after

    def put_encoded(self, objects: Iterable[Encoded]) -> None:
        """Make or replace objects, encoded before."""
        for kind, name, before, after in objects:
            there = self._kinds[kind]
            former = there.objects.get(name, b"")
            self.version += 1
            data = b"%s%d%s" % (before, self.version, after)
            there.objects[name] = data
            there.history.append((self.version, "MODIFIED" if former else "ADDED", data, former))
        self._wake()

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """Delete an object; nothing if there is none."""
        there = self._kinds[kind]
        former = there.objects.pop((namespace, name), None)
        if former is not None:
            self.version += 1
            last = json.loads(former)
            last["metadata"]["resourceVersion"] = str(self.version)
            there.history.append((self.version, "DELETED", json.dumps(last).encode(), former))
            self._wake()

    def get(self, kind: str, namespace: str, name: str) -> Json | None:
        """An object as it is now."""
        data = self._kinds[kind].objects.get((namespace, name))
        return None if data is None else json.loads(data)

    def objects(self, kind: str) -> list[Json]:
        """All objects of a kind."""
        return [json.loads(data) for data in self._kinds[kind].objects.values()]

    def raw(self, kind: str) -> list[bytes]:
        """The same, as they are sent."""
        return list(self._kinds[kind].objects.values())

    def forget(self) -> None:
        """Cut all history: whoever asks for what was since an older version has to list anew."""
        for there in self._kinds.values():
            there.history.clear()
            there.forgotten = self.version
        self._snapshots.clear()
        self._wake()

    def restore(self, version: int) -> None:
        """As if from a backup: versions begin again from an old one."""
        self.version = version
        for kind, there in self._kinds.items():
            there.history.clear()
            there.forgotten = 0
            for name, data in list(there.objects.items()):
                del there.objects[name]
                self.put(json.loads(data) | {"kind": kind})
        self.cut()

    def cut(self) -> None:
        """End every watch."""
        self._epoch += 1
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    # HTTP ---------------------------------------------------------------------------------------------------------

    async def start(self, port: int = 0) -> None:
        """Listen, on the same port as before if there was one."""
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port or self.port, reuse_address=True, ssl_context=self.tls)
        await site.start()
        assert self._runner.addresses
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close every connection and stop listening."""
        self._epoch += 1
        self._wake()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> ApiServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def kubeconfig(self) -> str:
        """A kubeconfig for it, with a context `here`."""
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
                "users": [{"name": "u", "user": {"token": self.token}}],
                "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "here",
            }
        )

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        query = {name: values[0] for name, values in parse_qs(request.query_string).items()}
        body = json.loads(await request.read() or b"null")
        self.requests.append(Request(request.method, request.path, query, body))
        if request.headers.get("Authorization", "").capitalize() != f"Bearer {self.token}":
            return _status(401, "who are you?")
        if self.settings.delay:
            await asyncio.sleep(self.settings.delay)
        if self.settings.hang:
            await asyncio.sleep(3600)
        place = self._parse(request.path)
        if place is None:
            return _status(404, "the server could not find the requested resource")
        api, plural, namespace, name, part = place
        refused = self.settings.refuse.get(plural or "probe", self.settings.refuse.get("*"))
        if refused:
            return _status(refused, "told to refuse")
        if not plural:
            return self._probe(api)
        if request.method == "POST" and (api, plural) in _REVIEWS:
            return web.json_response(body | {"status": getattr(self, _REVIEWS[api, plural])(body["spec"])}, status=201)
        kind = self._by_path.get((api, plural), "")
        if not kind or not self._there(kind):
            return _status(404, "the server could not find the requested resource")
        if request.method == "GET" and not name:
            if query.get("watch"):
                return await self._watch(request, kind, query, namespace)
            status, data = self.page(kind, query, namespace)
            return web.Response(status=status, body=data, content_type="application/json")
        return self._one(request, kind, namespace, name, part, body)

    def _reviewed_token(self, spec: Json) -> Json:
        user = self.people.get(spec["token"])
        return {"error": "invalid bearer token"} if user is None else {"authenticated": True, "user": user}

    def _reviewed_access(self, spec: Json) -> Json:
        asked = spec["nonResourceAttributes"]
        allowed = any(
            whose in (spec["user"], *spec["groups"])
            and verb == asked["verb"]
            and (asked["path"] == url or (url.endswith("*") and asked["path"].startswith(url[:-1])))
            for whose, verb, url in self.rules
        )
        return {"allowed": allowed}

    def _there(self, kind: str) -> bool:
        optional = any(each.optional and each.kind == kind for each in _FOLLOWED)
        return not optional or kind in self.settings.optional or kind in self._definitions

    @staticmethod
    def _parse(path: str) -> tuple[str, str, str, str, str] | None:
        """apiVersion, plural, namespace, name and subresource of a path."""
        words = path.strip("/").split("/")
        if words[0] == "api" and len(words) > 1:
            api, rest = words[1], words[2:]
        elif words[0] == "apis" and len(words) > 2:
            api, rest = "/".join(words[1:3]), words[3:]
        else:
            return None
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in ("status",):
            namespace, rest = rest[1], rest[2:]
        plural, name, part = (*rest, "", "", "")[:3]
        return api, plural, namespace, name, part

    def _probe(self, api: str) -> web.Response:
        there = [plural for (found, plural), kind in self._by_path.items() if found == api and self._there(kind)]
        if not there:
            return _status(404, "the server could not find the requested resource")
        return web.json_response({"kind": "APIResourceList", "resources": [{"name": each} for each in there]})

    def page(self, kind: str, query: dict[str, str], namespace: str = "") -> tuple[int, bytes]:
        """The answer to a list: status and body."""
        there = self._kinds[kind]
        # A token names the version that the list began at: its pages are of that moment.
        start, _, began = query.get("continue", "").partition("@")
        if began and (kind, began) not in self._snapshots:
            return 410, _status_body(410, "The provided continue parameter is too old")
        if not began:
            began = str(self.version)
            chosen = _chooser(query, namespace)
            self._snapshots[kind, began] = [
                there.objects[name] for name in sorted(there.objects) if chosen(there.objects[name])
            ]
        objects = self._snapshots[kind, began]
        first, limit = int(start or 0), int(query.get("limit") or len(objects) + 1)
        more = first + limit < len(objects)
        if not more:
            del self._snapshots[kind, began]
        meta = json.dumps({"resourceVersion": began, "continue": f"{first + limit}@{began}" if more else ""})
        items = b",".join(objects[first : first + limit])
        return 200, b'{"kind":"%sList","metadata":%s,"items":[%s]}' % (kind.encode(), meta.encode(), items)

    def events(
        self, kind: str, since: int, query: dict[str, str] | None = None, namespace: str = ""
    ) -> tuple[int, bytes, int]:
        """What a watch has to say of the time after a version: status, lines or body, and the version reached."""
        there = self._kinds[kind]
        if since < there.forgotten:
            return 410, _status_body(410, f"too old resource version: {since} ({there.forgotten})"), since
        if since > self.version:
            return 504, _status_body(504, f"Too large resource version: {since}, current: {self.version}"), since
        fresh = there.history[bisect_right(there.history, since, key=lambda each: each[0]) :]
        reached, chosen = fresh[-1][0] if fresh else since, _chooser(query or {}, namespace)
        fresh = [each for each in fresh if chosen(each[2]) or (each[3] and chosen(each[3]))]
        # What is no longer chosen has gone, for this watch.
        told = [(version, what if chosen(data) else "DELETED", data, old) for version, what, data, old in fresh]
        return 200, b"".join(self._sent(told)), reached

    async def _watch(
        self, request: web.Request, kind: str, query: dict[str, str], namespace: str
    ) -> web.StreamResponse:
        since, epoch = int(query.get("resourceVersion") or 0), self._epoch
        status, data, _ = self.events(kind, since, query, namespace)
        if status != 200:
            return web.Response(status=status, body=data, content_type="application/json")
        response = web.StreamResponse()
        response.content_type = "application/json"
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while epoch == self._epoch:
                if self.settings.hang:
                    await asyncio.sleep(3600)
                news = self._news
                status, data, since = self.events(kind, since, query, namespace)
                if status != 200:
                    await response.write(_event("ERROR", data))
                    return response
                if data:
                    await response.write(data)
                    continue
                try:
                    async with asyncio.timeout(self.settings.bookmarks):
                        await news.wait()
                except TimeoutError:
                    if news.is_set():
                        # Both at once: what came goes first, or the bookmark would pass it over.
                        continue
                    since = max(since, self.version)
                    await response.write(self.bookmark(kind, since))
        return response

    @staticmethod
    def bookmark(kind: str, since: int) -> bytes:
        """The event that says that a watch has had everything up to a version."""
        meta = {"metadata": {"resourceVersion": str(since), "creationTimestamp": None}}
        return _event("BOOKMARK", json.dumps({"kind": kind} | meta).encode())

    def _sent(self, events: Iterable[tuple[int, str, bytes, bytes]]) -> list[bytes]:
        """The events as they go out: repeated, followed by older ones, or two of different objects the other way."""
        lines: list[tuple[str, bytes]] = []

        def happens(often: int) -> bool:
            return self._chance.randrange(100) < often

        def name(line: tuple[str, bytes]) -> str:
            return str(json.loads(line[1])["metadata"]["uid"])

        for _, kind, data, former in events:
            line = (kind, data)
            if lines and happens(self.settings.swapped) and name(lines[-1]) != name(line):
                lines.insert(len(lines) - 1, line)
            else:
                lines.append(line)
            if former and happens(self.settings.outdated):
                lines.append(("MODIFIED", former))
            if happens(self.settings.repeated):
                lines.append(line)
        return [_event(kind, data) for kind, data in lines]

    def _one(
        self, request: web.Request, kind: str, namespace: str, name: str, part: str, body: Any
    ) -> web.StreamResponse:
        found = self.get(kind, namespace, name)
        if request.method == "POST":
            if kind in self._namespaced:
                body["metadata"]["namespace"] = namespace
            status, made = self.create(body | {"kind": kind})
            return web.json_response(made, status=status)
        if found is None and request.headers.get("Content-Type") == "application/apply-patch+yaml" and not part:
            self.put(body | {"kind": kind})
            return web.json_response(self.get(kind, namespace, name), status=201)
        if found is None:
            return _status(404, f"{name} not found")
        if request.method == "GET":
            return web.json_response(found)
        if request.method == "PATCH":
            content = request.headers["Content-Type"]
            for each in ("uid", "resourceVersion"):
                if body.get("metadata", {}).get(each, found["metadata"][each]) != found["metadata"][each]:
                    return _status(409, f"{name} has been modified")
            patched = _merge(found, {key: value for key, value in body.items() if key != "kind"}, content)
            meta = found["metadata"]
            if part == "status":
                # Of a Node a write of the status is one of its annotations too; of others it is of nothing else.
                meta = meta | {"annotations": patched["metadata"].get("annotations", {})} if kind == "Node" else meta
                patched = found | {"status": patched.get("status")}
            patched["metadata"] = meta
            patched, wrong = self._admitted(kind, patched, found, part)
            if wrong:
                return _status(422, f'{kind} "{name}" is invalid: {wrong}')
            self.put(patched | {"kind": kind})
            return web.json_response(self.get(kind, namespace, name))
        expected = body["preconditions" if request.method == "DELETE" else "metadata"]["resourceVersion"]
        if expected != found["metadata"]["resourceVersion"]:
            return _status(409, f"{name} has been modified")
        if request.method == "DELETE":
            self.remove(kind, namespace, name)
            return web.json_response({"kind": "Status", "status": "Success"})
        self.put({**body, "kind": kind, "metadata": {**body["metadata"], "namespace": namespace}})
        return web.json_response(self.get(kind, namespace, name))


def _chooser(query: dict[str, str], namespace: str) -> Callable[[bytes], bool]:
    """Whether an object is one that is asked for. Labels that must not be there are not looked at: none has them."""
    name = query.get("fieldSelector", "").removeprefix("metadata.name=")
    labels = [each.split("=") for each in query.get("labelSelector", "").split(",") if each and each[0] != "!"]
    if not (name or labels or namespace):
        return lambda _: True

    def chosen(data: bytes) -> bool:
        meta = json.loads(data)["metadata"]
        have = meta.get("labels", {})
        return (
            (not name or meta["name"] == name)
            and (not namespace or meta["namespace"] == namespace)
            and all(key in have and value in ([], [have[key]]) for key, *value in labels)
        )

    return chosen


def _merge(old: Any, new: Any, content: str) -> Any:
    """A merge patch; conditions by their type where the kind of patch does so."""
    if isinstance(old, dict) and isinstance(new, dict):
        merged = dict(old)
        for key, value in new.items():
            if value is None:
                merged.pop(key, None)
            elif key == "conditions" and content != "application/merge-patch+json":
                by_type = {each["type"]: each for each in old.get(key) or []}
                merged[key] = list((by_type | {each["type"]: each for each in value}).values())
            else:
                merged[key] = _merge(old.get(key), value, content)
        return merged
    return new


def _event(kind: str, data: bytes) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), data)


def _status_body(code: int, message: str) -> bytes:
    return json.dumps({"kind": "Status", "status": "Failure", "code": code, "message": message}).encode()


def _status(code: int, message: str) -> web.Response:
    return web.Response(status=code, body=_status_body(code, message), content_type="application/json")


@contextlib.asynccontextmanager
async def serving(chance: random.Random | None = None) -> AsyncIterator[ApiServer]:
    """A server for the length of a block."""
    async with ApiServer(chance) as server:
        yield server


async def _obey() -> None:
    """Serve, as a process: lines of JSON on standard input say what to do, and a line answers each.

    Before them a line says the kubeconfig.
    """
    loop = asyncio.get_running_loop()
    async with serving() as server:
        print(server.kubeconfig(), flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            word, *rest = json.loads(line)
            answer: object = None
            match word:
                case "put":
                    server.put(*rest)
                case "remove":
                    server.remove(*rest)
                case "get":
                    answer = server.get(*rest)
                case "create":
                    answer = server.create(*rest)
                case "define":
                    server.define(*rest)
                case "stop":
                    await server.stop()
                case "start":
                    await server.start()
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(_obey())
