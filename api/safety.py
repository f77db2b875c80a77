"""The service does not start where it would be open to other machines as it is set up."""

import structlog

from jobs.errors import DATABASE_ERROR
from jobs.keys import KeyStore
from jobs.settings import Settings

_log = structlog.get_logger(__name__)


class UnsafeSettingsError(Exception):
    """Others could do what nobody has allowed; the message has the cure."""


def require_sources(settings: Settings) -> None:
    """Refuse to let other machines name any file of this one.

    Raises:
        UnsafeSettingsError: see above.
    """
    if settings.allow_remote and settings.source_folders is None:
        raise UnsafeSettingsError(
            "BONSAI_ALLOW_REMOTE is set and BONSAI_SOURCE_FOLDERS is not: requests could name any "
            "folder that the service may read; name those of models and texts, such as "
            "BONSAI_SOURCE_FOLDERS=/models,/texts, for the API and all workers"
        )


def require_keys(settings: Settings, keys: KeyStore) -> None:
    """Refuse to serve other machines where nobody has a key; a database that is away lets it start,
    since nobody comes in without one.

    Raises:
        UnsafeSettingsError: see above.
    """
    if not settings.allow_remote:
        return
    try:
        found = keys.any_live()
    except DATABASE_ERROR as error:
        _log.warning("keys_unknown", error=type(error).__name__)
        return
    if not found:
        raise UnsafeSettingsError(
            "BONSAI_ALLOW_REMOTE is set and there is no valid key: set BONSAI_ADMIN_KEY to what "
            "`bonsai keys generate` prints, or leave BONSAI_ALLOW_REMOTE out, start, and make one "
            "with `bonsai keys create`"
        )
