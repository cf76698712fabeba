"""
What a call costs: the same number of calls to the same receiver, made with the bare library, as a process of its own.

    python -m benchmarks.calls aiohttp|boto3 URL CALLS CONCURRENCY < EVENT

Prints one line of JSON: when the first call was made, and the CPU used from then on.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import aiohttp

from bridge.cli.run import loop_factory


def main() -> None:
    library, url, calls, concurrency = sys.argv[1:]
    body = sys.stdin.buffer.read()
    if library == "aiohttp":
        with asyncio.Runner(loop_factory=loop_factory()) as runner:  # the loop that `pgbridge run` has
            began = runner.run(with_aiohttp(url, body, int(calls), int(concurrency)))
    else:
        began = with_boto3(url, body, int(calls), int(concurrency))
    began_at, before = began
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = {"user_seconds": after.ru_utime - before.ru_utime, "system_seconds": after.ru_stime - before.ru_stime}
    print(json.dumps({"began_at": began_at, **used}))


Began = tuple[float, resource.struct_rusage]


async def with_aiohttp(url: str, body: bytes, calls: int, concurrency: int) -> Began:
    """One session, as many tasks as calls may be in flight, nothing else."""
    headers = {"Content-Type": "application/json"}
    numbers = iter(range(calls))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def call() -> None:
            for _ in numbers:
                async with session.post(url, data=body, headers=headers) as response:
                    await response.read()
                    response.raise_for_status()

        began = _now()
        await asyncio.gather(*(call() for _ in range(concurrency)))
    return began


def with_boto3(url: str, body: bytes, calls: int, concurrency: int) -> Began:
    """One client, as many threads as calls may be in flight, its own retries off."""
    import boto3  # noqa: PLC0415 - the other library's process needs none of it
    from botocore.config import Config  # noqa: PLC0415 - as above

    client = boto3.client(
        "lambda",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="nobody",
        aws_secret_access_key="nothing",
        config=Config(max_pool_connections=concurrency, retries={"total_max_attempts": 1}),
    )

    def call(numbers: Iterator[int]) -> None:
        for _ in numbers:
            client.invoke(FunctionName="bench", Payload=body)["Payload"].read()

    share = [range(first, calls, concurrency) for first in range(concurrency)]
    began = _now()
    with ThreadPoolExecutor(concurrency) as pool:
        for done in [pool.submit(call, iter(numbers)) for numbers in share]:
            done.result()
    return began


def _now() -> Began:
    return time.time(), resource.getrusage(resource.RUSAGE_SELF)


if __name__ == "__main__":
    main()
