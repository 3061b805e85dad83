// npm's oidc-provider as the issuer at which people log in: any name is an account.
// usage: PEER=FOLDER GROUPS='{"alice": ["staff"]}' node login_issuer.mjs PORT CLIENT_ID CLIENT_SECRET REDIRECT_URI
// FOLDER has the package under node_modules. JWKS: its private keys, for tests that sign tokens themselves.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [port, clientId, clientSecret, redirectUri] = process.argv.slice(2);
const groups = JSON.parse(process.env.GROUPS ?? "{}");
const require = createRequire(`${process.env.PEER}/node_modules/`);
const { Provider } = await import(pathToFileURL(require.resolve("oidc-provider")).href);

const provider = new Provider(`http://localhost:${port}`, {
  clients: [
    {
      client_id: clientId,
      client_secret: clientSecret,
      redirect_uris: [redirectUri],
      grant_types: ["authorization_code"],
      response_types: ["code"],
      require_auth_time: true,
    },
  ],
  cookies: { keys: ["only-for-tests"] },
  // Claims stand in the ID token; the page asks no other endpoint for them.
  conformIdTokenClaims: false,
  claims: { openid: ["sub", "groups"], profile: ["name"] },
  findAccount: (_context, id) => ({
    accountId: id,
    claims: () => ({ sub: id, name: `${id[0].toUpperCase()}${id.slice(1)} Example`, groups: groups[id] ?? [] }),
  }),
  features: { devInteractions: { enabled: true } },
  ...(process.env.JWKS ? { jwks: JSON.parse(process.env.JWKS) } : {}),
  pkce: { required: () => true },
});
provider.on("server_error", (_context, error) => console.error(error));
provider.listen(Number(port), "127.0.0.1", () => console.log("ready"));
