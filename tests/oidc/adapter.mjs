// Storage of the authorization server: one Map for each of its models.
//
// oidc-provider's own memory adapter is an LRU of 1,000 entries. It forgets rotated refresh tokens,
// and with them the reuse of one, in the middle of a soak. Here an entry leaves only when its time
// is over or when somebody destroys it.

const SWEEP_MILLIS = 60_000;

export class MapAdapter {
  #entries = new Map();

  constructor() {
    setInterval(() => this.#sweep(Date.now()), SWEEP_MILLIS).unref();
  }

  async upsert(id, payload, expiresIn) {
    const endsAt = expiresIn ? Date.now() + expiresIn * 1000 : Infinity;
    this.#entries.set(id, { payload, endsAt });
  }

  // Expiry is the server's to judge, by the payload: only the sweep looks at `endsAt`.
  async find(id) {
    return this.#entries.get(id)?.payload;
  }

  async findByUid(uid) {
    return this.#first((payload) => payload.uid === uid);
  }

  async findByUserCode(userCode) {
    return this.#first((payload) => payload.userCode === userCode);
  }

  async consume(id) {
    this.#entries.get(id).payload.consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    this.#entries.delete(id);
  }

  async revokeByGrantId(grantId) {
    this.#drop(({ payload }) => payload.grantId === grantId);
  }

  #first(matches) {
    for (const { payload } of this.#entries.values()) {
      if (matches(payload)) return payload;
    }
    return undefined;
  }

  #drop(matches) {
    for (const [id, entry] of this.#entries) {
      if (matches(entry)) this.#entries.delete(id);
    }
  }

  #sweep(now) {
    this.#drop(({ endsAt }) => endsAt <= now);
  }
}
