"""The file that says by which OpenID Connect provider people log in, and what their groups may do."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..errors import VMError
from .roles import Role
from .secrets import private_text

SECRET_VARIABLE = "NANO_VM_OIDC_SECRET"

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Grant(BaseModel):
    """What members of *group* may do, or everybody who logs in where none is named: have *role* in
    *project* and decide as *approves*, or own the instance.
    """

    model_config = ConfigDict(extra="forbid")

    group: str | None = None
    project: str | None = None
    role: Role | None = None
    approves: list[str] = []
    owner: bool = False

    @model_validator(mode="after")
    def _says_what(self) -> Grant:
        if (self.project is None) != (self.role is None) or self.owner == (self.role is not None):
            raise ValueError("it has either project and role, or owner = true")
        if self.owner and self.group is None:
            raise ValueError("owners are a group: name it")
        return self

    def fits(self, groups: Iterable[str]) -> bool:
        """Whether it is for somebody who is in *groups*."""
        return self.group is None or self.group in groups


class ProviderFile(BaseModel):
    """A provider, this server as its client, and what people of it may do."""

    model_config = ConfigDict(extra="forbid")

    issuer: str
    client_id: str = Field(min_length=1)
    client_secret_file: str | None = None
    label: str = Field("single sign-on", min_length=1, max_length=60)
    scopes: list[str] = ["openid", "email", "profile"]
    name_claim: str = "email"
    group_claim: str = "groups"
    passwords: bool = True
    roles: list[Grant] = []

    @field_validator("issuer")
    @classmethod
    def _by_tls(cls, issuer: str) -> str:
        found = urlsplit(issuer)
        local = found.scheme == "http" and found.hostname in LOOPBACK
        if not (found.scheme == "https" or local) or not found.netloc or found.query:
            raise ValueError("write the issuer as https://login.example.org")
        return issuer

    @field_validator("scopes")
    @classmethod
    def _with_openid(cls, scopes: list[str]) -> list[str]:
        return ["openid", *(scope for scope in scopes if scope != "openid")]

    def memberships(self, groups: Iterable[str]) -> dict[str, tuple[Role, frozenset[str]] | None]:
        """For each project that the file names, the role of who is in *groups*, of the first entry
        that fits, and what they decide as, of all that fit; None where they are no member.
        """
        found: dict[str, tuple[Role, frozenset[str]] | None] = {}
        for grant in self.roles:
            if grant.project is None or grant.role is None:
                continue
            known = found.setdefault(grant.project, None)
            if grant.fits(groups):
                role, approves = known or (grant.role, frozenset())
                found[grant.project] = role, approves | frozenset(grant.approves)
        return found

    def owns(self, groups: Iterable[str]) -> bool | None:
        """Whether who is in *groups* owns the instance; None where the file does not say."""
        owners = [grant for grant in self.roles if grant.owner]
        return any(grant.fits(groups) for grant in owners) if owners else None


def provider_in(
    path: Path, environment: Mapping[str, str] = os.environ
) -> tuple[ProviderFile, str | None]:
    """What the file at *path* says, and the client's secret: of the environment's
    ``NANO_VM_OIDC_SECRET``, or of the file that it names; None for a public client.

    Raises:
        VMError: If a file cannot be read, is wrong, or others may read the secret, or it is empty.
    """
    try:
        found = ProviderFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise VMError(f"{path}: {error.strerror or error}") from None
    except ValidationError as error:
        raise VMError(f"{path}: {'; '.join(_fault(fault) for fault in error.errors())}") from None
    except ValueError as error:
        raise VMError(f"{path}: not TOML: {error}") from None
    given = environment.get(SECRET_VARIABLE)
    if given is not None or found.client_secret_file is None:
        return found, given or None
    return found, private_text(path.parent / found.client_secret_file, "the client's secret")


def _fault(fault: Any) -> str:
    place = ".".join(str(part) for part in fault["loc"])
    told = str(fault["msg"]).removeprefix("Value error, ")
    return f"{place}: {told[0].lower()}{told[1:]}" if place else told
