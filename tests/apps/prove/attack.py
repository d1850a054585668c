"""Attacks: attempts to have something accepted that is not a proof.

An attack consists of the tactics that a policy might suggest and, where they matter, a signature, a header and exclusions. The
default statement is `False`, which represents all false statements.
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
    may_crash: bool = False
    """True if the attack may crash the server or exceed its limits."""
    kind: str = ""
    """Expected kind of the rejection; empty for any kind."""
    message: str = ""
    """Regular expression that the rejection's message must contain."""

    @property
    def theorem(self) -> Theorem:
        return Theorem("target", self.signature, self.header, self.imports, self.exclude, self.exclude_importers)


def of(group: str, *tactics: str | tuple[str, ...], **fields) -> list[Attack]:
    """An attack for each tactic or tuple of tactics; `fields` are the same for all."""
    return [
        Attack(f"{group} {k + 1}", (one,) if isinstance(one, str) else one, **fields) for k, one in enumerate(tactics)
    ]
