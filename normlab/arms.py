"""What is compared: the arms of a study, and the columns that name them in every table."""

from typing import Any, NamedTuple

from normlab.params import Params

MAIN = "main"
"""The study of the pipeline itself, whose arms are the variants as they are."""


class Arm(NamedTuple):
    """What a study compares with its other arms: a variant with some parameters changed."""

    study: str
    variant: str
    changes: dict[str, Any]
    """Parameters of `params.yaml` that differ, with their values here."""
    network: dict[str, Any] = {}  # noqa: RUF012
    """What `networks.build` is told that no parameter says, such as `norm_place`."""
    factors: tuple[str, ...] = ()
    """The keys of either that the study compares: columns of its tables, the same for all its
    arms."""
    label: str | None = None
    """Its name for people; None for the variant's."""
    key: str | None = None
    """Its name among the study's arms, as of a folder; None for the variant's key."""
    trained_in: str | None = None
    """`study.arm` whose trials it has, if not its own."""

    @property
    def name(self) -> str:
        """Its name among the study's arms, as of a folder."""
        return self.key or self.variant

    @property
    def columns(self) -> dict[str, Any]:
        """The columns that name it in every table: study, variant and, of a study, arm and factors.

        None stands for a factor that this arm does not change. A list is text.
        """
        columns = {"study": self.study, "variant": self.variant}
        if self.study != MAIN:
            columns["arm"] = self.name
        values = [(self.changes | self.network).get(factor) for factor in self.factors]
        texts = [" ".join(map(str, v)) if isinstance(v, list) else v for v in values]
        return columns | dict(zip(self.factors, texts, strict=True))

    def value(self, base: Params, key: str) -> Any:
        """Give the value of a parameter, as changed or else as in `base`."""
        return self.changes[key] if key in self.changes else getattr(base, key)
