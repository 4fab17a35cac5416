/** Sends a file's bytes with XMLHttpRequest, the one browser interface that tells how many have left. */

import { ApiError, errorOf, uploadUrl } from '../api';
import * as decode from '../decode';
import type { FileEntry } from '../model';
import type { Send } from './queue';

export const sendFile: Send = (parent, name, file, progress, signal) =>
  new Promise<FileEntry>((resolve, reject) => {
    const request = new XMLHttpRequest();
    const abort = (): void => {
      request.abort();
    };
    const fail = (error: Error): void => {
      signal.removeEventListener('abort', abort);
      reject(error);
    };
    request.open('POST', uploadUrl(parent, name));
    request.setRequestHeader('Content-Type', 'application/octet-stream');
    request.upload.onprogress = (event) => {
      progress(event.loaded);
    };
    request.onload = () => {
      if (request.status < 200 || request.status > 299) {
        fail(errorOf(request.status, request.responseText));
        return;
      }
      try {
        const entry = decode.fileEntry(JSON.parse(request.responseText));
        signal.removeEventListener('abort', abort);
        resolve(entry);
      } catch {
        fail(new ApiError(request.status, 'bad_answer', 'The service gave an answer this page does not understand.'));
      }
    };
    request.onerror = () => {
      fail(new ApiError(0, 'unreachable', 'The connection broke off. Nothing was stored; try again.'));
    };
    request.onabort = () => {
      fail(new DOMException('Cancelled', 'AbortError'));
    };
    signal.addEventListener('abort', abort);
    request.send(file);
  });
