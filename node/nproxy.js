'use strict';
// nproxy in a Node process: node -r …/node/nproxy.js app.js, or NODE_OPTIONS="-r …/node/nproxy.js".
//
// Under an nproxy (--node) it writes down what the V8 heap is like, and nothing is done to text. Without one it also watches the
// memory and runs the text modes that NPROXY_… variables ask for. Whatever fails here, the application runs as if it were not there.
//
// No module is loaded that Node has not loaded by itself: each costs a millisecond of everybody's start.

/** Bytes that go into a pipe before the next ones are made of a larger string. */
const PACE = 256 << 10;
/** The same from the pressure stage on. */
const PACE_UNDER_PRESSURE = 64 << 10;
const PRESSURE = 2;
const STAGES = ['monitoring', 'attention', 'pressure', 'critical', 'emergency'];

/** Encodings of which a string can be cut anywhere but within a pair of surrogates. */
const CUT_ANYWHERE = /^(utf-?8|ascii|latin1|binary|ucs-?2|utf-?16le)$/i;

const MEBIBYTE = 1024 * 1024;

/** Under NPROXY_DEBUG, or in any case if somebody has to know. */
function say(text, always) {
  const asked = process.env.NPROXY_DEBUG;
  if (always || (asked && asked !== '0')) process._rawDebug(`nproxy: node ${process.pid}: ${text}`);
}

/** Whether this is a Node that we know. */
function isSupported() {
  const { versions } = process;
  if (process.platform !== 'linux' || versions.bun || versions.deno || versions.electron) return false;
  return Number.parseInt(versions.node, 10) >= 18;
}

/** The addon: beside this file where it is installed, else as cargo built it. */
function load() {
  const directory = __dirname;
  const places = [
    `${directory}/nproxy.node`,
    `${directory}/../target/release/libnproxy_node.so`,
    `${directory}/../target/debug/libnproxy_node.so`,
  ];
  const named = process.env.NPROXY_NODE_ADDON;
  let why;
  for (const place of named ? [named] : places) {
    const addon = { exports: {} };
    try {
      process.dlopen(addon, place);
      return addon.exports;
    } catch (error) {
      // A file that is there and does not load says more than those that are not there.
      if (!why || !/No such file/.test(error.message)) why = error;
    }
  }
  throw why;
}

/** What Node's own flags say of the heap. */
function heapFlags() {
  const words = [...(process.env.NODE_OPTIONS || '').split(/\s+/), ...process.execArgv];
  let limit = 0;
  let snapshot = 0;
  words.forEach((word, index) => {
    const [, name, value] = /^"?--([\w-]+)(?:=([^"]*))?"?$/.exec(word) || [];
    // V8 itself tells the old generation's limit only together with the young one's.
    if (/^max[-_]old[-_]space[-_]size$/.test(name)) limit = Number(value || words[index + 1]) * MEBIBYTE || 0;
    if (name === 'heapsnapshot-near-heap-limit') snapshot = 1;
  });
  return { limit, snapshot };
}

/** Where `text` may be cut near `index`: not between the halves of a character. */
function cut(text, index) {
  const unit = text.charCodeAt(index - 1);
  return unit >= 0xd800 && unit <= 0xdbff ? index - 1 : index;
}

/**
 * Writes a chunk in pieces, each when the one before it is written, so that a string of many megabytes is never a buffer of as
 * many. `write` is the stream's own _write.
 */
function writeInPieces(stream, write, chunk, encoding, callback, pace, change) {
  const whole = typeof chunk === 'string' && !CUT_ANYWHERE.test(encoding) ? Buffer.from(chunk, encoding) : chunk;
  const text = typeof whole === 'string';
  let at = 0;
  let running = false;
  let waiting = 0;
  const piece = () => {
    const end = Math.min(at + pace, whole.length);
    const from = at;
    at = text && end < whole.length ? cut(whole, end) : end;
    return text ? whole.slice(from, at) : whole.subarray(from, at);
  };
  const next = (error) => {
    if (error || at >= whole.length) {
      callback(error);
      return;
    }
    // A write that is done at once calls back before it returns: a loop, not a recursion of as many steps.
    waiting++;
    if (running) return;
    running = true;
    while (waiting > 0) {
      waiting--;
      const part = piece();
      if (change) change(part, text ? encoding : 'buffer', next);
      else write.call(stream, part, text ? encoding : 'buffer', next);
    }
    running = false;
  };
  next();
}

/** Has large writes to a pipe, a socket or a terminal go in pieces, and text modes done where they are asked for. */
function hook(stream, fd, addon) {
  const write = stream._write;
  if (typeof write !== 'function') return;
  const define = (name, value) =>
    Object.defineProperty(stream, name, { value, writable: true, configurable: true, enumerable: false });
  const paceNow = () => (addon.stage() >= PRESSURE ? PACE_UNDER_PRESSURE : PACE);
  if (!addon.hasText(fd)) {
    // What is written to a file is written at once, whatever its size.
    if (!stream._handle) return;
    define('_write', function _write(chunk, encoding, callback) {
      if (typeof chunk !== 'string' || chunk.length <= PACE_UNDER_PRESSURE) {
        write.call(this, chunk, encoding, callback);
        return;
      }
      const pace = paceNow();
      if (chunk.length <= pace) write.call(this, chunk, encoding, callback);
      else writeInPieces(this, write, chunk, encoding, callback, pace);
    });
    return;
  }
  const filtered = (chunk, encoding) =>
    addon.filter(fd, typeof chunk === 'string' ? Buffer.from(chunk, encoding) : chunk);
  const pass = (self, bytes, callback) => {
    if (bytes.length === 0) callback();
    else write.call(self, bytes, 'buffer', callback);
  };
  define('_write', function _write(chunk, encoding, callback) {
    const change = (part, how, done) => pass(this, filtered(part, how), done);
    const pace = paceNow();
    if (chunk.length <= pace) change(chunk, encoding, callback);
    else writeInPieces(this, write, chunk, encoding, callback, pace, change);
  });
  if (typeof stream._writev === 'function') {
    define('_writev', function _writev(chunks, callback) {
      const parts = chunks.map(({ chunk, encoding }) => filtered(chunk, encoding));
      pass(this, Buffer.concat(parts), callback);
    });
  }
}

/** Hooks a stream when it is first asked for, as Node makes it only then. */
function hookWhenMade(name, fd, addon) {
  const own = Object.getOwnPropertyDescriptor(process, name);
  if (!own || !own.get || !own.configurable) return;
  let hooked;
  const get = function get() {
    const stream = own.get.call(this);
    if (stream && stream !== hooked) {
      hooked = stream;
      try {
        hook(stream, fd, addon);
      } catch (error) {
        say(`hook ${name}: ${error.message}`);
      }
    }
    return stream;
  };
  Object.defineProperty(get, 'name', { value: own.get.name });
  Object.defineProperty(process, name, { ...own, get });
}

/**
 * The output streams that are to be hooked. A Node process that another one has started may write to that one, not to the
 * person: text modes are for what goes where the first one's output went.
 */
function ownStreams(addon) {
  const named = ['stdout', 'stderr'].map((name, index) => ({ name, fd: index + 1 }));
  if (!named.some(({ fd }) => addon.hasText(fd))) return named;
  const { fstatSync } = require('fs');
  const identity = (fd) => {
    try {
      const { dev, ino, rdev } = fstatSync(fd);
      return `${dev}:${ino}:${rdev}`;
    } catch {
      return 'closed';
    }
  };
  const first = process.env.NPROXY_NODE_STREAMS;
  if (first === undefined) {
    process.env.NPROXY_NODE_STREAMS = named.map(({ fd }) => identity(fd)).join(',');
    return named;
  }
  return named.filter(({ fd }) => first.split(',').includes(identity(fd)));
}

/** Shows the stage in the process's title, for those who ask for it. */
function showTitle(addon) {
  let name = process.title;
  let title = name;
  let shown = 0;
  const timer = setInterval(() => {
    const stage = addon.stage();
    if (stage === shown) return;
    shown = stage;
    if (process.title !== title) name = process.title;
    title = stage === 0 ? name : `${name} [${STAGES[stage]}]`;
    // /proc/PID/stat has the title between parentheses, and not everybody looks for the last one.
    if (stage !== 0) title = title.replace(/[()]/g, '');
    process.title = title;
  }, 500);
  timer.unref();
}

const isOn = (value) => value !== undefined && !/^(|0|n|no|f|false|off)$/i.test(value);

function begin() {
  const loaded = Symbol.for('nproxy.preload');
  if (process[loaded]) return;
  let addon;
  try {
    addon = load();
  } catch (error) {
    say(`load the addon: ${String(error.message).split('\n')[0]}`);
    return;
  }
  const { heapTotal, heapUsed, external } = process.memoryUsage();
  const { limit, snapshot } = heapFlags();
  const how = addon.attach(heapTotal, heapUsed, external, limit, snapshot);
  if (how !== 'alone' && how !== 'wrapped') {
    // Wrong variables are for whoever set them; anything else is nobody's business.
    say(how, /see nproxy --help/.test(how));
    return;
  }
  Object.defineProperty(process, loaded, { value: true });
  process.prependListener('exit', addon.detach);
  // An explicit passthrough leaves the streams as Node makes them.
  if (!/^\s*(passthrough|off)\s*$/.test(process.env.NPROXY_TEXT || '')) {
    for (const { name, fd } of ownStreams(addon)) hookWhenMade(name, fd, addon);
  }
  if (how === 'alone' && isOn(process.env.NPROXY_TITLE)) showTitle(addon);
}

if (isSupported()) begin();
