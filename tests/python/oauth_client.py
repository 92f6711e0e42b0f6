"""A Python program with its own client-credentials code (requests-oauthlib, unmodified): it asks
for a token at the address that it is given, and calls the API with it. Prints what it saw as JSON.

Arguments: the base address, the id, the secret, and how both are sent: "header" or "body".
"""

import json
import sys

from oauthlib.oauth2 import BackendApplicationClient
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session

base, client_id, secret, way = sys.argv[1:]
session = OAuth2Session(client=BackendApplicationClient(client_id=client_id))
url = base + "/rest/oauth/v2/token"
if way == "header":
    session.fetch_token(url, auth=HTTPBasicAuth(client_id, secret))
else:
    session.fetch_token(url, client_id=client_id, client_secret=secret, include_client_id=True)
answer = session.get(base + "/rest/2.0/application/info")
told = answer.json()
print(json.dumps({"status": answer.status_code, "version": told["version"]["fullVersion"]}))
