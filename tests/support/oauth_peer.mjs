// An OAuth client that is not ours: the whole life of a credential, by the library oauth4webapi.
//
// Reads what to do from standard input, JSON; writes what came of each step, JSON. Run in a folder with the library.
import https from 'node:https'
import { readFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'

const oauth = await import(pathToFileURL(`${process.env.PEER}/node_modules/oauth4webapi/build/index.js`).href)
const told = JSON.parse(readFileSync(0, 'utf8'))

// The built-in fetch shows no certificate.
const agent = new https.Agent({ ca: told.ca, cert: told.cert, key: told.cert_key })
const send = (url, init) =>
  new Promise((done, failed) => {
    const options = { method: init.method, headers: Object.fromEntries(new Headers(init.headers)), agent }
    const request = https.request(url, options, (answer) => {
      const parts = []
      answer.on('data', (part) => parts.push(part))
      answer.on('end', () => {
        const empty = [204, 304].includes(answer.statusCode)
        const body = empty ? null : Buffer.concat(parts)
        done(new Response(body, { status: answer.statusCode, headers: answer.headers }))
      })
    })
    request.on('error', failed)
    if (init.body) request.write(String(init.body))
    request.end()
  })
const http = { [oauth.customFetch]: send }

const issuer = new URL(told.issuer)
const discovered = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...http })
const server = await oauth.processDiscoveryResponse(issuer, discovered)
const client = { client_id: told.client_id }

async function authentication() {
  if (told.cert) return oauth.TlsClientAuth()
  const { kid, ...jwk } = told.assertion_key
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256' }
  const key = await crypto.subtle.importKey('jwk', jwk, algorithm, false, ['sign'])
  return oauth.PrivateKeyJwt({ key, kid })
}

const auth = await authentication()
const keys = told.dpop ? await oauth.generateKeyPair('ES256') : undefined
const DPoP = keys ? oauth.DPoP(client, keys) : undefined

const exchange = async () => {
  const grant = 'urn:ietf:params:oauth:grant-type:token-exchange'
  const options = { DPoP, ...http }
  const answer = await oauth.genericTokenEndpointRequest(server, client, auth, grant, told.parameters, options)
  return await oauth.processGenericTokenEndpointResponse(server, client, answer)
}

let nonces = 0
let token
try {
  token = await exchange()
} catch (error) {
  if (!oauth.isDPoPNonceError(error)) throw error
  nonces = 1
  token = await exchange()
}

const introspect = async () => {
  const answer = await oauth.introspectionRequest(server, client, auth, token.access_token, http)
  return await oauth.processIntrospectionResponse(server, client, answer)
}

// As the resource server would: signature by the JWKS, claims of RFC 9068, and the proof of RFC 9449.
async function validated() {
  const url = new URL(told.resource)
  let shown
  const seen = { [oauth.customFetch]: async (to, init) => ((shown = new Request(to, init)), new Response()) }
  await oauth.protectedResourceRequest(token.access_token, 'GET', url, undefined, undefined, { DPoP, ...seen })
  return await oauth.validateJwtAccessToken(server, shown, told.audience, { requireDPoP: Boolean(DPoP), ...http })
}

const active = await introspect()
const claims = told.audience && (DPoP || !active.cnf) ? await validated() : undefined
const revoked = await oauth.revocationRequest(server, client, auth, token.access_token, http)
await oauth.processRevocationResponse(revoked)
const after = await introspect()

process.stdout.write(JSON.stringify({ server, nonces, token, active, claims, after }))
