// A Node program with its own client-credentials code (simple-oauth2, unmodified): it asks for a
// token at the address that it is given, and calls the API with it. Prints what it saw as JSON.
//
// Arguments: the base address, the id, the secret, and how both are sent: "header" or "body".
import { ClientCredentials } from "simple-oauth2";

const [base, id, secret, authorizationMethod] = process.argv.slice(2);
const client = new ClientCredentials({
  client: { id, secret },
  auth: { tokenHost: base, tokenPath: "/rest/oauth/v2/token" },
  options: { authorizationMethod },
});
const { token } = await client.getToken({});
const answer = await fetch(`${base}/rest/2.0/application/info`, {
  headers: { authorization: `${token.token_type} ${token.access_token}` },
});
const told = await answer.json();
console.log(JSON.stringify({ status: answer.status, version: told.version?.fullVersion }));
