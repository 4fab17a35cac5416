/** Makes the folders that uploaded files lie in, once each; a folder that is there already is used. */

import { ApiError, type Api } from '../api';
import { BY_NAME } from '../sorting';

type FolderApi = Pick<Api, 'create' | 'folder'>;

export class FolderMaker {
  readonly #made = new Map<string, Promise<string>>();

  constructor(
    private readonly api: FolderApi,
    private readonly root: string,
  ) {}

  /** The id of the folder at `path` below the root. Raises ApiError. */
  idOf(path: readonly string[]): Promise<string> {
    const name = path[path.length - 1];
    if (name === undefined) {
      return Promise.resolve(this.root);
    }
    const key = path.join('/');
    let id = this.#made.get(key);
    if (id === undefined) {
      id = this.idOf(path.slice(0, -1)).then((parent) => this.#make(parent, name));
      this.#made.set(key, id);
    }
    return id;
  }

  async #make(parent: string, name: string): Promise<string> {
    try {
      return (await this.api.create(parent, 'folder', name)).id;
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== 'name_taken') {
        throw error;
      }
      const found = await this.#find(parent, name);
      if (found === null) {
        throw error;
      }
      return found;
    }
  }

  async #find(parent: string, name: string): Promise<string | null> {
    for (let offset = 0; ; ) {
      const page = await this.api.folder(parent, BY_NAME, offset);
      const found = page.items.find((item) => item.type === 'folder' && item.name.normalize() === name.normalize());
      if (found !== undefined) {
        return found.id;
      }
      offset += page.items.length;
      if (page.items.length === 0 || offset >= page.total) {
        return null;
      }
    }
  }
}
