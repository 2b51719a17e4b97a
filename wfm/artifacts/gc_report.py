"""What a collection found: `collect` fills it, `retention` writes down what of it went."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Dead:
    """One commit that nothing needs."""

    area: str
    key: str
    generation: int
    attempt: str
    bytes: int
    """Of its own files, without parts."""
    reason: str


@dataclass
class GcReport:
    """What a collection deleted (or, dry, would delete)."""

    dry_run: bool
    dead: list[Dead] = field(default_factory=list)
    attempts: list[str] = field(default_factory=list)
    """Folders of attempts that were never committed."""
    scratch: list[str] = field(default_factory=list)
    """Keys whose scratch folders go."""
    nameless: list[Path] = field(default_factory=list)
    """Files of writers that were killed before they gave them a name."""
    checkpoints: list[str] = field(default_factory=list)
    """Keys whose checkpoints in the store go."""
    live: dict[str, str] = field(default_factory=dict)
    """Live artifacts and why."""
    notes: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    """What could not be read, and so was left alone."""
    spared: int = 0
    """Commits that nothing else needs, kept for what could not be read."""

    @property
    def bytes(self) -> int:
        return sum(each.bytes for each in self.dead)

    @property
    def deletes(self) -> bool:
        """Whether anything goes that is worth a record."""
        return bool(self.dead or self.attempts or self.scratch or self.checkpoints)
