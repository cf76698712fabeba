"""
Makes each user who signs up a contact in Salesforce; invoked for inserts into, and updates of, `users`.

A contact is upserted by external id, the user's own id, so that a repeated delivery writes the same contact again and
never a second one. Salesforce's answers become one of three errors, all of which fail the record:

- `SalesforceUnavailable`: rate limit, maintenance, lock, time-out. Nothing is wrong with the record; it is retried. The
  rest of the batch is not sent, since it would only meet the same limit.
- `ContactRejected`: this user does not pass Salesforce's validation, and would not the next time. The record ends as a
  dead letter whose reason names Salesforce's error codes and fields; mend the row or the rule, then replay it.
- `SalesforceMisconfigured`: credentials, rights, object, external id field. Every record fails until that is mended.

Settings, from the environment:

    SALESFORCE_URL                https://example.my.salesforce.com
    SALESFORCE_SECRET_ARN         a secret {"client_id": …, "client_secret": …} in Secrets Manager; or else
    SALESFORCE_CLIENT_ID, SALESFORCE_CLIENT_SECRET
    SALESFORCE_EXTERNAL_ID_FIELD  a unique external id of Contact (default User_Id__c)
    SALESFORCE_API_VERSION        (default v62.0)
"""

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel

from bridge.handlers import Event, process_changes

# The traceback once, as text: the dead letter keeps no more than the last 4 KB that were logged.
logger = Logger(service="crm-contact", serialize_stacktrace=False)

TIMEOUT_SECONDS = 10.0
"""Well below the function's own, so that a hanging Salesforce fails one record and not the invocation."""

RETRYABLE = frozenset({"REQUEST_LIMIT_EXCEEDED", "SERVER_UNAVAILABLE", "UNABLE_TO_LOCK_ROW", "UNKNOWN_EXCEPTION"})
"""Salesforce's error codes that say `not now`, whatever the HTTP status."""

MISCONFIGURED = frozenset({"INVALID_FIELD", "INVALID_TYPE", "INVALID_FIELD_FOR_INSERT_UPDATE"})
"""Its codes, with HTTP 400, for a field or an object that does not exist or may not be written."""


class SalesforceUnavailable(Exception):
    """Not now; the same request may succeed later."""


class SalesforceMisconfigured(Exception):
    """No request can succeed until somebody changes settings, here or in Salesforce."""


class ContactRejected(Exception):
    """Salesforce refuses this contact, and would again."""


class User(BaseModel):
    """The columns that are used; others may come and go."""

    id: int
    name: str | None = None
    email: str | None = None


@dataclass(frozen=True)
class Settings:
    """See the top of the page."""

    url: str
    external_id_field: str = "User_Id__c"
    api_version: str = "v62.0"

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Settings":
        """
        From the environment.

        Raises:
            SalesforceMisconfigured: SALESFORCE_URL is not set, or would send the secret in the clear.
        """
        url = environ.get("SALESFORCE_URL", "")
        parts = urlsplit(url)
        if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost"):
            raise SalesforceMisconfigured(
                f"SALESFORCE_URL is {url!r}; it should look like https://example.my.salesforce.com"
            )
        return cls(
            url=url.rstrip("/"),
            external_id_field=environ.get("SALESFORCE_EXTERNAL_ID_FIELD") or cls.external_id_field,
            api_version=environ.get("SALESFORCE_API_VERSION") or cls.api_version,
        )


@dataclass(frozen=True)
class Credentials:
    """Of a connected app with the client credentials flow."""

    client_id: str
    client_secret: str = field(repr=False)


def read_credentials(environ: Mapping[str, str]) -> Credentials:
    """
    From Secrets Manager where `SALESFORCE_SECRET_ARN` is set, else from the environment.

    Raises:
        SalesforceMisconfigured: one of the two is missing.
    """
    values: Mapping[str, Any] = {
        "client_id": environ.get("SALESFORCE_CLIENT_ID"),
        "client_secret": environ.get("SALESFORCE_CLIENT_SECRET"),
    }
    if arn := environ.get("SALESFORCE_SECRET_ARN"):
        from aws_lambda_powertools.utilities.parameters import get_secret  # noqa: PLC0415  # imports boto3

        # Only called for a new token, which after a rotation of the secret must be asked for with the new one.
        values = get_secret(arn, transform="json", force_fetch=True)
    if not values.get("client_id") or not values.get("client_secret"):
        raise SalesforceMisconfigured(
            "client_id or client_secret is missing; set SALESFORCE_SECRET_ARN, "
            "or SALESFORCE_CLIENT_ID and SALESFORCE_CLIENT_SECRET"
        )
    return Credentials(values["client_id"], values["client_secret"])


def contact_fields(user: User) -> dict[str, str]:
    """
    A user as a Contact. What is missing is left out; LastName is the field that Salesforce requires.

    A name's last word is the last name: right for most names, and a line to change for the rest.
    """
    first_name, _, last_name = (user.name or "").strip().rpartition(" ")
    fields = {"FirstName": first_name.strip(), "LastName": last_name, "Email": (user.email or "").strip()}
    return {name: value for name, value in fields.items() if value}


def failure(response: httpx.Response) -> Exception:
    """
    What a response other than 2xx means. Salesforce answers with `[{"message", "errorCode", "fields"}, …]`.

    Codes and field names go into the error; messages don't, because they quote what was sent.
    """
    errors = _errors(response)
    codes = [str(error["errorCode"]) for error in errors if error.get("errorCode")]
    fields = sorted({str(name) for error in errors for name in error.get("fields") or ()})
    reason = f"HTTP {response.status_code}"
    if codes:
        reason += f" {', '.join(codes)}"
    if fields:
        reason += f" ({', '.join(fields)})"
    if response.status_code in (408, 429) or response.status_code >= 500 or not RETRYABLE.isdisjoint(codes):
        return SalesforceUnavailable(f"Salesforce can't take the contact now: {reason}")
    if response.status_code == 300:
        return SalesforceMisconfigured(f"more than one contact has this external id: {reason}; make the field unique")
    if response.status_code == 400 and MISCONFIGURED.isdisjoint(codes):
        return ContactRejected(f"Salesforce rejects the contact: {reason}")
    return SalesforceMisconfigured(
        f"Salesforce refuses the request: {reason}; check SALESFORCE_URL, SALESFORCE_EXTERNAL_ID_FIELD, "
        "SALESFORCE_API_VERSION and the rights of the connected app"
    )


def _errors(response: httpx.Response) -> list[dict[str, Any]]:
    body = _json(response)
    return [error for error in body if isinstance(error, dict)] if isinstance(body, list) else []


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:  # a proxy's page, say
        return None


class Salesforce:
    """
    The REST API, as far as it is needed: a token, and an upsert.

    Made once per execution environment: connections and the token are worth keeping from one invocation to the next.
    """

    def __init__(self, settings: Settings, client: httpx.Client) -> None:
        self._settings = settings
        self._client = client
        self._token: str | None = None
        self._instance_url = settings.url

    def upsert_contact(self, external_id: str, fields: dict[str, str]) -> bool:
        """
        Create or update the contact with this external id; True if it was created.

        Raises:
            SalesforceUnavailable, SalesforceMisconfigured, ContactRejected: as at the top of the page.
        """
        response = self._patch(external_id, fields)
        if response.status_code == 401:
            # The token has expired (INVALID_SESSION_ID), which is not told in advance: once with a new one.
            self._token = None
            response = self._patch(external_id, fields)
        if response.status_code in (200, 201, 204):
            return response.status_code == 201
        raise failure(response)

    def _patch(self, external_id: str, fields: dict[str, str]) -> httpx.Response:
        token = self._token or self._fetch_token()
        settings = self._settings
        # The external id stands in the URL alone: Salesforce refuses it in the body of an upsert by it.
        path = f"sobjects/Contact/{quote(settings.external_id_field, safe='')}/{quote(external_id, safe='')}"
        return self._send(
            "PATCH",
            f"{self._instance_url}/services/data/{settings.api_version}/{path}",
            json=fields,
            headers={"Authorization": f"Bearer {token}"},
        )

    def _fetch_token(self) -> str:
        credentials = read_credentials(os.environ)
        response = self._send(
            "POST",
            f"{self._settings.url}/services/oauth2/token",
            data={
                "grant_type": "client_credentials",
                "client_id": credentials.client_id,
                "client_secret": credentials.client_secret,
            },
        )
        if response.status_code == 429 or response.status_code >= 500:
            raise SalesforceUnavailable(f"Salesforce gives no token now: HTTP {response.status_code}")
        body = _json(response)
        answer = body if isinstance(body, dict) else {}
        if response.status_code != 200 or "access_token" not in answer:
            raise SalesforceMisconfigured(
                f"Salesforce gives no token: HTTP {response.status_code} {answer.get('error', '')}; "
                "check the client id, the client secret and SALESFORCE_URL"
            )
        self._token = str(answer["access_token"])
        self._instance_url = str(answer.get("instance_url") or self._settings.url).rstrip("/")
        return self._token

    def _send(self, method: str, url: str, **arguments: Any) -> httpx.Response:
        try:
            return self._client.request(method, url, **arguments)
        except httpx.RequestError as error:
            raise SalesforceUnavailable(f"no answer from Salesforce: {type(error).__name__}") from error


@functools.cache
def salesforce() -> Salesforce:
    """The one of this execution environment."""
    return Salesforce(Settings.read(os.environ), httpx.Client(timeout=TIMEOUT_SECONDS))


class Signups:
    """One invocation's users, until Salesforce turns out to be unavailable."""

    def __init__(self) -> None:
        self._unavailable: SalesforceUnavailable | None = None

    def save(self, event: Event[User]) -> None:
        """Make a user a contact. Deleting a user deletes no contact: a CRM keeps its own history."""
        if event.action == "delete":
            return
        if self._unavailable is not None:
            raise SalesforceUnavailable("not sent: Salesforce was unavailable earlier in this batch")
        try:
            created = salesforce().upsert_contact(str(event.record.id), contact_fields(event.record))
        except SalesforceUnavailable as error:
            self._unavailable = error
            raise
        logger.info("contact created" if created else "contact updated", event_id=event.id)


@logger.inject_lambda_context
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> Any:
    return process_changes(event, Signups().save, model=User, context=context, logger=logger)
