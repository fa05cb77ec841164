'use strict';
// Has Node.js go through the proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name, in
// versions that do not do so themselves. Agents and dispatchers that a program brings are
// left alone. Written for Node.js 12 and later.

(function bottle() {
  if (process.env.NODE_USE_ENV_PROXY !== '1') return;
  const version = process.versions.node.split('.').map(Number);
  const since = (major, minor) => version[0] > major || (version[0] === major && version[1] >= minor);
  if (since(24, 5) || (version[0] === 22 && since(22, 21)) || !since(12, 0)) return;
  const fetchKnows = since(24, 0); // fetch learned it first

  const variable = (name) => process.env[name.toLowerCase()] || process.env[name] || '';
  // In a CGI program HTTP_PROXY is the client's header "Proxy" (CVE-2016-5388).
  const cgi = process.env.REQUEST_METHOD !== undefined;
  const proxies = {
    'http:': parse(cgi ? process.env.http_proxy || '' : variable('HTTP_PROXY')),
    'https:': parse(variable('HTTPS_PROXY')),
  };
  if (!proxies['http:'] && !proxies['https:']) return;
  const direct = variable('NO_PROXY').toLowerCase().split(/[\s,]+/).filter(Boolean);

  const http = require('http');
  const https = require('https');

  // parse reads the URL of a proxy; anything but plain HTTP is left to others.
  function parse(text) {
    if (!text) return null;
    try {
      const url = new URL(text.includes('://') ? text : 'http://' + text);
      if (url.protocol !== 'http:') return null;
      const proxy = { host: bare(url.hostname), port: Number(url.port) || 80, authorization: '' };
      if (url.username || url.password) {
        const user = decodeURIComponent(url.username) + ':' + decodeURIComponent(url.password);
        proxy.authorization = 'Basic ' + Buffer.from(user).toString('base64');
      }
      return proxy;
    } catch (_) {
      return null;
    }
  }

  function bare(host) { return host.replace(/^\[(.*)\]$/, '$1'); }
  function authority(host, port, usual) {
    const name = bare(host);
    return (name.includes(':') ? '[' + name + ']' : name) + (Number(port) === usual ? '' : ':' + port);
  }

  // route finds the proxy for a host, or null.
  function route(protocol, host, port) {
    const proxy = proxies[protocol];
    if (!proxy) return null;
    const name = bare(String(host)).toLowerCase().replace(/\.$/, '');
    for (const p of Object.values(proxies)) {
      // Libraries that know proxies themselves speak to it directly.
      if (p && name === p.host && Number(port) === p.port) return null;
    }
    for (const entry of direct) {
      if (entry === '*') return null;
      const at = /^(\[.*\]|[^:]*):(\d+)$/.exec(entry);
      if (at && Number(at[2]) !== Number(port)) continue;
      const want = bare(at ? at[1] : entry).replace(/^\*?\./, '');
      if (name === want || name.endsWith('.' + want)) return null;
    }
    return proxy;
  }

  // HTTP goes to the proxy with the whole URL as its target.
  class HTTPAgent extends http.Agent {
    addRequest(req, options, port, localAddress) {
      if (typeof options === 'string') options = { host: options, port, localAddress };
      const host = options.host || 'localhost';
      const proxy = options.socketPath || req.method === 'CONNECT' ? null : route('http:', host, options.port || 80);
      if (!proxy) return super.addRequest(req, options);
      const path = req.path === '*' ? '' : req.path;
      req.path = 'http://' + authority(host, options.port || 80, 80) + path;
      if (req._header) {
        // It has been put together already: headers given as a list, or an Expect.
        const auth = proxy.authorization ? 'Proxy-Authorization: ' + proxy.authorization + '\r\n' : '';
        req._header = req._header.replace(/^(\S+) \S+ (.*\r\n)/, (_, method, rest) => method + ' ' + req.path + ' ' + rest + auth);
      } else if (proxy.authorization) {
        req.setHeader('Proxy-Authorization', proxy.authorization);
      }
      return super.addRequest(req, Object.assign({}, options, { host: proxy.host, hostname: proxy.host, port: proxy.port }));
    }
  }

  // HTTPS goes through a tunnel of its own for each connection.
  class HTTPSAgent extends https.Agent {
    createConnection(options, callback) {
      const port = options.port || 443;
      const proxy = options.socketPath || options.socket ? null : route('https:', options.host || 'localhost', port);
      if (!proxy || typeof callback !== 'function') return super.createConnection(options, callback);
      tunnel(proxy, options.host || 'localhost', port, (err, socket) => {
        if (err) return callback(err);
        let secure;
        try {
          secure = super.createConnection(Object.assign({}, options, { socket }));
        } catch (thrown) {
          socket.destroy();
          return callback(thrown);
        }
        return callback(null, secure);
      });
      return undefined;
    }
  }

  const plain = new http.Agent({ keepAlive: false });

  // tunnel has the proxy connect to a host. What it says against it is part of the error.
  function tunnel(proxy, host, port, done) {
    const target = authority(host, port, -1);
    const headers = { Host: target };
    if (proxy.authorization) headers['Proxy-Authorization'] = proxy.authorization;
    const req = http.request({ agent: plain, host: proxy.host, port: proxy.port, method: 'CONNECT', path: target, headers });
    req.once('error', (err) => done(err));
    req.once('connect', (res, socket, head) => {
      req.removeAllListeners('error');
      req.on('error', () => {});
      if (res.statusCode >= 200 && res.statusCode < 300) {
        if (head.length > 0) socket.unshift(head);
        done(null, socket);
        return;
      }
      let text = head.toString('utf8');
      const end = () => {
        clearTimeout(timer);
        socket.removeAllListeners('data');
        socket.on('error', () => {});
        socket.destroy();
        const err = new Error('the proxy refuses a connection to ' + target + ': ' + res.statusCode + ' ' + (res.statusMessage || '') + '\n' + text.trim());
        err.code = 'ERR_PROXY_TUNNEL';
        err.statusCode = res.statusCode;
        done(err);
      };
      const timer = setTimeout(() => socket.destroy(), 2000);
      const length = Number(res.headers['content-length']);
      socket.once('close', end);
      socket.on('error', () => {});
      socket.on('data', (chunk) => {
        text += chunk.toString('utf8');
        if (text.length > 16384 || Buffer.byteLength(text) >= length) socket.destroy();
      });
      if (Buffer.byteLength(text) >= length) socket.destroy();
      socket.resume();
    });
    req.end();
  }

  const settings = (agent) => Object.assign({}, agent && agent.options);
  http.globalAgent = new HTTPAgent(settings(http.globalAgent));
  https.globalAgent = new HTTPSAgent(settings(https.globalAgent));
  const { syncBuiltinESMExports } = require('module');
  if (syncBuiltinESMExports) syncBuiltinESMExports();

  // fetch asks the dispatcher that is registered under this name, as undici does.
  const registered = Symbol.for('undici.globalDispatcher.1');
  if (fetchKnows || globalThis[registered] !== undefined) return;

  const { EventEmitter } = require('events');
  const agents = {};
  function agentFor(protocol) {
    if (!agents[protocol]) agents[protocol] = protocol === 'https:' ? new HTTPSAgent({ keepAlive: true }) : new HTTPAgent({ keepAlive: true });
    return agents[protocol];
  }

  // listener is a dispatch handler of undici's, of either kind: with onConnect and its like
  // (up to version 6), or with onRequestStart and its like.
  function listener(handler, control) {
    if (typeof handler.onRequestStart !== 'function') {
      const call = (name) => (...args) => (typeof handler[name] === 'function' ? handler[name](...args) : undefined);
      return {
        start: () => call('onConnect')(control.abort, null),
        upgrade: (status, raw, socket) => call('onUpgrade')(status, raw, socket),
        headers: (status, raw, text) => call('onHeaders')(status, raw, control.resume, text),
        data: call('onData'), end: call('onComplete'), error: call('onError'), sent: call('onBodySent'),
      };
    }
    const controller = {
      aborted: false, reason: null, paused: false, rawHeaders: null, rawTrailers: null,
      abort(reason) {
        if (this.aborted) return;
        this.aborted = true;
        this.reason = reason;
        control.abort(reason);
      },
      pause() { this.paused = true; control.pause(); },
      resume() { this.paused = false; control.resume(); },
    };
    return {
      start: () => handler.onRequestStart(controller, {}),
      upgrade: (status, raw, socket) => handler.onRequestUpgrade(controller, status, object(raw), socket),
      headers(status, raw, text) {
        controller.rawHeaders = raw;
        handler.onResponseStart(controller, status, object(raw), text);
        return !controller.paused;
      },
      data(chunk) {
        handler.onResponseData(controller, chunk);
        return !controller.paused;
      },
      end(raw) {
        controller.rawTrailers = raw;
        handler.onResponseEnd(controller, object(raw));
      },
      error: (err) => handler.onResponseError(controller, err),
      sent() {},
    };
  }

  function buffers(list) { return list.map((s) => Buffer.from(s, 'latin1')); }

  // object makes one of a flat list of names and values.
  function object(raw) {
    const o = {};
    for (let i = 0; i + 1 < raw.length; i += 2) add(o, raw[i].toString('latin1'), raw[i + 1].toString('latin1'));
    return o;
  }

  function add(o, name, value) {
    const key = name.toLowerCase();
    if (key in o) o[key] = [].concat(o[key], value);
    else o[key] = value;
  }

  // given reads the headers of a request: an object, a flat list, or an iterable of pairs.
  function given(headers) {
    const o = {};
    if (!headers) return o;
    if (Array.isArray(headers) && !Array.isArray(headers[0])) {
      for (let i = 0; i + 1 < headers.length; i += 2) add(o, String(headers[i]), headers[i + 1]);
    } else {
      const pairs = typeof headers[Symbol.iterator] === 'function' ? headers : Object.entries(headers);
      for (const [name, value] of pairs) {
        if (value !== undefined && value !== null) add(o, name, Array.isArray(value) ? value.map(String) : String(value));
      }
    }
    return o;
  }

  function coded(message, code) {
    const err = new Error(message);
    err.code = code;
    return err;
  }

  class Dispatcher extends EventEmitter {
    dispatch(opts, handler) {
      let origin;
      let path = opts.path || '/';
      try {
        origin = new URL(opts.origin || opts.path);
        if (origin.protocol !== 'http:' && origin.protocol !== 'https:') throw new TypeError('neither http nor https: ' + origin.protocol);
        if (/^https?:\/\//i.test(path)) path = origin.pathname + origin.search;
        if (opts.query) path += (path.includes('?') ? '&' : '?') + require('querystring').stringify(opts.query);
      } catch (err) {
        listener(handler, {}).error(err);
        return true;
      }
      new Exchange(origin, path, opts, handler).begin();
      return true;
    }

    close(callback) {
      for (const a of Object.values(agents)) a.destroy();
      if (typeof callback === 'function') return void setImmediate(callback, null, null);
      return Promise.resolve();
    }

    destroy(err, callback) { return this.close(typeof err === 'function' ? err : callback); }

    compose(...args) {
      let dispatch = this.dispatch.bind(this);
      for (const interceptor of Array.isArray(args[0]) ? args[0] : args) {
        if (interceptor) dispatch = interceptor(dispatch);
      }
      return Object.create(this, { dispatch: { value: dispatch } });
    }
  }

  // Exchange is one request and its response.
  class Exchange {
    constructor(origin, path, opts, handler) {
      this.done = false;
      this.opts = opts;
      this.req = null;
      this.res = null;
      this.on = listener(handler, {
        abort: (reason) => this.fail(reason || coded('Request aborted', 'UND_ERR_ABORTED')),
        pause: () => this.res && this.res.pause(),
        resume: () => this.res && this.res.resume(),
      });
      this.options = {
        protocol: origin.protocol, hostname: bare(origin.hostname), port: origin.port || (origin.protocol === 'https:' ? 443 : 80),
        method: opts.method || 'GET', path, headers: given(opts.headers), agent: agentFor(origin.protocol),
      };
    }

    fail(err) {
      if (this.done) return;
      this.done = true;
      if (this.req) this.req.destroy();
      if (this.opts.body && typeof this.opts.body.destroy === 'function') this.opts.body.destroy(err);
      this.on.error(err);
    }

    // safely calls into the handler, whose exceptions end the exchange.
    safely(f) {
      if (this.done) return undefined;
      try {
        return f();
      } catch (err) {
        this.fail(err);
        return undefined;
      }
    }

    begin() {
      this.safely(() => this.on.start());
      if (this.done) return;
      if (this.options.method === 'CONNECT') {
        this.fail(coded('CONNECT is not supported here', 'UND_ERR_NOT_SUPPORTED'));
        return;
      }
      this.encoded().then((body) => { if (!this.done) this.send(body, true); }).catch((err) => this.fail(err));
    }

    // encoded turns forms and blobs into bytes, with their type.
    async encoded() {
      const { body } = this.opts;
      const kind = body && body[Symbol.toStringTag];
      if (kind !== 'FormData' && kind !== 'Blob' && kind !== 'File' && kind !== 'URLSearchParams') return body;
      const r = new Response(body);
      const type = r.headers.get('content-type');
      if (type && !this.options.headers['content-type']) this.options.headers['content-type'] = type;
      return Buffer.from(await r.arrayBuffer());
    }

    send(body, again) {
      const { options, opts } = this;
      if (opts.upgrade) Object.assign(options.headers, { connection: 'upgrade', upgrade: opts.upgrade === true ? 'websocket' : opts.upgrade });
      let req;
      try {
        req = (options.protocol === 'https:' ? https : http).request(options);
      } catch (err) {
        this.fail(err);
        return;
      }
      this.req = req;
      req.on('response', (res) => this.receive(res));
      req.on('upgrade', (res, socket, head) => this.safely(() => {
        this.done = true;
        if (head.length > 0) socket.unshift(head);
        this.on.upgrade(res.statusCode, buffers(res.rawHeaders), socket);
      }));
      req.on('error', (err) => {
        // The connection was kept, and closed by the other side in this moment.
        const stale = req.reusedSocket && !this.res && (err.code === 'ECONNRESET' || err.code === 'EPIPE');
        const repeatable = body === null || body === undefined || typeof body === 'string' || body instanceof Uint8Array;
        if (!this.done && again && stale && repeatable && /^(GET|HEAD|OPTIONS|PUT|DELETE)$/.test(options.method)) this.send(body, false);
        else this.fail(err);
      });
      this.write(req, body).catch((err) => this.fail(err));
    }

    async write(req, body) {
      if (body === null || body === undefined) {
        req.end();
      } else if (typeof body === 'string' || body instanceof Uint8Array) {
        req.end(body);
      } else if (body instanceof ArrayBuffer || ArrayBuffer.isView(body)) {
        req.end(Buffer.from(body.buffer || body, body.byteOffset || 0, body.byteLength));
      } else {
        for await (const chunk of body) {
          if (this.done || req.destroyed) return;
          if (!req.write(typeof chunk === 'string' ? chunk : Buffer.from(chunk))) {
            await new Promise((resolve) => {
              req.once('drain', resolve);
              req.once('close', resolve);
            });
          }
        }
        if (!this.done) req.end();
      }
    }

    receive(res) {
      if (this.done) {
        res.destroy();
        return;
      }
      this.res = res;
      const lost = () => this.fail(coded('other side closed', 'UND_ERR_SOCKET'));
      res.on('error', lost);
      res.on('aborted', lost);
      res.on('close', () => { if (!res.complete) lost(); });
      const more = this.safely(() => this.on.headers(res.statusCode, buffers(res.rawHeaders), res.statusMessage));
      if (this.done) return;
      res.on('data', (chunk) => { if (this.safely(() => this.on.data(chunk)) === false) res.pause(); });
      res.on('end', () => this.safely(() => {
        if (!res.complete) {
          lost();
          return;
        }
        this.done = true;
        this.on.end(buffers(res.rawTrailers));
      }));
      if (more === false) res.pause();
    }
  }

  Object.defineProperty(globalThis, registered, { value: new Dispatcher(), writable: true, enumerable: false, configurable: true });
})();
