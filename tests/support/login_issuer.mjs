// npm's oidc-provider as the issuer at which people log in: any name is an account.
// usage: PEER=FOLDER GROUPS='{"alice": ["staff"]}' node login_issuer.mjs PORT CLIENT_ID CLIENT_SECRET REDIRECT_URI
// FOLDER has the package under node_modules. JWKS: its private keys, for tests that sign tokens themselves.
// DEVICES: a folder in the place of people's phones (CIBA): the issuer writes `CODE`, and reads the answer from `CODE.yes` or `CODE.no`.
import { existsSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [port, clientId, clientSecret, redirectUri] = process.argv.slice(2);
const groups = JSON.parse(process.env.GROUPS ?? "{}");
const require = createRequire(`${process.env.PEER}/node_modules/`);
const { Provider, errors } = await import(pathToFileURL(require.resolve("oidc-provider")).href);

const devices = process.env.DEVICES;

async function askAtDevice(_context, request, account, client) {
  const { binding_message: code, requested_expiry: expiry } = request.params;
  writeFileSync(`${devices}/${code}`, JSON.stringify({ account: account.accountId, expiry }));
  const look = setInterval(async () => {
    if (existsSync(`${devices}/${code}.no`)) {
      clearInterval(look);
      await provider.backchannelResult(request, new errors.AccessDenied());
    } else if (existsSync(`${devices}/${code}.yes`)) {
      clearInterval(look);
      const grant = new provider.Grant({ accountId: account.accountId, clientId: client.clientId });
      grant.addOIDCScope("openid");
      await provider.backchannelResult(request, await grant.save(), { authTime: Math.floor(Date.now() / 1000) });
    }
  }, 100);
}

const phoneClient = {
  client_id: "authz-phone",
  client_secret: clientSecret,
  redirect_uris: [],
  grant_types: ["urn:openid:params:grant-type:ciba"],
  response_types: [],
  backchannel_token_delivery_mode: "poll",
  require_auth_time: true,
};

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
    ...(devices ? [phoneClient] : []),
  ],
  cookies: { keys: ["only-for-tests"] },
  // Claims stand in the ID token; the page asks no other endpoint for them.
  conformIdTokenClaims: false,
  claims: { openid: ["sub", "groups"], profile: ["name"] },
  findAccount: (_context, id) => ({
    accountId: id,
    claims: () => ({ sub: id, name: `${id[0].toUpperCase()}${id.slice(1)} Example`, groups: groups[id] ?? [] }),
  }),
  features: {
    devInteractions: { enabled: true },
    ciba: {
      enabled: Boolean(devices),
      processLoginHint: async (_context, hint) => hint,
      validateRequestContext: async () => {},
      verifyUserCode: async () => {},
      triggerAuthenticationDevice: askAtDevice,
    },
  },
  ...(process.env.JWKS ? { jwks: JSON.parse(process.env.JWKS) } : {}),
  pkce: { required: () => true },
});
provider.on("server_error", (_context, error) => console.error(error));
provider.listen(Number(port), "127.0.0.1", () => console.log("ready"));
