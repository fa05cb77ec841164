'use strict';
// Run by TestNodeGoesThroughTheProxy, with node-proxy.cjs loaded before. Names in .test do
// not resolve: only the proxy knows them.
const assert = require('assert');
const http = require('http');
const https = require('https');

const get = (library, ...args) => new Promise((resolve, reject) => {
  library.get(...args, (res) => {
    let text = '';
    res.on('data', (c) => { text += c; });
    res.on('end', () => resolve({ status: res.statusCode, text }));
    res.on('error', reject);
  }).on('error', reject);
});
const seen = (text) => JSON.parse(text);
const { ORIGIN } = process.env; // http://127.0.0.1:PORT
const registered = globalThis[Symbol.for('undici.globalDispatcher.1')];

const tests = {
  async 'http goes as an absolute target'() {
    const r = seen((await get(http, 'http://plain.test/a?b=c')).text);
    assert.deepStrictEqual([r.proxied, r.host, r.target], ['http://plain.test/a?b=c', 'plain.test', '/a?b=c']);
  },
  async 'http with a port, options and headers as a list'() {
    const options = { hostname: 'plain.test', port: 81, path: '/list', headers: ['Host', 'plain.test:81', 'X-List', 'yes'] };
    const r = seen((await get(http, options)).text);
    assert.deepStrictEqual([r.proxied, r.list], ['http://plain.test:81/list', 'yes']);
  },
  async 'https goes through a tunnel'() {
    const r = seen((await get(https, 'https://secure.test/a')).text);
    assert.deepStrictEqual([r.proxied, r.tls, r.host], ['CONNECT secure.test:443', true, 'secure.test']);
  },
  async 'an agent that a program brings is left alone'() {
    const r = seen((await get(http, ORIGIN + '/own', { agent: new http.Agent() })).text);
    assert.strictEqual(r.proxied, '');
    const lookup = (host, _, done) => done(new Error('looks up ' + host));
    await assert.rejects(get(https, 'https://secure.test/', { agent: new https.Agent({ lookup }) }), /looks up secure.test/);
  },
  async 'a host of NO_PROXY is reached directly'() {
    assert.strictEqual(seen((await get(http, ORIGIN + '/direct')).text).proxied, '');
    assert.strictEqual(seen(await (await fetch(ORIGIN + '/direct')).text()).proxied, '');
  },
  async 'a refusal of the proxy is told'() {
    await assert.rejects(get(https, 'https://refused.test/'), /403 Forbidden[^]*ask the operator/);
    await assert.rejects(fetch('https://refused.test/'), (err) => /403 Forbidden[^]*ask the operator/.test(err.cause.message));
  },
  async 'fetch over http and https'() {
    const plain = await (await fetch('http://plain.test/f', { headers: { 'x-list': 'a' } })).json();
    assert.deepStrictEqual([plain.proxied, plain.list], ['http://plain.test/f', 'a']);
    const res = await fetch('https://secure.test/f');
    assert.strictEqual(res.headers.get('x-origin'), 'yes');
    assert.deepStrictEqual((await res.json()).proxied, 'CONNECT secure.test:443');
  },
  async 'fetch sends what is known and what streams'() {
    const known = await (await fetch('https://secure.test/post', { method: 'POST', body: 'x'.repeat(100000) })).json();
    assert.deepStrictEqual([known.size, known.length], [100000, 100000]);
    const form = new FormData();
    form.set('a', 'b');
    assert.match((await (await fetch('http://plain.test/form', { method: 'POST', body: form })).json()).type, /^multipart\/form-data/);
    let n = 0;
    const body = new ReadableStream({ pull(c) { if (n++ < 50) c.enqueue(new Uint8Array(65536)); else c.close(); } });
    const streamed = await (await fetch('https://secure.test/post', { method: 'PUT', body, duplex: 'half' })).json();
    assert.deepStrictEqual([streamed.size, streamed.length], [50 * 65536, -1]);
  },
  async 'fetch gives what has come before the rest has'() {
    const reader = (await fetch('https://secure.test/stream')).body.getReader();
    assert.strictEqual(Buffer.from((await reader.read()).value).toString(), 'first');
    await fetch('https://secure.test/go'); // the second half is sent after this
    assert.strictEqual(Buffer.from((await reader.read()).value).toString(), 'second');
    assert.strictEqual((await reader.read()).done, true);
  },
  async 'fetch reads much, as it is asked to'() {
    let size = 0;
    for await (const chunk of (await fetch('https://secure.test/large')).body) {
      size += chunk.length;
      await new Promise(setImmediate);
    }
    assert.strictEqual(size, 32 << 20);
  },
  async 'fetch follows redirects'() {
    assert.strictEqual((await (await fetch('http://plain.test/redirect')).json()).proxied, 'CONNECT secure.test:443');
  },
  async 'an aborted fetch ends on the other side'() {
    const abort = new AbortController();
    const waiting = fetch('https://secure.test/hang', { signal: abort.signal });
    await fetch('https://secure.test/hangs'); // answers when the other has arrived
    abort.abort();
    await assert.rejects(waiting, { name: 'AbortError' });
    assert.strictEqual(await (await fetch('https://secure.test/hung')).text(), 'gone');
  },
  async 'a response that is cut off is an error'() {
    const res = await fetch('http://plain.test/cut');
    await assert.rejects(res.text());
    await assert.rejects(fetch('http://plain.test/nothing'), TypeError);
  },
  async 'kept connections carry several requests'() {
    for (let i = 0; i < 5; i++) assert.strictEqual((await (await fetch('https://secure.test/again')).json()).target, '/again');
    const ports = await Promise.all([1, 2].map(async () => (await (await fetch('https://secure.test/port')).json()).target));
    assert.strictEqual(ports.length, 2);
  },
  'handlers of newer versions of undici are served': () => new Promise((resolve, reject) => {
    let text = '';
    let resumed = 0;
    registered.dispatch({ origin: 'https://secure.test', path: '/new', method: 'GET', headers: ['x-list', 'n'] }, {
      onRequestStart(controller) { this.controller = controller; },
      onResponseStart(controller, status, headers) {
        assert.deepStrictEqual([status, headers['x-origin']], [200, 'yes']);
        controller.pause();
        setImmediate(() => { resumed++; controller.resume(); });
      },
      onResponseData(_, chunk) { text += chunk; },
      onResponseEnd() {
        try {
          assert.deepStrictEqual([seen(text).list, resumed], ['n', 1]);
          resolve();
        } catch (err) { reject(err); }
      },
      onResponseError(_, err) { reject(err); },
    });
  }),
  'a connection can be upgraded': () => new Promise((resolve, reject) => {
    registered.dispatch({ origin: 'https://secure.test', path: '/upgrade', method: 'GET', upgrade: 'echo' }, {
      onConnect() {}, onError: reject,
      onUpgrade(status, headers, socket) {
        socket.once('data', (c) => { socket.destroy(); (c.toString() === 'ping' ? resolve : reject)(); });
        socket.write('ping');
      },
    });
  }),
};

(async () => {
  for (const [name, test] of Object.entries(tests)) {
    let timer;
    const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('it takes too long')), 20000); });
    try {
      await Promise.race([test(), late]);
      console.log('ok ' + name);
    } catch (err) {
      console.log('FAILED ' + name + ': ' + (err && err.stack), err && err.cause);
      process.exitCode = 1;
    }
    clearTimeout(timer);
  }
  // What is kept open does not keep the program running.
})();
