// The official PowerSync SDK for Node, driven by JSON lines: one command per line on standard input, one answer per line
// on standard output. The SDK itself is unmodified; what it logs goes to standard error (SDK_LOG_LEVEL=10: all of it).
//
// A command is {"id": 1, "command": "query", …}; its answer {"id": 1, "value": …} or {"id": 1, "error": "…"}. Commands run
// at once, so that one that waits does not hold back another.

import diagnostics from 'node:diagnostics_channel';
import readline from 'node:readline';

import { PowerSyncDatabase, Schema, SyncStreamConnectionMethod, Table, column } from '@powersync/node';

const logger = {
  log({ level, message, error }) {
    if (level >= (process.env.SDK_LOG_LEVEL ?? 20)) console.error(`[sdk ${level}] ${message}`, error ?? '');
  }
};

/** The media types and content codings of the streams that the server has opened for this client. */
const responses = [];
diagnostics.subscribe('undici:request:headers', ({ request, response }) => {
  const headers = {};
  for (let i = 0; i + 1 < response.headers.length; i += 2) {
    headers[response.headers[i].toString().toLowerCase()] = response.headers[i + 1].toString();
  }
  responses.push({
    method: request.method,
    path: String(request.path).split('?')[0],
    status: response.statusCode,
    type: headers['content-type'] ?? null,
    encoding: headers['content-encoding'] ?? null
  });
});

let db;
let connectionMethod;
let credentials;
let uploadUrl;
const subscriptions = new Map();

// region: upload
/** Sends what was written locally to the application's backend, a transaction at a time, as an application would. */
async function uploadData(database) {
  const clientId = await database.getClientId();
  for (let transaction; (transaction = await database.getNextCrudTransaction()) != null; ) {
    const response = await fetch(uploadUrl, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${credentials.token}` },
      body: JSON.stringify({
        transaction_id: transaction.transactionId,
        client_id: clientId,
        crud: transaction.crud
      })
    });
    // Anything but an answer is a reason to try again; a refusal is an answer.
    if (!response.ok) throw new Error(`upload answered ${response.status}: ${await response.text()}`);
    const outcome = await response.json();
    console.error(`[upload] transaction ${transaction.transactionId}: ${JSON.stringify(outcome)}`);
    await transaction.complete();
  }
}
// endregion: upload

/** Asks a backend that applies uploads later for a write checkpoint of its own. The greater number is the answer. */
async function postCheckpointRequest(clientId, requestId) {
  const body = JSON.stringify({ client_id: clientId, checkpoint_request_id: requestId });
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(new URL('/checkpoint', uploadUrl), { method: 'POST', headers, body });
  if (!response.ok) throw new Error(`the checkpoint request answered ${response.status}: ${await response.text()}`);
  return (await response.json()).checkpoint_request_id;
}

/** A fetch that asks for one media type or coding instead of those that the SDK prefers. */
function fetchWith({ accept, encoding }) {
  return (resource, init) => {
    const headers = { ...init?.headers };
    if (accept && String(resource).endsWith('/sync/stream')) headers.accept = accept;
    if (encoding) headers['accept-encoding'] = encoding;
    return fetch(resource, { ...init, headers });
  };
}

const commands = {
  /** Opens the database. `tables` is {table: {column: "text" | "integer" | "real"}}. */
  async open({ path, tables, accept, encoding, websocket }) {
    connectionMethod = websocket ? SyncStreamConnectionMethod.WEB_SOCKET : SyncStreamConnectionMethod.HTTP;
    const types = { text: column.text, integer: column.integer, real: column.real };
    const columnsOf = (columns) => Object.fromEntries(Object.entries(columns).map(([name, type]) => [name, types[type]]));
    const schema = new Schema(
      Object.fromEntries(Object.entries(tables).map(([name, columns]) => [name, new Table(columnsOf(columns))]))
    );
    const remoteOptions = accept || encoding ? { customFetch: fetchWith({ accept, encoding }) } : undefined;
    db = new PowerSyncDatabase({
      schema,
      database: { dbFilename: path, implementation: { type: 'node:sqlite' } },
      logger,
      remoteOptions
    });
    await db.init();
    return { clientId: await db.getClientId(), sdk: db.sdkVersion, node: process.versions.node };
  },

  /** Connects, or connects anew with other credentials and parameters. Does not wait for anything to arrive. */
  async connect({ endpoint, token, upload, later, params }) {
    credentials = { endpoint, token };
    uploadUrl = upload;
    const connector = { fetchCredentials: async () => credentials, uploadData };
    if (later) connector.postCheckpointRequest = postCheckpointRequest;
    await db.connect(connector, {
      connectionMethod,
      params,
      checkpointMode: later ? 'requests' : undefined,
      crudUploadThrottleMs: 20,
      retryDelayMs: 100
    });
  },

  async disconnect() {
    await db.disconnect();
  },

  async execute({ sql, params }) {
    await db.execute(sql, params ?? []);
  },

  /** Several statements in one transaction. */
  async transaction({ statements }) {
    await db.writeTransaction(async (tx) => {
      for (const { sql, params } of statements) await tx.execute(sql, params ?? []);
    });
  },

  async query({ sql, params }) {
    return db.getAll(sql, params ?? []);
  },

  /** Waits until a query yields these rows, and says what it yields in the end if it does not. */
  async until({ sql, params, rows, seconds }) {
    const wanted = canonical(rows);
    const deadline = Date.now() + seconds * 1000;
    let last;
    for (;;) {
      last = canonical(await db.getAll(sql, params ?? []));
      if (last === wanted) return;
      if (Date.now() >= deadline) throw new Error(`after ${seconds} s \`${sql}\` yields ${last}, not ${wanted}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  },

  async firstSync({ seconds }) {
    await db.waitForFirstSync(AbortSignal.timeout(seconds * 1000));
    if (!db.currentStatus.hasSynced) throw new Error(`no first sync within ${seconds} s: ${describeStatus()}`);
  },

  /** Waits until nothing that was written locally is left to be uploaded. It may still have to come back. */
  async uploaded({ seconds }) {
    const deadline = Date.now() + seconds * 1000;
    for (;;) {
      const { count } = await db.getUploadQueueStats();
      if (count === 0) return;
      if (Date.now() >= deadline) throw new Error(`after ${seconds} s ${count} writes wait: ${describeStatus()}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  },

  async connected({ wanted, seconds }) {
    await db.waitForStatus((status) => status.connected === wanted, AbortSignal.timeout(seconds * 1000));
    if (db.currentStatus.connected !== wanted) throw new Error(`after ${seconds} s: ${describeStatus()}`);
  },

  /**
   * Subscribes to a stream and waits until its rows are here. A time to live of 0 would do for tests, but with it the SDK drops
   * subscriptions that are still held, whenever a millisecond passes between two of its statements.
   */
  async subscribe({ stream, params, seconds }) {
    const subscription = await db.syncStream(stream, params).subscribe();
    subscriptions.set(JSON.stringify([stream, params]), subscription);
    await subscription.waitForFirstSync(AbortSignal.timeout(seconds * 1000));
    const status = db.currentStatus.forStream(subscription);
    if (!status?.subscription.hasSynced) throw new Error(`after ${seconds} s ${stream} has not synced: ${describeStatus()}`);
  },

  /** Ends a subscription at once, not when its time to live is over. */
  async unsubscribe({ stream, params }) {
    const key = JSON.stringify([stream, params]);
    const subscription = subscriptions.get(key);
    if (!subscription) throw new Error(`there is no subscription ${key}`);
    subscriptions.delete(key);
    subscription.unsubscribe();
    await db.syncStream(stream, params).unsubscribeAll();
  },

  async status() {
    return JSON.parse(describeStatus());
  },

  /** The responses seen so far, oldest first; forgets them. */
  async responses() {
    return responses.splice(0);
  },

  async close() {
    await db.close();
    setImmediate(() => process.exit(0));
  }
};

/** Rows as text, the same whatever the order of their columns. */
function canonical(rows) {
  return JSON.stringify(rows.map((row) => Object.fromEntries(Object.entries(row).sort())));
}

function describeStatus() {
  return JSON.stringify(db.currentStatus, (_, value) => (value instanceof Error ? String(value) : value));
}

function answer(message) {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { id, command, ...options } = JSON.parse(line);
  Promise.resolve()
    .then(() => commands[command](options))
    .then(
      (value) => answer({ id, value: value ?? null }),
      (error) => answer({ id, error: error?.stack ?? String(error) })
    );
}
// Whoever gave the commands is gone.
process.exit(0);
