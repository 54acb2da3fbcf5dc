"""The HTTP side of a canvas, as a back end sees it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2


class Api:
    """One workflow over HTTP; every call asserts that it was answered as it should be."""

    def __init__(self, client: httpx2.AsyncClient, workflow_id: str) -> None:
        self.client = client
        self.workflow_id = workflow_id

    @property
    def _path(self) -> str:
        return f"/api/workflows/{self.workflow_id}"

    async def flow(self) -> dict[str, Any]:
        """The workflow as React Flow JSON."""
        return _ok(await self.client.get(self._path), 200)

    async def add_node(self, **node: Any) -> dict[str, Any]:
        """Add a node."""
        return _ok(await self.client.post(f"{self._path}/nodes", json={"position": {"x": 0, "y": 0}, **node}), 201)

    async def generate(self, node_id: str, **body: Any) -> httpx2.Response:
        """Generate or regenerate; the answer as it is."""
        return await self.client.post(f"{self._path}/nodes/{node_id}/runs", json=body)

    async def history(self, node_id: str) -> list[dict[str, Any]]:
        """Runs of a node, newest first."""
        runs: list[dict[str, Any]] = _ok(await self.client.get(f"{self._path}/nodes/{node_id}/runs"), 200)["runs"]
        return runs

    async def job(self, job_id: str) -> dict[str, Any]:
        """A run."""
        return _ok(await self.client.get(f"/api/images/jobs/{job_id}"), 200)

    async def events(self, job_id: str) -> list[dict[str, Any]]:
        """Every event of a run."""
        answer = _ok(await self.client.get(f"/api/images/jobs/{job_id}/events"), 200)
        events: list[dict[str, Any]] = answer["events"]
        return events

    async def ended(self, job_id: str) -> dict[str, Any]:
        """Follow a run's events until it has ended; returns it."""
        url = f"/api/images/jobs/{job_id}/events"
        async with self.client.stream("GET", url, headers={"accept": "text/event-stream"}) as stream:
            async for _line in stream.aiter_lines():
                pass
        return await self.job(job_id)


@asynccontextmanager
async def canvas_api(
    url: str, workflow_id: str | None = None, nodes: Sequence[Mapping[str, Any]] = ()
) -> AsyncIterator[Api]:
    """A client of the server at `url`, on a new workflow with these nodes unless one is named."""
    async with httpx2.AsyncClient(base_url=url, timeout=30) as client:
        if workflow_id is None:
            workflow_id = _ok(await client.post("/api/workflows", json={"nodes": list(nodes)}), 201)["id"]
        yield Api(client, workflow_id)


def _ok(response: httpx2.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer
