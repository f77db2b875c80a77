"""Who may call a route: each one says so by a parameter.

    from api.access import Operator, Submitter, Viewer

    @router.get("/{job_id}", ...)
    def show(job_id: UUID, store: Store, _: Viewer) -> Job: ...

`Viewer`, `Submitter`, `Operator` and `Admin` each include those before them; the value is the
`Caller`. A router whose routes all need the same says `dependencies=[Depends(ADMIN)]`, or another.
The stores of `api.dependencies` are the caller's own: they know only what it may see, and write
down what it does. Pages without a key are listed in `PUBLIC`; a test refuses any other route
without a role.
"""

from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from api.problems import NOT_ALLOWED, ProblemError
from jobs.roles import Caller, Role

PUBLIC = {"/healthz", "/readyz", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"}
"""What needs no key, and is not counted: whether the service lives, and how to use it."""

# For the document only: the key was looked at before the request came here (`authentication`).
_key = HTTPBearer(
    scheme_name="key",
    bearerFormat="bonsai_<id>_<secret>_<checksum>",
    description="An API key. None is needed on this machine until the first one is made.",
    auto_error=False,
)


class Needs:
    """The dependency of a route that needs a role."""

    def __init__(self, role: Role) -> None:
        self.role = role

    async def __call__(self, request: Request, _: Annotated[object, Depends(_key)]) -> Caller:
        """Who calls; a 403 where its role does not include the one needed."""
        caller = cast(Caller, request.state.caller)
        if not caller.role.includes(self.role):
            raise ProblemError(
                NOT_ALLOWED,
                f"this needs the role {self.role} (or a later one of {', '.join(Role)}), and the "
                f"key {caller.key_id} ({caller.key_name!r}) is a {caller.role}'s; use another key, "
                "or ask an admin for one",
            )
        return caller


VIEWER, SUBMITTER, OPERATOR, ADMIN = (Needs(role) for role in Role)

Viewer = Annotated[Caller, Depends(VIEWER)]
Submitter = Annotated[Caller, Depends(SUBMITTER)]
Operator = Annotated[Caller, Depends(OPERATOR)]
Admin = Annotated[Caller, Depends(ADMIN)]
