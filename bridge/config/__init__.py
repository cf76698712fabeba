"""
Configuration: text to frozen, validated settings, or a `ConfigError` that names each wrong key and its fix.

Comes in: a YAML file and the environment. Goes out: `Settings`, in which every default is filled in and every value is
within its range, so that no room behind this one has to check a setting again.

`document.py` reads YAML and remembers where each key stands; `variables.py` puts the environment's values in; then
`settings.py`, `trigger.py` and `targets.py` validate, and `problems.py` says in the user's words what was wrong.
"""

from bridge.config.load import load, parse
from bridge.config.reshaping import ColumnSettings
from bridge.config.schema import json_schema
from bridge.config.settings import Address, AdminSettings, Settings, SourceSettings, StoreSettings
from bridge.config.targets import (
    AuthSettings,
    BasicAuth,
    HttpTargetSettings,
    LambdaTargetSettings,
    OAuth2,
    SigningSettings,
    SigV4Auth,
    TargetSettings,
    check_signing_secret,
)
from bridge.config.trigger import (
    BacklogSettings,
    CircuitBreakerSettings,
    ClaimCheckSettings,
    OnFailureSettings,
    TriggerSettings,
)

__all__ = [
    "Address",
    "AdminSettings",
    "AuthSettings",
    "BacklogSettings",
    "BasicAuth",
    "CircuitBreakerSettings",
    "ClaimCheckSettings",
    "ColumnSettings",
    "HttpTargetSettings",
    "LambdaTargetSettings",
    "OAuth2",
    "OnFailureSettings",
    "Settings",
    "SigV4Auth",
    "SigningSettings",
    "SourceSettings",
    "StoreSettings",
    "TargetSettings",
    "TriggerSettings",
    "check_signing_secret",
    "json_schema",
    "load",
    "parse",
]
