"""Lets in who has a key, as often as is allowed, before anything else of a request is read."""

from dataclasses import replace

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.access import PUBLIC
from api.handlers import database_down
from api.problems import NOT_AUTHENTICATED, TOO_MANY_REQUESTS, ProblemResponse
from api.rate_limit import RateLimit
from api.request_log import request_id_of
from jobs.errors import DATABASE_UNREACHABLE, NotAuthenticatedError
from jobs.keys import KeyStore
from jobs.roles import LOCAL, Caller
from jobs.settings import Settings

_NO_KEY = (
    "a key is needed: send it as `Authorization: Bearer bonsai_...`; an admin makes one with "
    "`bonsai keys create`, the operator with `bonsai keys generate`"
)


class Authentication:
    """ASGI middleware: what comes through has its `Caller` in `state.caller`, None for what is
    `PUBLIC`."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._always = settings.allow_remote
        self._limit = RateLimit(settings)
        self._keys_exist = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] == "http":
            public = scope["path"] in PUBLIC
            scope["state"]["caller"] = None
            refusal = None if public else await run_in_threadpool(self._admit, scope)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        caller = scope.get("state", {}).get("caller")
        with structlog.contextvars.bound_contextvars(key_id=caller and caller.key_id):
            await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> ProblemResponse | None:
        """Sets the caller, or gives the answer to who may not come in."""
        try:
            caller = self._caller(scope)
        except NotAuthenticatedError as error:
            # Guesses are counted too, by where they come from.
            return self._too_often(scope, None) or _unknown(scope, error)
        except DATABASE_UNREACHABLE:
            return database_down(Request(scope))
        scope["state"]["caller"] = replace(caller, request_id=request_id_of(scope))
        return self._too_often(scope, caller.key_id)

    def _caller(self, scope: Scope) -> Caller:
        keys: KeyStore = scope["state"]["services"].keys
        if not self._needs_key(keys):
            return LOCAL
        scheme, _, text = Headers(scope=scope).get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not text.strip():
            raise NotAuthenticatedError(_NO_KEY)
        return keys.authenticate(text.strip())

    def _needs_key(self, keys: KeyStore) -> bool:
        # Keys are never deleted, so this is asked until there is one, and then no more.
        self._keys_exist = self._always or self._keys_exist or keys.are_needed()
        return self._keys_exist

    def _too_often(self, scope: Scope, key_id: str | None) -> ProblemResponse | None:
        peer = scope["client"][0] if scope.get("client") else "local"
        seconds = self._limit.exceeded("peer" if key_id is None else "key", key_id or peer)
        if seconds is None:
            return None
        return ProblemResponse(
            TOO_MANY_REQUESTS,
            f"{self._limit.per_minute} requests a minute are allowed with one key; try again in "
            f"{seconds} seconds",
            request_id=request_id_of(scope),
            headers={"Retry-After": str(seconds)},
        )


def _unknown(scope: Scope, error: NotAuthenticatedError) -> ProblemResponse:
    return ProblemResponse(
        NOT_AUTHENTICATED,
        str(error),
        request_id=request_id_of(scope),
        headers={"WWW-Authenticate": "Bearer"},
    )
