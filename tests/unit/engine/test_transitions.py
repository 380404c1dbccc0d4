"""How arguments are laid out for the scripts, and what their replies mean."""

from __future__ import annotations

from streamq._engine.transitions import (
    Added,
    Claim,
    NewJob,
    Outcome,
    QueueCounts,
    StoredJob,
    TickArgs,
    TickReply,
    added,
)

ARGS = TickArgs(worker="ann", lease_ms=15_000, max_stalls=3, events_cap=100, dead_cap=50)


def test_a_ticks_arguments_are_in_the_order_that_its_script_names() -> None:
    outcome = Outcome("done", 2, "17-0", "17", b"\x05", 100, 60_000, 99, 1)
    laid_out = ARGS.lay_out(7, list_held=True, marks=["a", "b"], outcomes=[outcome])
    assert laid_out == [
        "ann", 15_000, 7, 3, 1, 100, 50, 2, "a", "b", "done", 2, "17-0", "17", b"\x05", 100, 60_000, 99, 1,
    ]  # fmt: skip


def test_ids_are_given_by_the_server_unless_the_caller_has_one() -> None:
    jobs = [NewJob(3, "0", "", b""), NewJob(3, "0", "mine", b""), NewJob(3, "0", "", b""), NewJob(3, "0", "again", b"")]
    assert added(jobs, [41, 4]) == [Added("41", True), Added("mine", True), Added("43", True), Added("again", False)]


def reply(claimed: list[object], known: list[object], held: list[object] | None = None) -> TickReply:
    return TickReply.read([1_000, -1, [1], claimed, known, held or [], 2, 3, 1, [b"daily"], 1])


def test_a_claim_without_a_record_is_its_entry() -> None:
    found = reply([2, b"17-0", b"body", b"999"], [])
    assert (found.now_ms, found.next_ms, found.stale) == (1_000, -1, [1])
    assert (found.requeued, found.promoted, found.limited, found.schedules) == (2, 3, True, ["daily"])
    assert found.poisoned == 1
    (claim,) = found.claimed
    assert (claim.lane, claim.entry, claim.job_id, claim.envelope, claim.since_ms) == (2, "17-0", "17", b"body", 999)
    assert claim.recorded_id == ""
    assert (claim.attempts_made, claim.stalls, claim.interruptions, claim.releases) == (0, 0, 0, 0)


def test_a_claim_with_a_record_has_its_history() -> None:
    claimed: list[object] = [3, b"17-0", b"one", b"999", 3, b"18-0", b"", b"998"]
    found = reply(claimed, [b"18-0", b"mine", b"two", b"1", b"2", b"3", b"4", b"5", b"at"])
    first, second = found.claimed
    assert (first.job_id, first.envelope) == ("17", b"one")
    assert (second.job_id, second.envelope, second.since_ms) == ("mine", b"two", 998)
    assert second.recorded_id == "mine"
    assert (second.attempts_made, second.stalls, second.interruptions, second.releases) == (1, 2, 3, 4)
    assert (second.children, second.cursor) == (5, b"at")
    assert repr(second) == "<Claim mine entry 18-0 in lane 3>"


def test_what_is_held_is_read_as_what_is_claimed() -> None:
    found = reply([], [b"18-0", b"mine", b"two", b"0", b"0", b"0", b"0", b"0", b""], [4, b"18-0", b"", b""])
    assert found.claimed == []
    assert [(claim.lane, claim.job_id, claim.since_ms) for claim in found.held] == [(4, "mine", 0)]


def test_a_stored_jobs_empty_times_are_none() -> None:
    found = StoredJob.read([b"waiting", b"2", b"body", b"", b"", b"a", b"2", b"u", b""])
    assert (found.state, found.lane, found.created_ms, found.started_ms) == ("waiting", 2, None, None)
    assert (found.number("a"), found.number("u"), found.number("k")) == (2, None, None)


def test_counts_are_read_by_their_place() -> None:
    found = QueueCounts.read([1, 2, 3, 4, 5, 6, 7, 8, 9, 1, -1, 10, -1, 20, 2, 999, 11, 12])
    assert found.waiting == {1: 1, 2: 2, 3: 3, 4: 4}
    assert (found.active, found.delayed, found.completed, found.failed, found.dead) == (5, 6, 7, 8, 9)
    assert (found.paused, found.workers, found.cancelled, found.waiting_children) == (True, 2, 11, 12)
    assert found.oldest_ms == {1: None, 2: 10, 3: None, 4: 20}


def test_a_claim_is_no_more_than_its_slots() -> None:
    assert not hasattr(Claim(3, "1-0", "1", b"", 0), "__dict__")
