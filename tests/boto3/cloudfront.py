"""Makes keys for CloudFront and judges what was signed with them, for tests/it/cloudfront.rs.

`cloudfront.py keys FOLDER` writes private keys in every form that a PEM file may have. `cloudfront.py judge FOLDER` reads
one JSON case per line from standard input: the private key's file, its id, the origin, the path before it was encoded,
the query, the network or null, the end in seconds, and the URL that was signed, or the cookies for all that lies below the
path. Writes `ok` or what is wrong with it.

botocore puts URLs and policies together, and `cryptography` verifies: no code of this project has a part in it.
"""

import base64
import datetime
import json
import pathlib
import sys
import urllib.parse

from botocore.signers import CloudFrontSigner
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

FORMS = {"pkcs8": PrivateFormat.PKCS8, "traditional": PrivateFormat.TraditionalOpenSSL}


def make_keys(folder):
    keys = {"rsa": rsa.generate_private_key(65537, 2048), "ecdsa": ec.generate_private_key(ec.SECP256R1())}
    for kind, key in keys.items():
        for name, form in FORMS.items():
            pem = key.private_bytes(Encoding.PEM, form, NoEncryption())
            (folder / f"{kind}-{name}.pem").write_bytes(pem)


def decode(text):
    return base64.b64decode(text.replace("-", "+").replace("_", "=").replace("~", "/"), validate=True)


def judge(folder, case):
    private_key = serialization.load_pem_private_key((folder / case["key_file"]).read_bytes(), None)
    quoted = urllib.parse.quote(case["path"], safe="/~")
    query = urllib.parse.urlencode(list(map(tuple, case["query"])), quote_via=urllib.parse.quote, safe="~")
    cookies = case.get("cookies")
    base = f"{case['origin']}/{quoted}" + ("/*" if cookies else f"?{query}" if query else "")

    if cookies:
        pairs = [cookie.partition(";")[0].partition("=") for cookie in cookies]
        sent = {name.removeprefix("CloudFront-"): value for name, _, value in pairs}
        if sent.keys() != {"Policy", "Signature", "Key-Pair-Id", "Hash-Algorithm"}:
            return f"the cookies are {sorted(sent)}"
        if not all(f"; Path=/{quoted}/; Secure; HttpOnly;" in cookie for cookie in cookies):
            return f"the attributes are others: {cookies}"
    else:
        sent = dict(urllib.parse.parse_qsl(case["url"].partition("?")[2], strict_parsing=True))
    if (sent["Key-Pair-Id"], sent["Hash-Algorithm"]) != (case["key_id"], "SHA256"):
        return f"the key and the algorithm are others: {sent}"
    policy = decode(sent["Policy"])
    signature = decode(sent["Signature"])

    end = datetime.datetime.fromtimestamp(case["ends_at"], datetime.timezone.utc)
    # Any order will do, white space will not.
    expected = json.loads(CloudFrontSigner("", None).build_policy(base, end, ip_address=case["network"]))
    if json.loads(policy) != expected:
        return f"the policy is {policy}, not {expected}"
    if policy.decode() != json.dumps(json.loads(policy), separators=(",", ":"), ensure_ascii=False):
        return f"the policy is not compact: {policy}"

    def sign(message):
        if isinstance(private_key, rsa.RSAPrivateKey):
            return private_key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        # ECDSA is random; botocore is handed the signature, which is verified below.
        return signature

    signer = CloudFrontSigner(case["key_id"], sign)
    url = signer.generate_presigned_url(base, policy=policy.decode()) + "&Hash-Algorithm=SHA256"
    if not cookies and url != case["url"]:
        return f"the URL is {case['url']}, not {url}"
    if isinstance(private_key, rsa.RSAPrivateKey):
        private_key.public_key().verify(signature, policy, padding.PKCS1v15(), hashes.SHA256())
    else:
        private_key.public_key().verify(signature, policy, ec.ECDSA(hashes.SHA256()))
    return "ok"


def main():
    folder = pathlib.Path(sys.argv[2])
    if sys.argv[1] == "keys":
        make_keys(folder)
        return
    for line in sys.stdin:
        print(judge(folder, json.loads(line)), flush=True)


if __name__ == "__main__":
    main()
