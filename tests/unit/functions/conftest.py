"""The functions as Lambda loads them, and a stand-in for the API that one of them calls."""

import contextlib
import importlib.util
import io
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote

import pytest

FUNCTIONS = Path(__file__).parents[3] / "functions"


@pytest.fixture
def log():
    """What the function under test logged; a line each."""
    return io.StringIO()


@pytest.fixture
def load_function(log):
    """`load_function("welcome_user")`: the module `handler` of a fresh execution environment."""
    loaded = []

    def load(name):
        spec = importlib.util.spec_from_file_location(f"{name}_handler", FUNCTIONS / name / "handler.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # pydantic looks a class's module up there
        loaded.append(spec.name)
        spec.loader.exec_module(module)
        for handler in module.logger.handlers:  # shared by all loggers of this name, like all of logging
            handler.setStream(log)
        return module

    yield load
    for name in loaded:
        sys.modules.pop(name, None)


class Salesforce:
    """
    As much of Salesforce's REST API as an upsert by external id needs, with its documented answers.

    REST API Developer Guide, "Insert or Update (Upsert) a Record Using an External ID" and "Status Codes and Error
    Responses"; OAuth 2.0 client credentials flow.
    """

    EXTERNAL_ID_FIELD = "User_Id__c"
    COLUMNS = frozenset({"FirstName", "LastName", "Email"})

    def __init__(self):
        self.contacts = {}
        self.tokens = set()
        self.requests = []
        self.client_secret = "s3cret"
        self.scripted = []
        """Answers `(status, body, headers)` to give to the next upserts, before any of its own."""
        self.url = None

    def answer(self, method, path, headers, body):
        """Returns (status, JSON body or None, headers)."""
        self.requests.append((method, path))
        if (method, path) == ("POST", "/services/oauth2/token"):
            return self._token(parse_qs(body.decode()))
        if headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            return self._error(401, "INVALID_SESSION_ID", "Session expired or invalid")
        if self.scripted:
            return self.scripted.pop(0)
        *root, sobject, field, external_id = unquote(path).strip("/").split("/")
        if method != "PATCH" or root != ["services", "data", "v62.0", "sobjects"] or sobject != "Contact":
            return self._error(404, "NOT_FOUND", "The requested resource does not exist")
        if field != self.EXTERNAL_ID_FIELD:
            return self._error(
                404, "NOT_FOUND", f"Provided external ID field does not exist or is not accessible: {field}"
            )
        return self._upsert(external_id, json.loads(body))

    def _token(self, form):
        if form.get("grant_type") != ["client_credentials"]:
            return 400, {"error": "unsupported_grant_type", "error_description": "grant type not supported"}, {}
        if form.get("client_id") != ["app"] or form.get("client_secret") != [self.client_secret]:
            return 400, {"error": "invalid_client", "error_description": "invalid client credentials"}, {}
        token = f"token-{len(self.requests)}"
        self.tokens.add(token)
        return 200, {"access_token": token, "instance_url": self.url, "token_type": "Bearer", "scope": "api"}, {}

    def _upsert(self, external_id, fields):
        unknown = sorted(fields.keys() - self.COLUMNS)
        if unknown:
            message = f"No such column '{unknown[0]}' on sobject of type Contact"
            return self._error(400, "INVALID_FIELD", message)
        created = external_id not in self.contacts
        if created and not fields.get("LastName"):
            return self._error(400, "REQUIRED_FIELD_MISSING", "Required fields are missing: [LastName]", ["LastName"])
        if "@" not in fields.get("Email", "@"):
            message = f"Email: invalid email address: {fields['Email']}"
            return self._error(400, "INVALID_EMAIL_ADDRESS", message, ["Email"])
        self.contacts.setdefault(external_id, {}).update(fields)
        done = {"id": f"003{external_id:0>12}AAA", "success": True, "errors": [], "created": created}
        return (201 if created else 200), done, {}

    @staticmethod
    def _error(status, code, message, fields=None):
        error = {"message": message, "errorCode": code}
        return status, [error if fields is None else error | {"fields": fields}], {}


@pytest.fixture
def salesforce(monkeypatch):
    """A `Salesforce` that listens on loopback, and the environment that leads the function there."""
    api = Salesforce()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_one(self):
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body, headers = api.answer(self.command, self.path, self.headers, sent)
            if status is None:  # hang up
                self.close_connection = True
                return
            content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if content:
                self.send_header("Content-Type", "application/json")
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_PATCH = do_POST = handle_one  # noqa: N815  # http.server finds them by these names

        def log_message(self, *_):
            """Tests log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    server.block_on_close = False
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("SALESFORCE_URL", api.url)
    monkeypatch.setenv("SALESFORCE_CLIENT_ID", "app")
    monkeypatch.setenv("SALESFORCE_CLIENT_SECRET", "s3cret")
    with contextlib.closing(server.socket):
        yield api
        server.shutdown()
        thread.join()


@pytest.fixture
def crm_contact(load_function, salesforce):
    """The function in a fresh execution environment, its connections closed afterwards."""
    module = load_function("crm_contact")
    yield module
    if module.salesforce.cache_info().currsize:
        module.salesforce()._client.close()
