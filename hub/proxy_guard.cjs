// Loaded into the proxy before itself: it answers 500 to a path that is no text, but that is the client's mistake.
'use strict';
const http = require('node:http');

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
