"""What a key allows, and who asks."""

from copy import copy
from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class Role(StrEnum):
    """What a key allows; each role includes those before it."""

    VIEWER = "viewer"
    SUBMITTER = "submitter"
    OPERATOR = "operator"
    ADMIN = "admin"

    def includes(self, other: "Role") -> bool:
        """Whether who has this role may do what the other one allows."""
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks for something.

    Attributes:
        key_id: the key that came with the request; None: a peer on this machine without one.
        key_name: the name of that key.
        owner: the team it belongs to.
        role: what it allows.
        request_id: the id of the request.
    """

    key_id: str | None
    key_name: str | None
    owner: str
    role: Role
    request_id: str = ""

    @property
    def sees_all_owners(self) -> bool:
        """Whether jobs of other owners exist for it."""
        return self.role.includes(Role.OPERATOR)

    def sees(self, owner: str) -> bool:
        """Whether jobs of an owner exist for it."""
        return self.sees_all_owners or owner == self.owner


LOCAL = Caller(key_id=None, key_name=None, owner="default", role=Role.ADMIN)
"""A peer on this machine, as long as no key was made: it may do everything."""


class OnBehalf:
    """A store that acts for a caller: it knows only what the caller may see, and writes down what
    the caller does. Without a caller it sees all and writes nothing down: that is the service's
    own work."""

    _caller: Caller | None = None

    def on_behalf_of(self, caller: Caller | None) -> Self:
        """The same store for a caller."""
        acting = copy(self)
        acting._caller = caller
        return acting

    def _sees(self, owner: str) -> bool:
        return self._caller is None or self._caller.sees(owner)

    @property
    def _only_owner(self) -> str | None:
        """The one owner that exists for the caller; None: all do."""
        if self._caller is None or self._caller.sees_all_owners:
            return None
        return self._caller.owner
