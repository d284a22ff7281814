// A certified authorization server (oidc-provider) on loopback, for the end-to-end tests.
//
//   node server.mjs [--life SECONDS]      or ACCESS_TOKEN_LIFE=SECONDS; 5 unless told otherwise
//
// Prints one line of JSON on stdout once it listens: addresses, clients and the first refresh token
// of `orders`. Everything else goes to stderr. It ends on SIGTERM, and when its stdin closes, so
// that a test that dies leaves nothing behind.

import { once } from 'node:events';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';
import { exportJWK, generateKeyPair } from 'jose';
import Provider from 'oidc-provider';
import { MapAdapter } from './adapter.mjs';

const ACCOUNT = 'alice';
const SCOPE = 'openid offline_access orders.read';
const ROUTES = { token: '/token', introspection: '/token/introspection' };
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
    grant_types: ['authorization_code', 'refresh_token'],
  },
  plain: machine('plain', 'plain-secret'),
  nasty: machine('nasty:/+%&= id', 's:e/c+r%e&t= 100%25+1'),
};

function machine(client_id, client_secret) {
  return {
    client_id,
    client_secret,
    redirect_uris: [],
    response_types: [],
    grant_types: ['client_credentials'],
  };
}

function accessTokenLife() {
  const { values } = parseArgs({ options: { life: { type: 'string' } } });
  const life = Number(values.life ?? process.env.ACCESS_TOKEN_LIFE ?? 5);
  if (!Number.isInteger(life) || life < 1) {
    throw new Error('--life (or ACCESS_TOKEN_LIFE) is a whole number of seconds, at least 1');
  }
  return life;
}

async function signingKey() {
  const { privateKey } = await generateKeyPair('RS256', { extractable: true });
  return { ...(await exportJWK(privateKey)), alg: 'RS256', use: 'sig' };
}

async function authorizationServer(issuer, life) {
  return new Provider(issuer, {
    adapter: MapAdapter,
    clients: Object.values(CLIENTS),
    clientAuthMethods: ['client_secret_basic', 'client_secret_post'],
    cookies: { keys: ['only for tests'] },
    features: {
      clientCredentials: { enabled: true },
      introspection: { enabled: true, allowedPolicy: () => true },
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

function countTokenRequests(provider) {
  const counts = { rotations: 0, token_requests: 0, failures: 0 };
  provider.on('refresh_token.consumed', () => { counts.rotations += 1; });
  provider.use(async (ctx, next) => {
    await next();
    if (ctx.path !== ROUTES.token) return;
    counts.token_requests += 1;
    if (ctx.status >= 400) counts.failures += 1;
  });
  return counts;
}

// The side port: what a test asks about the server, and what a test API asks about a token.
function controls(provider, counts, grantId) {
  const answers = {
    '/stats': async () => ({
      ...counts,
      family_alive: Boolean(await provider.Grant.find(grantId)),
    }),
    '/active': async (query) => ({ active: await isActive(provider, query.get('token')) }),
  };
  return async (request, response) => {
    const { pathname, searchParams } = new URL(request.url, 'http://control');
    const answer = answers[pathname];
    response.writeHead(answer ? 200 : 404, { 'content-type': 'application/json' });
    response.end(JSON.stringify(answer ? await answer(searchParams) : { error: 'not found' }));
  };
}

async function isActive(provider, token) {
  const found = (await provider.AccessToken.find(token))
    ?? (await provider.ClientCredentials.find(token));
  return Boolean(found?.isValid);
}

async function listen() {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

async function main() {
  console.info = console.error; // the library's notices go there: stdout carries the one line only
  process.on('SIGTERM', () => process.exit(0));
  process.stdin.on('close', () => process.exit(0)).resume();

  const server = await listen();
  const { port } = server.address();
  const issuer = `http://127.0.0.1:${port}`; // known only once the socket is bound
  const provider = await authorizationServer(issuer, accessTokenLife());
  const counts = countTokenRequests(provider);
  const { grantId, refreshToken } = await seedFamily(provider);
  server.on('request', provider.callback());

  const control = await listen();
  control.on('request', controls(provider, counts, grantId));

  console.log(JSON.stringify({
    port,
    control_port: control.address().port,
    issuer,
    token_url: issuer + ROUTES.token,
    introspection_url: issuer + ROUTES.introspection,
    clients: CLIENTS,
    refresh_token: refreshToken,
  }));
}

await main();
