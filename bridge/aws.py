"""The one way to a session of the AWS SDK; botocore is imported when it is first used."""

from __future__ import annotations

import os
from functools import cache
from typing import Any


def new_session() -> Any:
    """
    What the SDK finds now: a session reads its settings and its credentials once, so each question gets a new one.

    botocore's, without boto3 around it: all of them can then share the parsed service models, and a client costs 8 ms
    of CPU in place of 80, which the reader of the stream would have to wait for.
    """
    import botocore.session  # noqa: PLC0415 - a process without AWS never pays for it

    session = botocore.session.Session()
    session.register_component("data_loader", _loader())
    # Alone among the SDKs, botocore does not read AWS_REGION, which is all that ECS sets.
    if region := os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("AWS_REGION"):
        session.set_config_variable("region", region)
    return session


@cache
def _loader() -> Any:
    from botocore.loaders import create_loader  # noqa: PLC0415 - as above

    return create_loader()
