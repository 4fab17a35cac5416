// What the server told this page when it was made (docs: hub/documents).
import { PageConfig } from '@jupyterlab/coreutils';

/** The file this page shows. */
export interface IPageFile {
  id: string;
  name: string;
  path: string;
  parent: string;
  role: string;
  type: string;
  readOnly: boolean;
  example: boolean;
}

/** Who looks at it. */
export interface IPageUser {
  name: string;
  admin: boolean;
}

export interface IExample {
  id: string;
  title: string;
}

function option<T>(name: string, fallback: T): T {
  const text = PageConfig.getOption(name);
  if (!text) {
    return fallback;
  }
  return JSON.parse(text) as T;
}

/** This page's facts; `file` is null on pages that show none. */
export const page = {
  file: option<IPageFile | null>('minicolabFile', null),
  user: option<IPageUser>('minicolabUser', { name: '', admin: false }),
  examples: option<IExample[]>('minicolabExamples', []),
  controlUrl: PageConfig.getOption('minicolabControlUrl') || '/services/control/',
  documentsApi:
    PageConfig.getOption('minicolabDocumentsApi') || '/services/documents/api/v1/'
};
