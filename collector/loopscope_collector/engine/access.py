"""Who is asking: the writer, a reader, or nobody.

Called by `server` for each request. Comparisons take the same time whatever is wrong.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from loopscope_collector.engine.config import WRITER_USER, EngineConfig
from loopscope_collector.engine.errors import ACCESS_DENIED, AUTHENTICATION_FAILED, REQUIRED_PASSWORD, ClickHouseError
from loopscope_schemas.keys import is_loopback


class Role(Enum):
    """What a request may do."""

    READER = "reader"
    WRITER = "writer"


@dataclass(frozen=True, slots=True)
class Credentials:
    """User and password as the request gave them."""

    user: str
    password: str


def credentials_of(headers: Mapping[str, str], params: Mapping[str, str]) -> Credentials:
    """From `X-ClickHouse-User/Key`, Authorization (Basic, Bearer), or parameters `user`, `password`; the first."""
    if "x-clickhouse-user" in headers or "x-clickhouse-key" in headers:
        return Credentials(headers.get("x-clickhouse-user", ""), headers.get("x-clickhouse-key", ""))
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(rest.strip(), validate=True).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise ClickHouseError(
                AUTHENTICATION_FAILED, f"the Authorization header is not valid Basic: {error}"
            ) from error
        return Credentials(user, password)
    if scheme.lower() == "bearer":
        return Credentials("", rest.strip())
    return Credentials(params.get("user", ""), params.get("password", ""))


def role_of(config: EngineConfig, given: Credentials, headers: Mapping[str, str]) -> Role:
    """The role of a request. Raises ClickHouseError 516 or 194 for nobody."""
    if given.user == WRITER_USER:
        if config.write_secret and _same(given.password, config.write_secret):
            return Role.WRITER
        raise ClickHouseError(AUTHENTICATION_FAILED, f"{WRITER_USER}: Authentication failed: password is incorrect")
    if config.read_keys:
        if not given.password:
            message = "this engine reads for read keys only: give one of LOOPSCOPE_READ_KEYS as the password"
            raise ClickHouseError(REQUIRED_PASSWORD, message)
        # All keys are compared, so that the time says nothing about which one came close.
        if sum(_same(given.password, key) for key in config.read_keys) > 0:
            return Role.READER
        raise ClickHouseError(
            AUTHENTICATION_FAILED, f"{given.user[:40] or 'default'}: Authentication failed: no such read key"
        )
    if given.user in ("", "default") and not given.password:
        _refuse_foreign_pages(config, headers)
        return Role.READER
    message = f"{given.user[:40]}: Authentication failed: without read keys only `default` without a password may read"
    raise ClickHouseError(AUTHENTICATION_FAILED, message)


def _refuse_foreign_pages(config: EngineConfig, headers: Mapping[str, str]) -> None:
    """A web page in a browser on this machine must not read the store through a name that it rebinds to loopback."""
    host = headers.get("host", "")
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    name = name.strip("[]").lower()
    if name in ("", config.host.lower()) or name.endswith(".localhost") or is_loopback(name):
        return
    message = (
        f"reading without a key goes to 127.0.0.1 or localhost, not to {name[:80]!r}; "
        "set LOOPSCOPE_READ_KEYS for other names"
    )
    raise ClickHouseError(ACCESS_DENIED, message)


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode("utf-8", "surrogateescape"))
