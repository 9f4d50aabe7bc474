"""The books of what moves between two tiers of memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Traffic:
    """What has moved, in tokens of one sequence and layer, and in bytes.

    Attributes
    ----------
    hits
        Selected tokens that lay in fast memory.
    loaded, loaded_bytes
        Selected tokens that came from slow memory.
    recomputed, recomputed_bytes
        Selected tokens that had been deleted, and bytes read from slow memory to compute them again.
    offloaded, offloaded_bytes
        Tokens written to slow memory.
    deleted
        Tokens deleted from slow memory.
    input_bytes
        Inputs of the layer written to slow memory, from which deleted tokens can be recomputed.
    """

    hits: int = 0
    loaded: int = 0
    loaded_bytes: int = 0
    recomputed: int = 0
    recomputed_bytes: int = 0
    offloaded: int = 0
    offloaded_bytes: int = 0
    deleted: int = 0
    input_bytes: int = 0

    def moved_bytes(self) -> int:
        """Bytes that crossed between the tiers, both ways."""
        return self.loaded_bytes + self.offloaded_bytes + self.recomputed_bytes + self.input_bytes

    def __iadd__(self, other: Traffic) -> Traffic:
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    def since(self, before: Traffic) -> Traffic:
        """What has moved after the counters stood at ``before``."""
        return Traffic(**{name: getattr(self, name) - getattr(before, name) for name in self.__dataclass_fields__})
