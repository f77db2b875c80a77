"""Make, show, list, rotate and revoke API keys; and who the caller is."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Response

from api.access import ADMIN, Viewer
from api.dependencies import Keys
from api.openapi import problems
from api.schemas import Key, KeyPage, Me, NewKey, Rotation
from api.validation import require_storable
from jobs.keys import KeyRequest

router = APIRouter(prefix="/v1/keys", tags=["keys"], dependencies=[Depends(ADMIN)])
me_router = APIRouter(prefix="/v1/me", tags=["keys"])

KeyId = Annotated[
    str, Path(pattern=r"^[0-9A-Za-z]{1,64}$", description="The part after the key's prefix.")
]

_ONCE = {"description": "With the key itself, which is not shown again."}


@router.post(
    "",
    operation_id="create_key",
    status_code=201,
    responses={201: _ONCE, **problems(400, 415, 422, 503)},
)
def create(request: KeyRequest, response: Response, keys: Keys) -> NewKey:
    """Make a key. Its text is in this answer and nowhere else: only a digest of it is kept. The
    first key must be an admin's; from then on, every request needs one."""
    require_storable(request)
    account, token = keys.create(request)
    response.headers["Location"] = f"/v1/keys/{token.id}"
    return _once(response, NewKey.revealed(account, token))


@router.get("", operation_id="list_keys", responses=problems(503))
def list_keys(keys: Keys) -> KeyPage:
    """All keys, newest first, those that were revoked or have expired too."""
    return KeyPage.of(keys.list())


@router.get("/{key_id}", operation_id="show_key", responses=problems(404, 422, 503))
def show(key_id: KeyId, keys: Keys) -> Key:
    """One key, without its secret."""
    return Key.of(keys.show(key_id))


@router.post(
    "/{key_id}/rotate",
    operation_id="rotate_key",
    responses={200: _ONCE, **problems(400, 404, 409, 415, 422, 503)},
)
def rotate(
    key_id: KeyId,
    response: Response,
    keys: Keys,
    rotation: Annotated[Rotation, Body()] = Rotation(),  # noqa: B008 - frozen
) -> NewKey:
    """Give a key a new secret. The one it had stays valid for `grace_seconds`, so that it can be
    replaced where it is used; any older one ends at once."""
    account, token = keys.rotate(key_id, timedelta(seconds=rotation.grace_seconds))
    return _once(response, NewKey.revealed(account, token))


@router.post("/{key_id}/revoke", operation_id="revoke_key", responses=problems(404, 422, 503))
def revoke(key_id: KeyId, keys: Keys) -> Key:
    """End a key at once. Doing it twice changes nothing."""
    return Key.of(keys.revoke(key_id))


@me_router.get("", operation_id="show_me", responses=problems(503))
def me(caller: Viewer) -> Me:
    """Who the caller is, and what it may do."""
    return Me.model_validate(caller)


def _once(response: Response, key: NewKey) -> NewKey:
    response.headers["Cache-Control"] = "no-store"
    return key
