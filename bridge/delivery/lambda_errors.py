"""
What each error code of Lambda's Invoke API means for the records in the call. Pure.

The code decides, never the HTTP status: a throttled network interface and a disabled KMS key are both a 502, and a file
system that can't be mounted may be a 408 or a 403. The codes are those of the Invoke operation in the service model
(API version 2015-03-31), then those that every AWS service answers with.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class ErrorClass(Enum):
    """The rows of the delivery table that an API error can fall into."""

    BUSY = "busy"
    FAILED = "failed"
    MISCONFIGURED = "misconfigured"
    TOO_LARGE = "too large"
    REJECTED = "rejected"


BUSY: Final = frozenset(
    {
        # Throttles. The Reason in the body says which limit; all of them pass.
        "TooManyRequestsException",
        "EC2ThrottledException",
        "ServiceQuotaExceededException",
        # The function is being created, updated, restored, or its network or file system is being attached.
        "CodeArtifactUserPendingException",
        "EC2UnexpectedException",
        "EFSIOException",
        "EFSMountConnectivityException",
        "EFSMountTimeoutException",
        "ENILimitReachedException",
        "ENINotReadyException",
        "ResourceConflictException",
        "ResourceNotReadyException",
        "S3FilesMountConnectivityException",
        "S3FilesMountTimeoutException",
        "SnapStartException",
        "SnapStartNotReadyException",
        "SnapStartTimeoutException",
        "SubnetIPAddressLimitReachedException",
        # Any service's throttles, by the names that the SDKs know.
        "BandwidthLimitExceeded",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
    }
)

FAILED: Final = frozenset(
    {
        # Lambda's own fault, and whether the function ran is unknown.
        "InternalFailure",
        "InternalServerError",
        "InternalServiceError",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceException",
        # The same durable execution was started before with other content.
        "DurableExecutionAlreadyStartedException",
    }
)

TOO_LARGE: Final = frozenset({"RequestTooLargeException", "SerializedRequestEntityTooLargeException"})

REJECTED: Final = frozenset({"InvalidRequestContentException"})

_ROLE: Final = "let the role of this process call lambda:InvokeFunction on {function}"
_CREDENTIALS: Final = "renew the AWS credentials of this process; what they are now is refused"
_CLOCK: Final = "check the AWS credentials and the clock of this machine, then the region and endpoint of the target"
_KMS: Final = "let the function's role use the KMS key of {function}, and enable that key"
_VPC: Final = "correct the VPC configuration of {function}"
_RUNTIME: Final = "move {function} to a runtime that Lambda supports"
_CODE: Final = "deploy the code of {function} again"

MISCONFIGURED: Final = {
    "ResourceNotFoundException": "create {function}, or correct the function name, qualifier, region or account",
    "NoPublishedVersionException": "publish a version of {function}, or name another qualifier",
    "AccessDeniedException": _ROLE,
    "AccessDenied": _ROLE,
    "AuthorizationError": _ROLE,
    "AuthFailure": _CREDENTIALS,
    "NotAuthorized": _ROLE,
    "OptInRequired": "enable the region for this AWS account",
    "ExpiredToken": _CREDENTIALS,
    "ExpiredTokenException": _CREDENTIALS,
    "IncompleteSignature": _CLOCK,
    "IncompleteSignatureException": _CLOCK,
    "InvalidClientTokenId": _CREDENTIALS,
    "InvalidSignatureException": _CLOCK,
    "MissingAuthenticationToken": _CLOCK,
    "MissingAuthenticationTokenException": _CLOCK,
    "RequestExpired": _CLOCK,
    "SignatureDoesNotMatch": _CLOCK,
    "TokenRefreshRequired": _CREDENTIALS,
    "UnrecognizedClientException": _CREDENTIALS,
    "KMSAccessDeniedException": _KMS,
    "KMSDisabledException": _KMS,
    "KMSInvalidStateException": _KMS,
    "KMSNotFoundException": _KMS,
    "InvalidRuntimeException": _RUNTIME,
    "RuntimeAliasDeletedException": _RUNTIME,
    "RuntimeVersionDeletedException": _RUNTIME,
    "CodeArtifactUserDeletedException": _CODE,
    "CodeArtifactUserFailedException": _CODE,
    "InvalidZipFileException": _CODE,
    "SnapStartRegenerationFailureException": "publish a new version of {function}, so that a new snapshot is taken",
    "EC2AccessDeniedException": "let the function's role manage network interfaces (AWSLambdaVPCAccessExecutionRole)",
    "InvalidSecurityGroupIDException": _VPC,
    "InvalidSubnetIDException": _VPC,
    "EFSMountFailureException": "correct the EFS access point of {function} and the rights to it",
    "S3FilesMountFailureException": "correct the S3 Files access point of {function} and the rights to it",
    "InvalidParameterValueException": "check function name, qualifier and tenant of the target",
    "ModeNotSupportedException": "choose the invocation_type that {function} supports",
    "RecursiveInvocationException": (
        "break the loop: Lambda found that {function} invokes itself through what it writes; keep its writes out of "
        "the tables that trigger it"
    ),
    "UnsupportedMediaTypeException": "check what stands between this process and Lambda: it changed the content type",
}
"""Code to remedy; `{function}` stands for the function as configured."""

CREDENTIALS_REFUSED: Final = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidAccessKeyId",  # S3 alone says so, and InvalidToken
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
        # A role that was changed or swapped answers so until the new credentials are used.
        "AccessDenied",
        "AccessDeniedException",
    }
)
"""Worth fetching the credentials again before anybody is told to mend them."""

_ANY_4XX: Final = "look up this error code in the AWS documentation, and check the target's settings"
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404


def error_class(code: str, status: int) -> ErrorClass:
    """
    The class of an API error.

    An unknown code falls back on the status. Other than over plain HTTP an unknown 4xx is no verdict on the records:
    Lambda looks at nothing in them but that they are JSON, so it is the call that is wrong, and nothing is
    dead-lettered for it.
    """
    if code in BUSY:
        return ErrorClass.BUSY
    if code in MISCONFIGURED:
        return ErrorClass.MISCONFIGURED
    if code in TOO_LARGE:
        return ErrorClass.TOO_LARGE
    if code in REJECTED:
        return ErrorClass.REJECTED
    if code in FAILED:
        return ErrorClass.FAILED
    if status in {429, 503}:
        return ErrorClass.BUSY
    if status == 413:
        return ErrorClass.TOO_LARGE
    if status in {408, 425} or not 400 <= status < 500:
        return ErrorClass.FAILED
    return ErrorClass.MISCONFIGURED


def remedy(code: str, status: int, function: str) -> str:
    """What to do about an error of the class MISCONFIGURED."""
    known = MISCONFIGURED.get(code)
    if known is None:
        if status in {_UNAUTHORIZED, _FORBIDDEN}:
            known = _ROLE
        elif status == _NOT_FOUND:
            known = MISCONFIGURED["ResourceNotFoundException"]
        else:
            known = _ANY_4XX
    return known.format(function=function)
