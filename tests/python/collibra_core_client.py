"""Collibra's own Python client (collibra-core, unmodified) through the proxy.

Called with the base address, and with a name and a key if callers must say who they are; prints what
it saw as one JSON object. Without them, the user name and the password that the client insists on are
nobody's. APP_CA, APP_CERT and APP_KEY name files for TLS: an authority, a certificate and its key.
"""

import json
import os
import sys
import tempfile

import collibra_core as cc


def main(base, name="nobody", key="nothing"):
    configuration = cc.Configuration(host=base + "/rest/2.0", username=name, password=key)
    configuration.ssl_ca_cert = os.environ.get("APP_CA")
    configuration.cert_file = os.environ.get("APP_CERT")
    configuration.key_file = os.environ.get("APP_KEY")
    seen = {}
    with cc.ApiClient(configuration) as client:
        seen["version"] = cc.ApplicationApi(client).get_info().version.full_version
        seen["user"] = cc.UsersApi(client).get_current_user().user_name

        # the client leaves out what this answers: status and headers tell
        sessions = cc.AuthenticationSessionsApi(client)
        try:
            _, status, headers = sessions.current_session_with_http_info()
            seen["session"] = [status, "Set-Cookie" in headers]
        except cc.ApiException as error:
            # it sends no credentials with this one
            seen["session"] = [error.status, "Set-Cookie" in error.headers]

        assets = cc.AssetsApi(client)
        page = assets.find_assets(limit=10)
        seen["found"] = len(page.results)
        first = page.results[0]
        added = assets.add_asset(
            add_asset_request=cc.AddAssetRequest(
                name="Added by a test", domain_id=first.domain.id, type_id=first.type.id
            )
        )
        seen["added"] = added.name
        changed = assets.change_asset(
            added.id,
            change_asset_request=cc.ChangeAssetRequest(id=added.id, name="Changed by a test"),
        )
        seen["changed"] = changed.name
        assets.remove_asset(added.id)
        try:
            assets.get_asset(added.id)
            seen["removed"] = False
        except cc.ApiException as error:
            seen["removed"] = error.status == 404

        export = cc.OutputModuleApi(client).export_csv(body="{}")
        seen["export"] = len(export) if export is not None else 0

        with tempfile.NamedTemporaryFile(suffix=".csv") as file:
            file.write(b"a,b\r\n" * 1000)
            file.flush()
            files = cc.FilesApi(client).add_files(file=file.name)
            seen["files"] = [kept.size for kept in files]
    print(json.dumps(seen))


main(*sys.argv[1:])
