"""Settings of what is called: Lambda functions and HTTP endpoints, and how a request proves who sent it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import json
import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from bridge.config.section import NOT_BOOL, Name, Section
from bridge.secret import Secret

LambdaEnvelopeName = Literal["pgbridge", "sequin", "debezium", "cloudevents", "sqs_fifo", "kinesis", "dynamodb"]
HttpEnvelopeName = Literal["pgbridge", "sequin", "debezium", "cloudevents", "cloudevents_binary"]
EnvelopeName = LambdaEnvelopeName | HttpEnvelopeName

LAMBDA_REQUEST_BYTES: Final = 6_291_456
"""Lambda's quota for a synchronous request, 6 MB."""
LAMBDA_EVENT_BYTES: Final = 1_048_576
"""Lambda's quota for an asynchronous request, 1 MB."""


def is_loopback(host: str) -> bool:
    """Whether a host, as it stands in a URL or an address, can only be this machine."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_METADATA_HOSTS: Final = frozenset(
    {"metadata.google.internal", "metadata", "instance-data", "instance-data.ec2.internal"}
)


def _check_url(url: str, *, allow_plain_http: bool) -> str:
    """An absolute http(s) URL that row data may be sent to."""
    parts = _split_url(url)
    host = (parts.hostname or "").lower()
    if parts.scheme not in ("http", "https") or not host or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ValueError("it must be a URL such as https://api.example.com/hooks")
    if parts.username is not None or parts.password is not None:
        raise ValueError("it must not hold a user or a password; put them under auth: {basic: {username, password}}")
    if parts.fragment:
        raise ValueError("it must not have a fragment (#…), which is never sent")
    if parts.scheme == "http" and not is_loopback(host) and not allow_plain_http:
        raise ValueError("it must begin with https://, unless allow_plain_http is true: rows would travel in the clear")
    if host.rstrip(".") in _METADATA_HOSTS or _is_link_local(host):
        raise ValueError("it must not be a link-local or cloud metadata address")
    return url


def _split_url(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # Not chained: the parser's sentence repeats the URL.
        raise ValueError("it must be a URL such as https://api.example.com/hooks") from None
    return parts


def _is_link_local(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_link_local or str(address) == "fd00:ec2::254"


Timeout = Annotated[float, Field(gt=0, le=910), NOT_BOOL]

_FUNCTION_NAME: Final = re.compile(
    r"(arn:(aws[a-zA-Z-]*)?:lambda:)?([a-z]{2}(-[a-z]+)+-\d{1}:)?(\d{12}:)?(function:)?"
    r"(?P<name>[a-zA-Z0-9_.-]{1,140})(:(?P<qualifier>\$LATEST|[a-zA-Z0-9_-]{1,128}))?"
)


class LambdaTargetSettings(Section):
    """An AWS Lambda function. Credentials are found as every AWS SDK finds them."""

    allow_plain_http: bool = False
    """Whether `endpoint_url` may be plain HTTP beyond this machine. Default false: rows would travel in the clear."""
    function_name: str
    """Name, partial ARN or ARN of the function."""
    qualifier: Annotated[
        str | None, Field(coerce_numbers_to_str=True, pattern=r"^(\$LATEST|[A-Za-z0-9_-]{1,128})$")
    ] = None
    """Version or alias. Default: the unpublished $LATEST, as Lambda's own default."""
    invocation_type: Literal["RequestResponse", "Event"] = "RequestResponse"
    """
    RequestResponse waits for the function: a change settles when the handler succeeded. Event settles when Lambda has
    *accepted* the batch; what its queue does afterwards (two more tries, then its own dead letters) is not seen here.
    """
    endpoint_url: str | None = None
    """Another endpoint than AWS's own (VPC endpoint, local stand-in). Default: the SDK's environment variables."""
    region: Annotated[str | None, Field(pattern=r"^[a-z0-9-]{1,32}$")] = None
    """AWS region. Default: the one in the ARN, else the SDK's own."""
    role_arn: Annotated[str | None, Field(pattern=r"^arn:aws[a-zA-Z-]*:iam::\d{12}:role/[\w+=,.@/-]+$")] = None
    """Role to assume for the call, for functions of another account."""
    timeout_in_seconds: Timeout | None = None
    """
    Seconds until a call without an answer counts as failed. Default: the function's own timeout, looked up once, and a
    margin; a client that gives up sooner invokes a function again that is still at work.
    """
    tenant_id: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9_.:/=+@ -]{1,256}$")] = None
    """Tenant that every invocation names, for functions with tenant isolation."""
    tenant_id_column: Name | None = None
    """In place of `tenant_id`: the column whose value is the tenant's id. A batch then holds one tenant's events."""
    durable_execution_name: bool = False
    """
    Whether an invocation names its durable execution, for durable functions: a repeated call then joins the execution
    that may be running already, and no work is started twice.
    """
    trace_headers: bool = True
    """Whether a call carries an X-Ray trace id; whether it is sampled is left to the function."""
    envelope: LambdaEnvelopeName = "pgbridge"
    """Outer form of what is sent. Default: `{"Records": [event, …]}`."""

    @field_validator("function_name")
    @classmethod
    def _is_a_function(cls, value: str) -> str:
        if _FUNCTION_NAME.fullmatch(value) is None:
            raise ValueError(
                "it must be a function's name or ARN, such as welcome-email or "
                "arn:aws:lambda:eu-west-1:123456789012:function:welcome-email"
            )
        return value

    @field_validator("endpoint_url")
    @classmethod
    def _is_a_url(cls, value: str | None, info: ValidationInfo) -> str | None:
        return value and _check_url(value, allow_plain_http=info.data.get("allow_plain_http", False))

    @model_validator(mode="after")
    def _one_tenant(self) -> LambdaTargetSettings:
        if self.tenant_id is not None and self.tenant_id_column is not None:
            raise ValueError("tenant_id and tenant_id_column are both set; keep one of them")
        return self

    @model_validator(mode="after")
    def _one_qualifier(self) -> LambdaTargetSettings:
        match = _FUNCTION_NAME.fullmatch(self.function_name)
        named = match and match["qualifier"]
        if named and self.qualifier is not None and named != self.qualifier:
            raise ValueError(f"function_name ends in :{named} and qualifier is {self.qualifier}; keep one of them")
        return self


_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OWN_HEADERS: Final = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "host",
        "transfer-encoding",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
    }
)


def _check_header_value(secret: Secret | None) -> Secret | None:
    literal = None if secret is None else secret.literal
    if literal is not None and re.search(r"[\r\n\0]", literal):
        raise ValueError("it must not hold a line break")
    return secret


class BasicAuth(Section):
    """HTTP Basic authentication."""

    username: str
    """User name; it can't hold a colon."""
    password: Secret
    """Password."""

    @field_validator("username")
    @classmethod
    def _no_colon(cls, value: str) -> str:
        if ":" in value:
            raise ValueError("it must not hold a colon, which ends the user name")
        return value


class SigV4Auth(Section):
    """AWS Signature Version 4, for function URLs and API Gateway with IAM authorisation."""

    service: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")]
    """Signing name of the service: `lambda` for a function URL, `execute-api` for API Gateway."""
    region: Annotated[str | None, Field(pattern=r"^[a-z0-9-]{1,32}$")] = None
    """AWS region. Default: the SDK's own."""


class OAuth2(Section):
    """OAuth 2.0 client credentials: a token is fetched, kept until it expires, and renewed when refused."""

    allow_plain_http: bool = False
    """Whether `token_url` may be plain HTTP beyond this machine. Default false: it carries the client secret."""
    token_url: str
    """URL of the token endpoint."""
    client_id: Name
    """Client id."""
    client_secret: Secret
    """Client secret."""
    scope: str | None = None
    """Scopes to ask for, separated by spaces."""

    @field_validator("token_url")
    @classmethod
    def _is_a_url(cls, value: str, info: ValidationInfo) -> str:
        return _check_url(value, allow_plain_http=info.data.get("allow_plain_http", False))


class AuthSettings(Section):
    """How a request proves who sent it: one of bearer, basic, sigv4 and oauth2; headers with any of them or alone."""

    bearer: Secret | None = None
    """Token for `Authorization: Bearer …`."""
    basic: BasicAuth | None = None
    """User name and password."""
    sigv4: SigV4Auth | None = None
    """AWS Signature Version 4."""
    oauth2: OAuth2 | None = None
    """OAuth 2.0 client credentials."""
    headers: Mapping[str, Secret] = Field(default_factory=dict)
    """Header names and values, such as an API key."""

    @field_validator("bearer")
    @classmethod
    def _one_line(cls, value: Secret | None) -> Secret | None:
        return _check_header_value(value)

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, value: Mapping[str, Secret]) -> Mapping[str, Secret]:
        for name, secret in value.items():
            if _HEADER_NAME.fullmatch(name) is None:
                raise ValueError(f"{name!r} is not a header name")
            if name.lower() in _OWN_HEADERS:
                raise ValueError(f"{name} is set by pgbridge itself; remove it")
            _check_header_value(secret)
        if len({name.lower() for name in value}) != len(value):
            raise ValueError("a header stands in it twice in different case; keep one")
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> AuthSettings:
        kinds = [kind for kind in ("bearer", "basic", "sigv4", "oauth2") if getattr(self, kind) is not None]
        if len(kinds) > 1:
            raise ValueError(f"{' and '.join(kinds)} are both set; keep one of them")
        if not kinds and not self.headers:
            raise ValueError("it names no way to authenticate; set one of bearer, basic, sigv4, oauth2 and headers")
        if kinds and "authorization" in {name.lower() for name in self.headers}:
            raise ValueError(f"{kinds[0]} and headers both set Authorization; keep one of them")
        return self


MINIMUM_SIGNING_KEY_BYTES: Final = 16
"""128 bits: what can't be guessed. The specification advises 24 to 64 bytes."""


def check_signing_secret(text: str) -> None:
    """
    Refuse what can't be a signing secret, as far as its form tells; also for secrets fetched from elsewhere.

    Raises:
        ValueError: wrong prefix, not base64, or a key of a wrong length. The message does not repeat the secret.
    """
    prefix, underscore, encoded = text.partition("_")
    if not underscore or prefix not in ("whsec", "whsk"):
        raise ValueError("a signing secret must begin with whsec_ (HMAC-SHA256) or whsk_ (ed25519)")
    try:
        key = base64.b64decode(
            encoded + "=" * (-len(encoded) % 4), validate=True
        )  # padded or not, as receivers take it
    except binascii.Error:
        raise ValueError(f"what follows {prefix}_ must be base64, such as `openssl rand -base64 32` prints") from None
    if prefix == "whsec" and len(key) < MINIMUM_SIGNING_KEY_BYTES:
        raise ValueError(f"the key after whsec_ must be at least {MINIMUM_SIGNING_KEY_BYTES} bytes, better 32")
    if prefix == "whsk" and len(key) not in (32, 64):
        raise ValueError("the key after whsk_ must be 32 bytes (a seed) or 64 (seed and public key)")


class SigningSettings(Section):
    """Standard Webhooks signatures over the exact bytes sent."""

    secrets: tuple[Secret, ...]
    """
    `whsec_…` (HMAC-SHA256) or `whsk_…` (ed25519), as base64. Several during a rotation: each signs, the receiver
    accepts any.
    """

    @field_validator("secrets")
    @classmethod
    def _are_keys(cls, value: tuple[Secret, ...]) -> tuple[Secret, ...]:
        if not value:
            raise ValueError("it is empty")
        for secret in value:
            if secret.literal is not None:
                check_signing_secret(secret.literal)
        return value


class TlsSettings(Section):
    """How the endpoint and we prove to each other who we are, where the usual authorities are not enough (mTLS)."""

    certificate: Secret | None = None
    """Our certificate and its chain, PEM; `file:`, `secretsmanager:` or `ssm:`."""
    key: Secret | None = None
    """Its private key, PEM, not encrypted. Default: it stands in `certificate`, too."""
    authorities: Secret | None = None
    """Certificates, PEM, that the endpoint's must come from. Default: those that this machine trusts."""

    @model_validator(mode="after")
    def _says_something(self) -> TlsSettings:
        if self.certificate is None and self.key is not None:
            raise ValueError("key is set without a certificate; set certificate as well")
        if self.certificate is None and self.authorities is None:
            raise ValueError("it is empty; set certificate, authorities, or both")
        return self


class HttpTargetSettings(Section):
    """An HTTP endpoint that takes POST requests. Redirects are failures."""

    allow_plain_http: bool = False
    """Whether `url` may be plain HTTP beyond this machine. Default false: rows would travel in the clear."""
    url: str = Field(repr=False)
    """Where to send; https unless it is this machine."""
    batch: bool = False
    """
    false: a request's body is one event. true: `{"Records": [event, …]}`, up to `batch_size` of them. Default false, as
    receivers of webhooks expect.
    """
    auth: AuthSettings | None = None
    """How the request proves who sent it. Default: not at all."""
    signing: SigningSettings | None = None
    """Standard Webhooks signature. Default: none."""
    timeout_in_seconds: Timeout = 15.0
    """Seconds until a request without an answer counts as failed. Default 15, as webhook receivers are built for."""
    compression: Literal["gzip"] | None = None
    """gzip compresses each request's body. Default: none, as few receivers of webhooks expect it."""
    tls: TlsSettings | None = None
    """Client certificate and authorities. Default: no certificate, and the authorities that this machine trusts."""
    trace_headers: bool = True
    """Whether a request carries W3C's `traceparent`."""
    envelope: HttpEnvelopeName = "pgbridge"
    """Outer form of what is sent. Default: our own event."""

    @model_validator(mode="after")
    def _binary_is_single(self) -> HttpTargetSettings:
        if self.envelope == "cloudevents_binary" and self.batch:
            raise ValueError("envelope is cloudevents_binary and batch is true; it carries one event a request")
        return self

    @field_validator("url")
    @classmethod
    def _is_a_url(cls, value: str, info: ValidationInfo) -> str:
        return _check_url(value, allow_plain_http=info.data.get("allow_plain_http", False))


class TargetSettings(Section):
    """What is called: one function or one endpoint."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["lambda"]}, {"required": ["http"]}]})

    lambda_: LambdaTargetSettings | None = Field(default=None, alias="lambda")
    """An AWS Lambda function."""
    http: HttpTargetSettings | None = None
    """An HTTP endpoint."""

    @model_validator(mode="after")
    def _one_kind(self) -> TargetSettings:
        if (self.lambda_ is None) == (self.http is None):
            found = "neither is" if self.lambda_ is None else "both are"
            raise ValueError(f"it must hold one of lambda and http, and {found} set")
        return self

    @property
    def kind(self) -> Literal["lambda", "http"]:
        return "http" if self.lambda_ is None else "lambda"

    @property
    def envelope(self) -> EnvelopeName:
        if self.lambda_ is not None:
            return self.lambda_.envelope
        assert self.http is not None  # noqa: S101 - `_one_kind`
        return self.http.envelope

    @property
    def display_name(self) -> str:
        """What to call it in status, logs and letters: the function, or the endpoint's host without its path."""
        if self.lambda_ is not None:
            suffix = f":{self.lambda_.qualifier}" if self.lambda_.qualifier else ""
            return f"lambda:{self.lambda_.function_name}{suffix}"
        assert self.http is not None  # noqa: S101 - `_one_kind`
        parts = urlsplit(self.http.url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def fingerprint(self) -> str:
        """
        The same for as long as the same function or endpoint is called, however: 32 hexadecimal digits.

        A hash, for a URL may hold a secret; and how a call is proved, sent or waited for is not part of it.
        """
        if self.lambda_ is not None:
            name = self.lambda_
            parts = ["lambda", name.function_name, name.qualifier, name.region, name.endpoint_url]
        else:
            assert self.http is not None  # noqa: S101 - `_one_kind`
            parts = ["http", self.http.url]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
