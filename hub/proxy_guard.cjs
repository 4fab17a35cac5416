// Loaded into the proxy before itself. It answers 500 to a path that is no text, but that is the client's mistake; and it waits for
// minutes where nobody is any more: on Kubernetes a request may be sent to the address of a pod that has just gone, and no packet comes
// back from there. The next try reaches the new one, so whoever asks is told soon.
'use strict';
const http = require('node:http');
const net = require('node:net');

const CONNECT_MILLISECONDS = 5000;
const connects = net.Socket.prototype.connect;

net.Socket.prototype.connect = function (...given) {
  const late = () => this.destroy(Object.assign(new Error('connect ETIMEDOUT'), { code: 'ETIMEDOUT', syscall: 'connect' }));
  const timer = setTimeout(late, CONNECT_MILLISECONDS);
  const stop = () => clearTimeout(timer);
  this.once('connect', stop).once('close', stop);
  return connects.apply(this, given);
};

const BODY = JSON.stringify({ status: 400, code: 'bad_path', message: 'URL path is not valid UTF-8.' });
const HEAD = { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(BODY), 'X-Content-Type-Options': 'nosniff', Connection: 'close' };
const plain = http.Server.prototype.emit;

function isText(url) {
  try {
    decodeURIComponent(url.split('?', 1)[0]);
    return true;
  } catch {
    return false;
  }
}

http.Server.prototype.emit = function (name, request, answer, ...rest) {
  const asks = name === 'request' || name === 'checkContinue' || name === 'upgrade';
  if (!asks || isText(request.url)) {
    return plain.call(this, name, request, answer, ...rest);
  }
  if (name === 'upgrade') {
    answer.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n');
  } else {
    answer.writeHead(400, HEAD);
    answer.end(request.method === 'HEAD' ? undefined : BODY);
  }
  return true;
};
