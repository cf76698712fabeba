import json

import boto3
import httpx
import pytest
from moto import mock_aws


def failed(answer):
    return [int(item["itemIdentifier"].rpartition("-")[2]) for item in answer["batchItemFailures"]]


def reasons(log):
    """The last line of each logged traceback."""
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    return [
        line["exception"].splitlines()[-1].removeprefix("crm_contact_handler.") for line in lines if "exception" in line
    ]


def error(status, code, *, fields=None, headers=None):
    return status, [{"message": f"{code} quoting Rosalind", "errorCode": code, "fields": fields or []}], headers or {}


def test_a_user_who_signs_up_becomes_a_contact(crm_contact, salesforce, signup, context):
    batch = {"Records": [signup(0, 7, name="John Maria Doe", email="john@example.com"), signup(1, 8, name="Ada")]}

    assert crm_contact.lambda_handler(batch, context) == {"batchItemFailures": []}
    assert salesforce.contacts == {
        "7": {"FirstName": "John Maria", "LastName": "Doe", "Email": "john@example.com"},
        "8": {"LastName": "Ada"},
    }


def test_a_repeated_delivery_updates_the_same_contact(crm_contact, salesforce, signup, context):
    batch = {"Records": [signup(0, 7, name="John Doe", email="john@example.com")]}
    crm_contact.lambda_handler(batch, context)
    once = dict(salesforce.contacts)

    assert crm_contact.lambda_handler(batch, context) == {"batchItemFailures": []}
    assert salesforce.contacts == once


def test_an_answer_without_content_is_an_update_as_well(crm_contact, salesforce, signup, context):
    salesforce.scripted = [(204, None, {})]

    assert crm_contact.lambda_handler({"Records": [signup(0, 7, name="Ada")]}, context) == {"batchItemFailures": []}


def test_deleting_a_user_deletes_no_contact(crm_contact, salesforce, signup, context):
    crm_contact.lambda_handler({"Records": [signup(0, 7, name="Ada"), signup(1, 7, action="delete")]}, context)

    assert salesforce.contacts == {"7": {"LastName": "Ada"}}


def test_the_token_is_fetched_once_per_execution_environment(crm_contact, salesforce, signup, context):
    for ordinal in range(3):
        crm_contact.lambda_handler({"Records": [signup(ordinal, ordinal, name="Ada")]}, context)

    assert [method for method, _ in salesforce.requests] == ["POST", "PATCH", "PATCH", "PATCH"]


def test_an_expired_token_is_replaced_once_and_the_record_succeeds(crm_contact, salesforce, signup, context):
    crm_contact.lambda_handler({"Records": [signup(0, 7, name="Ada")]}, context)
    salesforce.tokens.clear()
    salesforce.requests.clear()

    assert crm_contact.lambda_handler({"Records": [signup(1, 8, name="John")]}, context) == {"batchItemFailures": []}
    assert [method for method, _ in salesforce.requests] == ["PATCH", "POST", "PATCH"]


def test_a_new_token_that_is_refused_too_is_a_fault_of_configuration(crm_contact, salesforce, signup, context, log):
    salesforce.scripted = [error(401, "INVALID_SESSION_ID"), error(401, "INVALID_SESSION_ID")]

    assert failed(crm_contact.lambda_handler({"Records": [signup(0, 7, name="Ada")]}, context)) == [0]
    (reason,) = reasons(log)
    assert reason.startswith("SalesforceMisconfigured: Salesforce refuses the request: HTTP 401 INVALID_SESSION_ID")
    assert [method for method, _ in salesforce.requests] == ["POST", "PATCH", "POST", "PATCH"]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"name": " "}, "ContactRejected: Salesforce rejects the contact: HTTP 400 REQUIRED_FIELD_MISSING (LastName)"),
        (
            {"name": "Rosalind", "email": "Rosalind"},
            "ContactRejected: Salesforce rejects the contact: HTTP 400 INVALID_EMAIL_ADDRESS (Email)",
        ),
    ],
)
def test_a_user_that_fails_validation_is_rejected_alone_by_code_and_field(
    crm_contact, salesforce, signup, context, log, columns, reason
):
    batch = {"Records": [signup(0, 7, name="Ada"), signup(1, 8, **columns), signup(2, 9, name="John")]}

    assert failed(crm_contact.lambda_handler(batch, context)) == [1]
    assert reasons(log) == [reason]
    assert salesforce.contacts.keys() == {"7", "9"}


@pytest.mark.parametrize(
    "answer",
    [
        error(403, "REQUEST_LIMIT_EXCEEDED"),
        error(429, "TOO_MANY_REQUESTS", headers={"Retry-After": "3"}),
        error(503, "SERVER_UNAVAILABLE"),
        error(500, "UNKNOWN_EXCEPTION"),
        error(400, "UNABLE_TO_LOCK_ROW"),
        (502, b"<html>Bad gateway</html>", {}),
        (None, None, {}),
    ],
    ids=["limit", "429", "503", "500", "lock", "proxy", "hang up"],
)
def test_not_now_fails_the_record_and_spares_the_rest_of_the_batch(
    crm_contact, salesforce, signup, context, log, answer
):
    batch = {"Records": [signup(0, 7, name="Ada"), signup(1, 8, name="John"), signup(2, 9, name="Jane")]}
    salesforce.scripted = [(204, None, {}), answer]

    assert failed(crm_contact.lambda_handler(batch, context)) == [1, 2]
    first, second = reasons(log)
    assert first.startswith("SalesforceUnavailable: ")
    assert second == "SalesforceUnavailable: not sent: Salesforce was unavailable earlier in this batch"
    assert [method for method, _ in salesforce.requests].count("PATCH") == 2

    assert crm_contact.lambda_handler({"Records": batch["Records"][1:]}, context) == {"batchItemFailures": []}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (error(403, "INSUFFICIENT_ACCESS_OR_READONLY"), "HTTP 403 INSUFFICIENT_ACCESS_OR_READONLY"),
        (error(404, "NOT_FOUND"), "HTTP 404 NOT_FOUND"),
        (error(400, "INVALID_FIELD", fields=["Email"]), "HTTP 400 INVALID_FIELD (Email)"),
        (
            (300, ["/services/data/v62.0/sobjects/Contact/003A", "/services/data/v62.0/sobjects/Contact/003B"], {}),
            "HTTP 300",
        ),
        ((302, None, {"Location": "https://login.example.com"}), "HTTP 302"),
    ],
    ids=["rights", "external id field", "column", "not unique", "redirect"],
)
def test_a_fault_of_configuration_is_told_apart_from_a_bad_record(
    crm_contact, salesforce, signup, context, log, answer, reason
):
    salesforce.scripted = [answer]

    assert failed(crm_contact.lambda_handler({"Records": [signup(0, 7, name="Ada")]}, context)) == [0]
    (logged,) = reasons(log)
    assert logged.startswith("SalesforceMisconfigured: ")
    assert reason in logged


def test_wrong_credentials_are_a_fault_of_configuration(crm_contact, salesforce, signup, context, log):
    salesforce.client_secret = "rotated"

    assert failed(crm_contact.lambda_handler({"Records": [signup(0, 7, name="Ada")]}, context)) == [0]
    (reason,) = reasons(log)
    assert reason.startswith("SalesforceMisconfigured: Salesforce gives no token: HTTP 400 invalid_client")


def test_neither_row_values_nor_the_secret_nor_the_token_are_logged(crm_contact, salesforce, signup, context, log):
    salesforce.scripted = [error(400, "STRING_TOO_LONG"), error(403, "REQUEST_LIMIT_EXCEEDED")]
    batch = {"Records": [signup(n, n, name="Rosalind", email="Rosalind@example.com") for n in range(3)]}

    assert failed(crm_contact.lambda_handler(batch, context)) == [0, 1, 2]
    logged = log.getvalue()
    assert "STRING_TOO_LONG" in logged
    for secret in ("Rosalind", "s3cret", *salesforce.tokens):
        assert secret not in logged


def test_a_time_out_says_not_now(crm_contact):
    def hang(request):
        raise httpx.ReadTimeout("timed out", request=request)

    client = httpx.Client(transport=httpx.MockTransport(hang))
    api = crm_contact.Salesforce(crm_contact.Settings("https://example.my.salesforce.com"), client)
    with client, pytest.raises(crm_contact.SalesforceUnavailable, match="ReadTimeout"):
        api.upsert_contact("7", {"LastName": "Doe"})


def test_the_instance_named_with_the_token_is_called_and_the_id_is_quoted(crm_contact):
    urls = []

    def answer(request):
        urls.append(str(request.url))
        if request.method == "POST":
            return httpx.Response(200, json={"access_token": "t", "instance_url": "https://eu1.my.salesforce.com/"})
        return httpx.Response(201, json={"created": True})

    client = httpx.Client(transport=httpx.MockTransport(answer))
    with client:
        api = crm_contact.Salesforce(crm_contact.Settings("https://example.my.salesforce.com"), client)
        assert api.upsert_contact("a/b?c", {"LastName": "Doe"}) is True
    assert urls == [
        "https://example.my.salesforce.com/services/oauth2/token",
        "https://eu1.my.salesforce.com/services/data/v62.0/sobjects/Contact/User_Id__c/a%2Fb%3Fc",
    ]


@pytest.mark.parametrize("url", ["", "example.my.salesforce.com", "http://example.my.salesforce.com"])
def test_an_address_that_would_send_the_secret_in_the_clear_is_refused(crm_contact, url):
    with pytest.raises(crm_contact.SalesforceMisconfigured, match="should look like https://"):
        crm_contact.Settings.read({"SALESFORCE_URL": url})


@mock_aws
def test_credentials_come_from_secrets_manager_where_it_is_named(crm_contact, monkeypatch):
    for name, value in {
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
    }.items():
        monkeypatch.setenv(name, value)
    secrets = boto3.client("secretsmanager")
    arn = secrets.create_secret(Name="crm", SecretString='{"client_id": "app", "client_secret": "one"}')["ARN"]
    environ = {"SALESFORCE_SECRET_ARN": arn, "SALESFORCE_CLIENT_SECRET": "ignored"}
    assert crm_contact.read_credentials(environ) == crm_contact.Credentials("app", "one")

    secrets.put_secret_value(SecretId=arn, SecretString='{"client_id": "app", "client_secret": "two"}')
    assert crm_contact.read_credentials(environ).client_secret == "two"
    assert "two" not in repr(crm_contact.read_credentials(environ))


def test_missing_credentials_are_a_fault_of_configuration(crm_contact):
    with pytest.raises(crm_contact.SalesforceMisconfigured, match="SALESFORCE_SECRET_ARN"):
        crm_contact.read_credentials({"SALESFORCE_CLIENT_ID": "app"})
