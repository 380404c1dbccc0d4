// A producer and reader of streamq's queues in Node, without any package: docs/wire-format.md in code.
//
//   streamq script add > add.lua
//   node streamq.mjs SOCKET add QUEUE NAME DATA add.lua     adds a job, DATA is JSON; prints {"id": …, "new": …}
//   node streamq.mjs SOCKET get QUEUE ID                    prints what is known of a job; null if nothing is
import { randomUUID } from 'node:crypto'; // SOCKET is a unix socket's path or host:port
import { readFileSync } from 'node:fs';
import net from 'node:net';

const head = (size, [limit, mask, code8, code16, code32]) => {
  if (size < limit) return [mask | size];
  if (code8 && size < 256) return [code8, size];
  const low = [(size >> 8) & 255, size & 255];
  return size < 65536 ? [code16, ...low] : [code32, size >>> 24, (size >> 16) & 255, ...low];
};

function pack(value) { // msgpack
  if (value === null || value === undefined) return Buffer.from([0xc0]);
  if (typeof value === 'boolean') return Buffer.from([value ? 0xc3 : 0xc2]);
  if (typeof value === 'number') {
    const [whole, out] = [Number.isSafeInteger(value) && !Object.is(value, -0), Buffer.alloc(9)];
    if (whole && value >= 0 && value < 128) return Buffer.from([value]);
    out[0] = whole ? 0xd3 : 0xcb;
    if (whole) out.writeBigInt64BE(BigInt(value), 1); else out.writeDoubleBE(value, 1);
    return out;
  }
  if (typeof value === 'string') {
    const text = Buffer.from(value);
    return Buffer.concat([Buffer.from(head(text.length, [32, 0xa0, 0xd9, 0xda, 0xdb])), text]);
  }
  const list = Array.isArray(value);
  const items = list ? value : Object.entries(value);
  const start = head(items.length, list ? [16, 0x90, 0, 0xdc, 0xdd] : [16, 0x80, 0, 0xde, 0xdf]);
  return Buffer.concat([Buffer.from(start), ...(list ? items : items.flat()).map(pack)]);
}

function unpack(bytes) {
  let at = 0;
  const whole = (size, signed) => {
    const read = { 1: ['readInt8', 'readUInt8'], 2: ['readInt16BE', 'readUInt16BE'], 4: ['readInt32BE', 'readUInt32BE'],
      8: ['readBigInt64BE', 'readBigUInt64BE'] }[size][signed ? 0 : 1];
    const found = bytes[read]((at += size) - size);
    return typeof found === 'bigint' && Number.isSafeInteger(Number(found)) ? Number(found) : found;
  };
  const cut = (size) => bytes.subarray((at += size) - size, at);
  const list = (size) => Array.from({ length: size }, one);
  const map = (size) => Object.fromEntries(Array.from({ length: size }, () => [one(), one()]));
  const extension = (size) => {
    if (whole(1, true) !== 1) throw new Error('an unknown extension');
    return BigInt.asIntN(8 * size, BigInt(`0x${cut(size).toString('hex')}`)); // a whole number beyond 64 bits
  };
  const one = () => {
    const code = bytes[at++];
    if (code < 0x80) return code;
    if (code < 0x90) return map(code & 15);
    if (code < 0xa0) return list(code & 15);
    if (code < 0xc0) return cut(code & 31).toString();
    if (code >= 0xe0) return code - 256;
    if (code >= 0xcc && code <= 0xd3) return whole(1 << (code & 3), code >= 0xd0);
    if (code >= 0xd4 && code <= 0xd8) return extension(1 << (code - 0xd4));
    switch (code) {
      case 0xc0: return null;
      case 0xc2: case 0xc3: return code === 0xc3;
      case 0xc4: case 0xc5: case 0xc6: return Buffer.from(cut(whole(1 << (code - 0xc4), false)));
      case 0xc7: case 0xc8: case 0xc9: return extension(whole(1 << (code - 0xc7), false));
      case 0xca: return cut(4).readFloatBE();
      case 0xcb: return cut(8).readDoubleBE();
      case 0xd9: case 0xda: case 0xdb: return cut(whole(1 << (code - 0xd9), false)).toString();
      case 0xdc: case 0xdd: return list(whole(code === 0xdc ? 2 : 4, false));
      default: return map(whole(code === 0xde ? 2 : 4, false));
    }
  };
  return one();
}

function connect(place) {
  const [, host, port] = /^([^/]*):(\d+)$/.exec(place) || [];
  const socket = host === undefined ? net.connect(place) : net.connect(Number(port), host);
  let buffer = Buffer.alloc(0);
  const waiting = [];
  const parse = (at) => { // returns [value, end], or null if it is not all there
    const end = buffer.indexOf('\r\n', at);
    if (end < 0) return null;
    const [kind, rest] = [String.fromCharCode(buffer[at]), buffer.toString('utf8', at + 1, end)];
    if ('+-:'.includes(kind)) return [{ '+': rest, '-': new Error(rest), ':': Number(rest) }[kind], end + 2];
    if (Number(rest) < 0) return [null, end + 2];
    if (kind === '$') return buffer.length < end + 4 + Number(rest) ? null
      : [Buffer.from(buffer.subarray(end + 2, end + 2 + Number(rest))), end + 4 + Number(rest)];
    const items = [];
    let next = end + 2;
    for (let found; items.length < Number(rest); [items[items.length], next] = found) if (!(found = parse(next))) return null;
    return [items, next];
  };
  socket.on('data', (data) => {
    buffer = Buffer.concat([buffer, data]);
    for (let found = parse(0); buffer.length && found; found = parse(0)) {
      buffer = buffer.subarray(found[1]);
      const [done, failed] = waiting.shift();
      (found[0] instanceof Error ? failed : done)(found[0]);
    }
  });
  const call = (...args) => new Promise((...both) => {
    const parts = args.map((arg) => (Buffer.isBuffer(arg) ? arg : Buffer.from(String(arg))));
    waiting.push(both);
    socket.write(Buffer.concat([Buffer.from(`*${parts.length}\r\n`),
      ...parts.flatMap((part) => [Buffer.from(`$${part.length}\r\n`), part, Buffer.from('\r\n')])]));
  });
  return { call, close: () => socket.end() };
}

const [SCHEMA, NORMAL, EVENTS_CAP] = [1, 3, 10000];
const table = (flat) => Object.fromEntries(flat.flatMap((field, i) => (i % 2 ? [] : [[String(field), flat[i + 1]]])));

async function add(redis, queue, name, data, script) {
  const job = [NORMAL, '0', '', pack([SCHEMA, name, data])];
  const reply = await redis.call('EVAL', script, 1, `sq:{${queue}}`, randomUUID(), 1, EVENTS_CAP, '', ...job);
  if (reply[0] < 0) throw new Error(`not added: ${reply}`);
  return { id: String(reply[0]), new: reply.length === 1 };
}

async function get(redis, queue, id) {
  const base = `sq:{${queue}}`;
  const record = table(await redis.call('HGETALL', `${base}:job:${id}`));
  let state = { d: 'delayed', c: 'completed', f: 'failed', x: 'cancelled' }[record.s];
  let envelope = Buffer.concat(Array.from({ length: 16 }, (_, i) => record[i ? `d${i}` : 'd'] ?? Buffer.alloc(0)));
  for (const lane of state ? [] : [1, 2, 3, 4]) {
    const entry = String(record.e ?? `${id}-0`);
    const [found] = await redis.call('XRANGE', `${base}:lane:${lane}`, entry, entry);
    const parts = found && table(found[1]);
    if (!parts || String(parts.j ?? parseInt(entry, 10)) !== id) continue;
    const pending = await redis.call('XPENDING', `${base}:lane:${lane}`, 'w', entry, entry, 1).catch(() => []);
    state = pending.length && String(pending[0][1]) !== 'spare' ? 'active' : 'waiting';
    envelope = parts.d ?? envelope;
  }
  if (!state || !envelope.length) return null;
  const [, name, data] = unpack(envelope);
  const [result, error] = [record.r && unpack(record.r), record.x && unpack(record.x)];
  return { id, state, name, data, attempts: Number(record.a ?? 0), result, error: error && `${error[0]}: ${error[1]}` };
}

const [place, verb, queue, ...rest] = process.argv.slice(2);
if (verb === 'pack') console.log(pack(JSON.parse(queue)).toString('hex'));
else if (verb === 'unpack') console.log(JSON.stringify(unpack(Buffer.from(queue, 'hex'))));
else {
  const redis = connect(place);
  const found = verb === 'add' ? await add(redis, queue, rest[0], JSON.parse(rest[1]), readFileSync(rest[2], 'utf8'))
    : await get(redis, queue, rest[0]);
  console.log(JSON.stringify(found));
  redis.close();
}
