'use strict';
// Runs programs in plain Node and in one with nproxy.js, and compares what came out of them.
//
//   node check.js [--only WORD] [NODE]     NODE is the executable to test; default the one that runs this
//
// Each program is bounded in time. Exit status: 0 if all is as it has to be, 1 if not.

const { spawn } = require('child_process');
const { createHash } = require('crypto');
const { mkdtempSync, readdirSync, rmSync, writeFileSync } = require('fs');
const { tmpdir } = require('os');
const { join } = require('path');

const PRELOAD = join(__dirname, '..', 'nproxy.js');
const LIMIT_MS = 60_000;

const words = process.argv.slice(2);
let only;
if (words[0] === '--only') {
  only = words[1];
  words.splice(0, 2);
}
const node = words[0] || process.execPath;
const directory = mkdtempSync(join(tmpdir(), 'nproxy-node-'));
process.on('exit', () => rmSync(directory, { recursive: true, force: true }));

/** The environment without anything that would change what a program does. */
function environment(more) {
  const env = { ...process.env, NO_COLOR: '1', ...more };
  delete env.NODE_OPTIONS;
  for (const name of Object.keys(env)) {
    const kept = name === 'NPROXY_NODE_ADDON' || name === 'NPROXY_TEST_INK';
    if (name.startsWith('NPROXY_') && !kept && !(more && name in more)) delete env[name];
  }
  return { ...env, ...more };
}

let programs = 0;
function file(text, suffix = '.js') {
  const path = join(directory, `program${programs++}${suffix}`);
  writeFileSync(path, text);
  return path;
}

/** A pipeline whose reader begins when the file $GO is there: made on request, or when the program is over. */
const GATED = '{ "$@"; code=$?; : >"$GO"; exit $code; } | { while [ ! -e "$GO" ]; do sleep 0.02; done; exec cat; }; exit "${PIPESTATUS[0]}"';

/**
 * Runs a program to its end. `read` is when stdout is read: `at once`, `later` (through a pipe, when the program has said so on
 * stderr, or is over), or `never` (it is closed at once).
 */
function run(text, { preload = true, env, flags = [], suffix, read = 'at once', signal } = {}) {
  const words = [node, ...flags, ...(preload ? ['-r', PRELOAD] : []), file(text, suffix)];
  const go = join(directory, `go${programs}`);
  if (read === 'later') words.unshift('bash', '-c', GATED, 'bash');
  const child = spawn(words[0], words.slice(1), {
    env: environment({ ...env, GO: go }),
    cwd: directory,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  return new Promise((resolve) => {
    const hash = createHash('sha256');
    const result = { bytes: 0, text: '', stderr: '', code: null, signal: null, pid: child.pid };
    const timer = setTimeout(() => {
      result.stderr += '\nTIMEOUT';
      child.kill('SIGKILL');
    }, LIMIT_MS);
    const start = () => {
      if (child.stdout.listenerCount('data') > 0) return;
      child.stdout.on('data', (chunk) => {
        hash.update(chunk);
        result.bytes += chunk.length;
        if (result.text.length < 65536) result.text += chunk.toString('latin1');
      });
    };
    if (read !== 'never') start();
    if (read === 'never') child.stdout.destroy();
    child.stderr.on('data', (chunk) => {
      result.stderr += chunk;
      if (signal && result.stderr.includes('READY')) {
        child.kill(signal);
        signal = undefined;
      }
      if (result.stderr.includes('READ NOW')) writeFileSync(go, '');
    });
    child.on('close', (code, died) => {
      clearTimeout(timer);
      result.code = code;
      result.signal = died;
      result.hash = hash.digest('hex');
      resolve(result);
    });
  });
}

const tests = [];
const test = (name, body) => tests.push({ name, body });

/** What must not be changed by the preload, with its pieces only, and with a text mode that has nothing to remove. */
function same(name, text, options = {}) {
  test(name, async (check) => {
    const plain = await run(text, { ...options, preload: false });
    check(!plain.stderr.includes('TIMEOUT'), 'plain Node ends');
    for (const env of [{}, { NPROXY_TEXT: 'strip-ansi' }, { NPROXY_TEXT: 'passthrough' }]) {
      if (options.textless && env.NPROXY_TEXT === 'strip-ansi') continue;
      const loaded = await run(text, { ...options, env: { ...options.env, ...env } });
      const how = JSON.stringify(env);
      const clean = (result) => (options.clean ? options.clean(result.stderr) : result.stderr);
      check(loaded.bytes === plain.bytes && loaded.hash === plain.hash, `${how} stdout: ${plain.bytes} bytes, got ${loaded.bytes}`);
      check(clean(loaded) === clean(plain), `${how} stderr: ${clean(plain)}\n    got ${clean(loaded)}`);
      check(loaded.code === plain.code && loaded.signal === plain.signal, `${how} status: ${plain.code} ${plain.signal}, got ${loaded.code} ${loaded.signal}`);
    }
    if (options.expect) options.expect(plain, check);
  });
}

same('1 MB of every byte value', `
  const bytes = Buffer.alloc(1 << 20);
  for (let i = 0, x = 1; i < bytes.length; i++) { x = (x * 1103515245 + 12345) & 0x7fffffff; bytes[i] = x >> 16; }
  process.stdout.write(bytes);
  process.stdout.write(new Uint8Array(bytes.buffer, 5, 70000));
`, { textless: true, expect: (plain, check) => check(plain.bytes === (1 << 20) + 70000, 'all of it') });

same('an emoji across each border of pieces', `
  for (const shift of [0, 1, 2, 3]) process.stdout.write('y'.repeat(shift) + '\u{1F680}'.repeat(200000) + '\\n');
  for (const at of [65535, 65536, 262143, 262144, 524287]) {
    process.stdout.write('z'.repeat(at) + '\u{1F600}' + 'z'.repeat(300000) + '\\n');
  }
  process.stdout.write('\\ud83d'.repeat(300000) + '\\n');
  console.log('\u{1F1E9}\u{1F1EA}'.repeat(100000));
`);

same('a thousand writes: return values, drain, callbacks', `
  const returned = [], order = [];
  let drains = 0;
  process.stdout.on('drain', () => drains++);
  for (let i = 0; i < 1000; i++) {
    returned.push(process.stdout.write(String(i).padEnd(199, '.') + '\\n', () => order.push(i)) ? 1 : 0);
  }
  const { writableLength, writableHighWaterMark, writableNeedDrain } = process.stdout;
  console.error(returned.join(''), writableLength, writableHighWaterMark, writableNeedDrain, 'READ NOW');
  process.on('exit', () => console.error(order.length, order.every((x, i) => x === i), drains, process.exitCode));
`, {
  read: 'later',
  expect: (plain, check) => {
    check(/1{20}0{20}/.test(plain.stderr), 'writes that answer true and writes that answer false');
    check(/1000 true 1 /.test(plain.stderr), 'one drain');
  },
});

same('one callback per write, whatever its size', `
  const calls = [];
  const sizes = [0, 1, 65536, 262144, 262145, 1 << 20, 3000000, 7];
  sizes.forEach((size, i) => process.stdout.write('a'.repeat(size), () => calls.push(i)));
  process.stdout.write('end', 'latin1', () => { calls.push('end'); setImmediate(() => console.error(calls.join())); });
`);

same('encodings', `
  const bytes = Buffer.alloc(1000001);
  for (let i = 0; i < bytes.length; i++) bytes[i] = 32 + i % 90;
  for (const encoding of ['base64', 'base64url', 'hex', 'latin1', 'binary', 'ascii', 'utf8', 'utf-8', 'UTF8']) {
    process.stdout.write(bytes.toString(encoding), encoding);
  }
  process.stdout.write(bytes.subarray(0, 1000000).toString('utf16le'), 'utf16le');
  process.stdout.write(bytes.subarray(0, 1000000).toString('ucs2'), 'ucs2');
  process.stdout.setDefaultEncoding('hex');
  process.stdout.write(bytes.toString('hex'));
`);

same('cork, uncork, end, and stderr', `
  process.stdout.cork();
  for (let i = 0; i < 500; i++) process.stdout.write('line ' + i + ' \u00e9\\n', i % 2 ? 'utf8' : 'latin1');
  process.nextTick(() => process.stdout.uncork());
  process.stderr.write('x'.repeat(600000) + '\\n');
  setImmediate(() => { console.log('%s of %d', 'the last', 500); console.table([{ a: 1 }]); });
`);

same('a reader that leaves, with a handler', `
  let errors = 0;
  process.stdout.on('error', (error) => { errors++; console.error(error.code, error.syscall); process.exitCode = 3; });
  setTimeout(() => process.stdout.write('x'.repeat(1000000), (error) => console.error('callback', error && error.code)), 200);
  setTimeout(() => process.stdout.write('more\\n'), 400);
  process.on('exit', () => console.error(errors));
`, { read: 'never', expect: (plain, check) => check(/EPIPE/.test(plain.stderr), 'EPIPE') });

same('a reader that leaves, without one', `
  setTimeout(() => process.stdout.write('x'.repeat(1000000)), 200);
  setTimeout(() => console.error('still here'), 600);
`, { read: 'never', clean: (text) => text.replace(/\n    at [\s\S]*?\n(?=\S)/g, '\n').replace(/\n\s+at .*/g, ''), expect: (plain, check) => check(plain.code === 1, 'status 1') });

same('process.exit right after a write', `
  process.stdout.write('x'.repeat(1000000));
  process.exit(5);
`, { read: 'later', expect: (plain, check) => check(plain.code === 5, 'status 5') });

same('exit in an exit handler, and output there', `
  process.on('exit', (code) => { console.log('leaving', code); process.exitCode = 9; });
  process.stdout.write('abc\\n');
`, { expect: (plain, check) => check(plain.code === 9, 'status 9') });

same('an exception, and a rejection, that nobody catches', `
  Promise.reject(new TypeError('refused'));
`, { clean: (text) => text.replace(/program\d+/g, 'program').replace(/\n\s+at .*/g, ''), expect: (plain, check) => check(plain.code === 1, 'status 1') });

same("the program's own handlers", `
  process.on('unhandledRejection', (reason) => console.log('rejection', reason));
  process.on('uncaughtException', (error) => console.log('exception', error.message));
  process.on('SIGINT', () => { console.log('interrupted'); process.exit(7); });
  process.on('warning', (warning) => console.log(warning.name));
  Promise.reject('no');
  setTimeout(() => { throw new Error('thrown'); }, 10);
  setTimeout(() => process.emitWarning('w', 'MyWarning'), 20);
  setTimeout(() => console.error('READY'), 50);
  setTimeout(() => {}, 20000);
  console.log(['SIGINT', 'SIGTERM', 'uncaughtException', 'unhandledRejection', 'beforeExit', 'warning'].map((name) => process.listenerCount(name)).join());
`, { signal: 'SIGINT', clean: (text) => text.replace(/\(node:\d+\)/g, '(node)'), expect: (plain, check) => check(plain.code === 7, 'status 7') });

same('a signal that nobody handles', `
  console.error('READY');
  setTimeout(() => {}, 20000);
`, { signal: 'SIGTERM', expect: (plain, check) => check(plain.signal === 'SIGTERM', 'the signal') });

same('a natural end', 'process.stdout.write("done\\n");');

same('workers', `
  const { Worker, isMainThread, workerData } = require('worker_threads');
  if (isMainThread) {
    const next = (i) => {
      if (i === 3) return;
      const worker = new Worker(__filename, { workerData: i });
      // Messages and output of a worker are in no order; its exit comes after both.
      const messages = [];
      worker.on('message', (message) => messages.push(message));
      worker.on('exit', (code) => { console.log('exit', code, i, ...messages); next(i + 1); });
    };
    next(0);
  } else {
    console.log('worker', workerData, process.stdout.writableHighWaterMark, typeof process.stdout._handle);
    process.stdout.write('x'.repeat(400000) + '\\n', () => require('worker_threads').parentPort.postMessage('written'));
  }
`);

same('a worker that runs out of memory does not take the others along', `
  const { Worker, isMainThread } = require('worker_threads');
  if (isMainThread) {
    const worker = new Worker(__filename, { resourceLimits: { maxOldGenerationSizeMb: 16 } });
    worker.on('error', (error) => console.log(error.code));
    worker.on('exit', (code) => console.log('exit', code));
  } else {
    const kept = [];
    for (;;) kept.push(new Array(1000).fill(kept.length));
  }
`, { expect: (plain, check) => check(/ERR_WORKER_OUT_OF_MEMORY/.test(plain.text), 'the code') });

same('child processes', `
  const { execFileSync, fork, spawnSync } = require('child_process');
  if (process.argv[2] === 'child') {
    process.on('message', (message) => { process.send({ answer: message.question + 1 }); process.disconnect(); });
  } else if (process.argv[2] === 'print') {
    process.stdout.write('p'.repeat(500000));
  } else {
    const out = execFileSync(process.execPath, [__filename, 'print'], { maxBuffer: 1 << 24 });
    console.log(out.length, spawnSync(process.execPath, ['-e', 'process.exit(4)']).status);
    spawnSync(process.execPath, ['-p', '"inherited"'], { stdio: 'inherit' });
    const child = fork(__filename, ['child']);
    child.send({ question: 41 });
    child.on('message', (message) => console.log(message.answer));
    child.on('exit', (code) => console.log('child', code));
  }
`);

same('an ESM main', `
  import { stdout } from 'node:process';
  import { once } from 'node:events';
  await new Promise((resolve) => setTimeout(resolve, 5));
  if (!stdout.write('m'.repeat(700000))) await once(stdout, 'drain');
  stdout.write('\\n' + import.meta.url.slice(0, 5) + '\\n');
`, { suffix: '.mjs' });

same('V8 out of memory: the death itself', `
  const kept = [];
  for (;;) kept.push({ i: kept.length });
`, {
  flags: ['--max-old-space-size=40'],
  clean: (text) => String(/FATAL ERROR/.exec(text)),
  expect: (plain, check) => check(plain.signal === 'SIGABRT', 'SIGABRT'),
});

test('near the limit: one line, figures, and a little more room once', async (check) => {
  const text = `
    let kept = [];
    const target = 44 * 1024 * 1024;
    // Peaks a little above the limit, then lets go: without headroom it dies.
    while (process.memoryUsage().heapUsed < target) for (let i = 0; i < 1000; i++) kept.push({ i, s: 'x' + i });
    kept = [];
    for (let i = 0; i < 2e6; i++) ({ i });
    console.log('survived');
  `;
  const flags = ['--max-old-space-size=40', '--max-semi-space-size=1'];
  // V8 also gives up when collections take most of the time, and on a busy machine they may: nothing is to be learned then.
  let loaded;
  for (let turn = 0; turn < 10; turn++) {
    loaded = await run(text, { flags });
    if (!loaded.stderr.includes('Ineffective mark-compacts')) break;
  }
  check(loaded.text === 'survived\n', `survived: ${loaded.signal} ${loaded.stderr}`);
  const line = /nproxy: node \d+: the V8 heap is at its limit of \d+ MiB: emergency; 10 MiB more this once\n/g;
  check((loaded.stderr.match(line) || []).length === 1, `one line: ${loaded.stderr.slice(0, 400)}`);
});

test('a purely synchronous loop is told of all the same', async (check) => {
  const text = 'const kept = []; for (;;) kept.push({ i: kept.length });';
  const loaded = await run(text, { flags: ['--max-old-space-size=40'] });
  const told = loaded.stderr.indexOf('emergency');
  check(told >= 0 && told < loaded.stderr.indexOf('FATAL ERROR'), loaded.stderr.slice(0, 600));
  check(loaded.signal === 'SIGABRT', `${loaded.signal}`);
});

test('--heapsnapshot-near-heap-limit still writes its snapshot', async (check) => {
  // Few and large: a snapshot is made of each object.
  const text = 'const kept = []; for (;;) kept.push(new Array(5000).fill(kept.length));';
  const loaded = await run(text, { flags: ['--max-old-space-size=24', '--heapsnapshot-near-heap-limit=1'] });
  const snapshots = readdirSync(directory).filter((name) => name.endsWith('.heapsnapshot'));
  check(snapshots.length === 1, `a snapshot: ${snapshots} ${loaded.stderr.slice(0, 300)}`);
});

test('memory stages are told, and left', async (check) => {
  const text = `
    let kept = [];
    const grow = () => {
      kept.push(Buffer.alloc(20 << 20, 1));
      if (kept.length < 12) setTimeout(grow, 60);
      else setTimeout(() => { kept = null; globalThis.gc(); setTimeout(() => {}, 2500); }, 300);
    };
    grow();
  `;
  const env = { NPROXY_ATTENTION_MB: '100', NPROXY_PRESSURE_MB: '150', NPROXY_CRITICAL_MB: '190', NPROXY_EMERGENCY_MB: '230', NPROXY_BANNER: '1', NPROXY_MEMLOG: '1' };
  const { stderr, code } = await run(text, { env, flags: ['--expose-gc'] });
  check(code === 0, `${code}`);
  const places = ['attention from 100 MiB', 'pressure from 150 MiB', 'critical from 190 MiB', 'emergency from 230 MiB', 'memory: monitoring ('].map((word) => stderr.indexOf(word));
  check(places.every((place, i) => place >= 0 && (i === 0 || place > places[i - 1])), stderr);
  check(/nproxy: node \d+: memory: stages from 100 MiB, 150 MiB, 190 MiB, 230 MiB of /.test(stderr), `a banner: ${stderr}`);
  check(/memory: \S+ MiB, peak \S+ MiB, \w+; heap \S+ MiB used, \S+ MiB alive of \S+ GiB, external \S+ MiB\n/.test(stderr), `a log: ${stderr}`);
});

test('NPROXY_MONITOR=off is silent, and so is --quiet by variable', async (check) => {
  const text = 'const kept = Buffer.alloc(300 << 20, 1); setTimeout(() => {}, 500);';
  for (const env of [{ NPROXY_MONITOR: 'off' }, { NPROXY_QUIET: '1' }]) {
    const { stderr } = await run(text, { env: { ...env, NPROXY_ATTENTION_MB: '50' } });
    check(stderr === '', stderr);
  }
});

test('garbage is collected under pressure, in a busy loop', async (check) => {
  const text = `
    // Garbage that V8 sees no reason to collect: old, large, and then forgotten.
    let kept = [];
    for (let i = 0; i < 300; i++) kept.push(new Array(131072).fill(i));
    kept = null;
    const before = process.memoryUsage().rss;
    const until = Date.now() + 20000;
    let least = before;
    while (Date.now() < until && least > before / 2) {
      for (let i = 0; i < 1e6; i++);
      least = Math.min(least, process.memoryUsage().rss);
    }
    console.log(Math.round(before / 1048576), Math.round(least / 1048576));
  `;
  const with_ = await run(text, { env: { NPROXY_CRITICAL_MB: '150' } });
  const [before, least] = with_.text.split(' ').map(Number);
  check(least < before / 2, `${before} MiB before, ${least} after; ${with_.stderr}`);
});

test('text modes', async (check) => {
  const text = `
    process.stdout.write('\\u001b[31mred');
    process.stdout.write('\\u001b');
    process.stdout.write('[0m plain\\n');
    process.stderr.write('\\u001b[1mbold\\u001b[m\\n');
    process.stdout.write('\\u001b[32m' + 'g'.repeat(600000) + '\\u001b[0m\\nlast');
  `;
  const strip = await run(text, { env: { NPROXY_TEXT: 'strip-ansi' } });
  const expected = `red plain\n${'g'.repeat(600000)}\nlast`;
  check(strip.hash === createHash('sha256').update(expected).digest('hex'), `${strip.bytes} bytes, ${strip.text.slice(0, 40)}`);
  check(strip.stderr === 'bold\n', strip.stderr);
  const stamps = await run(text, { env: { NPROXY_TEXT: 'strip-ansi,transform', NPROXY_TIMESTAMP: '<%Y> ', NPROXY_TEXT_STREAMS: 'stdout' } });
  check(/^<20\d\d> red plain\n<20\d\d> ggg/.test(stamps.text), stamps.text.slice(0, 60));
  check(stamps.stderr === '\u001b[1mbold\u001b[m\n', stamps.stderr);
  const wrong = await run(text, { env: { NPROXY_TEXT: 'nonsense' } });
  check(/^nproxy: .*nonsense/.test(wrong.stderr) && wrong.code === 0, wrong.stderr);
});

test('text modes leave alone what one Node process writes to another', async (check) => {
  const text = `
    if (process.argv[2]) process.stdout.write('one\\ntwo\\n');
    else {
      const { execFileSync, spawnSync } = require('child_process');
      console.log(JSON.stringify(String(execFileSync(process.execPath, [__filename, 'x']))));
      spawnSync(process.execPath, [__filename, 'x'], { stdio: 'inherit' });
    }
  `;
  const env = { NPROXY_TEXT: 'transform', NPROXY_TIMESTAMP: '> ', NODE_OPTIONS: `-r "${PRELOAD}"` };
  const loaded = await run(text, { env, preload: false });
  check(loaded.text === '> "one\\ntwo\\n"\n> one\n> two\n', loaded.text + loaded.stderr);
});

test('a large string goes into a slow pipe in pieces', async (check) => {
  const text = `
    let peak = 0;
    const look = () => { peak = Math.max(peak, process.memoryUsage().rss); };
    const timer = setInterval(look, 5);
    process.stdout.write('0123456789abcdef'.repeat(5 << 20), () => { clearInterval(timer); look(); console.error(Math.round(peak / 1048576)); });
    console.error('READ NOW');
  `;
  const [plain, loaded] = [await run(text, { preload: false, read: 'later' }), await run(text, { read: 'later' })];
  check(plain.hash === loaded.hash && plain.bytes === 80 << 20, `${plain.bytes} ${loaded.bytes}`);
  const [before, after] = [plain, loaded].map(({ stderr }) => Number(/(\d+)\s*$/.exec(stderr)[1]));
  check(after < before - 40, `peak ${before} MiB plain, ${after} with nproxy.js`);
});

test('the title is shown on request, and holds no parenthesis', async (check) => {
  const text = `
    process.title = 'my (app)';
    globalThis.kept = Buffer.alloc(200 << 20, 1);
    setTimeout(() => console.log(process.title, /\\)/.test(require('fs').readFileSync('/proc/self/stat', 'latin1').split(' ').slice(1, 3).join(' ').slice(1, -1).slice(0, -2))), 1800);
  `;
  const { text: shown } = await run(`${text}`, { env: { NPROXY_TITLE: '1', NPROXY_ATTENTION_MB: '100' } });
  check(/\[attention\]/.test(shown), shown);
  const plain = await run('setTimeout(() => console.log(process.title), 700)', {});
  check(!/\[/.test(plain.text), plain.text);
});

test('where the addon cannot be loaded the program runs on', async (check) => {
  const text = 'console.log("runs")';
  const silent = await run(text, { env: { NPROXY_NODE_ADDON: '/no/such/addon' } });
  check(silent.text === 'runs\n' && silent.stderr === '' && silent.code === 0, silent.stderr);
  const told = await run(text, { env: { NPROXY_NODE_ADDON: '/no/such/addon', NPROXY_DEBUG: '1' } });
  check(told.text === 'runs\n' && /^nproxy: node \d+: load the addon: .*\n$/.test(told.stderr), told.stderr);
  const refused = await run(text, { flags: ['--no-addons'] });
  check(refused.text === 'runs\n' && refused.stderr === '' && refused.code === 0, refused.stderr);
  const gone = await run(text, { env: { NPROXY_NODE_PAGE: '/proc/1/fd/999' } });
  check(gone.text === 'runs\n' && gone.stderr === '' && gone.code === 0, gone.stderr);
});

test('NODE_OPTIONS, with a path that has spaces in it', async (check) => {
  const { cpSync } = require('fs');
  const place = join(directory, 'a "quoted" place');
  cpSync(PRELOAD, join(place, 'nproxy.js'));
  const quoted = join(place, 'nproxy.js').replace(/["\\]/g, '\\$&');
  const addon = process.env.NPROXY_NODE_ADDON || join(__dirname, '../../target/debug/libnproxy_node.so');
  const env = { NODE_OPTIONS: `--require "${quoted}"`, NPROXY_NODE_ADDON: addon, NPROXY_BANNER: '1' };
  const { stderr, text } = await run('console.log(process.execArgv.length)', { env, preload: false });
  check(/stages from/.test(stderr) && text === '0\n', stderr + text);
});

// node/test/versions fetches Ink, and says where it is.
const ink = process.env.NPROXY_TEST_INK;
if (ink) test('an Ink application at a terminal, byte for byte', async (check) => {
  const text = `
    import { createRequire } from 'node:module';
    const path = createRequire(${JSON.stringify(join(ink, 'package.json'))});
    const load = async (name) => { const module = await import(path.resolve(name)); return module.default && module.default.createElement ? module.default : module; };
    const { render, Box, Text, Static, useApp } = await import(path.resolve('ink'));
    const React = await load('react');
    const { createElement: e, useEffect, useState } = React;
    const App = () => {
      const { exit } = useApp();
      const [step, setStep] = useState(0);
      useEffect(() => {
        if (step === 8) { exit(); return; }
        const timer = setTimeout(() => setStep(step + 1), 120);
        return () => clearTimeout(timer);
      }, [step]);
      return e(Box, { flexDirection: 'column' },
        e(Static, { items: [...Array(step).keys()] }, (item) => e(Text, { key: item, color: 'green' }, 'done ' + item)),
        e(Box, { borderStyle: 'round' }, e(Text, { bold: true }, 'step ' + step + ' \u{1F680}')));
    };
    render(e(App), { patchConsole: false });
  `;
  const main = file(text, '.mjs');
  const show = (words, env) => new Promise((resolve) => {
    const command = words.map((word) => `'${word}'`).join(' ');
    const child = spawn('script', ['-qec', command, '/dev/null'], { env: environment(env), stdio: ['ignore', 'pipe', 'inherit'] });
    const timer = setTimeout(() => child.kill('SIGKILL'), LIMIT_MS);
    const chunks = [];
    child.stdout.on('data', (chunk) => chunks.push(chunk));
    child.on('close', () => { clearTimeout(timer); resolve(Buffer.concat(chunks)); });
  });
  const plain = await show([node, main]);
  check(plain.includes('step 8') && plain.includes('\u001b['), `it draws: ${plain.toString().slice(0, 300)}`);
  for (const env of [{}, { NPROXY_ATTENTION_MB: '1' }]) {
    // A line of ours would be seen; quiet, the frames have to be those of plain Node.
    const loaded = await show([node, '-r', PRELOAD, main], { ...env, NPROXY_QUIET: '1' });
    check(loaded.equals(plain), `${JSON.stringify(env)}: ${plain.length} bytes plain, ${loaded.length} with nproxy.js`);
  }
});

async function main() {
  let failed = 0;
  let ran = 0;
  for (const { name, body } of tests.filter(({ name }) => !only || name.includes(only))) {
    const wrong = [];
    const started = Date.now();
    try {
      await body((holds, what) => holds || wrong.push(what));
    } catch (error) {
      wrong.push(error.stack);
    }
    const took = ((Date.now() - started) / 1000).toFixed(1);
    ran++;
    console.log(`${wrong.length === 0 ? 'ok    ' : 'FAILED'} ${name} (${took} s)`);
    for (const what of wrong) console.log(`    ${String(what).slice(0, 1500)}`);
    failed += wrong.length > 0;
  }
  console.log(`${ran} checks, ${failed} failed`);
  process.exitCode = failed > 0 ? 1 : 0;
}

main();
