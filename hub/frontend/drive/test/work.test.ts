import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ApiError } from '../src/api';
import { Poller, type Surroundings } from '../src/live';
import type { FileEntry } from '../src/model';
import { FolderMaker } from '../src/uploads/folders';
import { Speed, summary, UploadQueue, type Send, type Upload } from '../src/uploads/queue';
import { file } from './make';

/** Let everything that is ready go on. */
async function settle(): Promise<void> {
  for (let i = 0; i < 20; i += 1) {
    await Promise.resolve();
  }
}

interface Sending {
  readonly name: string;
  readonly progress: (sent: number) => void;
  readonly signal: AbortSignal;
  readonly finish: (entry: FileEntry) => void;
  readonly fail: (error: Error) => void;
}

function make(): { queue: UploadQueue; sendings: Sending[]; arrived: Upload[] } {
  const sendings: Sending[] = [];
  const arrived: Upload[] = [];
  const send: Send = (_parent, name, _file, progress, signal) =>
    new Promise((finish, fail) => {
      signal.addEventListener('abort', () => {
        fail(new DOMException('Cancelled', 'AbortError'));
      });
      sendings.push({ name, progress, signal, finish, fail });
    });
  const queue = new UploadQueue(
    send,
    () => undefined,
    (upload) => arrived.push(upload),
  );
  return { queue, sendings, arrived };
}

const states = (queue: UploadQueue): string[] => queue.uploads.map(({ state }) => state);

test('two files are sent at once, the others wait for their turn', async () => {
  const { queue, sendings, arrived } = make();
  for (const name of ['a', 'b', 'c']) {
    queue.add('root', 'My Drive', name, new Blob(['123']));
  }
  assert.deepEqual(states(queue), ['sending', 'sending', 'waiting']);
  sendings[0]?.finish(file({ name: 'a (1)' }));
  await settle();
  assert.deepEqual(states(queue), ['done', 'sending', 'sending']);
  assert.deepEqual(arrived.map(({ name }) => name), ['a (1)']);
  assert(queue.busy);
});

test('a cancelled upload is broken off, makes room, and its late progress is not counted', async () => {
  const { queue, sendings } = make();
  for (const name of ['a', 'b', 'c']) {
    queue.add('root', 'My Drive', name, new Blob(['123']));
  }
  queue.cancel(1);
  sendings[0]?.progress(2);
  await settle();
  assert(sendings[0]?.signal.aborted === true);
  assert.deepEqual(states(queue), ['cancelled', 'sending', 'sending']);
  assert.equal(queue.uploads[0]?.sent, 0);
});

test('cancelling everything leaves nothing on its way', async () => {
  const { queue, sendings } = make();
  for (const name of ['a', 'b', 'c']) {
    queue.add('root', 'My Drive', name, new Blob(['123']));
  }
  queue.cancelAll();
  await settle();
  assert.deepEqual(states(queue), ['cancelled', 'cancelled', 'cancelled']);
  assert(!queue.busy);
  assert.equal(sendings.filter(({ signal }) => !signal.aborted).length, 0);
});

test('a failure is kept with the words of the service, and can be tried again', async () => {
  const { queue, sendings } = make();
  queue.add('root', 'My Drive', 'a', new Blob(['123']));
  sendings[0]?.fail(new ApiError(507, 'disk_full', 'The disk is full.'));
  await settle();
  assert.deepEqual(queue.uploads.map(({ state, error }) => [state, error]), [['failed', 'The disk is full.']]);
  queue.retry(1);
  sendings[1]?.finish(file({ name: 'a' }));
  await settle();
  assert.deepEqual(states(queue), ['done']);
});

test('a name lost in a race is asked for again, but not for ever', async () => {
  const { queue, sendings } = make();
  queue.add('root', 'My Drive', 'a', new Blob(['123']));
  for (let turn = 0; turn < 3; turn += 1) {
    sendings[turn]?.fail(new ApiError(409, 'name_taken', 'Taken.'));
    await settle();
  }
  assert.equal(sendings.length, 3);
  assert.deepEqual(states(queue), ['failed']);
});

test('clearing forgets what is over and keeps what is on its way', async () => {
  const { queue, sendings } = make();
  queue.add('root', 'My Drive', 'a', new Blob(['123']));
  queue.add('root', 'My Drive', 'b', new Blob(['123']));
  sendings[0]?.finish(file({ name: 'a' }));
  await settle();
  queue.clear();
  assert.deepEqual(queue.uploads.map(({ name }) => name), ['b']);
});

test('the sum leaves out what was cancelled', () => {
  const { queue, sendings } = make();
  queue.add('root', 'My Drive', 'a', new Blob(['1234']));
  queue.add('root', 'My Drive', 'b', new Blob(['123456']));
  sendings[0]?.progress(3);
  queue.cancel(2);
  assert.deepEqual(summary(queue.uploads), { active: 1, done: 0, failed: 0, sent: 3, size: 4 });
});

test('speed is measured over the last seconds, and unknown at first', () => {
  const speed = new Speed();
  speed.note(0, 0);
  assert.equal(speed.secondsFor(100), null);
  speed.note(1000, 1000);
  assert.equal(speed.secondsFor(5000), 5);
  speed.note(1000, 9000);
  assert.equal(speed.secondsFor(5000), null);
});

test('folders of an upload are made once each, and one that is there is used', async () => {
  const made: string[] = [];
  const maker = new FolderMaker(
    {
      create: (parent, _type, name) => {
        if (name === 'old') {
          return Promise.reject(new ApiError(409, 'name_taken', 'Taken.'));
        }
        made.push(`${parent}/${name ?? ''}`);
        return Promise.resolve(file({ id: `id-${name ?? ''}`, type: 'folder' }));
      },
      folder: (_id, _sort, offset) =>
        Promise.resolve(
          offset === 0
            ? { items: [file({ id: 'x', name: 'old', type: 'file' })], total: 2 }
            : { items: [file({ id: 'id-old', name: 'old', type: 'folder' })], total: 2 },
        ),
    },
    'root',
  );
  assert.equal(await maker.idOf([]), 'root');
  const ids = await Promise.all([maker.idOf(['a', 'b']), maker.idOf(['a', 'b']), maker.idOf(['a'])]);
  assert.deepEqual(ids, ['id-b', 'id-b', 'id-a']);
  assert.deepEqual(made, ['root/a', 'id-a/b']);
  assert.equal(await maker.idOf(['old']), 'id-old');
});

class Stage implements Surroundings {
  seen = true;
  time = 0;
  planned: { readonly callback: () => void; readonly ms: number } | null = null;
  setTimeout(callback: () => void, ms: number): number {
    this.planned = { callback, ms };
    return 1;
  }
  clearTimeout(): void {
    this.planned = null;
  }
  visible(): boolean {
    return this.seen;
  }
  now(): number {
    return this.time;
  }
}

test('the page looks again and again while it is seen, and not while it is hidden', async () => {
  const stage = new Stage();
  let looks = 0;
  const poller = new Poller(
    () => {
      looks += 1;
      return Promise.resolve();
    },
    2000,
    stage,
  );
  poller.start();
  assert.equal(stage.planned?.ms, 2000);
  stage.planned?.callback();
  await settle();
  assert.equal(looks, 1);
  stage.seen = false;
  stage.planned?.callback();
  await settle();
  assert.equal(stage.planned, null);
  stage.seen = true;
  poller.wake();
  await settle();
  assert.equal(looks, 3);
  assert.equal(stage.planned?.ms, 2000);
  poller.stop();
  assert.equal(stage.planned, null);
});

test('it asks less often while the service fails, and as before when it answers', async () => {
  const stage = new Stage();
  let broken = true;
  const poller = new Poller(() => (broken ? Promise.reject(new Error('down')) : Promise.resolve()), 2000, stage);
  poller.start();
  const delays: (number | undefined)[] = [];
  for (let i = 0; i < 6; i += 1) {
    stage.planned?.callback();
    await settle();
    delays.push(stage.planned?.ms);
  }
  assert.deepEqual(delays, [4000, 8000, 16000, 30000, 30000, 30000]);
  broken = false;
  poller.wake();
  await settle();
  assert.equal(stage.planned?.ms, 2000);
});

test('a look that takes long is followed by a longer rest', async () => {
  const stage = new Stage();
  const poller = new Poller(
    () => {
      stage.time += 3000;
      return Promise.resolve();
    },
    2000,
    stage,
  );
  poller.start();
  poller.wake();
  await settle();
  assert.equal(stage.planned?.ms, 12_000);
});

test('a wake during a look leads to exactly one more', async () => {
  const stage = new Stage();
  const ends: (() => void)[] = [];
  const poller = new Poller(() => new Promise((end) => ends.push(end)), 2000, stage);
  poller.start();
  poller.wake();
  poller.wake();
  poller.wake();
  assert.equal(ends.length, 1);
  ends[0]?.();
  await settle();
  assert.equal(ends.length, 2);
  ends[1]?.();
  await settle();
  assert.equal(ends.length, 2);
});
