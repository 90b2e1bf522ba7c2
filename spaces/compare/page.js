window.compare = {
  link(changes) {  // what is looked at stands in the address, so that it can be reloaded and shared
    const at = new URLSearchParams(location.search);
    for (const [name, value] of Object.entries(changes)) value ? at.set(name, value) : at.delete(name);
    history.replaceState(null, '', at.size ? '?' + at : location.pathname);
  },
  tab(name) {  // the page selects one itself when it opens: that must not rewrite the address
    if (compare.ready) compare.link({tab: name});
  },
  open() {
    const name = new URLSearchParams(location.search).get('tab');
    compare.ready = true;
    const tabs = [...document.querySelectorAll('#tabs .tab-wrapper button:not([tabindex="-1"])')];
    tabs.find(e => e.textContent.trim().toLowerCase() === name)?.click();
    if (compare.early) compare.early();
  },
  follow(element) {
    const state = element.querySelector('[data-state]');
    if (state) compare.link(JSON.parse(state.dataset.state));
    const scroll = element.querySelector('.scroll'), row = element.querySelector('tr[aria-current]');
    if (scroll && row) scroll.scrollTop = row.offsetTop - scroll.clientHeight / 2;
    delete document.querySelector('#trace')?.dataset.at;  // another trace begins at its first step
  },
  theme() {
    const dark = document.body.classList.toggle('dark');
    compare.link({__theme: dark ? 'dark' : 'light'});
  },
  step(move) {  // from one step of the raw trace to the next, and to where it went in the others
    const root = document.querySelector('#trace'), parts = [...root.querySelectorAll('.raw [data-step]')];
    const steps = [...new Set(parts.map(part => part.dataset.step))];
    if (!steps.length) return;
    const at = steps.indexOf(root.dataset.at), next = steps[Math.min(Math.max(at + move, 0), steps.length - 1)];
    root.dataset.at = next;
    root.querySelectorAll('.now').forEach(e => e.classList.remove('now'));
    for (const pane of root.querySelectorAll('.text')) {
      const found = [...pane.querySelectorAll(`[data-step="${next}"]`)];
      found.forEach(e => e.classList.add('now'));
      const top = element => element.getBoundingClientRect().top;
      if (found.length) pane.scrollTop += top(found[0]) - top(pane) - pane.clientHeight / 3;
    }
    root.querySelector('#step-at').textContent = `step ${steps.indexOf(next) + 1} of ${steps.length}`;
  },
  sort(button) {
    const cell = button.closest('th'), table = button.closest('table');
    const up = cell.getAttribute('aria-sort') !== 'ascending';
    table.querySelectorAll('th').forEach(th => th.removeAttribute('aria-sort'));
    cell.setAttribute('aria-sort', up ? 'ascending' : 'descending');
    const key = row => row.cells[cell.cellIndex].dataset.v ?? row.cells[cell.cellIndex].textContent;
    const order = (a, b) => isNaN(key(a)) || isNaN(key(b)) ? key(a).localeCompare(key(b)) : key(a) - key(b);
    const none = row => key(row) === '';  // not known, which is not 0: last either way
    const rows = [...table.tBodies[0].rows];
    table.tBodies[0].append(...rows.sort((a, b) => none(a) - none(b) || (up ? order(a, b) : order(b, a))));
  },
  save(name, data, type) {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([data], {type}));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  },
  async png(selector, name) {  // the page's own HTML, drawn by the browser; nothing is sent anywhere
    const from = document.querySelector(selector), box = from.getBoundingClientRect(), copy = from.cloneNode(true);
    copy.querySelectorAll('details').forEach((d, i) => d.open = from.querySelectorAll('details')[i].open);
    let rules = '';
    for (const sheet of document.styleSheets)
      for (const rule of sheet.cssRules) if (!/^@(font-face|import)/.test(rule.cssText)) rules += rule.cssText;
    const page = document.createElement('div');
    page.className = document.body.className + ' ' + document.querySelector('.gradio-container').className;
    page.style.cssText = 'background: var(--body-background-fill); color: var(--body-text-color); padding: 12px;' +
      'max-width: none !important; font-family: system-ui, sans-serif';
    const style = document.createElement('style');
    style.textContent = rules + '.text,.scroll{max-height:none!important}';
    page.append(style, copy);
    const probe = page.cloneNode(true);  // the whole height, without the scroll boxes
    probe.style.cssText += `;position:absolute;left:-99999px;width:${box.width}px`;
    document.body.append(probe);
    const width = Math.ceil(box.width), height = Math.min(Math.ceil(probe.scrollHeight) + 24, 12000);
    probe.remove();
    const body = new XMLSerializer().serializeToString(page);
    const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">` +
      `<foreignObject width="100%" height="100%">${body}</foreignObject></svg>`;
    const image = new Image();
    image.src = 'data:image/svg+xml;charset=utf-8,' + encodeURIComponent(svg);
    await image.decode();
    const canvas = document.createElement('canvas');
    canvas.width = 2 * width; canvas.height = 2 * height;
    const draw = canvas.getContext('2d');
    draw.scale(2, 2);
    draw.drawImage(image, 0, 0);
    canvas.toBlob(blob => compare.save(name, blob, 'image/png'), 'image/png');
  },
};
// What the address names is set after the page is there, and would be drawn over what is clicked before: the last such
// click waits for it.
for (const type of ['mousedown', 'click']) document.addEventListener(type, event => {
  const {target} = event, list = target.closest('#list, #trace-list');
  if (compare.ready || !target.closest('#tabs')) return;
  event.stopImmediatePropagation();
  event.preventDefault();
  // A list is drawn again with other rows: there a copy is clicked.
  const again = list ? target.closest('button')?.cloneNode(true) : target;
  compare.early = () => {
    if (list && again) document.querySelector(`#${list.id} [data-state]`)?.after(again);
    again?.focus();
    again?.click();
    if (list) again?.remove();
  };
}, true);
document.addEventListener('keydown', event => {
  const own = 'input, textarea, select, [role=tab], [role=slider], [role=listbox], .scroll, .text';
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest(own)) return;
  const seen = selector => { const e = document.querySelector(selector); return e && e.offsetParent ? e : null; };
  const move = {ArrowLeft: '.previous', ArrowRight: '.next'}[event.key];
  const button = move && (seen(`#compare-move ${move}`) || seen(`#trace-move ${move}`));
  if (button) { event.preventDefault(); button.click(); }
  if ((event.key === 'j' || event.key === 'k') && seen('#trace')) compare.step(event.key === 'j' ? 1 : -1);
});
document.addEventListener('click', event => {
  const sort = event.target.closest('[data-sort]'), step = event.target.closest('[data-move]');
  if (sort) compare.sort(sort);
  if (step) compare.step(Number(step.dataset.move));
});
