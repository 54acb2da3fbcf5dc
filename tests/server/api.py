"""What tests of the HTTP door say most often, said shortly."""

import json
from typing import Any, TypeAlias

import httpx2
from starlette.applications import Starlette

from server.services import Services

Reply: TypeAlias = httpx2.Response


class Api:
    """A client of an application in this process."""

    def __init__(self, client: httpx2.AsyncClient, app: Starlette) -> None:
        self.client = client
        self.app = app

    @property
    def services(self) -> Services:
        services: Services = self.app.state.services
        return services

    async def get(self, path: str, **headers: str) -> Reply:
        return await self.client.get(path, headers=_names(headers))

    async def post(self, path: str, body: object = None, **headers: str) -> Reply:
        return await self.client.post(path, json={} if body is None else body, headers=_names(headers))

    async def patch(self, path: str, body: object) -> Reply:
        return await self.client.patch(path, json=body)

    async def delete(self, path: str) -> Reply:
        return await self.client.delete(path)

    async def workflow(self, *nodes: dict[str, Any], title: str = "") -> str:
        """A new workflow with these nodes; its id."""
        reply = await self.post("/api/workflows", {"title": title, "nodes": list(nodes)})
        assert reply.status_code == 201, reply.text
        workflow_id: str = reply.json()["id"]
        return workflow_id

    async def canvas(self, prompt: str = "a fox") -> tuple[str, str]:
        """A new workflow with one node "n1" that has a prompt; the ids of both."""
        return await self.workflow(node("n1", prompt=prompt)), "n1"

    async def run(self, workflow_id: str, node_id: str, body: object = None, **headers: str) -> dict[str, Any]:
        """A job that was made for a node."""
        reply = await self.post(f"/api/workflows/{workflow_id}/nodes/{node_id}/runs", body, **headers)
        assert reply.status_code == 201, reply.text
        return dict(reply.json())

    async def finished(self, job_id: str) -> dict[str, Any]:
        """The job once it has ended: its event stream ends with it."""
        await self.stream(job_id)
        return dict((await self.get(f"/api/images/jobs/{job_id}")).json())

    async def stream(self, job_id: str, **headers: str) -> list[dict[str, Any]]:
        """Every event of a job's stream, to its end."""
        reply = await self.get(f"/api/images/jobs/{job_id}/events", accept="text/event-stream", **headers)
        assert reply.headers["content-type"].startswith("text/event-stream"), reply.text
        return [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: ")]

    async def flow(self, workflow_id: str) -> dict[str, Any]:
        """The workflow as React Flow JSON."""
        reply = await self.get(f"/api/workflows/{workflow_id}")
        assert reply.status_code == 200, reply.text
        return dict(reply.json())


def node(node_id: str, **data: object) -> dict[str, Any]:
    """A node as React Flow writes it."""
    return {"id": node_id, "type": "image", "position": {"x": 0, "y": 0}, "data": data}


def fields(reply: Reply) -> list[str]:
    """The fields a problem names."""
    assert reply.headers["content-type"] == "application/problem+json", reply.text
    return [error["field"] for error in reply.json().get("errors", [])]


def _names(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
