"""Mapping of published controls to policies and features of Authz: one YAML file for each version of a framework."""

from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["AddressedBy", "BuiltIn", "Control", "Framework", "known_frameworks"]

_FOLDER: Final = Path(__file__).parent

_Line = Annotated[str, Field(min_length=1, max_length=600)]
_Id = Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9._:-]{0,127}$")]
_Day = Annotated[str, Field(pattern=r"^\d{4}(-\d\d(-\d\d)?)?$")]


class AddressedBy(StrEnum):
    """Part of Authz that addresses a control."""

    POLICY = "policy"
    """A policy of the bundle. Built-in features help, and are not enough."""
    BUILT_IN = "built_in"
    """Features of Authz, without a policy."""
    NOT_APPLICABLE = "not_applicable"
    """Nothing that decides about actions can address it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BuiltIn(_Strict):
    """A feature of Authz that helps with a control."""

    feature: _Line
    proof: Annotated[str, Field(pattern=r"^[\w./-]+(::.+)?$")]
    """Test of Authz's own suite that shows the feature: `FILE`, or `FILE::NAME`."""


class Control(_Strict):
    """One control of a framework."""

    id: _Id
    """Id in `@control`."""
    aliases: tuple[_Id, ...] = ()
    """Other spellings of the id in `@control`."""
    name: _Line
    threats: tuple[_Line, ...] = ()
    """Threats that the framework lists under the control."""
    addressed_by: AddressedBy
    policy: str = ""
    """The kind of policy that addresses it, or adds to the built-in features; empty where none does."""
    limits: str = ""
    """The part that Authz does not address."""
    reason: str = ""
    """Why no policy and no feature addresses it."""
    built_in: tuple[BuiltIn, ...] = ()

    @model_validator(mode="after")
    def _is_whole(self) -> "Control":
        needed = {
            AddressedBy.POLICY: self.policy,
            AddressedBy.BUILT_IN: self.built_in,
            AddressedBy.NOT_APPLICABLE: self.reason,
        }[self.addressed_by]
        if not needed:
            raise ValueError(f"{self.id}: nothing says how it is {self.addressed_by}")
        if self.reason and self.addressed_by is not AddressedBy.NOT_APPLICABLE:
            raise ValueError(f"{self.id}: `reason` is for controls that are not applicable")
        return self


class Framework(_Strict):
    """One version of a framework."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    """Name for `--framework`."""
    name: _Line
    version: _Line
    """Version of the framework, as its publisher writes it."""
    published: _Day
    """Date of that version."""
    mapped: _Day
    """Date of the mapping."""
    source: Annotated[str, Field(pattern=r"^https://\S+$")]
    note: str = ""
    """Meaning of the framework's ids, and selection of the controls that are listed."""
    controls: tuple[Control, ...]

    @model_validator(mode="after")
    def _has_each_id_once(self) -> "Framework":
        seen: set[str] = set()
        for control in self.controls:
            for id_ in (control.id, *control.aliases):
                if id_ in seen:
                    raise ValueError(f"{id_} is listed twice")
                seen.add(id_)
        return self

    @property
    def by_id(self) -> Mapping[str, Control]:
        """Controls by their ids and aliases."""
        return {id_: control for control in self.controls for id_ in (control.id, *control.aliases)}


@cache
def known_frameworks() -> tuple[Framework, ...]:
    """Read every framework, sorted by name of the file."""
    files = sorted(_FOLDER.glob("*.yaml"))
    return tuple(
        Framework.model_validate(yaml.safe_load(file.read_text(encoding="utf-8"))) for file in files
    )
