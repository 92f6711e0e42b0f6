"""Collibra's own Python client (collibra-core, unmodified) through the proxy.

Called with the base address; prints what it saw as one JSON object. The user name and the password
that the client insists on are nobody's.
"""

import json
import sys
import tempfile

import collibra_core as cc


def main(base):
    configuration = cc.Configuration(
        host=base + "/rest/2.0", username="nobody", password="nothing"
    )
    seen = {}
    with cc.ApiClient(configuration) as client:
        seen["version"] = cc.ApplicationApi(client).get_info().version.full_version
        seen["user"] = cc.UsersApi(client).get_current_user().user_name

        # the client leaves out what this answers: status and headers tell
        sessions = cc.AuthenticationSessionsApi(client)
        _, status, headers = sessions.current_session_with_http_info()
        seen["session"] = [status, "Set-Cookie" in headers]

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


main(sys.argv[1])
