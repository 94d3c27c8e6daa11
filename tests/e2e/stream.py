"""A consumer group on the store's stream: prints each change and acknowledges it, beginning with what it did not before it died."""

import os
import redis

STREAM, GROUP, NAME = "{avatar-proxy}:log", "crm", "one"
server = redis.Redis.from_url(os.environ["STORE"], decode_responses=True, protocol=2)
try:
    server.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
except redis.ResponseError as error:
    if "BUSYGROUP" not in str(error):
        raise

place = "0"
while True:
    read = server.xreadgroup(GROUP, NAME, {STREAM: place}, count=10, block=1000)
    entries = read[0][1] if read else []
    for sequence, change in entries:
        # What was forgotten before it was acknowledged is pending without its fields.
        if change:
            print(sequence, change["kind"], change["jid"], change["old_id"], change["new_id"], flush=True)
        server.xack(STREAM, GROUP, sequence)
    if not entries:
        place = ">"
