"""Checks deliveries as receivers in Python do: one JSON object with `headers` and `body` for each line of stdin, and for each
what they make of it on stdout.

Usage: verify.py SECRET
"""

import hashlib
import hmac
import json
import sys

from standardwebhooks import Webhook, WebhookVerificationError

SECRET = sys.argv[1]


def gateway_accepts(headers, body):
    """As a receiver of the gateway's own webhooks: the secret is text, and what is signed is the body as it came."""
    given = headers["x-hub-signature-256"].removeprefix("sha256=")
    return hmac.compare_digest(hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest(), given)


def package_accepts(headers, body):
    """As whoever uses the official package."""
    try:
        Webhook(SECRET if SECRET.startswith("whsec_") else SECRET.encode()).verify(body, headers)
    except WebhookVerificationError:
        return False
    return True


for line in sys.stdin:
    delivery = json.loads(line)
    body = delivery["body"].encode()
    verdicts = {"gateway": gateway_accepts(delivery["headers"], body), "package": package_accepts(delivery["headers"], body)}
    print(json.dumps(verdicts), flush=True)
