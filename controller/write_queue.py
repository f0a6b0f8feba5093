"""What is to be written to Kubernetes' API server, in what order and how fast. Sans-I/O; time is an argument.

Bounded and coalescing: of one object and purpose the last write waits and no other, and a write that has just succeeded
is not repeated, since the server's answer to it may not have come back by the watch. What fails is tried again, each
time after twice as long; what the server won't have is set aside for some minutes and told to people. When the queue is
full a write is refused: statuses are looked at again and again, so theirs comes again; an event is lost, and counted.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

import msgspec

#: Writes that may wait.
LIMIT = 10_000
#: Writes in a second, and in one go.
RATE, BURST = 20.0, 50.0
#: Seconds before a write is repeated: the first time, and at most.
FIRST_DELAY, LONGEST_DELAY = 0.5, 60.0
#: Seconds for which the same write isn't put again: after success, and after it was refused.
AFTER_SUCCESS, AFTER_REFUSAL = 10.0, 300.0

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
PLAIN = "application/json"


class Write(msgspec.Struct, frozen=True):
    """One request. Of two for the same `subject` the later one counts. `same` tells whether two mean the same."""

    subject: str
    method: str
    path: str
    body: object
    content_type: str
    #: What the write comes to, without its time.
    same: str


class _Waiting(msgspec.Struct):
    write: Write
    failures: int = 0
    under_way: bool = False


class WriteQueue:
    """Writes that wait, and those that are under way. `random` gives numbers from 0 to 1."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._waiting: dict[str, _Waiting] = {}
        #: (not before, order, subject); entries of subjects that don't wait any more are passed over.
        self._due: list[tuple[float, int, str]] = []
        self._order = 0
        #: Writes that need not come again before a time.
        self._settled: dict[str, tuple[str, float]] = {}
        self._refused: dict[str, str] = {}
        self._allowance, self._counted_at = BURST, 0.0
        self.lost = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, write: Write, now: float) -> bool:
        """Have something written; whether it will be, or is already."""
        settled = self._settled.get(write.subject)
        waiting = self._waiting.get(write.subject)
        if waiting is not None:
            if waiting.write.same != write.same:
                waiting.write = write
            return True
        if settled is not None and settled[0] == write.same and now < settled[1]:
            return True
        if len(self._waiting) >= LIMIT:
            self.lost += 1
            return False
        self._waiting[write.subject] = _Waiting(write)
        self._schedule(write.subject, now)
        return True

    def take(self, now: float) -> Write | None:
        """The next write to send now, if there is one and the rate allows it."""
        self._allowance = min(BURST, self._allowance + (now - self._counted_at) * RATE)
        self._counted_at = now
        while self._due and self._due[0][0] <= now and self._allowance >= 1:
            _, _, subject = heapq.heappop(self._due)
            waiting = self._waiting.get(subject)
            if waiting is not None and not waiting.under_way:
                waiting.under_way = True
                self._allowance -= 1
                return waiting.write
        return None

    def wait(self, now: float) -> float:
        """Seconds until there may be something to send; infinite where nothing waits."""
        if not self._due:
            return float("inf")
        allowed = now + max(0.0, 1 - self._allowance) / RATE
        return max(0.0, max(self._due[0][0], allowed) - now)

    def answered(self, write: Write, status: int, words: str, now: float, retry_after: float = 0.0) -> None:
        """The server's answer to a write that was taken."""
        if status == 429 or status >= 500 or status == 401 or (status == 409 and write.method != "POST"):
            self.failed(write, now, retry_after)
            return
        # 404: the object is gone, and 409 to a POST: it is there already, from an attempt whose answer was lost.
        if status < 300 or status in (404, 409):
            self._refused.pop(write.subject, None)
            self._settle(write, now, AFTER_SUCCESS)
            return
        self._refused[write.subject] = f"{write.method} {write.path}: {status} {words}"
        self._settle(write, now, AFTER_REFUSAL)

    def failed(self, write: Write, now: float, retry_after: float = 0.0) -> None:
        """A write that was taken had no answer, or one that says to come again."""
        waiting = self._waiting[write.subject]
        delay = min(FIRST_DELAY * 2.0**waiting.failures, LONGEST_DELAY) * (1 - self._random() / 2)
        waiting.under_way = False
        waiting.failures = min(waiting.failures + 1, 30)
        self._schedule(write.subject, now + max(delay, retry_after))

    def troubles(self) -> Iterator[str]:
        """What the server won't have."""
        for words in self._refused.values():
            yield f"Kubernetes refuses {words}"
        if self.lost:
            yield f"Kubernetes: {self.lost} writes were dropped: more than {LIMIT} waited"

    def _settle(self, write: Write, now: float, seconds: float) -> None:
        waiting = self._waiting.pop(write.subject)
        if len(self._settled) >= LIMIT:
            self._settled = {subject: each for subject, each in self._settled.items() if now < each[1]}
            if len(self._settled) >= LIMIT:
                self._settled.clear()
        self._settled[write.subject] = (write.same, now + seconds)
        if waiting.write.same != write.same:
            self.put(waiting.write, now)

    def _schedule(self, subject: str, when: float) -> None:
        self._order += 1
        heapq.heappush(self._due, (when, self._order, subject))
