"""Standard Webhooks signatures, held against the reference library and the specification's own vectors."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from standardwebhooks import Webhook, WebhookVerificationError

from bridge.config.targets import check_signing_secret
from bridge.delivery.signing import UnusableSecret, WebhookSigner, public_key

ONE = "whsec_" + base64.b64encode(bytes(range(32))).decode()
TWO = "whsec_" + base64.b64encode(bytes(range(32, 64))).decode()
SEED = bytes(range(100, 132))
EDWARDS = "whsk_" + base64.b64encode(SEED).decode()
BODY = '{"record":{"name":"Zoë \\u0000 💣"}}'.encode()


def signed(*secrets, body=BODY, at=None, message_id="shop-0000000001A2B3C0-0000000003"):
    return WebhookSigner(secrets).headers(message_id, int(time.time()) if at is None else at, body)


def test_the_reference_library_accepts_what_we_sign():
    Webhook(ONE).verify(BODY, signed(ONE))


def test_the_reference_library_refuses_another_secret_another_body_another_id_and_another_time():
    headers = signed(ONE)
    for webhook, body, changed in [
        (Webhook(TWO), BODY, headers),
        (Webhook(ONE), BODY + b" ", headers),
        (Webhook(ONE), BODY, headers | {"webhook-id": "another"}),
        (Webhook(ONE), BODY, headers | {"webhook-timestamp": str(int(headers["webhook-timestamp"]) - 1)}),
        (Webhook(ONE), BODY, signed(ONE, at=int(time.time()) - 3600)),
    ]:
        with pytest.raises(WebhookVerificationError):
            webhook.verify(body, changed)


def test_during_a_rotation_receivers_with_the_old_and_with_the_new_secret_accept():
    headers = signed(ONE, TWO, EDWARDS)
    Webhook(ONE).verify(BODY, headers)
    Webhook(TWO).verify(BODY, headers)
    assert [signature.split(",")[0] for signature in headers["webhook-signature"].split(" ")] == ["v1", "v1", "v1a"]


def test_the_symmetric_signature_is_the_one_of_the_reference_library_byte_for_byte():
    headers = signed(ONE, at=1_674_087_231)
    expected = Webhook(ONE).sign(headers["webhook-id"], datetime.fromtimestamp(1_674_087_231, UTC), BODY.decode())
    assert headers["webhook-signature"] == expected


def test_the_asymmetric_signature_is_the_one_of_the_specification_s_vector():
    signer = WebhookSigner(["whsk_VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk="])
    headers = signer.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == (
        "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag=="
    )


def test_the_public_key_verifies_the_asymmetric_signature_and_no_other():
    prefix, _, encoded = public_key(EDWARDS).partition("_")
    assert prefix == "whpk"
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(encoded))
    headers = signed(EDWARDS, message_id="m", at=5)
    signature = base64.b64decode(headers["webhook-signature"].removeprefix("v1a,"))
    key.verify(signature, b"m.5." + BODY)
    with pytest.raises(InvalidSignature):
        key.verify(signature, b"m.6." + BODY)


def test_a_seed_with_its_public_key_behind_it_is_the_same_key():
    public = Ed25519PrivateKey.from_private_bytes(SEED).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    both = "whsk_" + base64.b64encode(SEED + public).decode()
    assert signed(both, at=1) == signed(EDWARDS, at=1)


def test_a_public_key_that_does_not_belong_to_the_seed_is_refused():
    other = Ed25519PrivateKey.generate()
    raw = other.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    assert raw != SEED
    wrong = "whsk_" + base64.b64encode(SEED + raw).decode()
    with pytest.raises(UnusableSecret, match="does not belong"):
        WebhookSigner([wrong])


def test_unpadded_base64_is_accepted_as_the_reference_library_accepts_it():
    Webhook(ONE.rstrip("=")).verify(BODY, signed(ONE.rstrip("=")))


@pytest.mark.parametrize("length", [24, 25, 26])
def test_the_settings_take_unpadded_base64_too(length):
    padded = "whsec_" + base64.b64encode(bytes(range(length))).decode()
    check_signing_secret(padded)
    check_signing_secret(padded.rstrip("="))
    Webhook(padded).verify(BODY, signed(padded.rstrip("=")))


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        ("", "neither whsec_ nor whsk_"),
        ("hunter2-hunter2-hunter2", "neither whsec_ nor whsk_"),
        ("whsec_", "is empty"),
        ("whsec_not base64 at all!", "not base64"),
        ("whsec_äöü", "not base64"),
        ("whsk_" + base64.b64encode(b"short").decode(), "has 5 bytes; an ed25519 secret key has 32"),
        ("whpk_" + base64.b64encode(SEED).decode(), "public key"),
    ],
)
def test_a_secret_that_can_not_sign_is_refused_by_its_place_without_showing_it(secret, reason):
    with pytest.raises(UnusableSecret, match=reason) as caught:
        WebhookSigner([ONE, secret])
    assert "signing secret 2" in str(caught.value)
    encoded = secret.partition("_")[2]
    assert not encoded or encoded not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_no_secret_at_all_is_refused():
    with pytest.raises(UnusableSecret, match="no signing secret"):
        WebhookSigner([])


def test_a_short_secret_signs_and_is_named_as_a_weakness():
    short = "whsec_" + base64.b64encode(b"sixteen bytes ..").decode()
    signer = WebhookSigner([ONE, short])
    assert list(signer.weaknesses) == ["signing secret 2 has 16 bytes; Standard Webhooks asks for at least 24"]
    Webhook(short).verify(BODY, signer.headers("m", int(time.time()), BODY))


@pytest.mark.parametrize("message_id", ["", "a.b"])
def test_an_id_that_would_blur_what_is_signed_is_refused(message_id):
    with pytest.raises(ValueError, match="full stop"):
        signed(ONE, message_id=message_id)
