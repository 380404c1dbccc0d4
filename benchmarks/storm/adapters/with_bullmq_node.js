// BullMQ on Node: a job whose lock has lapsed is moved back by the stalled check, at most `maxStalledCount` times.
// The same command line, the same jobs and the same lines in the ledger as kit.py.
const fs = require('fs');
const path = require('path');
const { Queue, Worker } = require(path.join(process.env.NODE_PATH, 'bullmq'));

const [mode, number, count, perSecond, seed, first] = process.argv.slice(2);
const url = new URL(process.env.STORM_URL);
const LEASE = 5000;
const MANY = 1000000;
const CONCURRENCY = 10;
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
// CLOCK_MONOTONIC in seconds: the clock that Python's time.monotonic() reads.
const monotonic = () => Number(process.hrtime.bigint()) / 1e9;
const ledger = fs.openSync(process.env.FAULTS_LEDGER, 'a');
const write = (kind, job = '', outcome = '', more = {}) => {
  fs.writeSync(ledger, `${JSON.stringify({ kind, at: monotonic(), pid: process.pid, job, outcome, more })}\n`);
};
// Any generator that is even will do: a multiply-with-xor hash of the seed and the job's number.
const chance = (at, salt) => {
  let h = (Number(seed) * 7919 + Number(number) * 104729 + at * 1299709 + salt * 15485863) >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x45d9f3b) >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x45d9f3b) >>> 0;
  return ((h ^ (h >>> 16)) >>> 0) / 2 ** 32;
};
const payload = (at) => ({
  id: `${number}-${at}`,
  seconds: chance(at, 1) < 0.3 ? 0.2 + chance(at, 2) * 0.4 : chance(at, 2) * 0.05,
});

async function produce() {
  const queue = new Queue('storm', { connection: { host: url.hostname, port: Number(url.port) } });
  queue.on('error', () => {});
  const since = monotonic();
  for (let at = Number(first); at < Number(count); at += 1) {
    await sleep(Math.max(0, (since + (at - Number(first)) / Number(perSecond) - monotonic()) * 1000));
    const data = payload(at);
    try {
      await queue.add('work', data);
      write('accepted', data.id);
    } catch (error) {
      write('note', data.id, 'refused', { error: error.name });
    }
  }
  write('note', '', 'done', { producer: number });
  for (;;) {
    await sleep(1000);
    await queue.add('work', { id: '', seconds: 0 });
  }
}

async function worker() {
  const run = async (job) => {
    const { id, seconds } = job.data;
    if (id) write('start', id);
    await sleep(seconds * 1000);
    if (id) write('end', id, 'returned');
  };
  write('note', '', 'ready');
  const found = new Worker('storm', run, {
    connection: { host: url.hostname, port: Number(url.port), maxRetriesPerRequest: null },
    concurrency: CONCURRENCY,
    lockDuration: LEASE,
    stalledInterval: LEASE,
    maxStalledCount: MANY,
  });
  found.on('error', () => {});
}

({ produce, worker })[mode]();
