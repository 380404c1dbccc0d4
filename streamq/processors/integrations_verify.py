"""Compare two ledgers' records by counts and checksums of ranges, and name the records that differ.

A range whose counts or checksums differ is looked at record by record, and read again before a difference is
reported: the source may have changed between the two readings.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Sequence

import msgspec

from streamq.processors.integrations_entities import Entity, Record, checksum
from streamq.processors.ledger import Ledger

KEPT = 100
"""Differences and ranges that a report lists; it counts all."""


class DifferenceKind(enum.StrEnum):
    """What is wrong with a record at the destination."""

    MISSING = "missing"
    EXTRA = "extra"
    DIFFERENT = "different"


class Difference(msgspec.Struct, frozen=True, rename="camel"):
    """A record that is not the same on both sides; `fields` names what differs."""

    id: str
    kind: DifferenceKind
    fields: list[str] = []


class RangeMismatch(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A range of ids (both ends counted) whose counts or checksums are not the same."""

    first: str
    last: str
    source_count: int
    destination_count: int
    source_checksum: str
    destination_checksum: str


class Verified(msgspec.Struct, rename="camel", kw_only=True):
    """What verification found so far."""

    records: int = 0
    ranges: int = 0
    mismatched_ranges: int = 0
    mismatches: list[RangeMismatch] = []
    difference_count: int = 0
    differences: list[Difference] = []

    @property
    def ok(self) -> bool:
        """Whether both sides are the same."""
        return not self.difference_count


class Verification:
    """Compares one entity in two ledgers, batch by batch or as a whole."""

    def __init__(self, entity: Entity, source: Ledger, destination: Ledger) -> None:
        self._entity, self._source, self._destination = entity, source, destination
        self.found = Verified()

    async def batch(self, records: Sequence[Record]) -> None:
        """Check that the destination holds `records`, which were just written."""
        async with self._destination.read() as conn:
            there = await self._entity.by_ids(conn, [record.id for record in records])
        await self._compare(records, [there[record.id] for record in records if record.id in there])

    async def everything(self, size: int) -> AsyncIterator[Verified]:
        """Compare all records, in ranges of `size` of the source's."""
        after, more = "", True
        while more:
            async with self._source.read() as conn:
                here = await self._entity.in_range(conn, after, None, size)
            more = len(here) == size
            until = here[-1].id if more else None  # the last range takes in all that the destination has beyond it
            async with self._destination.read() as conn:
                there = await self._entity.in_range(conn, after, until, None)
            await self._compare(here, there)
            after = until or ""
            yield self.found

    async def _compare(self, here: Sequence[Record], there: Sequence[Record]) -> None:
        found = self.found
        found.ranges += bool(here or there)
        found.records += len(here)
        sums = checksum(here), checksum(there)
        if sums[0] == sums[1]:
            return
        suspects = self._suspects(here, there)
        differences = await self._look_again(suspects)
        if not differences:
            return
        found.mismatched_ranges += 1
        ids = [record.id for record in (*here, *there)]
        if len(found.mismatches) < KEPT:
            found.mismatches.append(
                RangeMismatch(
                    first=min(ids), last=max(ids), source_count=len(here), destination_count=len(there),
                    source_checksum=sums[0], destination_checksum=sums[1],
                )
            )  # fmt: skip
        found.difference_count += len(differences)
        found.differences.extend(differences[: KEPT - len(found.differences)])

    @staticmethod
    def _suspects(here: Sequence[Record], there: Sequence[Record]) -> list[str]:
        one = {record.id: record.values for record in here}
        two = {record.id: record.values for record in there}
        return sorted(key for key in one.keys() | two.keys() if one.get(key) != two.get(key))

    async def _look_again(self, ids: Sequence[str]) -> list[Difference]:
        async with self._source.read() as conn:
            one = await self._entity.by_ids(conn, ids)
        async with self._destination.read() as conn:
            two = await self._entity.by_ids(conn, ids)
        found = []
        for key in ids:
            here, there = one.get(key), two.get(key)
            if here is None and there is not None:
                found.append(Difference(key, DifferenceKind.EXTRA))
            elif here is not None and there is None:
                found.append(Difference(key, DifferenceKind.MISSING))
            elif here is not None and there is not None and here.values != there.values:
                fields = [name for name in here.values if here.values[name] != there.values[name]]
                found.append(Difference(key, DifferenceKind.DIFFERENT, fields))
        return found
