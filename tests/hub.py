"""A hub to push to: the part of the Hugging Face hub's API that an upload speaks, over HTTP.

Large files come by git's large file storage. The hub's newer way, xet, is not spoken here: clients
are told to leave it by HF_HUB_DISABLE_XET.
"""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse

TOKEN = "hf_of_the_tests"


@dataclass
class Commit:
    """One commit."""

    branch: str
    summary: str
    description: str


@dataclass
class Hub:
    """Repositories, each a mapping of branches to files.

    Attributes:
        private: whether each was made so.
        large: contents of large files, by SHA-256.
        uploads: SHA-256 of each upload of a large file that came through, in order.
        refused: uploads of large files that fail before one comes through.
    """

    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    commits: list[Commit] = field(default_factory=list)
    large: dict[str, bytes] = field(default_factory=dict)
    uploads: list[str] = field(default_factory=list)
    refused: set[int] = field(default_factory=set)
    tries: int = 0

    def app(self) -> FastAPI:
        """The hub as an application."""
        app = FastAPI()

        @app.post("/api/repos/create")
        async def create(request: Request) -> JSONResponse:
            _require_token(request)
            wish = await request.json()
            name = f"{wish.get('organization') or 'me'}/{wish['name']}"
            told = {"url": f"{request.base_url}{name}"}
            if name in self.repositories:
                return JSONResponse(told, 409)
            self.repositories[name] = {"main": {}}
            self.private[name] = wish.get("private") or wish.get("visibility") == "private"
            return JSONResponse(told)

        @app.post("/api/models/{owner}/{name}/branch/{branch}")
        async def make_branch(request: Request, owner: str, name: str, branch: str) -> None:
            _require_token(request)
            branches = self.repositories[f"{owner}/{name}"]
            if branch in branches:
                raise HTTPException(409, "exists")
            branches[branch] = dict(branches["main"])

        @app.get("/api/models/{owner}/{name}/revision/{branch}")
        async def show(request: Request, owner: str, name: str, branch: str) -> dict[str, Any]:
            files = self._files(request, owner, name, branch)
            siblings = [{"rfilename": path} for path in files]
            return {"id": f"{owner}/{name}", "siblings": siblings, "private": True}

        @app.get("/api/models/{owner}/{name}/tree/{branch}")
        async def tree(request: Request, owner: str, name: str, branch: str) -> list[Any]:
            files = self._files(request, owner, name, branch)
            return [
                {"type": "file", "path": path, "size": len(content), "oid": "0" * 40}
                for path, content in files.items()
            ]

        @app.post("/api/models/{owner}/{name}/preupload/{branch}")
        async def preupload(request: Request) -> dict[str, Any]:
            _require_token(request)
            return {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if _is_large(file["path"]) else "regular",
                        "shouldIgnore": False,
                    }
                    for file in (await request.json())["files"]
                ]
            }

        @app.post("/api/validate-yaml")
        async def validate() -> dict[str, Any]:
            return {"errors": [], "warnings": []}

        @app.post("/{owner}/{name}.git/info/lfs/objects/batch")
        async def batch(request: Request) -> dict[str, Any]:
            objects = (await request.json())["objects"]
            for one in objects:
                if one["oid"] not in self.large:
                    one["actions"] = {"upload": {"href": f"{request.base_url}large/{one['oid']}"}}
            return {"transfer": "basic", "objects": objects}

        @app.put("/large/{oid}")
        async def upload(request: Request, oid: str) -> None:
            content = await request.body()
            self.tries += 1
            if self.tries in self.refused:
                raise HTTPException(400, "the line is cut")
            assert hashlib.sha256(content).hexdigest() == oid
            self.large[oid] = content
            self.uploads.append(oid)

        @app.post("/api/models/{owner}/{name}/commit/{branch}")
        async def commit(request: Request, owner: str, name: str, branch: str) -> dict[str, Any]:
            files = self._files(request, owner, name, branch)
            for line in (await request.body()).decode().splitlines():
                self._apply(json.loads(line), files, branch)
            oid = f"{len(self.commits):040x}"
            url = f"{request.base_url}{owner}/{name}/commit/{oid}"
            return {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""}

        return app

    def _files(self, request: Request, owner: str, name: str, branch: str) -> dict[str, bytes]:
        _require_token(request)
        try:
            return self.repositories[f"{owner}/{name}"][branch]
        except KeyError as error:
            raise HTTPException(404, "no such repository") from error

    def _apply(self, line: dict[str, Any], files: dict[str, bytes], branch: str) -> None:
        value = line["value"]
        match line["key"]:
            case "header":
                self.commits.append(Commit(branch, value["summary"], value["description"]))
            case "file":
                files[value["path"]] = base64.b64decode(value["content"])
            case "lfsFile":
                files[value["path"]] = self.large[value["oid"]]
            case "deletedFile":
                del files[value["path"]]


def _is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".gguf"))


def _require_token(request: Request) -> None:
    if request.headers.get("authorization") != f"Bearer {TOKEN}":
        raise HTTPException(401, "this token may not write here")
