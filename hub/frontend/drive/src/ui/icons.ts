/** The page's pictures, drawn for it on a grid of 24 by 24. */

const SVG = 'http://www.w3.org/2000/svg';

/** Lines in the colour of the text. */
const LINES: Readonly<Record<string, string>> = {
  plus: 'M12 5v14M5 12h14',
  search: 'M10.5 17a6.500 6.500 0 1 0 0-13 6.500 6.500 0 0 0 0 13ZM15.500 15.500 20 20',
  close: 'm6 6 12 12M18 6 6 18',
  back: 'M19 12H5m6-6-6 6 6 6',
  right: 'm9.500 6 6 6-6 6',
  down: 'm6 9.500 6 6 6-6',
  up: 'M12 19V6m-5.500 5L12 5.500 17.500 11',
  check: 'm5 12.500 4.500 4.500L19 7.500',
  menu: 'M4 7h16M4 12h16M4 17h16',
  drive: 'M4 7.500A2.500 2.500 0 0 1 6.500 5h11A2.500 2.500 0 0 1 20 7.500v9a2.500 2.500 0 0 1-2.500 2.500h-11A2.500 2.500 0 0 1 4 16.500v-9ZM4 14h16M16.500 16.600h.1',
  recent: 'M12 20.500a8.500 8.500 0 1 0 0-17 8.500 8.500 0 0 0 0 17ZM12 7.500V12l3.200 2',
  trash: 'M5 7h14M10 7V4.500h4V7m3 0-.8 11.200A1.500 1.500 0 0 1 14.700 19.600H9.300a1.500 1.500 0 0 1-1.500-1.400L7 7m3.300 3.800v5m3.400-5v5',
  examples: 'M12 6.500C10.300 5.300 8 4.700 4.500 4.700v13.200c3.500 0 5.800.6 7.500 1.900 1.700-1.300 4-1.900 7.500-1.900V4.700c-3.500 0-5.800.6-7.500 1.800Zm0 0v13',
  open: 'M5 12h13m-5.500-5.500L18 12l-5.500 5.500',
  tab: 'M11 5H6.500A1.500 1.500 0 0 0 5 6.500v11A1.500 1.500 0 0 0 6.500 19h11a1.500 1.500 0 0 0 1.500-1.500V13m-5-8h5v5m0-5-8 8',
  rename: 'm14.500 6 3.500 3.500M5 19l.8-4L16 4.800a1.400 1.400 0 0 1 2 0L19.200 6a1.400 1.400 0 0 1 0 2L9 18.200 5 19Z',
  move: 'M4 17.500v-11A1.500 1.500 0 0 1 5.500 5H9l2 2.500h7.500A1.500 1.500 0 0 1 20 9v8.500a1.500 1.500 0 0 1-1.500 1.500h-13A1.500 1.500 0 0 1 4 17.500Zm5-4.200h6m-2.500-2.500 2.500 2.500-2.500 2.500',
  copy: 'M9 8.500h8.500A1.500 1.500 0 0 1 19 10v8.500a1.500 1.500 0 0 1-1.500 1.500H9a1.500 1.500 0 0 1-1.500-1.500V10A1.500 1.500 0 0 1 9 8.500ZM5 15.500v-10A1.500 1.500 0 0 1 6.500 4h8.500',
  download: 'M12 4v11m-4.500-4.300L12 15.200l4.500-4.500M5 19.500h14',
  upload: 'M12 15.500V5m-4.500 4.300L12 4.800l4.500 4.500M5 19.500h14',
  'folder-upload': 'M4 17.500v-11A1.500 1.500 0 0 1 5.500 5H9l2 2.500h7.500A1.500 1.500 0 0 1 20 9v8.500a1.500 1.500 0 0 1-1.500 1.500h-13A1.500 1.500 0 0 1 4 17.500ZM12 16v-5m-2.500 2.200L12 10.700l2.500 2.500',
  'folder-new': 'M4 17.500v-11A1.500 1.500 0 0 1 5.500 5H9l2 2.500h7.500A1.500 1.500 0 0 1 20 9v8.500a1.500 1.500 0 0 1-1.500 1.500h-13A1.500 1.500 0 0 1 4 17.500Zm8-7v5.500m-2.750-2.750h5.500',
  'folder-open': 'M4 17.500v-11A1.500 1.500 0 0 1 5.500 5H9l2 2.500h6.500A1.500 1.500 0 0 1 19 9v1.500M4.500 18.500l2.300-7a1.500 1.500 0 0 1 1.400-1h12.300l-2.500 7.500a1.500 1.500 0 0 1-1.400 1H5.500A1.500 1.500 0 0 1 4 17.500',
  link: 'M10 14.500a3.800 3.800 0 0 0 5.600.3l2.600-2.600a3.850 3.850 0 0 0-5.400-5.400L11.500 8M14 9.500a3.800 3.800 0 0 0-5.600-.3l-2.600 2.600a3.850 3.850 0 0 0 5.400 5.400L12.500 16',
  restore: 'M5 5v5h5M5.500 10A7.500 7.500 0 1 1 4.600 14',
  keyboard: 'M4.500 7h15A1.500 1.500 0 0 1 21 8.500v7a1.500 1.500 0 0 1-1.500 1.500h-15A1.500 1.500 0 0 1 3 15.500v-7A1.500 1.500 0 0 1 4.500 7ZM6.500 10.200h.1m3 0h.1m3 0h.1m3 0h.1m2.200 0h.1M8 13.800h8',
  alert: 'M12 8v5m0 3.200h.1M12 4 3.500 19h17L12 4Z',
  info: 'M12 11v5.500M12 8h.1M12 20.500a8.500 8.500 0 1 0 0-17 8.500 8.500 0 0 0 0 17Z',
  admin: 'M5 7h8m4 0h2M5 17h2m4 0h8M15 9.200a2.200 2.200 0 1 0 0-4.400 2.200 2.200 0 0 0 0 4.400ZM9 19.200a2.200 2.200 0 1 0 0-4.400 2.200 2.200 0 0 0 0 4.400ZM5 12h14',
  usage: 'M5 19v-7m4.700 7V5m4.600 14v-9m4.700 9v-4',
  'sign-out': 'M10 5H6.500A1.500 1.500 0 0 0 5 6.500v11A1.500 1.500 0 0 0 6.500 19H10m4-11 4 4-4 4m4-4H9.500',
  'notebook-line': 'M10 8.400a4.700 4.700 0 1 0 0 7.200M14 15.600a4.700 4.700 0 1 0 0-7.200',
  more2: 'M5 12h.1m6.900 0h.1m6.900 0h.1',
};

/** Filled shapes: dots, and the pictures of kinds of files, each a list of [colour class, drawing]. */
const SHAPES: Readonly<Record<string, readonly (readonly [string, string])[]>> = {
  dots: [['', 'M12 6.700a1.600 1.600 0 1 0 0-3.200 1.600 1.600 0 0 0 0 3.200Zm0 6.900a1.600 1.600 0 1 0 0-3.200 1.600 1.600 0 0 0 0 3.200Zm0 6.900a1.600 1.600 0 1 0 0-3.200 1.600 1.600 0 0 0 0 3.200Z']],
  folder: [['k-folder', 'M4.500 4.500A2 2 0 0 0 2.500 6.500v11a2 2 0 0 0 2 2h15a2 2 0 0 0 2-2v-9a2 2 0 0 0-2-2h-7.200l-1.700-1.500a2 2 0 0 0-1.300-.5H4.500Z']],
};

const SHEET = 'M6 2.500h8.200L19.500 8v11.500a2 2 0 0 1-2 2H6a2 2 0 0 1-2-2v-15a2 2 0 0 1 2-2Z';
/** What is drawn in white on the coloured sheet of a kind. */
const ON_SHEET: Readonly<Record<string, string>> = {
  image: 'm6.800 17.500 3.400-4.500 2.300 2.800 1.500-1.800 2.800 3.500H6.800ZM15 11.200h.1',
  table: 'M7 11h9.500v6.500H7V11Zm0 3.250h9.500M11.750 11v6.500',
  code: 'm9.500 11.500-2.500 2.700 2.500 2.700m4.500-5.400 2.500 2.700-2.500 2.700',
  text: 'M7.500 11.500H16m-8.500 3H16m-8.500 3h5',
  pdf: 'M7.500 12.500H16m-8.500 4H16M7.500 12.500v4m8.500-4v4',
  archive: 'M11.800 10v1.500m0 1.500v1.500m0 1.500v1.500',
  audio: 'M10 17.500v-6l5.500-1.300v6M8.700 17.500H10m4.200-1.300h1.300',
  video: 'm9.700 11 5 3.100-5 3.100V11Z',
  model: 'M11.800 10.500 16 12.700v4l-4.200 2.200-4.200-2.200v-4l4.200-2.200Zm0 4.300v4m0-4 4.200-2.100m-4.200 2.100-4.200-2.100',
  file: '',
};

function path(drawing: string, attributes: Readonly<Record<string, string>>): SVGPathElement {
  const element = document.createElementNS(SVG, 'path');
  element.setAttribute('d', drawing);
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, value);
  }
  return element;
}

function svg(className: string, ...paths: readonly SVGElement[]): SVGSVGElement {
  const element = document.createElementNS(SVG, 'svg');
  element.setAttribute('viewBox', '0 0 24 24');
  element.setAttribute('class', className);
  element.setAttribute('aria-hidden', 'true');
  element.append(...paths);
  return element;
}

/** A picture for a button or a line of a menu. It has no words of its own: label what holds it. */
export function icon(name: string): SVGSVGElement {
  const shapes = SHAPES[name];
  if (shapes !== undefined) {
    return svg('icon', ...shapes.map(([kind, drawing]) => path(drawing, { class: `shape ${kind}` })));
  }
  return svg('icon line', path(LINES[name] ?? '', {}));
}

/** The picture of a kind of file, in its colour. */
export function kindIcon(kind: string): SVGSVGElement {
  if (kind === 'folder') {
    return icon('folder');
  }
  if (kind === 'notebook') {
    return mark('icon kind');
  }
  return svg(
    'icon kind',
    path(SHEET, { class: `shape k-${kind}` }),
    path('M14.200 2.500V6.500a1.500 1.500 0 0 0 1.500 1.500h3.800Z', { class: 'fold' }),
    path(ON_SHEET[kind] ?? '', { class: 'on-sheet' }),
  );
}

/** Two open rings: minicolab's mark, and the picture of a notebook. */
export function mark(className = 'icon mark'): SVGSVGElement {
  return svg(
    className,
    path('M10.300 8a5.300 5.300 0 1 0 0 8', { class: 'ring ring-a' }),
    path('M13.700 16a5.300 5.300 0 1 0 0-8', { class: 'ring ring-b' }),
  );
}
