"""Plug-ins of installed packages, by entry point group. Only loading one imports it. No torch."""

from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from bonsai_core.errors import PruneError


@dataclass(frozen=True, slots=True)
class PlugIns:
    """Those of one group.

    Attributes:
        group: an entry point group: names, and what stands behind each.
        built_in: names that no plug-in can take.
        field: of the request, where they are named.
        error: the kind raised for one that is not as it should be.
    """

    group: str
    built_in: Collection[str]
    field: str
    error: type[PruneError]

    def installed(self) -> dict[str, EntryPoint]:
        """Those of this environment, by name.

        Raises:
            PruneError: two installed packages give different things the same name.
        """
        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=self.group):
            if point.name in self.built_in:
                continue
            other = found.setdefault(point.name, point)
            if other.value != point.value:
                raise self.error(
                    f"two packages provide it: {_package(other)} and {_package(point)}",
                    field=self.field,
                    value=point.name,
                    cure="uninstall one of them",
                )
        return found

    def load(self, name: str) -> Any:
        """What stands behind the name of one that is installed.

        Raises:
            PruneError: it cannot be imported.
        """
        point = self.installed()[name]
        try:
            return point.load()
        except Exception as error:  # a plug-in may raise anything while it is imported
            raise self.error(
                f"its plug-in {point.value} cannot be imported: {type(error).__name__}: {error}",
                field=self.field,
                value=name,
                cure=f"repair or uninstall {point.dist.name if point.dist else 'its package'}",
            ) from error


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name if point.dist else 'a package'} ({point.value})"
