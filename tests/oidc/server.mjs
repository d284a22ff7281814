// A certified authorization server (oidc-provider) on loopback, for the end-to-end tests.
//
//   node server.mjs [--life SECONDS] [--tls DIRECTORY] [--nonce] [--delay MILLISECONDS] [--bound]
//
// The life of access tokens is 5 s unless told otherwise, or ACCESS_TOKEN_LIFE. With --tls it also
// speaks TLS as `server.pem` and `server.key` in that directory say, asks for client certificates,
// and knows a client `mtls` whose certificate is the `client.pem` there. With --nonce it wants a nonce
// of its own in every proof of possession (RFC 9449). With --delay its answers to token requests take
// so long after what they say has been done. With --bound the tokens of `orders` are bound to
// the certificate that they are asked for with (RFC 8705). Its userinfo endpoint is an API to try. A
// person signs in on the pages that the library has for development: any name, any password.
//
// Prints one line of JSON on stdout once it listens: addresses, clients and the first refresh token
// of `orders`. Everything else goes to stderr. It ends on SIGTERM, and when its stdin closes, so
// that a test that dies leaves nothing behind.

import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { X509Certificate, randomBytes } from 'node:crypto';
import { exportJWK, exportPKCS8, generateKeyPair } from 'jose';
import Provider, { errors } from 'oidc-provider';
import { MapAdapter } from './adapter.mjs';

const ACCOUNT = 'alice';
const SCOPE = 'openid offline_access orders.read';
const ROUTES = { token: '/token', introspection: '/token/introspection' };
const DEVICE_GRANT = 'urn:ietf:params:oauth:grant-type:device_code';
const RESOURCE = 'https://api.example/orders'; // the only one that tokens are given for (RFC 8707)
const FORTNIGHT = 14 * 24 * 60 * 60;

// The id and the secret of `nasty` work by basic only when both are form-encoded first
// (RFC 6749 section 2.3.1): sent raw, its colon moves and its `+` and `%` change their meaning.
const CLIENTS = {
  orders: {
    client_id: 'orders',
    client_secret: 'orders-secret',
    application_type: 'native', // any port of a loopback redirect (RFC 8252 section 7.3)
    redirect_uris: ['http://127.0.0.1/callback'],
    response_types: ['code'],
    grant_types: ['authorization_code', 'refresh_token', DEVICE_GRANT],
  },
  // A public client, as a program on a person's machine is (RFC 8252 section 8.4).
  app: {
    client_id: 'app',
    token_endpoint_auth_method: 'none',
    application_type: 'native',
    redirect_uris: ['http://127.0.0.1/callback', 'http://[::1]/callback', 'http://localhost/back'],
    response_types: ['code'],
    grant_types: ['authorization_code', 'refresh_token', DEVICE_GRANT],
  },
  plain: machine('plain', 'plain-secret'),
  nasty: machine('nasty:/+%&= id', 's:e/c+r%e&t= 100%25+1'),
  secret_jwt: secretJwt('secret-jwt', 'HS256'),
  secret_jwt_384: secretJwt('secret-jwt-384', 'HS384'),
  secret_jwt_512: secretJwt('secret-jwt-512', 'HS512'),
};
// What a client needs where a person signs in.
const SIGN_IN = {
  application_type: 'native',
  redirect_uris: ['http://127.0.0.1/callback'],
  response_types: ['code'],
  grant_types: ['client_credentials', 'authorization_code', 'refresh_token', DEVICE_GRANT],
};
// Clients that sign with a key of their own, by algorithm; the last four share a key that names none.
const SIGNING = ['RS256', 'PS256', 'ES256', 'ES384', 'EdDSA'];
const SIGNING_AS_TOLD = ['RS384', 'RS512', 'PS384', 'PS512'];

function machine(client_id, client_secret) {
  return {
    client_id,
    client_secret,
    redirect_uris: [],
    response_types: [],
    grant_types: ['client_credentials'],
  };
}

function secretJwt(client_id, alg) {
  return {
    ...machine(client_id, 'a client secret that is long enough for HS512, which wants 64 bytes of it'),
    token_endpoint_auth_method: 'client_secret_jwt',
    token_endpoint_auth_signing_alg: alg,
  };
}

// A client for each algorithm: what the server knows of it, and its private key in both forms.
async function signingClients() {
  const clients = {};
  const add = async (alg, { privateKey, publicKey }, named) => {
    const kid = `key-of-${alg}`;
    clients[alg.toLowerCase()] = {
      registered: {
        ...machine(`client-${alg}`),
        ...SIGN_IN,
        token_endpoint_auth_method: 'private_key_jwt',
        token_endpoint_auth_signing_alg: alg,
        jwks: { keys: [{ ...(await exportJWK(publicKey)), ...named, kid, use: 'sig' }] },
      },
      kid,
      pem: await exportPKCS8(privateKey),
      jwk: JSON.stringify({ ...(await exportJWK(privateKey)), ...named, kid }),
    };
  };
  for (const alg of SIGNING) {
    await add(alg, await generateKeyPair(alg, { extractable: true }), { alg });
  }
  const pair = await generateKeyPair('RS512', { extractable: true });
  for (const alg of SIGNING_AS_TOLD) await add(alg, pair, {});
  return clients;
}

// RFC 8705 section 2.2: the certificate itself is registered.
async function certificateClient(directory) {
  const certificate = new X509Certificate(readFileSync(join(directory, 'client.pem')));
  const jwk = await exportJWK(certificate.publicKey);
  return {
    ...machine('mtls'),
    token_endpoint_auth_method: 'self_signed_tls_client_auth',
    jwks: { keys: [{ ...jwk, x5c: [certificate.raw.toString('base64')] }] },
  };
}

function settings() {
  const [text, flag] = [{ type: 'string' }, { type: 'boolean' }];
  const options = { life: text, tls: text, nonce: flag, bound: flag, delay: text };
  const { values } = parseArgs({ options });
  const life = Number(values.life ?? process.env.ACCESS_TOKEN_LIFE ?? 5);
  if (!Number.isInteger(life) || life < 1) {
    throw new Error('--life (or ACCESS_TOKEN_LIFE) is a whole number of seconds, at least 1');
  }
  const { tls, nonce, bound } = values;
  return { life, tls, nonce: Boolean(nonce), bound: Boolean(bound), delay: Number(values.delay ?? 0) };
}

async function signingKey() {
  const { privateKey } = await generateKeyPair('RS256', { extractable: true });
  return { ...(await exportJWK(privateKey)), alg: 'RS256', use: 'sig' };
}

function clientCertificate({ req: { socket } }) {
  const raw = socket.encrypted ? socket.getPeerCertificate(true).raw : undefined;
  return raw && new X509Certificate(raw);
}

function resourceServer(_ctx, resource) {
  if (resource !== RESOURCE) throw new errors.InvalidTarget();
  return { scope: 'orders.read', accessTokenFormat: 'opaque' };
}

async function authorizationServer(issuer, { life, nonce }, clients, tlsPort) {
  return new Provider(issuer, {
    adapter: MapAdapter,
    clients,
    clientAuthMethods: [
      'client_secret_basic',
      'client_secret_post',
      'client_secret_jwt',
      'private_key_jwt',
      'self_signed_tls_client_auth',
      'none',
    ],
    cookies: { keys: ['only for tests'] },
    enabledJWA: {
      clientAuthSigningAlgValues: [...SIGNING, ...SIGNING_AS_TOLD, 'HS256', 'HS384', 'HS512'],
    },
    discovery: tlsPort
      ? { mtls_endpoint_aliases: { token_endpoint: `https://127.0.0.1:${tlsPort}${ROUTES.token}` } }
      : {},
    features: {
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      mTLS: {
        enabled: true,
        selfSignedTlsClientAuth: true,
        certificateBoundAccessTokens: true,
        getCertificate: clientCertificate,
      },
      dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => nonce },
      introspection: { enabled: true, allowedPolicy: () => true },
      revocation: { enabled: true },
      resourceIndicators: { enabled: true, getResourceServerInfo: resourceServer },
    },
    findAccount: (_ctx, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
    jwks: { keys: [await signingKey()] },
    rotateRefreshToken: true,
    routes: ROUTES,
    scopes: SCOPE.split(' '),
    ttl: {
      AccessToken: life,
      ClientCredentials: life,
      IdToken: life,
      RefreshToken: FORTNIGHT,
      Grant: FORTNIGHT,
    },
  });
}

// What a person's consent leaves behind: a grant, and the first refresh token of its family.
async function seedFamily(provider) {
  const { client_id: clientId } = CLIENTS.orders;
  const grant = new provider.Grant({ accountId: ACCOUNT, clientId });
  grant.addOIDCScope(SCOPE);
  const grantId = await grant.save(FORTNIGHT);
  const refreshToken = new provider.RefreshToken({
    accountId: ACCOUNT,
    authTime: Math.floor(Date.now() / 1000),
    client: await provider.Client.find(clientId),
    grantId,
    gty: 'authorization_code',
    scope: SCOPE,
  });
  return { grantId, refreshToken: await refreshToken.save() };
}

function countTokenRequests(provider, delay) {
  const counts = { rotations: 0, token_requests: 0, failures: 0 };
  provider.on('refresh_token.consumed', () => { counts.rotations += 1; });
  provider.use(async (ctx, next) => {
    await next();
    if (ctx.path !== ROUTES.token) return;
    counts.token_requests += 1;
    if (ctx.status >= 400) counts.failures += 1;
    await sleep(delay);
  });
  return counts;
}

// The side port: what a test asks about the server, and what a test API asks about a token. Signing
// in begins another family.
function controls(provider, counts, grantId) {
  let newest;
  provider.on('refresh_token.saved', ({ jti }) => { newest = jti; });
  const answers = {
    '/stats': async () => ({
      ...counts,
      family_alive: Boolean(await provider.Grant.find(grantId)),
      newest,
    }),
    '/sign-in': async () => {
      const family = await seedFamily(provider);
      grantId = family.grantId;
      return { refresh_token: family.refreshToken };
    },
    '/active': async (query) => ({
      active: await isActive(provider, query.get('token'), Number(query.get('leeway'))),
    }),
  };
  return async (request, response) => {
    const { pathname, searchParams } = new URL(request.url, 'http://control');
    const answer = answers[pathname];
    response.writeHead(answer ? 200 : 404, { 'content-type': 'application/json' });
    response.end(JSON.stringify(answer ? await answer(searchParams) : { error: 'not found' }));
  };
}

// With a leeway, as APIs give it to clocks: the server counts whole seconds.
async function isActive(provider, token, leeway) {
  const options = { ignoreExpiration: leeway > 0 };
  const found = (await provider.AccessToken.find(token, options))
    ?? (await provider.ClientCredentials.find(token, options));
  return Boolean(found) && found.exp + leeway > Date.now() / 1000;
}

async function listen(server = createServer()) {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

// Any certificate may be shown; whether it is the client's is the authorization server's to judge.
function tlsServer(directory) {
  const read = (name) => readFileSync(join(directory, name));
  const [key, cert] = [read('server.key'), read('server.pem')];
  return createTlsServer({ key, cert, requestCert: true, rejectUnauthorized: false });
}

async function main() {
  console.info = console.error; // the library's notices go there: stdout carries the one line only
  process.on('SIGTERM', () => process.exit(0));
  process.stdin.on('close', () => process.exit(0)).resume();

  const server = await listen();
  const { port } = server.address();
  const issuer = `http://127.0.0.1:${port}`; // known only once the socket is bound
  const told = settings();
  const { tls, bound } = told;
  const encrypted = tls && (await listen(tlsServer(tls)));
  const tlsPort = encrypted?.address().port;
  const signing = await signingClients();
  const clients = [
    ...Object.values({
      ...CLIENTS,
      orders: { ...CLIENTS.orders, tls_client_certificate_bound_access_tokens: bound },
    }),
    ...Object.values(signing).map(({ registered }) => registered),
    ...(tls ? [await certificateClient(tls)] : []),
  ];
  const provider = await authorizationServer(issuer, told, clients, tlsPort);
  const counts = countTokenRequests(provider, told.delay);
  const { grantId, refreshToken } = await seedFamily(provider);
  server.on('request', provider.callback());
  encrypted?.on('request', provider.callback());

  const control = await listen();
  control.on('request', controls(provider, counts, grantId));

  console.log(JSON.stringify({
    port,
    control_port: control.address().port,
    issuer,
    token_url: issuer + ROUTES.token,
    introspection_url: issuer + ROUTES.introspection,
    tls_token_url: tlsPort && `https://127.0.0.1:${tlsPort}${ROUTES.token}`,
    resource: RESOURCE,
    clients: CLIENTS,
    signing: Object.fromEntries(
      Object.entries(signing).map(([name, { registered, ...rest }]) => [
        name,
        { client_id: registered.client_id, ...rest },
      ]),
    ),
    refresh_token: refreshToken,
  }));
}

await main();
