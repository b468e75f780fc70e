"""Which content the store holds already: a cache, filled from the store, never the truth.

Content is marked only after it was inserted; what is forgotten is asked for again. So the worst that a wrong cache does
is a repeat, as long as nobody deletes behind its back: whoever deletes content calls `forget_all`.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import Final, Generic, TypeVar

GroupT = TypeVar("GroupT", bound=Hashable)

MAX_HASHES: Final = 500_000
"""About 60 MB, a group counted as four hashes."""
_GROUP_WEIGHT: Final = 4


class SeenCache(Generic[GroupT]):
    """Hashes by group (a trace and day, or a day), the groups not used for longest dropped first.

    A group that is in the cache is known completely, as of the time when it was filled.
    """

    def __init__(
        self, fill: Callable[[Sequence[GroupT]], Iterable[tuple[GroupT, bytes]]], max_hashes: int = MAX_HASHES
    ) -> None:
        """`fill` answers what the store holds of some groups."""
        self._fill = fill
        self._groups: OrderedDict[GroupT, set[bytes]] = OrderedDict()
        self._count = 0
        self._max = max_hashes

    def known(self, groups: Collection[GroupT]) -> dict[GroupT, set[bytes]]:
        """What the store holds of these groups. The sets are the cache's own: do not change them."""
        missing = [group for group in groups if group not in self._groups]
        found: dict[GroupT, set[bytes]] = {group: set() for group in missing}
        if missing:
            for group, hash_ in self._fill(missing):
                if group in found:
                    found[group].add(hash_)
        known: dict[GroupT, set[bytes]] = {}
        for group in groups:
            if group in found:
                self._groups[group] = found[group]
                self._count += len(found[group])
            else:
                self._groups.move_to_end(group)
            known[group] = self._groups[group]
        return known

    def mark(self, rows: Iterable[tuple[GroupT, bytes]]) -> None:
        """These rows are in the store now. Groups that are not in the cache stay out of it."""
        for group, hash_ in rows:
            hashes = self._groups.get(group)
            if hashes is not None and hash_ not in hashes:
                hashes.add(hash_)
                self._count += 1
        while self._groups and self._count + _GROUP_WEIGHT * len(self._groups) > self._max:
            _, dropped = self._groups.popitem(last=False)
            self._count -= len(dropped)

    def forget_all(self) -> None:
        """Ask the store again for everything."""
        self._groups.clear()
        self._count = 0
