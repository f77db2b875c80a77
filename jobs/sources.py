"""Where models and texts of requests may come from: folders, and repositories of the hub.

Checked when a request comes, and again by the process that is about to read: in between, a link may
have come to lead elsewhere.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from uuid import UUID

from bonsai_core.config import CalibrationSource, ModelSource, PruneRequest
from jobs.errors import ForbiddenSourceError
from jobs.settings import Settings

DATASET = "dataset:"
"""Before the id of an uploaded text, which is there for its owner alone."""

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where models and texts may come from.

    Attributes:
        folders: they and what is below them; None: any folder.
        hub_repositories: patterns of hub ids, such as `meta-llama/*`.
    """

    folders: tuple[Path, ...] | None = None
    hub_repositories: tuple[str, ...] = ("*",)

    @classmethod
    def of(cls, settings: Settings) -> "Sources":
        """Those that the operator has set."""
        return cls(settings.source_folders, settings.hub_repositories)

    def require_allowed(self, request: PruneRequest) -> None:
        """Refuse a request that names anything outside; what is there or not is not told.

        Raises:
            ForbiddenSourceError: names the field, and where it may lead.
        """
        self.require_model(request.model)
        text = request.calibration
        if text.source.startswith(DATASET):
            _require_id(text.source)
        else:
            self._require_text(text)
        if request.report.text is not None:
            self._require("report.text", request.report.text, folder=True)
        for number, part in enumerate(request.pruning.utilities):
            path = part.settings.get("path")
            # Of `function` it names code, which no request may.
            if isinstance(path, str) and part.name != "function":
                self._require(f"pruning.utility.{number}.settings.path", path, folder=True)

    def require_model(self, model: ModelSource) -> None:
        """As `require_allowed`, of the model alone."""
        self._require("model.source", model.source, folder=model.is_folder)

    def lets_list(self, folder: Path) -> bool:
        """Whether a folder, and all that lies in it itself, is inside; what is further down is not
        looked at."""
        try:
            for path in (folder, *folder.iterdir()):
                if path == folder or path.is_symlink():
                    self._require_inside("model.source", str(path), deep=False)
        except (ForbiddenSourceError, OSError):
            return False
        return True

    def _require_text(self, text: CalibrationSource) -> None:
        # After a colon come subset and split of a data set, unless it belongs to a file's name.
        name = text.source.split(":")[0]
        for source in (name, text.source) if text.is_file else (name,):
            self._require("calibration.source", source, folder=text.is_file)

    def _require(self, field: str, source: str, *, folder: bool) -> None:
        # What looks like a hub id is read as a folder where one of that name is at hand.
        if folder or _is_there(source):
            self._require_inside(field, source)
        elif not _HUB_ID.fullmatch(source) or ".." in source:
            raise ForbiddenSourceError(
                "is neither a path nor a hub id",
                field=field,
                value=source,
                allowed="an absolute path, or letters, digits, '.', '_', '-' and one '/' at most",
                cure="use a hub id such as 'owner/name'",
            )
        elif not any(fnmatchcase(source, pattern) for pattern in self.hub_repositories):
            raise ForbiddenSourceError(
                "is not among the hub's repositories that this service may use",
                field=field,
                value=source,
                allowed=", ".join(self.hub_repositories) or "none",
                cure="use one of these, or have the operator allow it (BONSAI_HUB_REPOSITORIES)",
            )

    def _require_inside(self, field: str, source: str, *, deep: bool = True) -> None:
        if self.folders is None:
            return
        path, folders = Path(source), [folder.resolve() for folder in self.folders]
        try:
            # Links first: what looks to be inside may lead out.
            inside = path.is_absolute() and all(
                any(found.resolve().is_relative_to(folder) for folder in folders)
                for found in (_with_links(path) if deep else [path])
            )
        except (OSError, ValueError, RuntimeError):
            inside = False  # a NUL, too long a name, links in a circle
        if not inside:
            raise ForbiddenSourceError(
                "is not in a folder that this service may read, or has a link that leads out of it",
                field=field,
                value=source,
                allowed=f"absolute paths in {', '.join(map(str, self.folders)) or 'no folder'}",
                cure="move it there, or have the operator allow it (BONSAI_SOURCE_FOLDERS)",
            )


def _require_id(source: str) -> None:
    try:
        UUID(source.removeprefix(DATASET))
    except ValueError as error:
        raise ForbiddenSourceError(
            "is no data set's id",
            field="calibration.source",
            value=source,
            allowed=f"{DATASET} and an id of GET /v1/datasets",
            cure="upload the text (POST /v1/datasets), and use its `source`",
        ) from error


def _is_there(source: str) -> bool:
    try:
        return Path(source).exists()
    except (OSError, ValueError):
        return False


def _with_links(path: Path) -> Iterator[Path]:
    """A path, and every link below it."""
    yield path
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            found = Path(folder, name)
            if found.is_symlink():
                yield found
