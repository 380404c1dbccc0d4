"""A running job's children: staged so that the end of its attempt adds them, and read when it runs again.

What a handler asks for through `ActiveJob.add_children` and `children_results`. The tick that takes the attempt's end
commits what is staged here, so children are added exactly when the job begins to wait for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from streamq._engine import codec
from streamq._engine.adder import parts_of
from streamq._engine.flowing import Above, keeping, lay_out, new_token, reserve
from streamq._engine.store import Store
from streamq._engine.transitions import Claim, NewJob
from streamq.errors import InvalidInput, JobNotFound, WaitForChildren
from streamq.flow import ChildEnd, FlowJob, ordered
from streamq.flows import PAGE, child_ends
from streamq.job import JobOptions
from streamq.operations import new_job
from streamq.payload import Codec, aside
from streamq.settings import Settings


async def stage_children(store: Store, settings: Settings, claim: Claim, children: Iterable[FlowJob]) -> NoReturn:
    """Stage children for a job that runs.

    Raises:
        WaitForChildren: They are staged: the end of the attempt that this makes adds them.
        InvalidInput: They do not fit; nothing was sent.
        StoreError: Redis did not take them; none will be added.
    """
    roots = list(children)
    if not roots or not all(isinstance(child, FlowJob) for child in roots):
        raise InvalidInput("add_children takes a list of FlowJob(...), at least one")
    jobs = ordered(*roots)
    store.check_alone([job.queue for job in jobs])
    store.check_reach((job.queue for job in jobs if job.queue is not None), "a flow")
    encoded = await aside(store.codec, _encode, jobs, settings, store.codec)
    ids = await reserve(store.command, store.base, jobs, encoded)
    batch, parts = new_token(), 0
    above = Above(claim.job_id, claim.children)
    for part in parts_of(lay_out(store.queue, jobs, encoded, ids, batch, settings, above, roots)):
        await store.stage(batch, parts, part)
        parts += 1
    options = codec.decode_envelope(claim.envelope).options
    raise WaitForChildren(batch, parts, len(roots), keeping(options, settings))


async def read_children(store: Store, job_id: str) -> list[ChildEnd]:
    """Read how all children of a job stand, in the order in which they were added."""
    found: list[ChildEnd] = []
    place = 1
    while place:
        page = await store.children(job_id, place, PAGE)
        if page is None:
            raise JobNotFound(job_id)
        found += await aside(store.codec, child_ends, store.queue, page.children, store.codec)
        place = page.following
    return found


def _encode(jobs: Iterable[FlowJob], settings: Settings, sealer: Codec) -> dict[FlowJob, NewJob]:
    bodies = {job: codec.encode_data("data", job.data, settings.max_payload) for job in jobs}
    return {job: new_job(job.name, sealer.seal(body), job.options or JobOptions()) for job, body in bodies.items()}
