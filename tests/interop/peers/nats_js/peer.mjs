// nats.js behind JSON lines: {"id", "op", ...} on stdin, {"id", "ok": ...} or {"id", "error": "..."} on stdout.
// One request at a time; bytes are base64.
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";
import { connect } from "@nats-io/transport-node";
import { headers as newHeaders, nanos } from "@nats-io/nats-core";
import { Objm } from "@nats-io/obj";

const TIMEOUT = 10_000;
const version = JSON.parse(
  readFileSync(new URL("./node_modules/@nats-io/obj/package.json", import.meta.url)),
).version;

let nc;
let store;
let watcher;

function toHeaders(record) {
  const h = newHeaders();
  for (const [key, values] of Object.entries(record ?? {})) {
    for (const value of values) h.append(key, value);
  }
  return h;
}

function fromHeaders(h) {
  const record = {};
  for (const key of h?.keys() ?? []) record[key] = h.values(key);
  return record;
}

function entry(info) {
  const link = info.options?.link;
  return {
    name: info.name,
    size: info.size ?? 0,
    chunks: info.chunks ?? 0,
    nuid: info.nuid ?? "",
    digest: info.digest ?? "",
    deleted: info.deleted ?? false,
    description: info.description ?? "",
    headers: fromHeaders(info.headers),
    metadata: info.metadata ?? {},
    chunk_size: info.options?.max_chunk_size ?? null,
    link: link ? [link.bucket, link.name || null] : null,
  };
}

const ops = {
  async connect({ url }) {
    nc = await connect({ servers: url });
    return { version };
  },
  async close() {
    await nc?.close();
    nc = store = watcher = undefined;
  },
  async create({ bucket, description, ttl }) {
    const options = { description, ttl: nanos(ttl * 1000) };
    store = await new Objm(nc).create(bucket, options);
  },
  async open({ bucket }) {
    store = await new Objm(nc).open(bucket);
  },
  async put({ name, data, description, headers, metadata, chunk_size }) {
    const meta = { name };
    if (description) meta.description = description;
    if (headers) meta.headers = toHeaders(headers);
    if (metadata) meta.metadata = metadata;
    if (chunk_size) meta.options = { max_chunk_size: chunk_size };
    await store.putBlob(meta, new Uint8Array(Buffer.from(data, "base64")));
  },
  async get({ name }) {
    const data = await store.getBlob(name);
    if (data === null) throw new Error("object not found");
    return Buffer.from(data).toString("base64");
  },
  async info({ name }) {
    const info = await store.info(name);
    return info === null || info.deleted ? null : entry(info);
  },
  async list() {
    return (await store.list()).filter((info) => !info.deleted).map(entry);
  },
  async delete({ name }) {
    const answer = await store.delete(name);
    if (!answer.success) throw new Error("not deleted");
  },
  async link({ name, target }) {
    await store.link(name, await store.info(target));
  },
  async bucketLink({ name, bucket }) {
    await store.linkStore(name, await new Objm(nc).open(bucket));
  },
  async update({ name, description, headers }) {
    await store.update(name, { name, description, headers: toHeaders(headers) });
  },
  async rename({ name, new_name }) {
    await store.update(name, { name: new_name });
  },
  async watch() {
    const changes = await store.watch({ includeHistory: false });
    watcher = { changes, iterator: changes[Symbol.asyncIterator]() };
  },
  async watchNext() {
    const { value } = await watcher.iterator.next();
    return { name: value.name, deleted: value.deleted ?? false };
  },
  async watchStop() {
    watcher.changes.stop();
    watcher = undefined;
  },
  async seal() {
    await store.seal();
  },
  async status() {
    const status = await store.status();
    return {
      description: status.description,
      ttl: status.ttl / 1e9,
      size: status.size,
      sealed: status.sealed ?? false,
    };
  },
};

function bounded(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("no answer in 10 s")), TIMEOUT);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  const request = JSON.parse(line);
  let reply;
  try {
    reply = { id: request.id, ok: (await bounded(ops[request.op](request))) ?? null };
  } catch (error) {
    reply = { id: request.id, error: `${error.name}: ${error.message}` };
  }
  process.stdout.write(JSON.stringify(reply) + "\n");
}
process.exit(0);
