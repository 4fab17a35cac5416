/** The page: which view is shown, what is selected, and what every click and key does. */

import { Actions, type Scene } from './actions';
import { api, ApiError, sentence } from './api';
import { commandsFor, type CommandId } from './commands';
import { Listing, sameItems, type Listed } from './listing';
import { BROWSER, Poller } from './live';
import { ROOT, ROOT_NAME, type Ancestor, type Example, type FileEntry, type Runtime } from './model';
import { addressOf, fileAddress, parseLocation, sameView, type View } from './routes';
import * as select from './selection';
import { Keys, type ActionId } from './shortcuts';
import { clicked, formatSort, parseSort, type Sort, type SortKey } from './sorting';
import { dialogIsOpen } from './ui/dialog';
import { fill, h, isTyping } from './ui/dom';
import { examplesView } from './ui/examples';
import { DRAG_TYPE, Grid } from './ui/grid';
import { Header } from './ui/header';
import { showShortcuts } from './ui/help';
import { menuIsOpen, showMenu, type MenuItem, type Spot } from './ui/menu';
import { showPreview } from './ui/preview';
import { Rail } from './ui/rail';
import { banner, emptyState, errorState, loadingState, type StateEvents } from './ui/states';
import { Toasts } from './ui/toast';
import { Top } from './ui/top';
import { UploadsPanel } from './ui/uploads_panel';
import { FolderMaker } from './uploads/folders';
import { UploadQueue } from './uploads/queue';
import { bringsFiles, fromDrop, fromInput, type Picked } from './uploads/tree';
import { sendFile } from './uploads/xhr';

const LOOK_EVERY_MS = 2000;
const RUNTIMES_EVERY_MS = 10_000;
const SORT_KEY = 'minicolab-drive-sort';

export class DriveApp implements Scene {
  readonly toasts = new Toasts();
  readonly #actions = new Actions(this);
  readonly #keys = new Keys();
  readonly #listing: Listing;
  readonly #header: Header;
  readonly #rail: Rail;
  readonly #top: Top;
  readonly #grid: Grid;
  readonly #panel: UploadsPanel;
  readonly #uploads: UploadQueue;
  readonly #looks: Poller;
  readonly #runtimeLooks: Poller;
  readonly #notice = h('div', { class: 'notice' });
  readonly #content = h('div', { class: 'content' });
  readonly #dropHint = h('div', { class: 'drop-hint', hidden: true });
  readonly #main: HTMLElement;
  readonly #shade = h('div', { class: 'shade', hidden: true });

  #view: View = { kind: 'folder', id: ROOT };
  /** Where the search began, to go back to. */
  #beforeSearch: View = { kind: 'folder', id: ROOT };
  #selection = select.NOTHING;
  #folderSort: Sort = parseSort(stored());
  #listSort: Sort | null = null;
  #live: ReadonlyMap<string, string> = new Map();
  #examples: readonly Example[] | ApiError | null = null;
  #toReveal: readonly string[] = [];
  #dragging: readonly FileEntry[] = [];

  constructor(private readonly root: HTMLElement) {
    this.#listing = new Listing((before, now) => {
      this.#listed(before, now);
    });
    this.#header = new Header({
      home: () => {
        this.go({ kind: 'folder', id: ROOT });
      },
      searched: (query, done) => {
        this.#search(query, done);
      },
      searchLeft: () => {
        if (this.#view.kind === 'search') {
          this.go(this.#beforeSearch);
        }
      },
      rail: () => {
        this.#showRail(true);
      },
      help: showShortcuts,
    });
    this.#rail = new Rail({
      go: (view) => {
        this.go(view);
      },
      newMenu: () => this.#newMenu(),
      dropped: (place, transfer) => {
        if (place === 'drive') {
          this.#dropInto({ id: ROOT, name: ROOT_NAME }, transfer);
        } else {
          void this.#actions.trash(this.#dragging);
        }
      },
    });
    this.#top = new Top({
      go: (view) => {
        this.go(view);
      },
      run: (command) => {
        this.#run(command);
      },
      clear: () => {
        this.#select(select.NOTHING);
      },
      emptyTrash: () => void this.#actions.emptyTrash(),
      dropped: (folder, transfer) => {
        this.#dropInto(folder, transfer);
      },
    });
    this.#grid = new Grid({
      clicked: (id, event) => {
        this.#clicked(id, event);
      },
      opened: (id, inTab) => {
        const file = this.#listing.find(id);
        if (file !== undefined) {
          this.#open(file, inTab);
        }
      },
      menu: (id, at) => {
        this.#fileMenu(id, at);
      },
      sorted: (key) => {
        this.#sorted(key);
      },
      dragged: (id) => this.#dragged(id),
      dropped: (id, transfer) => {
        const folder = this.#listing.find(id);
        if (folder !== undefined) {
          this.#dropInto(folder, transfer);
        }
      },
      ended: () => void this.#listing.more(),
    });
    this.#uploads = new UploadQueue(
      sendFile,
      () => {
        this.#panel.changed();
      },
      (upload) => {
        if (this.#view.kind === 'folder' && this.#view.id === upload.parent) {
          void this.refresh();
        }
      },
    );
    this.#panel = new UploadsPanel(() => this.#uploads, {
      reveal: (upload) => {
        this.go({ kind: 'folder', id: upload.parent });
        this.reveal(upload.entry === null ? [] : [upload.entry.id]);
        void this.refresh();
      },
    });
    this.#looks = new Poller(() => this.#listing.refresh(), LOOK_EVERY_MS, BROWSER);
    this.#runtimeLooks = new Poller(() => this.#lookAtRuntimes(), RUNTIMES_EVERY_MS, BROWSER);
    this.#main = h('main', { class: 'sheet' }, this.#top.element, this.#notice, this.#content, this.#dropHint);
  }

  start(): void {
    fill(
      this.root,
      this.#header.element,
      h('div', { class: 'below' }, this.#rail.element, this.#main),
      this.#shade,
      this.#rail.floating,
      h('div', { class: 'corner' }, this.#panel.element),
      this.toasts.element,
    );
    this.#listen();
    api.me().then(
      (person) => {
        this.#header.setPerson(person);
      },
      () => {
        // The listing fails for the same reason and says so in the middle of the page.
      },
    );
    this.#arrive();
    this.#looks.start();
    this.#runtimeLooks.start();
    this.#runtimeLooks.wake();
  }

  // -- Scene: what actions use -------------------------------------------------------------------------------

  refresh(): Promise<void> {
    return this.#listing.refresh().catch(() => {
      // Listing keeps the problem, and the page shows it.
    });
  }

  reveal(ids: readonly string[]): void {
    this.#toReveal = ids;
  }

  target(): Ancestor {
    if (this.#view.kind !== 'folder' || this.#view.id === ROOT) {
      return { id: ROOT, name: ROOT_NAME };
    }
    const { trail } = this.#listing.state;
    return { id: this.#view.id, name: trail[trail.length - 1]?.name ?? 'this folder' };
  }

  shows(folder: Ancestor): boolean {
    return this.#view.kind === 'folder' && this.#view.id === folder.id;
  }

  openNotebook(id: string): void {
    if (this.#uploads.busy) {
      window.open(fileAddress(id), '_blank', 'noopener');
    } else {
      window.location.assign(fileAddress(id));
    }
  }

  // -- views -------------------------------------------------------------------------------------------------

  go(view: View, replace = false): void {
    if (sameView(view, this.#view) && !replace) {
      void this.refresh();
      this.#showRail(false);
      return;
    }
    if (view.kind === 'search' && this.#view.kind !== 'search') {
      this.#beforeSearch = this.#view;
    }
    window.history[replace ? 'replaceState' : 'pushState'](null, '', addressOf(view));
    this.#show(view);
  }

  /** Show what the address bar says. */
  #arrive(): void {
    const { view, open } = parseLocation(window.location.pathname, window.location.search);
    this.#show(view);
    if (open !== null) {
      void this.#openById(open);
    }
  }

  #show(view: View): void {
    const trail = this.#trailTo(view);
    this.#view = view;
    this.#selection = select.NOTHING;
    this.#toReveal = [];
    this.#listSort = null;
    this.#showRail(false);
    this.#rail.setView(view);
    this.#header.setQuery(view.kind === 'search' ? view.query : '');
    if (view.kind === 'examples') {
      void this.#loadExamples();
    }
    void this.#listing.show(view, this.#sort, false, trail);
  }

  /** The way to a folder as far as the page knows it already, so that its name is there at once. */
  #trailTo(view: View): readonly Ancestor[] {
    const { trail, items, view: from } = this.#listing.state;
    if (view.kind !== 'folder' || from.kind !== 'folder') {
      return [];
    }
    const above = trail.findIndex(({ id }) => id === view.id);
    const folder = items.find(({ id }) => id === view.id);
    return above >= 0 ? trail.slice(0, above + 1) : folder === undefined ? [] : [...trail, { id: folder.id, name: folder.name }];
  }

  get #sort(): Sort | null {
    return this.#view.kind === 'folder' ? this.#folderSort : this.#listSort;
  }

  #search(query: string, done: boolean): void {
    const view: View = { kind: 'search', query };
    if (this.#view.kind === 'search') {
      if (!sameView(this.#view, view)) {
        this.go(view, true);
      }
    } else {
      this.go(view);
    }
    if (done) {
      this.#grid.focus(this.#grid.order[0] ?? null);
    }
  }

  async #loadExamples(): Promise<void> {
    try {
      this.#examples = await api.examples();
    } catch (error) {
      this.#examples = error instanceof ApiError ? error : new ApiError(0, 'page_error', sentence(error));
    }
    this.#draw();
  }

  /** `/drive?open=<id>`: show the folder of a file, and the file above it. */
  async #openById(id: string): Promise<void> {
    try {
      const file = await api.file(id);
      this.go({ kind: 'folder', id: file.parent === '' ? ROOT : file.parent }, true);
      this.reveal([file.id]);
      this.#open(file, false);
    } catch (error) {
      this.go({ kind: 'folder', id: ROOT }, true);
      this.toasts.show(sentence(error), null, true);
    }
  }

  // -- drawing -----------------------------------------------------------------------------------------------

  #listed(before: Listed, now: Listed): void {
    if (!sameItems(before.items, now.items)) {
      const order = (state: Listed): readonly string[] => state.items.map(({ id }) => id);
      this.#selection = select.pruned(this.#selection, order(before), order(now));
    } else if (
      before.view === now.view &&
      before.loading === now.loading &&
      before.problem === now.problem &&
      before.trail === now.trail &&
      before.total === now.total
    ) {
      this.#revealNow();
      return;
    }
    this.#draw();
    this.#revealNow();
  }

  #revealNow(): void {
    const found = this.#toReveal.filter((id) => this.#listing.find(id) !== undefined);
    if (found.length === 0) {
      return;
    }
    this.#toReveal = [];
    const last = found[found.length - 1] as string;
    this.#select({ ids: new Set(found), anchor: last, focus: last });
    if (!dialogIsOpen() && !menuIsOpen() && !isTyping(document.activeElement)) {
      this.#grid.focus(last);
    } else {
      this.#grid.rowOf(last)?.scrollIntoView({ block: 'nearest' });
    }
  }

  #draw(): void {
    const listed = this.#listing.state;
    const selected = this.#selected;
    const isList = this.#view.kind !== 'examples' && this.#view.kind !== 'missing';
    this.#top.render({
      view: this.#view,
      trail: listed.trail,
      selected: selected.length,
      commands: commandsFor(this.#view, selected),
      total: isList && !(listed.loading && listed.items.length === 0) ? listed.total : null,
    });
    document.title = `${this.#title} – minicolab`;
    this.#drawContent(listed);
  }

  get #title(): string {
    const { trail } = this.#listing.state;
    switch (this.#view.kind) {
      case 'folder':
        return trail[trail.length - 1]?.name ?? ROOT_NAME;
      case 'search':
        return 'Search';
      default:
        return this.#view.kind.charAt(0).toUpperCase() + this.#view.kind.slice(1);
    }
  }

  #drawContent(listed: Listed): void {
    const { items, problem, loading, total } = listed;
    const warn = problem !== null && items.length > 0;
    if (warn !== (this.#notice.childElementCount > 0)) {
      fill(this.#notice, warn ? banner(problem, this.#stateEvents) : null);
    }
    if (this.#view.kind === 'examples') {
      this.#drawExamples();
    } else if (items.length > 0) {
      this.#put('grid', () => this.#grid.element);
      this.#grid.render({
        view: this.#view,
        items,
        more: items.length < total,
        sort: this.#sort,
        selection: this.#selection,
        live: this.#live,
        now: Date.now(),
      });
    } else if (problem !== null) {
      this.#put(`problem ${problem.code} ${problem.message}`, () => errorState(problem, this.#stateEvents));
    } else if (loading) {
      this.#put('loading', loadingState);
    } else {
      this.#put(`empty ${addressOf(this.#view)} ${this.#view.kind}`, () => emptyState(this.#view, this.#stateEvents));
    }
  }

  #drawExamples(): void {
    const examples = this.#examples;
    if (examples === null) {
      this.#put('loading', loadingState);
    } else if (examples instanceof ApiError) {
      this.#put('problem', () => errorState(examples, { ...this.#stateEvents, retry: () => void this.#loadExamples() }));
    } else {
      this.#put('examples', () => examplesView(examples, (example) => void this.#actions.copyExample(example)));
    }
  }

  /** Put something into the middle, unless the same is there already. */
  #put(name: string, make: () => HTMLElement): void {
    if (this.#content.dataset['shows'] !== name) {
      this.#content.dataset['shows'] = name;
      fill(this.#content, make());
    }
  }

  readonly #stateEvents: StateEvents = {
    newNotebook: () => void this.#actions.newNotebook(),
    upload: () => {
      this.#pickFiles(false);
    },
    retry: () => {
      this.#again();
    },
    home: () => {
      this.go({ kind: 'folder', id: ROOT });
    },
  };

  #showRail(shown: boolean): void {
    this.#rail.element.classList.toggle('shown', shown);
    this.#shade.hidden = !shown;
  }

  // -- selection ---------------------------------------------------------------------------------------------

  get #selected(): readonly FileEntry[] {
    return this.#listing.state.items.filter(({ id }) => this.#selection.ids.has(id));
  }

  #select(selection: select.Selection): void {
    if (!select.sameSelection(this.#selection, selection) || this.#selection.anchor !== selection.anchor) {
      this.#selection = selection;
      this.#draw();
    }
  }

  #clicked(id: string, event: MouseEvent): void {
    const many = event.ctrlKey || event.metaKey;
    if (event.shiftKey) {
      this.#select(select.extended(this.#selection, this.#grid.order, id, many));
    } else {
      this.#select(many ? select.toggled(this.#selection, id) : select.only(id));
    }
    this.#grid.focus(id);
  }

  #sorted(key: SortKey): void {
    if (this.#view.kind === 'folder') {
      this.#folderSort = clicked(this.#folderSort, key);
      store(formatSort(this.#folderSort));
    } else {
      this.#listSort = clicked(this.#listSort, key);
    }
    this.#again();
  }

  /** Ask for the same view anew; what is shown stays until the answer is there. */
  #again(): void {
    void this.#listing.show(this.#view, this.#sort, true, this.#listing.state.trail);
  }

  // -- what can be done --------------------------------------------------------------------------------------

  #run(command: CommandId): void {
    const files = this.#selected;
    const first = files[0];
    if (first === undefined) {
      return;
    }
    switch (command) {
      case 'open':
        this.#open(first, false);
        break;
      case 'open-in-tab':
        this.#open(first, true);
        break;
      case 'rename':
        this.#actions.rename(first);
        break;
      case 'move':
        this.#actions.moveTo(files);
        break;
      case 'copy':
        void this.#actions.copy(files);
        break;
      case 'download':
        this.#actions.download(files);
        break;
      case 'copy-link':
        void this.#actions.copyLink(first);
        break;
      case 'show-in-folder':
        this.go({ kind: 'folder', id: first.parent === '' ? ROOT : first.parent });
        this.reveal([first.id]);
        break;
      case 'trash':
        void this.#actions.trash(files);
        break;
      case 'restore':
        void this.#actions.restore(files);
        break;
      case 'delete-forever':
        void this.#actions.deleteForever(files);
        break;
    }
  }

  #open(file: FileEntry, inTab: boolean): void {
    if (this.#view.kind === 'trash') {
      this.toasts.show('Restore it to open it.', { label: 'Restore', run: () => void this.#actions.restore([file]) });
    } else if (inTab) {
      window.open(fileAddress(file.id), '_blank', 'noopener');
    } else if (file.type === 'folder') {
      this.go({ kind: 'folder', id: file.id });
    } else if (file.type === 'notebook') {
      this.openNotebook(file.id);
    } else {
      showPreview(file);
    }
  }

  #newMenu(): readonly MenuItem[] {
    const notebook = (): void => void this.#actions.newNotebook();
    return [
      { label: 'New folder', icon: 'folder-new', keys: 'N F', run: () => { this.#actions.newFolder(); } },
      { label: 'File upload', icon: 'upload', keys: 'N U', separated: true, run: () => { this.#pickFiles(false); } },
      { label: 'Folder upload', icon: 'folder-upload', run: () => { this.#pickFiles(true); } },
      { label: 'Notebook', icon: 'notebook-line', keys: 'N B', separated: true, run: notebook },
      { label: 'More', icon: 'plus', items: [{ label: 'Colaboratory', icon: 'notebook-line', run: notebook }] },
    ];
  }

  #fileMenu(id: string, at: HTMLElement | Spot): void {
    if (!this.#selection.ids.has(id)) {
      this.#select(select.only(id));
    }
    const files = this.#selected;
    const label = files.length === 1 ? `Actions for ${files[0]?.name ?? ''}` : `Actions for ${String(files.length)} items`;
    const items = commandsFor(this.#view, files).map((command, i) => ({
      label: command.label,
      icon: command.icon,
      keys: command.keys,
      separated: command.separated && i > 0,
      run: () => {
        this.#run(command.id);
      },
    }));
    showMenu(at, items, label);
  }

  // -- uploads and drags -------------------------------------------------------------------------------------

  #pickFiles(folder: boolean): void {
    const input = h('input', { type: 'file', multiple: true, hidden: true, webkitdirectory: folder, 'aria-label': 'Files to upload' });
    input.addEventListener('change', () => {
      void this.#upload(this.target(), fromInput(input.files ?? []));
      input.remove();
    });
    input.addEventListener('cancel', () => {
      input.remove();
    });
    document.body.append(input);
    input.click();
  }

  async #upload(folder: Ancestor, picked: readonly Picked[]): Promise<void> {
    const maker = new FolderMaker(api, folder.id);
    for (const { folders, file } of picked) {
      try {
        const parent = await maker.idOf(folders);
        this.#uploads.add(parent, folders[folders.length - 1] ?? folder.name, file.name, file);
      } catch (error) {
        this.toasts.show(`Could not make the folder “${folders.join('/')}”: ${sentence(error)}`, null, true);
        return;
      }
    }
    if (picked.some(({ folders }) => folders.length > 0)) {
      await this.refresh();
    }
  }

  #dragged(id: string): number {
    if (this.#view.kind === 'trash') {
      return 0;
    }
    if (!this.#selection.ids.has(id)) {
      this.#select(select.only(id));
    }
    this.#dragging = this.#selected;
    return this.#dragging.length;
  }

  #dropInto(folder: Ancestor, transfer: DataTransfer): void {
    this.#hintAtDrop(false);
    if (bringsFiles(transfer)) {
      fromDrop(transfer).then(
        (picked) => this.#upload(folder, picked),
        () => {
          this.toasts.show('The browser could not read what was dropped.', null, true);
        },
      );
    } else if (transfer.types.includes(DRAG_TYPE)) {
      void this.#actions.move(this.#dragging, folder);
    }
  }

  get #takesFiles(): boolean {
    return this.#view.kind === 'folder' && this.#listing.state.problem?.status !== 404;
  }

  #hintAtDrop(shown: boolean): void {
    this.#dropHint.hidden = !shown;
    this.#main.classList.toggle('dropping', shown);
    if (shown) {
      fill(this.#dropHint, h('span', {}, 'Drop files to upload them to ', h('strong', {}, this.target().name)));
    }
  }

  // -- events of the whole page ------------------------------------------------------------------------------

  #listen(): void {
    window.addEventListener('popstate', () => {
      this.#arrive();
    });
    window.addEventListener('beforeunload', (event) => {
      if (this.#uploads.busy) {
        event.preventDefault();
      }
    });
    const awake = (): void => {
      this.#looks.wake();
      this.#runtimeLooks.wake();
    };
    window.addEventListener('focus', awake);
    window.addEventListener('online', awake);
    document.addEventListener('visibilitychange', () => {
      if (document.visibilityState === 'visible') {
        awake();
        void this.#listing.refreshTrail();
      }
    });
    document.addEventListener('keydown', (event) => {
      this.#key(event);
    });
    this.#shade.addEventListener('click', () => {
      this.#showRail(false);
    });
    this.#content.addEventListener('click', (event) => {
      if ((event.target as Element).closest('.row, button, a, .grid-head') === null) {
        this.#select(select.NOTHING);
      }
    });
    this.#content.addEventListener('contextmenu', (event) => {
      if ((event.target as Element).closest('.row, a, .grid-head') === null && this.#view.kind === 'folder') {
        event.preventDefault();
        this.#select(select.NOTHING);
        showMenu({ x: event.clientX, y: event.clientY }, this.#newMenu(), 'New');
      }
    });
    this.#listenToFileDrags();
  }

  /** Files dragged over the window: show where they would go; never let the browser leave the page for them. */
  #listenToFileDrags(): void {
    document.addEventListener('dragover', (event) => {
      if (!bringsFiles(event.dataTransfer)) {
        return;
      }
      const prevented = event.defaultPrevented;
      event.preventDefault();
      const inside = this.#main.contains(event.target as Node) && this.#takesFiles && !dialogIsOpen();
      if (event.dataTransfer !== null && !prevented) {
        event.dataTransfer.dropEffect = inside ? 'copy' : 'none';
      }
      this.#hintAtDrop(inside && !prevented);
    });
    document.addEventListener('dragleave', (event) => {
      if (event.relatedTarget === null) {
        this.#hintAtDrop(false);
      }
    });
    document.addEventListener('drop', (event) => {
      if (!bringsFiles(event.dataTransfer) || event.dataTransfer === null) {
        return;
      }
      event.preventDefault();
      this.#hintAtDrop(false);
      if (this.#main.contains(event.target as Node) && this.#takesFiles && !dialogIsOpen()) {
        this.#dropInto(this.target(), event.dataTransfer);
      }
    });
  }

  #key(event: KeyboardEvent): void {
    if (dialogIsOpen() || menuIsOpen() || isTyping(event.target) || event.defaultPrevented) {
      return;
    }
    const onControl = event.target instanceof Element && event.target.closest('button, a, [role="toolbar"]') !== null;
    if (onControl && (event.key === 'Enter' || event.key === ' ')) {
      return;
    }
    const action = this.#keys.press(event, event.timeStamp);
    if (action !== null && this.#act(action)) {
      event.preventDefault();
    }
  }

  /** Do what a key asks for; false when it means nothing now. */
  #act(action: ActionId): boolean {
    const files = this.#selected;
    const order = this.#grid.element.isConnected ? this.#grid.order : [];
    const move = (by: number, extend: boolean): boolean => {
      const next = select.moved(this.#selection, order, by, extend);
      this.#select(next);
      this.#grid.focus(next.focus);
      return order.length > 0;
    };
    const command = (id: CommandId): boolean => {
      const may = commandsFor(this.#view, files).some((found) => found.id === id);
      if (may) {
        this.#run(id);
      }
      return may;
    };
    switch (action) {
      case 'next':
        return move(1, false);
      case 'previous':
        return move(-1, false);
      case 'next-extend':
        return move(1, true);
      case 'previous-extend':
        return move(-1, true);
      case 'first':
        return move(-order.length, false);
      case 'last':
        return move(order.length, false);
      case 'select-all':
        this.#select(select.everything(this.#selection, order));
        return order.length > 0;
      case 'toggle': {
        const { focus } = this.#selection;
        if (focus !== null) {
          this.#select(select.toggled(this.#selection, focus));
        }
        return focus !== null;
      }
      case 'clear':
        if (files.length === 0) {
          this.toasts.hide();
        }
        this.#select({ ...select.NOTHING, focus: this.#selection.focus });
        return true;
      case 'open': {
        const [file] = files;
        if (file !== undefined && files.length === 1) {
          this.#open(file, false);
        }
        return files.length === 1;
      }
      case 'open-in-tab':
        return command('open-in-tab');
      case 'up':
        return this.#goUp();
      case 'rename':
        return command('rename');
      case 'trash':
        return command('trash') || command('delete-forever');
      case 'undo':
        void this.#actions.undo();
        return true;
      case 'menu': {
        const { focus } = this.#selection;
        const row = focus === null ? null : this.#grid.rowOf(focus);
        if (focus !== null && row !== null) {
          const box = row.getBoundingClientRect();
          this.#fileMenu(focus, { x: box.left + 48, y: box.bottom });
        }
        return row !== null;
      }
      case 'search':
        this.#header.focusSearch();
        return true;
      case 'help':
        showShortcuts();
        return true;
      case 'new-notebook':
        void this.#actions.newNotebook();
        return true;
      case 'new-folder':
        this.#actions.newFolder();
        return true;
      case 'new-upload':
        this.#pickFiles(false);
        return true;
      case 'go-drive':
        this.go({ kind: 'folder', id: ROOT });
        return true;
      case 'go-recent':
        this.go({ kind: 'recent' });
        return true;
      case 'go-trash':
        this.go({ kind: 'trash' });
        return true;
      case 'go-examples':
        this.go({ kind: 'examples' });
        return true;
    }
  }

  #goUp(): boolean {
    const { trail } = this.#listing.state;
    if (this.#view.kind !== 'folder' || this.#view.id === ROOT) {
      return false;
    }
    const left = this.#view.id;
    this.go({ kind: 'folder', id: trail[trail.length - 2]?.id ?? ROOT });
    this.reveal([left]);
    return true;
  }

  // -- runtimes ----------------------------------------------------------------------------------------------

  async #lookAtRuntimes(): Promise<void> {
    let runtimes: readonly Runtime[] = [];
    try {
      runtimes = (await api.runtimes()).filter(({ state }) => state !== 'ended' && state !== 'failed');
    } finally {
      // Where control does not answer, nothing is shown as running; the Drive works without it.
      this.#live = new Map(runtimes.map(({ fileId, state }) => [fileId, state]));
      this.#header.setRuntimes(runtimes);
      this.#draw();
    }
  }
}

function stored(): string | null {
  try {
    return window.localStorage.getItem(SORT_KEY);
  } catch {
    return null; // storage is switched off: the order is by name each time
  }
}

function store(sort: string): void {
  try {
    window.localStorage.setItem(SORT_KEY, sort);
  } catch {
    // storage is switched off or full: the order lasts as long as the page
  }
}
