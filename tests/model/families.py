"""Jobs that wait for others, in plain Python; written from docs/flows.md.

A parent waits for its children, and starts once the last one has ended. What a child that did not complete means to it
is the child's policy: f the parent fails, c it starts at once, i it is told, r it is not even told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.model.model import Model

Found = dict[str, Any]
Ended = tuple[Found, str, Any]
"""A job that ends together with its child: how, and with what."""
DAY_MS = 86_400_000


def child_failed(job_id: str, how: str, body: Any) -> tuple[str, str]:
    """Why a parent fails: the first of its descendants that did."""
    if how != "failed":
        return "ChildFailed", f"child {job_id} was {how}"
    return body if body[0] == "ChildFailed" else ("ChildFailed", f"child {job_id} failed: {body[0]}: {body[1]}")


class Families:
    """The flows of one queue.

    A job's `parents` are links, (id, place, policy). A parent's `children` tell by place who it is and how that has
    `ended`; `open` counts those that have not, `guilty` those whose failure is the parent's own.
    """

    def __init__(self, queue: Model) -> None:
        self.queue = queue

    def willing(self, family: Found) -> list[tuple[str, int, str]]:
        """Of the parents that a new child names: those that came with the same add."""
        jobs = self.queue.jobs
        return [link for link in family["parents"] if family["token"] == jobs.get(link[0], {}).get("token")]

    def join(self, job: Found, family: Found) -> None:
        for parent_id, place, _ in family["parents"]:
            self.queue.jobs[parent_id]["children"][place] = {"id": job["id"], "ended": None}
        job.update(parents=family["parents"], token=family["token"], keep=family["keep"], only_failed=family["only"])
        job.update(open=family["children"], had=family["children"])

    def adopt(self, job_id: str, family: Found) -> list[Ended]:
        """A job that is there already stands for a new child. Answers which parents end with that."""
        ended = []
        for link in self.willing(family):
            parent, job = self.queue.jobs[link[0]], self.queue.jobs.get(job_id)
            parent["children"][link[1]] = {"id": job_id, "ended": None}
            how, body = (None, None) if job is None else (job["state"], end_of(job))
            if how == "waiting_children" and self._is_above(parent["id"], job_id):
                how, body = "failed", ("InvalidInput", "it waits for its own child to end")
            elif job is None:
                how = "removed"
            else:
                job["parents"] = [*job["parents"], link]
            if how in ("completed", "failed", "cancelled", "removed"):
                ended += self._tell_parent(link, job_id, how, body)
        return ended

    def _is_above(self, job_id: str, other: str) -> bool:
        links = self.queue.jobs[job_id]["parents"] if job_id in self.queue.jobs else []
        return job_id == other or any(self._is_above(parent_id, other) for parent_id, _, _ in links)

    def leave(self, job: Found, how: str, body: Any) -> list[Ended]:
        """A job has ended, or goes. Answers which of its parents end with it."""
        return [ended for link in job["parents"] for ended in self._tell_parent(link, job["id"], how, body)]

    def _tell_parent(self, link: tuple[str, int, str], job_id: str, how: str, body: Any) -> list[Ended]:
        parent_id, place, policy = link
        parent = self.queue.jobs.get(parent_id)
        child = parent and parent["children"].get(place)
        if parent is None or child is None or child["id"] != job_id or child["ended"] is not None:
            return []
        good = how == "completed"
        child["ended"] = how, body, not good and policy == "r"
        parent["open"] -= 1
        parent["guilty"] += not good and policy == "f"
        if parent["state"] != "waiting_children":
            return []
        if not good and policy == "f":
            return self._end(parent, "failed", child_failed(job_id, how, body))
        if parent["open"] == 0 and parent["only_failed"] and (good or policy != "c"):
            return self._end(parent, "completed", None)
        if parent["open"] == 0 or (not good and policy == "c"):
            self._start(parent)
        return []

    def _start(self, parent: Found) -> None:
        queue = self.queue
        if parent["due"] is not None and parent["due"] > queue.now:
            parent.update(state="delayed", look=parent["due"])
            queue._tell("delayed", [parent["id"]])
            return
        queue._enter(parent)
        if parent["key"] is not None:
            queue.places.settle()
        queue._tell("children_ended", [parent["id"]])

    def _end(self, parent: Found, how: str, body: Any) -> list[Ended]:
        """Without a run."""
        queue = self.queue
        if how == "failed":
            queue._write_letter(parent, body)
            parent["failed_by_child"] = True
        parent.update(state=how, finished=queue.now)
        queue._tell(how, [parent["id"]])
        queue._tell("dead", [parent["id"]] if how == "failed" else [])
        if parent["keep"]:
            queue.ages[how] = DAY_MS
        return [(parent, how, body)]

    def rejoin(self, job: Found) -> list[Found]:
        """A job comes back to life. Answers the parents that it was the last one to have failed."""
        back = []
        for parent_id, place, policy in job["parents"]:
            parent = self.queue.jobs.get(parent_id)
            child = parent and parent["children"].get(place)
            if parent is None or child is None or child["id"] != job["id"] or child["ended"] is None:
                continue
            if parent["state"] in ("waiting_children", "failed", "cancelled"):
                how, child["ended"] = child["ended"][0], None
                parent["open"] += 1
                if how != "completed" and policy == "f":
                    parent["guilty"] -= 1
                    if parent["guilty"] == 0 and parent["failed_by_child"]:
                        back.append(parent)
        return back


def end_of(job: Found) -> Any:
    """What an ended job tells its parents: its result, or its error."""
    return {"completed": job["result"], "failed": job["error"]}.get(job["state"])
