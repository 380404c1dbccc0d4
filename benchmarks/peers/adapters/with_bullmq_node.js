// BullMQ on Node: concurrency as given; completed jobs kept (default); addBulk for bulk. The same command line as kit.py.
const fs = require('fs');
const path = require('path');
const { Queue, Worker } = require(path.join(process.env.NODE_PATH, 'bullmq'));

const option = (name, fallback) => {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? fallback : process.argv[at + 1];
};
const jobs = Number(option('jobs', 1000));
const how = option('how', 'one by one');
const url = new URL(option('url'));
const connection = { host: url.hostname, port: Number(url.port), maxRetriesPerRequest: null };
const folder = process.env.STREAMQ_BENCH_TALLY;
const kind = process.env.BENCH_KIND || 'noop';
const HOUR = 3600 * 1000;
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
// CLOCK_MONOTONIC in seconds: the clock that Python's time.monotonic() reads.
const monotonic = () => Number(process.hrtime.bigint()) / 1e9;
const payload = (number) => ({ t: monotonic(), number: number + 100000, note: 'x'.repeat(44) });

async function enqueue() {
  const queue = new Queue('bench', { connection });
  await queue.add('noop', payload(0));
  const start = monotonic();
  const size = how === 'bulk' ? 1000 : how === 'concurrently' ? 100 : 1;
  for (let at = 0; at < jobs; at += size) {
    const part = Array.from({ length: Math.min(size, jobs - at) }, (_, i) => payload(at + i));
    if (how === 'bulk') await queue.addBulk(part.map((data) => ({ name: 'noop', data })));
    else await Promise.all(part.map((data) => queue.add('noop', data, how === 'delayed' ? { delay: HOUR } : {})));
  }
  const took = monotonic() - start;
  await queue.close();
  console.log(JSON.stringify({ rate: jobs / took }));
}

async function produce() {
  const queue = new Queue('bench', { connection });
  for (let i = 0; i < jobs; i += 1) {
    await queue.add('noop', payload(i));
    await sleep(10);
  }
  await queue.close();
}

async function worker() {
  // The layout of benchmarks/tally.py: count, time of the first, then samples.
  const file = fs.openSync(path.join(folder, `tally.${process.pid}`), 'w+');
  const head = Buffer.alloc(16);
  const sample = Buffer.alloc(8);
  let count = 0;
  fs.writeFileSync(path.join(folder, `ready.${process.pid}`), '');
  while (!fs.existsSync(path.join(folder, 'go'))) await sleep(2);
  const run = async (job) => {
    const now = monotonic();
    if (count === 0 && head.readDoubleLE(8) === 0) head.writeDoubleLE(now, 8);
    if (kind === 'sleep') await sleep(10);
    if (kind === 'stamp') {
      sample.writeDoubleLE(now - job.data.t);
      fs.writeSync(file, sample, 0, 8, 16 + 8 * count);
    }
    count += 1;
    head.writeBigUInt64LE(BigInt(count), 0);
    fs.writeSync(file, head, 0, 16, 0);
  };
  new Worker('bench', run, { connection, concurrency: Number(option('concurrency', 100)) });
}

({ enqueue, produce, worker })[process.argv[2]]();
