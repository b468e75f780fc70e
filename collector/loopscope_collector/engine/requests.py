"""One HTTP request, taken apart: query, parameters, settings, formats.

Pure; used by `server`.
"""

import email.parser
import email.policy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from loopscope_collector.engine.config import words
from loopscope_collector.engine.errors import BAD_ARGUMENTS, NOT_IMPLEMENTED, ClickHouseError

TRANSPORT_PARAMS = words(
    """
    query database user password query_id default_format session_id session_timeout session_check close_session
    quota_key role compress decompress buffer_size wait_end_of_query client_protocol_version
    enable_http_compression http_zlib_compression_level
    http_native_compression_disable_checksumming_on_decompress send_progress_in_http_headers
    http_headers_progress_interval_ms cancel_http_readonly_queries_on_client_close add_http_cors_header
    stacktrace log_queries http_wait_end_of_query http_write_exception_in_output_format http_make_head_request
    """
)
"""Parameters that a server's HTTP side consumes; the engine would refuse them as unknown settings or has no use
for them."""

_PARAM = re.compile(r"param_(.+)\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """A request without its body."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    args: Mapping[str, str]
    """The query string and, for forms, their fields."""

    @property
    def settings(self) -> dict[str, str]:
        """What is to be set for the statement."""
        return {k: v for k, v in self.args.items() if k not in TRANSPORT_PARAMS and not k.startswith("param_")}

    @property
    def params(self) -> dict[str, str]:
        """Values for `{name:Type}`."""
        return {match.group(1): v for k, v in self.args.items() if (match := _PARAM.match(k))}

    def flag(self, name: str) -> bool:
        """Whether a parameter is switched on."""
        return self.args.get(name, "0").lower() in ("1", "true", "yes")

    @property
    def database(self) -> str:
        return self.args.get("database", "") or self.headers.get("x-clickhouse-database", "")

    @property
    def default_format(self) -> str:
        return self.args.get("default_format", "") or self.headers.get("x-clickhouse-format", "") or "TabSeparated"

    @property
    def accepted_encodings(self) -> str:
        """Encodings the client can read, when it asked for compression at all."""
        return self.headers.get("accept-encoding", "") if self.flag("enable_http_compression") else ""

    @property
    def is_form(self) -> bool:
        return self.headers.get("content-type", "").lower().startswith("multipart/form-data")

    def with_form(self, body: bytes) -> "EngineRequest":
        """This request with the fields of its form taken for parameters. Raises ClickHouseError for files and damaged
        forms."""
        fields = dict(self.args)
        for name, value in _form_fields(self.headers["content-type"], body):
            fields[name] = value
        return EngineRequest(self.method, self.path, self.headers, fields)


def request_of(scope: Mapping[str, Any]) -> EngineRequest:
    """From an ASGI scope. Raises ClickHouseError for a query string that is not UTF-8."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    try:
        args = dict(parse_qsl(scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict"))
    except (UnicodeDecodeError, ValueError) as error:
        raise ClickHouseError(BAD_ARGUMENTS, f"the query string is not UTF-8: {error}") from error
    return EngineRequest(scope["method"], scope["path"], headers, args)


def _form_fields(content_type: str, body: bytes) -> list[tuple[str, str]]:
    head = b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n"
    form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    if not form.is_multipart():
        raise ClickHouseError(BAD_ARGUMENTS, "the multipart/form-data body has no parts")
    fields: list[tuple[str, str]] = []
    for part in form.iter_parts():
        name = part.get_param("name", header="content-disposition")
        if part.get_filename() is not None:
            raise ClickHouseError(
                NOT_IMPLEMENTED, "external tables are not supported here; put the values into parameters"
            )
        payload = part.get_payload(decode=True)
        if not isinstance(name, str) or not isinstance(payload, bytes):
            raise ClickHouseError(BAD_ARGUMENTS, "a part of the form has no name")
        try:
            fields.append((name, payload.decode("utf-8")))
        except UnicodeDecodeError as error:
            raise ClickHouseError(BAD_ARGUMENTS, f"form field {name[:40]!r} is not UTF-8") from error
    return fields
