"""Ways to be taken for a proof without being one.

`False` stands for anything that is not true. An attack is what a policy might say, and where it matters a signature, a
header, and what is excluded.
"""

from dataclasses import dataclass

from monge.apps.prove.state import Theorem


@dataclass(frozen=True)
class Attack:
    name: str
    tactics: tuple[str, ...]
    signature: str = ": False"
    header: str = ""
    exclude: tuple[str, ...] = ()
    exclude_importers: tuple[str, ...] = ()
    imports: tuple[str, ...] = ("Init",)
    deadly: bool = False
    """Whether the server may die of it."""
    kind: str = ""
    """What refuses it, where that is the point."""
    said: str = ""
    """A pattern of what it says."""

    @property
    def theorem(self) -> Theorem:
        return Theorem("target", self.signature, self.header, self.imports, self.exclude, self.exclude_importers)


def of(group: str, *tactics: str | tuple[str, ...], **fields) -> list[Attack]:
    """An attack for each text, or tuple of texts, alike but for what is said."""
    return [
        Attack(f"{group} {k + 1}", (said,) if isinstance(said, str) else said, **fields)
        for k, said in enumerate(tactics)
    ]
