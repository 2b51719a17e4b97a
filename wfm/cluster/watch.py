"""Mirrors: what the API server has of one kind, kept up to date by one list and watches, for any number of jobs.

    mirror = Mirror(api, POD, LABEL_JOB, clock, keep=needed)
    mirror.catch_up()             # one request: the list, later one watch until the server ends it
    mirror.start()                # or a thread that streams
    mirror.objects()              # name -> object, shortened by `keep`

A watch may end at any time without a word, break off in the middle of a line, or bring an error in the middle (410: the
server does not remember that far back); then the list is read anew, or the watch goes on from the last version that was heard,
bookmarks included. Whoever decides from a mirror must expect it to be a moment old: names are fixed and deletions name a uid,
so what is done from an old view is refused by the server and does no harm.
"""

import json
import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from wfm.cluster.api import Api, Backoff, Lines
from wfm.cluster.kinds import Resource
from wfm.cluster.refusals import Busy, Gone
from wfm.errors import WfmError
from wfm.log import get_logger

WATCH_SECONDS = 300.0
"""How long a watch is asked to last, give or take a tenth: five hundred launchers must not come back at once."""
DEPARTED = 2000
"""Last states of deleted objects that are kept: how a pod died is often told only as it goes."""
_LISTS_BEGUN = 3
"""How often a list is begun before the server is left alone for a while."""
_log = get_logger(__name__)


class Clock(Protocol):
    """Time, so that tests may have their own."""

    def now(self) -> float:
        """Seconds since 1970."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class Known(Protocol):
    """What is kept of an object."""

    @property
    def uid(self) -> str:
        """Of the object."""


KeptT = TypeVar("KeptT", bound=Known)


class Mirror(Generic[KeptT]):
    """Objects of one resource that `selector` names (a label selector; empty: all of the namespace)."""

    def __init__(
        self,
        api: Api,
        resource: Resource,
        selector: str,
        clock: Clock,
        *,
        keep: Callable[[dict[str, Any]], KeptT | None],
        changed: Callable[[], None] = lambda: None,
        seconds: float = WATCH_SECONDS,
    ) -> None:
        """`keep` shortens an object to what is needed of it, or says None: not at all. `changed` is called after each
        change, from the thread that heard of it."""
        self.resource = resource
        self._api, self._selector, self._clock = api, selector, clock
        self._keep, self._changed, self._seconds = keep, changed, seconds
        self._lock = threading.Lock()
        self._objects: dict[str, KeptT] = {}
        self._departed: OrderedDict[str, KeptT] = OrderedDict()
        self._version = ""
        self._lines: Lines | None = None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._trouble: WfmError | None = None
        self.lists = 0
        "How often everything was read anew."
        self.revision = 0
        "Counted up at each change."

    # -- reading

    @property
    def ready(self) -> bool:
        """Whether it was read once."""
        return self.lists > 0

    @property
    def trouble(self) -> WfmError | None:
        """What the thread met last, while it lasts."""
        return self._trouble

    def objects(self) -> dict[str, KeptT]:
        """Name -> object, as of now."""
        with self._lock:
            return dict(self._objects)

    def departed(self) -> list[KeptT]:
        """Objects that were deleted, as they were last seen; the oldest are forgotten."""
        with self._lock:
            return list(self._departed.values())

    # -- following

    def catch_up(self) -> None:
        """One request: the list the first time and after a 410, else a watch that is read until the server ends it. Raises what
        `Api` raises; what was heard before that stays."""
        if not self._version:
            self._list()
            return
        try:
            self._watch()
        except Gone as error:
            _log.debug("%s: %s: listing anew", self.resource, error)
            self._version = ""
            self._list()

    def start(self) -> None:
        """Follow in a thread until `stop`."""
        self._thread = threading.Thread(target=self._follow, name=f"mirror-{self.resource.plural}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread soon: it is not waited for, it holds nothing."""
        self._over.set()
        lines = self._lines
        if lines is not None:
            lines.shut()

    def _follow(self) -> None:
        backoff = Backoff(first=0.5, longest=30.0)
        while not self._over.is_set():
            began = self._clock.now()
            try:
                self.catch_up()
                self._trouble = None
                backoff.worked()
                if self._clock.now() - began < 1.0:  # a server that ends every watch at once
                    self._over.wait(random.uniform(0.2, 0.6))
            except WfmError as error:
                self._trouble = None if self._over.is_set() else error
                _log.debug("%s: %s", self.resource, error)
                self._changed()
                self._over.wait(backoff.failed(self._clock.now(), getattr(error, "retry_after", 0.0)))

    def _list(self) -> None:
        found, version = self._read_all()
        with self._lock:
            for name, before in self._objects.items():
                if name not in found or found[name].uid != before.uid:
                    self._depart(before)
            self._objects, self._version = found, version
            self.lists += 1
            self.revision += 1
        self._changed()

    def _read_all(self) -> tuple[dict[str, KeptT], str]:
        """(name -> object, version of the whole). A list that the server has forgotten in the middle is begun anew."""
        for _ in range(_LISTS_BEGUN):
            found: dict[str, KeptT] = {}
            version = ""
            try:
                for page in self._api.pages(
                    self.resource, self._selector
                ):  # a page at a time: only what is kept is held
                    for each in page.objects:
                        self._take(found, each)
                    version = page.version
                return found, version
            except Gone:
                continue
        raise Busy(f"the list of {self.resource} is forgotten by the API server faster than it can be read")

    def _watch(self) -> None:
        seconds = self._seconds * random.uniform(0.9, 1.1)
        lines = self._lines = self._api.watch(self.resource, self._version, self._selector, seconds)
        self._trouble = None  # it is answered: what comes later is another trouble
        deadline = self._clock.now() + seconds + 60.0
        try:
            for line in lines:
                self._hear(line)
                if self._over.is_set() or self._clock.now() > deadline:  # one that is kept alive beyond its time
                    return
        finally:
            self._lines = None
            lines.close()

    def _hear(self, line: bytes) -> None:
        """Take one event. Raises Gone where the view can no longer be trusted, Busy for a server in trouble."""
        try:
            event = json.loads(line)
            kind, found = event["type"], event["object"]
            meta: Mapping[str, Any] = found.get("metadata") or {}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise Gone(f"an event that is none: {line[:100]!r}") from None
        if kind == "ERROR":
            said = f"{found.get('code')} {found.get('reason') or ''}: {found.get('message') or ''}"[:400]
            if found.get("code") == 410 or found.get("reason") in ("Expired", "Gone"):
                raise Gone(said)
            self._version = ""  # what the server made of our place in its history is not known
            raise Busy(f"the watch of {self.resource} ended with {said}")
        if kind not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK") or not meta.get("resourceVersion"):
            raise Gone(f"an event of a kind that is not known: {kind!r}")
        if kind != "BOOKMARK":
            with self._lock:
                name = str(meta.get("name") or "")
                if kind == "DELETED":
                    gone = self._objects.pop(name, None)
                    last = self._keep(found) or gone
                    if last is not None:
                        self._depart(last)
                else:
                    before = self._objects.get(name)
                    self._take(self._objects, found)
                    if before is not None and before.uid != meta.get("uid"):
                        self._depart(before)
                self.revision += 1
        self._version = str(meta["resourceVersion"])
        if kind != "BOOKMARK":
            self._changed()

    def _take(self, into: dict[str, KeptT], found: dict[str, Any]) -> None:
        name = str((found.get("metadata") or {}).get("name") or "")
        kept = self._keep(found)
        if name and kept is not None:
            into[name] = kept
        else:
            into.pop(name, None)

    def _depart(self, last: KeptT) -> None:
        self._departed[last.uid] = last
        while len(self._departed) > DEPARTED:
            self._departed.popitem(last=False)
