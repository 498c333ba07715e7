"""What a leader knows of one follower, and what it may send to it now."""

from __future__ import annotations

from collections import deque
from enum import Enum

from agent.raft.core.settings import Settings


class ProgressState(Enum):
    """How entries are sent."""

    PROBE = "probe"
    """One append at a time, until it is known where the logs agree."""
    REPLICATE = "replicate"
    """One append after another, without waiting, within bounds."""
    SNAPSHOT = "snapshot"
    """Nothing: a snapshot is on its way."""


class Inflights:
    """Appends on the way, oldest first: the last index and the bytes of each."""

    def __init__(self) -> None:
        self._appends: deque[tuple[int, int]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._appends)

    def add(self, last_index: int, size: int) -> None:
        """One more."""
        self._appends.append((last_index, size))
        self._bytes += size

    def free_to(self, index: int) -> None:
        """All that end at or before `index` have arrived."""
        while self._appends and self._appends[0][0] <= index:
            self._bytes -= self._appends.popleft()[1]

    def free_first(self) -> None:
        """Give room for one: the oldest may be lost."""
        if self._appends:
            self.free_to(self._appends[0][0])

    def full(self, settings: Settings) -> bool:
        """True when the next one has to wait."""
        return len(self._appends) >= settings.max_inflight_messages or self._bytes >= settings.max_inflight_bytes

    def clear(self) -> None:
        """None is on the way any more."""
        self._appends.clear()
        self._bytes = 0


class Progress:
    """`match` is durable over there; `next` is the first entry that was not sent yet."""

    def __init__(self, next_index: int) -> None:
        self.state = ProgressState.PROBE
        self.match = 0
        self.next = next_index
        self.recent_active = False
        """Heard of since the leader last counted its followers."""
        self.inflights = Inflights()
        self.sent_commit = 0
        """The commit index that the follower knows once all that was sent has arrived."""
        self.pending_snapshot = 0
        """Index of the snapshot on its way."""
        self._probed = False
        self._poke = False

    def paused(self, settings: Settings) -> bool:
        """True when nothing may be sent but heartbeats."""
        match self.state:
            case ProgressState.PROBE:
                return self._probed
            case ProgressState.REPLICATE:
                return self.inflights.full(settings)
            case ProgressState.SNAPSHOT:
                return True

    @property
    def wants_empty_append(self) -> bool:
        """True when an append is due although there are no entries: to learn where the logs agree, or what is lost."""
        return self._poke or (self.state is ProgressState.PROBE and self.match < self.next - 1)

    def sent(self, last_index: int, count: int, size: int) -> None:
        """An append with `count` entries, the last of them at `last_index`, was sent."""
        self._poke = False
        if self.state is ProgressState.PROBE:
            self._probed = True
        elif count:
            self.next = last_index + 1
            self.inflights.add(last_index, size)

    def sent_snapshot(self, index: int) -> None:
        """A snapshot was sent; nothing follows until it has arrived or failed."""
        self.state = ProgressState.SNAPSHOT
        self.pending_snapshot = index
        self.inflights.clear()

    def acknowledged(self, index: int, compacted: int) -> bool:
        """All up to `index` is durable over there. True when that is news.

        `compacted` is the last entry that the leader cannot send any more.
        """
        news = index > self.match
        self.match = max(self.match, index)
        match self.state:
            case ProgressState.PROBE:
                # An old acknowledgement does not answer the probe.
                if news or index >= self.next - 1:
                    self._replicate()
            case ProgressState.REPLICATE:
                self.inflights.free_to(index)
            case ProgressState.SNAPSHOT:
                # The stream need not have come to its end, nor even this snapshot: the follower has what it takes.
                if self.match >= compacted:
                    self._replicate()
        self.next = max(self.next, self.match + 1)
        return news

    def rejected(self, index: int, retry_from: int) -> bool:
        """The follower has not the entry at `index`; go on from `retry_from`. False when the answer is to an old append."""
        match self.state:
            case ProgressState.REPLICATE:
                if index <= self.match:
                    return False
                self._probe(self.match + 1)
            case ProgressState.PROBE:
                # One that lacks what it acknowledged is not to be helped; the next heartbeat tells it so.
                if index != self.next - 1 or index <= self.match:
                    return False
                self.next = max(min(index, retry_from), self.match + 1)
                self._probed = False
            case ProgressState.SNAPSHOT:
                return False
        return True

    def heartbeat_answered(self, last_index: int, settings: Settings) -> None:
        """The follower lives. What it has not acknowledged by now may be lost."""
        self._probed = False
        if self.state is ProgressState.REPLICATE and self.match < last_index:
            if self.inflights.full(settings):
                self.inflights.free_first()
            self._poke = True

    def unreachable(self) -> None:
        """What was sent is probably lost."""
        if self.state is ProgressState.REPLICATE:
            self._probe(self.match + 1)

    def snapshot_ended(self, arrived: bool) -> None:
        """The stream of the snapshot is over. The next append waits for a sign of life."""
        if self.state is ProgressState.SNAPSHOT:
            self._probe(max(self.match, self.pending_snapshot if arrived else 0) + 1)
            self._probed = True

    def _probe(self, next_index: int) -> None:
        self.state = ProgressState.PROBE
        self.next = next_index
        self.pending_snapshot = 0
        self.sent_commit = 0
        self.inflights.clear()
        self._probed = False
        self._poke = False

    def _replicate(self) -> None:
        self._probe(self.match + 1)
        self.state = ProgressState.REPLICATE
