"""From a trigger's settings to its target."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path

from yarl import URL

from bridge.clock import Clock, SystemClock
from bridge.config import AuthSettings, HttpTargetSettings, LambdaTargetSettings, TriggerSettings
from bridge.config.targets import EnvelopeName
from bridge.delivery.aws import AwsCredentials
from bridge.delivery.aws_lambda import LambdaTarget
from bridge.delivery.batch_response import Report
from bridge.delivery.claim_check import ClaimCheckTarget
from bridge.delivery.http import AwsSigning, HttpTarget
from bridge.delivery.http_client import HttpClient
from bridge.delivery.identity import IdentityKeeper, OAuth2Client, Proofs
from bridge.delivery.on_failure import AwsDestination, Bucket
from bridge.delivery.target import Target
from bridge.delivery.tls import ClientTls
from bridge.errors import ConfigError
from bridge.secret import SecretResolver
from bridge.triggers.forms import FORMS, Form, Origin
from bridge.triggers.transform import Transform


def build_target(
    trigger: str, settings: TriggerSettings, secrets: SecretResolver, *, clock: Clock | None = None
) -> Target:
    """
    The target of one trigger. Connects to nothing: what can't be reached or read is found by `check` or the first call.

    Raises:
        ConfigError: the settings name no target.
    """
    target = _bare_target(trigger, settings, secrets, clock or SystemClock())
    check = settings.claim_check
    if check is None:
        return target
    most_bytes = settings.maximum_batch_bytes
    return ClaimCheckTarget(target, bucket=check.bucket, prefix=check.prefix, most_bytes=most_bytes)


def is_batched(settings: TriggerSettings) -> bool:
    """Whether a call may carry several events."""
    http = settings.target.http
    if http is not None:
        return http.batch
    # CloudEvents are batched only where that is asked for, by a receiver that knows them.
    return settings.target.envelope != "cloudevents" or (
        "batch_size" in settings.model_fields_set and settings.batch_size > 1
    )


def build_destination(settings: TriggerSettings) -> AwsDestination | None:
    """Whom to tell of the trigger's dead letters, besides the table; connects to nothing."""
    if settings.on_failure is None:
        return None
    check = settings.claim_check
    overflow = None if check is None else Bucket(check.bucket, check.prefix)
    return AwsDestination(settings.on_failure.destination, overflow=overflow)


def build_form(trigger: str, system_identifier: str, envelope: EnvelopeName) -> Form | None:
    """What the trigger's events are put into; None for our own form."""
    return None if envelope == "pgbridge" else FORMS[envelope](Origin(trigger, system_identifier))


def load_transform(name: str | None, *, trigger: str | None = None) -> Transform | None:
    """
    Import a trigger's transform, `module:function`; modules are also looked for in the working directory.

    Raises:
        ConfigError: there is no such module or function, or it can't be imported.
    """
    if name is None:
        return None
    module, _, function = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    setting = "transform" if trigger is None else f"triggers.{trigger}.transform"
    try:
        found = getattr(importlib.import_module(module), function, None)
    except Exception as error:
        raise ConfigError(
            f"{setting}: {module} can't be imported: {type(error).__name__}: {error}",
            remedy="put the module into the working directory or on PYTHONPATH, and import it in Python to see why",
            trigger=trigger,
        ) from error
    if not callable(found) or inspect.iscoroutinefunction(found):
        raise ConfigError(
            f"{setting}: {module} has no function {function}" + (" that is not async" if callable(found) else ""),
            remedy="define it as: def " + function + "(event): return event",
            trigger=trigger,
        )
    return Transform(name, found)


def _bare_target(trigger: str, settings: TriggerSettings, secrets: SecretResolver, clock: Clock) -> Target:
    report = _report(settings)
    if settings.target.lambda_ is not None:
        return _lambda_target(settings.target.lambda_, report, clock)
    if settings.target.http is not None:
        return _http_target(settings.target.http, report, secrets, clock)
    raise ConfigError(
        f"triggers.{trigger}.target names no target", remedy="set lambda or http under it", trigger=trigger
    )


def _report(settings: TriggerSettings) -> Report:
    if "ReportBatchItemFailures" not in settings.function_response_types:
        return Report.IGNORED
    # Whoever wrote the setting says that the handler reports. The default only leaves room for it.
    return Report.EXPECTED if "function_response_types" in settings.model_fields_set else Report.WELCOME


def _lambda_target(settings: LambdaTargetSettings, report: Report, clock: Clock) -> LambdaTarget:
    return LambdaTarget(
        function_name=settings.function_name,
        qualifier=settings.qualifier,
        event=settings.invocation_type == "Event",
        report=report,
        credentials=AwsCredentials(clock, role_arn=settings.role_arn, region=settings.region),
        # The operator chose Lambda's endpoint; local stand-ins go by many names.
        client=HttpClient(loopback_by_any_name=True),
        clock=clock,
        region=settings.region,
        endpoint_url=settings.endpoint_url,
        timeout_seconds=settings.timeout_in_seconds if "timeout_in_seconds" in settings.model_fields_set else None,
        tenant_id=settings.tenant_id,
        tenant_column=settings.tenant_id_column,
        durable=settings.durable_execution_name,
        traced=settings.trace_headers,
    )


def _http_target(settings: HttpTargetSettings, report: Report, secrets: SecretResolver, clock: Clock) -> HttpTarget:
    auth = settings.auth or AuthSettings.model_construct()
    aws = None
    if auth.sigv4 is not None:
        aws = AwsSigning(AwsCredentials(clock, region=auth.sigv4.region), auth.sigv4.service, auth.sigv4.region)
    client = HttpClient()
    proofs = Proofs(
        bearer=auth.bearer,
        basic=None if auth.basic is None else (auth.basic.username, auth.basic.password),
        oauth2=None
        if auth.oauth2 is None
        else OAuth2Client(
            URL(auth.oauth2.token_url), auth.oauth2.client_id, auth.oauth2.client_secret, auth.oauth2.scope
        ),
        headers=auth.headers,
        signing=() if settings.signing is None else settings.signing.secrets,
    )
    return HttpTarget(
        url=settings.url,
        keeper=IdentityKeeper(proofs, secrets, client, clock),
        client=client,
        clock=clock,
        timeout_seconds=settings.timeout_in_seconds,
        report=report if settings.batch else Report.IGNORED,
        aws=aws,
        tls=None
        if settings.tls is None
        else ClientTls(
            secrets,
            certificate=settings.tls.certificate,
            key=settings.tls.key,
            authorities=settings.tls.authorities,
        ),
        compressed=settings.compression == "gzip",
        traced=settings.trace_headers,
    )
