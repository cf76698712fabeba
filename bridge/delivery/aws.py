"""
What the AWS SDK does for delivery, all of it apart from the calls that are hot: credentials, regions and endpoints.

The SDK's own rules hold, so whatever works for other AWS programs works here: environment, shared files, SSO, container
and instance roles, web identity; AWS_ENDPOINT_URL and the profile's settings. botocore is imported when the first AWS
target is used, and everything that may reach the network runs in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from bridge.aws import new_session
from bridge.clock import Clock
from bridge.delivery.addresses import is_loopback_host
from bridge.delivery.sigv4 import AwsKeys

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

_T = TypeVar("_T")

KEPT_SECONDS: Final = 30.0
"""
How long keys are used without asking botocore again. It renews temporary ones 15 minutes before they end, so nothing
is lost by asking twice a minute; and asking for each call would cost more than signing it.
"""

LACK_SECONDS: Final = 2.0
"""
How long it is believed that there are none. Looking everywhere costs 20 ms of CPU, and seconds where a machine has no
metadata service; the calls that a trigger makes at once share one look, and its next probe looks again.
"""

ANYBODY: Final = AwsKeys("local", "local")
"""A stand-in on this machine checks no signature; who runs one should not need an AWS account to do so."""

_NO_CREDENTIALS: Final = (
    "there are no AWS credentials",
    "give the process a role, or set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
)

_PASSING: Final = frozenset(
    {"Throttling", "ThrottlingException", "RequestLimitExceeded", "ServiceUnavailable", "InternalFailure"}
)


class AwsUnusable(Exception):
    """The SDK can't be used as it is set up; `lasting` tells a fault of configuration from one that may pass."""

    def __init__(self, error: str, remedy: str, *, lasting: bool = True) -> None:
        super().__init__(error)
        self.error = error
        self.remedy = remedy
        self.lasting = lasting


class NoAwsCredentials(AwsUnusable):
    """Nothing on this machine says who it is."""


class NoAwsRegion(AwsUnusable):
    """Nothing on this machine says where it is."""


class AwsCredentials:
    """
    The keys of one identity: the process's own, or a role that it assumes.

    Args:
        clock: the time.
        role_arn: of the role.
        region: where it is assumed; None for the SDK's own.
    """

    def __init__(self, clock: Clock, *, role_arn: str | None = None, region: str | None = None) -> None:
        self._clock = clock
        self._role_arn = role_arn
        self._region = region
        self._source: Any = None
        self._keys: AwsKeys | None = None
        self._asked_at = 0.0
        self._lack: AwsUnusable | None = None
        self._lacked_at = 0.0
        self._in_doubt = False
        self._lock = asyncio.Lock()

    async def keys(self, *, stand_in: bool = False) -> AwsKeys:
        """
        The keys to sign with now.

        Args:
            stand_in: whether what is called is on this machine. Then nothing outside of it is asked, and where there
                are no keys, made-up ones do, until they are refused.

        Raises:
            AwsUnusable: there are none, or their source did not answer.
        """
        keys = self._keys
        if keys is not None and self._clock.monotonic() - self._asked_at < KEPT_SECONDS:
            return keys
        async with self._lock:
            now = self._clock.monotonic()
            if self._lack is not None and now - self._lacked_at < LACK_SECONDS:
                raise self._lack.with_traceback(None)
            if self._keys is None or now - self._asked_at >= KEPT_SECONDS:
                await self._ask(anew=False, stand_in=stand_in)
            assert self._keys is not None  # noqa: S101 - `_ask` raised otherwise
            return self._keys

    def proved(self) -> None:
        """The keys were accepted."""
        self._in_doubt = False

    async def renew(self, refused: AwsKeys) -> bool:
        """
        Look for credentials from the start and everywhere, because these were refused.

        Returns:
            True where it is worth trying again: there are other keys now. After that, only once they were accepted:
            a role gives new keys each time, whatever it may not do.
        """
        async with self._lock:
            if self._keys is not refused:
                return True
            try:
                await self._ask(anew=True)
            except AwsUnusable:
                return False
            if self._keys == refused:
                return False
            first = not self._in_doubt
            self._in_doubt = True
            return first

    async def _ask(self, *, anew: bool, stand_in: bool = False) -> None:
        source = None if anew else self._source
        try:
            found, keys = await asyncio.to_thread(self._read, source, stand_in=stand_in)
        except AwsUnusable as unusable:
            if not anew:  # those that were refused are what the next probe sends, until there are others
                self._lack = unusable
                self._lacked_at = self._clock.monotonic()
            raise
        self._source, self._lack = found, None
        if keys != self._keys:
            self._keys = keys  # kept as one object while it is the same: the signer's cache goes by identity
        self._asked_at = self._clock.monotonic()

    def _read(self, source: Any, *, stand_in: bool) -> tuple[Any, AwsKeys]:
        def read() -> tuple[Any, AwsKeys]:
            found = source if source is not None else self._find(stand_in=stand_in)
            frozen = found.get_frozen_credentials()
            return found, AwsKeys(frozen.access_key, frozen.secret_key, frozen.token)

        return _translated(read)

    def _find(self, *, stand_in: bool) -> Any:
        from botocore.credentials import (  # noqa: PLC0415 - see the module
            AssumeRoleCredentialFetcher,
            Credentials,
            DeferredRefreshableCredentials,
        )

        session = new_session()
        own = _own_credentials(session, stand_in=stand_in)
        if own is None and stand_in:
            return Credentials(ANYBODY.access_key, ANYBODY.secret_key)
        if own is None:
            raise NoAwsCredentials(*_NO_CREDENTIALS)
        if self._role_arn is None:
            return own
        region = self._region

        def create_client(service: str, **arguments: Any) -> Any:
            return session.create_client(service, region_name=region, **arguments)

        fetcher = AssumeRoleCredentialFetcher(
            client_creator=create_client,
            source_credentials=own,
            role_arn=self._role_arn,
            extra_args={"RoleSessionName": "pgbridge"},
        )
        return DeferredRefreshableCredentials(method="assume-role", refresh_using=fetcher.fetch_credentials)


def _own_credentials(session: Any, *, stand_in: bool) -> Any:
    """
    What the SDK finds, or None; for a stand-in on this machine without the instance's own role.

    Where there is no instance, that question goes to an address that may not answer for seconds, and where there is
    one, its keys are not for a stand-in.
    """
    if stand_in:
        session.get_component("credential_provider").remove("iam-role")
    return session.get_credentials()


def region_of(function_name: str) -> str | None:
    """The region in a function's ARN; None for a name or a partial ARN."""
    parts = function_name.split(":")
    return parts[3] if parts[0] == "arn" and len(parts) > 3 and parts[3] else None


def lambda_client(
    *, region: str | None, endpoint_url: str | None, keys: AwsKeys | None, read_timeout_seconds: float = 10.0
) -> LambdaClient:
    """
    A Lambda client with the SDK's own retries off. Blocks; call it, and its methods, in a thread.

    Raises:
        AwsUnusable: no region, or a profile that does not exist.
    """

    def make() -> LambdaClient:
        from botocore.config import Config  # noqa: PLC0415 - see the module

        config = Config(
            connect_timeout=5, read_timeout=read_timeout_seconds, retries={"mode": "standard", "total_max_attempts": 1}
        )
        client: LambdaClient = new_session().create_client(
            "lambda",
            region_name=region,
            endpoint_url=endpoint_url,
            aws_access_key_id=keys.access_key if keys else None,
            aws_secret_access_key=keys.secret_key if keys else None,
            aws_session_token=keys.token if keys else None,
            config=config,
        )
        return client

    return _translated(make)


def service_client(service: str, *, region: str | None) -> Any:
    """
    A client for calls that are not hot, with a few retries of the SDK's own. Blocks; call it, and its methods, in a
    thread; a client may be used by several. Temporary credentials are renewed by the SDK.

    Raises:
        AwsUnusable: no credentials, no region, or a profile that does not exist.
    """

    def make() -> Any:
        from botocore.config import Config  # noqa: PLC0415 - see the module

        config = Config(connect_timeout=5, read_timeout=30, retries={"mode": "standard", "total_max_attempts": 3})
        session = new_session()
        # With made-up keys first, which sign nothing yet: only the client knows where it will send things.
        client = session.create_client(
            service,
            region_name=region,
            config=config,
            aws_access_key_id=ANYBODY.access_key,
            aws_secret_access_key=ANYBODY.secret_key,
        )
        stand_in = is_loopback_host(urlsplit(client.meta.endpoint_url).hostname or "")
        own = _own_credentials(session, stand_in=stand_in)
        if own is None and stand_in:
            return client
        client.close()
        if own is None:
            # The SDK would make a client that goes on without any, also when there are some.
            raise NoAwsCredentials(*_NO_CREDENTIALS)
        return session.create_client(service, region_name=region, config=config)

    return _translated(make)


def default_region() -> str | None:
    """The SDK's own region. Blocks for a file or two."""
    region: str | None = _translated(lambda: new_session().get_config_variable("region"))
    return region


def _translated(call: Callable[[], _T]) -> _T:
    from botocore import exceptions  # noqa: PLC0415 - see the module

    try:
        return call()
    except exceptions.NoRegionError as error:
        raise NoAwsRegion("no AWS region is set", "set the target's region, or AWS_REGION") from error
    except exceptions.ProfileNotFound as error:
        raise AwsUnusable("the AWS profile does not exist", "correct AWS_PROFILE") from error
    except exceptions.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        raise AwsUnusable(
            f"the AWS credentials can't be had: {code}",
            "let this process assume the target's role (the role's trust policy, and sts:AssumeRole)",
            lasting=code not in _PASSING,
        ) from error
    except (
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.MetadataRetrievalError,
        exceptions.CredentialRetrievalError,
    ) as error:
        raise AwsUnusable(
            f"the AWS credentials can't be had now: {type(error).__name__}",
            "see whether the source of the AWS credentials answers",
            lasting=False,
        ) from error
    except RuntimeError as error:
        # What botocore raises when a source goes on handing out keys that have ended.
        raise AwsUnusable("the AWS credentials have expired", "renew them at their source") from error
    except exceptions.BotoCoreError as error:
        raise AwsUnusable(
            f"the AWS SDK can't be used as it is set up: {type(error).__name__}",
            "check the AWS settings of this process (AWS_… variables, and the files that they name)",
        ) from error
