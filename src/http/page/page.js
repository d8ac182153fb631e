'use strict';
// Data reach the document as text and as numbers only: nothing here parses HTML.
const $ = id => document.getElementById(id);
const base = location.pathname.replace(/\/$/, '');
const SVG = 'http://www.w3.org/2000/svg';
const QUIET = 10000, HOUR = 3600000, ACT = 'Actions need the token';
let token = null, doc = null, heard = 0, skew = 0, range = 6, chosen = false, lost = false, bearer = false, control = null, tries = 0, timer = 0;
try { token = sessionStorage.getItem('pgdetour-token'); } catch { /* kept in memory then */ }

function el(name, kind, ...kids) {
  const node = document.createElement(name);
  if (kind) node.className = kind;
  node.append(...kids);
  return node;
}
function svg(name, attributes, ...kids) {
  const node = document.createElementNS(SVG, name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  node.append(...kids);
  return node;
}
// Nothing is touched that has not changed: a reader's place, a selection and a focus stay.
function put(node, text) { text = text == null ? '' : String(text); if (node.textContent !== text) node.textContent = text; }
function mark(node, state) { if (node.dataset.s !== state) node.dataset.s = state; }

const GLYPH = {
  up: 'M2 8.5l4 4 8-9', suspect: 'M8 2.5v6M8 13v.01', down: 'M3 3l10 10M13 3L3 13', recovering: 'M13.5 8A5.5 5.5 0 1 1 11 3.5M11 .8v3H8',
  drained: 'M5.5 3v10M10.5 3v10', unknown: 'M3 8h10',
};
const glyph = () => svg('svg', { class: 'g', viewBox: '0 0 16 16', 'aria-hidden': 'true' }, svg('path', {}));
function draw(icon, state) {
  icon.dataset.s = state;
  const path = GLYPH[state] || GLYPH.unknown;
  if (icon.firstChild.getAttribute('d') !== path) icon.firstChild.setAttribute('d', path);
}

const now = () => Date.now() + skew;
const at = stamp => Date.parse(stamp);
const two = number => String(number).padStart(2, '0');
function clock(ms) {
  const day = new Date(ms), time = `${two(day.getHours())}:${two(day.getMinutes())}:${two(day.getSeconds())}`;
  if (new Date(now()).toDateString() === day.toDateString()) return time;
  return `${day.toLocaleDateString('en', { month: 'short', day: 'numeric' })}, ${time}`;
}
function span(ms) {
  if (ms == null) return '–';
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const s = ms / 1000;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.round(s)} s`;
  const m = Math.floor(s / 60), h = Math.floor(m / 60), d = Math.floor(h / 24);
  if (m < 60) return `${m} min ${Math.floor(s % 60)} s`;
  return h < 48 ? `${h} h ${m % 60} min` : `${d} d ${h % 24} h`;
}
function bytes(count) {
  if (count == null) return '–';
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let unit = 0;
  while (count >= 1000 && unit < 4) { count /= 1000; unit++; }
  return `${count < 10 && unit ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}
const wait = ms => ms <= 0 ? 'now' : `in ${span(ms < 60000 ? Math.ceil(ms / 1000) * 1000 : ms).replace('.0', '')}`;

// What a state is called, and which of the six looks it has.
function look(it) {
  if (it.drained) return ['drained', 'drained'];
  if (it.state === 'down') return ['down', 'down'];
  if (it.state === 'recovering') return ['recovering', 'recovering'];
  if (it.standing && it.standing.word !== 'sound') return ['suspect', it.standing.word];
  if (it.breaker) return ['suspect', 'behind the others'];
  if (it.admits === false) return ['suspect', 'no new connections'];
  return it.state === 'up' || it.state === 'suspect' ? [it.state, it.state] : ['unknown', it.state];
}
function reason(it) {
  if (it.outage) return `${it.outage.cause}`;
  if (it.drained) return `drained by ${it.drained.by}, until ${clock(at(it.drained.until))}`;
  if (it.standing && it.standing.word !== 'sound') return it.standing.text;
  return it.breaker ? it.breaker.cause : '';
}

// One child for each item, by name; those that stay are the same nodes.
function keyed(parent, items, make, update) {
  const old = new Map([...parent.children].map(node => [node.key, node]));
  items.forEach((item, place) => {
    let node = old.get(item.key);
    if (!node) { node = make(item); node.key = item.key; }
    old.delete(item.key);
    if (parent.children[place] !== node) parent.insertBefore(node, parent.children[place] || null);
    update(node, item);
  });
  old.forEach(node => node.remove());
}
const named = items => items.map(item => ({ ...item, key: item.name }));

function fact(list, name) {
  const value = el('dd'), box = el('div', '', el('dt', '', name), value);
  list.append(box);
  return value;
}
function pool() {
  const lent = el('i'), idle = el('i'), text = el('span');
  const bar = el('span', 'use', lent, idle);
  bar.setAttribute('aria-hidden', 'true');
  const node = el('span', '', bar, text);
  node.show = (use, most = use.max) => {
    const share = count => `${most ? Math.min(100, 100 * count / most) : 0}%`;
    lent.style.width = share(use.lent); idle.style.width = share(use.idle);
    bar.toggleAttribute('data-full', use.lent >= most);
    put(text, `${use.lent} of ${most} lent, ${use.idle} idle${use.waiting ? `, ${use.waiting} waiting` : ''}`);
  };
  return node;
}

function card(item) {
  const node = el('article', 'card'), ui = node.ui = {};
  ui.name = el('h3', '', item.name); ui.role = el('span', 'quiet'); ui.icon = glyph(); ui.state = el('span');
  ui.pill = el('span', 'pill', ui.icon, ui.state); ui.why = el('p', 'why'); ui.strip = strip(item.name);
  ui.from = el('span'); ui.to = el('span', '', 'now'); ui.read = el('span', 'read');
  ui.facts = el('dl');
  ui.lasting = fact(ui.facts, 'Lasting'); ui.detour = fact(ui.facts, 'Detoured, refused, failed');
  ui.lag = fact(ui.facts, 'Lag'); ui.ping = fact(ui.facts, 'Last ping'); ui.next = fact(ui.facts, 'Next ping');
  ui.pool = fact(ui.facts, 'Pool'); ui.use = pool(); ui.pool.append(ui.use);
  ui.detours = new Map();
  ui.acts = el('div', 'acts'); ui.does = {};
  for (const [action, says, query] of [['ping', 'Ping now', ''], ['drain', 'Drain for 10 min', '?for=10m'], ['undrain', 'Undrain', ''], ['end-hold', 'End the hold', '']]) {
    const button = el('button', '', says);
    button.setAttribute('aria-label', `${says}: ${item.name}`);
    button.onclick = () => act(action, item.name, query, button);
    ui.does[action] = button;
    ui.acts.append(button);
  }
  ui.read.setAttribute('aria-live', 'polite');
  ui.strip.read = ui.read;
  node.append(el('div', 'top', el('div', '', ui.name, ui.role), ui.pill), ui.why, ui.strip, ui.axis = el('div', 'axis', ui.from, ui.read, ui.to), el('div', 'foot', ui.facts, ui.acts));
  return node;
}
function fill(node, item) {
  const ui = node.ui, [state, word] = look(item), why = reason(item);
  mark(node, state); mark(ui.pill, state); draw(ui.icon, state); put(ui.state, word);
  const role = item.observed || item.declared || item.kind || '';
  put(ui.role, [role, item.observed && item.observed !== item.declared ? `declared a ${item.declared}` : '', item.address].filter(Boolean).join(' · '));
  put(ui.why, why); ui.why.hidden = !why;
  const show = (value, text) => { value.parentNode.hidden = text == null; put(value, text); };
  show(ui.detour, item.outage ? `${item.outage.detoured}, ${item.outage.refused}, ${item.outage.failed}` : null);
  show(ui.lag, item.lag_bytes == null ? null : bytes(item.lag_bytes));
  show(ui.ping, item.ping_ms == null ? null : `${item.ping_ms < 10 ? item.ping_ms.toFixed(1) : Math.round(item.ping_ms)} ms`);
  ui.pool.parentNode.hidden = !item.pool;
  if (item.pool) ui.use.show(item.pool);
  const detours = (item.detours || []).filter(it => it.pool.size || it.pool.lent);
  for (const it of detours) {
    if (!ui.detours.has(it.of)) { const use = pool(), value = fact(ui.facts, `Stands in for ${it.of}`); value.append(use); value.show = use.show; ui.detours.set(it.of, value); }
    ui.detours.get(it.of).show(it.pool, it.usable);
  }
  for (const [of, value] of ui.detours) value.parentNode.hidden = !detours.some(it => it.of === of);
  ui.acts.hidden = !(bearer && doc.actions) || !item.pool;
  ui.does.drain.hidden = !!item.drained || item.declared === 'primary'; ui.does.undrain.hidden = !item.drained;
  ui.does['end-hold'].hidden = !(item.breaker && item.breaker.hold_ms != null);
  node.item = item;
  ui.strip.spans = doc.spans.filter(it => it.name === item.name);
  ui.strip.toggleAttribute('hidden', !ui.strip.spans.length); ui.axis.hidden = !ui.strip.spans.length;
  paint(ui.strip); put(ui.from, `${range < 1 ? `${range * 60} min` : `${range} h`} ago`);
  tick(node);
}
function tick(node) {
  const { ui, item } = node, passed = performance.now() - heard;
  const lasting = item.outage ? item.outage.lasting_ms + passed : item.breaker ? item.breaker.lasting_ms + passed : null;
  ui.lasting.parentNode.hidden = lasting == null;
  if (lasting != null) put(ui.lasting, span(lasting));
  put(ui.next, wait(item.next_ping_ms - passed));
}

// A calm line while a server is up; what is wrong stands out by its height as well as by its colour.
const TALL = { up: 4, suspect: 14, behind: 14, recovering: 20, drained: 14, down: 34, unknown: 2 };
function strip(name) {
  const node = svg('svg', { class: 'strip', width: '100%', viewBox: '0 0 1000 34', preserveAspectRatio: 'none', tabindex: '0', role: 'group', 'aria-label': `Timeline of ${name}: move with the arrow keys` });
  const pick = index => {
    node.picked = index;
    [...node.querySelectorAll('rect')].forEach((rect, place) => rect.classList.toggle('on', place === index));
    const it = node.shown[index];
    put(node.read, it ? `${it.state}, ${clock(it.from)} to ${it.open ? 'now' : clock(it.to)} (${span(it.to - it.from)})${it.text ? `: ${it.text}` : ''}` : '');
  };
  node.onpointermove = event => {
    const box = node.getBoundingClientRect(), x = 1000 * (event.clientX - box.left) / box.width;
    const near = node.shown.map((it, index) => [Math.max(it.x - x, x - it.x - it.w, 0) - TALL[it.look] / 34, index]).filter(it => it[0] < 6).sort((a, b) => a[0] - b[0])[0];
    if (near && near[1] !== node.picked) pick(near[1]);
  };
  node.onpointerleave = () => { if (document.activeElement !== node) pick(-1); };
  node.onfocus = () => { if (!(node.picked >= 0)) pick(node.shown.length - 1); };
  node.onblur = () => pick(-1);
  node.onkeydown = event => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9 }[event.key];
    if (!step) return;
    event.preventDefault();
    pick(Math.max(0, Math.min(node.shown.length - 1, (node.picked ?? 0) + step)));
  };
  node.pick = pick;
  node.shown = [];
  return node;
}
function paint(node) {
  node.style.setProperty('--n', range < 1 ? 3 : range);
  const end = now(), start = end - range * HOUR, scale = 1000 / (range * HOUR);
  node.shown = node.spans.map(it => ({ ...it, from: at(it.from), to: it.to ? at(it.to) : end, open: !it.to }))
    .filter(it => it.to > start && it.from < end)
    .map(it => {
      const x = (Math.max(start, it.from) - start) * scale, w = (it.to - Math.max(start, it.from)) * scale, kind = it.state === 'behind' ? 'suspect' : TALL[it.state] ? it.state : 'unknown';
      // An outage of a moment is seen all the same.
      const outage = ['down', 'recovering'].includes(it.state) && doc.outages.find(out => out.name === it.name && at(out.opened) <= it.from + 1000 && (!out.closed || at(out.closed) > it.from));
      return { ...it, text: outage ? outage.cause : '', x: Math.min(x, 997), w: kind === 'up' || kind === 'unknown' ? w : Math.max(w, 3), look: kind };
    });
  const rects = [...node.querySelectorAll('rect')];
  while (rects.length > node.shown.length) rects.pop().remove();
  node.shown.forEach((it, index) => {
    const rect = rects[index] || node.appendChild(svg('rect', { rx: 1 })), tall = TALL[it.look];
    for (const [key, value] of [['x', it.x.toFixed(1)], ['width', it.w.toFixed(1)], ['y', (34 - tall) / 2], ['height', tall]]) rect.setAttribute(key, value);
    rect.dataset.s = it.look;
  });
}

function route(item) {
  const icon = glyph(), name = el('b', '', item.name), to = el('span'), tag = el('span', 'tag'), from = el('span', 'quiet'), steps = el('ol', 'steps');
  const chevron = glyph(); chevron.classList.add('chev'); chevron.firstChild.setAttribute('d', 'M6 3l5 5-5 5');
  const node = el('details', '', el('summary', '', chevron, icon, name, to, tag, el('span', 'space'), from), steps);
  node.ui = { icon, to, tag, from, steps };
  return node;
}
const STEP = { up: 'up', suspect: 'suspect', behind: 'suspect', drained: 'drained', down: 'down', recovering: 'recovering' };
function lead(node, item) {
  const { icon, to, tag, from, steps } = node.ui;
  draw(icon, !item.target ? 'down' : item.detour ? 'suspect' : 'up');
  put(to, item.target ? `→ ${item.target}` : 'nowhere to go');
  put(tag, item.target && item.detour ? 'on a detour' : '');
  put(from, [item.group && item.group.length ? `group of ${item.group.join(', ')}` : '', `needs ${item.needs}`, item.waiting ? `${item.waiting} waiting` : ''].filter(Boolean).join(' · '));
  keyed(steps, item.route.map(step => ({ ...step, key: `${step.server} ${step.detour}` })), () => {
    const icon = glyph(), text = el('div'), more = el('div', 'quiet'), node = el('li', '', icon, el('div', '', text, more));
    node.ui = { icon, text, more };
    return node;
  }, (node, step) => {
    draw(node.ui.icon, STEP[step.reason] || (step.usable ? 'up' : 'unknown'));
    put(node.ui.text, `${step.server}${step.detour ? ' (detour)' : ''}: ${step.text}`);
    put(node.ui.more, `${step.address} · next ping ${wait(step.next_ping_ms)}${step.server === item.target ? ' · requests go here' : ''}`);
  });
}

function history(outages) {
  $('outages').hidden = !outages.length; $('nooutages').hidden = !!outages.length;
  put($('outagecount'), outages.length ? `since ${clock(at(doc.process.started))}` : '');
  const columns = [['', ''], ['opened', ''], ['lasted', 'n'], ['found in', 'n'], ['detoured', 'n'], ['failed', 'n'], ['', 'cause']];
  keyed($('outages').tBodies[0], outages.map(it => ({ ...it, key: it.id })), () => {
    const row = el('tr', '', ...columns.map(([says, kind]) => { const cell = el('td', kind); if (says) cell.dataset.l = says; return cell; }));
    row.cells[1].append(el('time'));
    return row;
  }, (row, it) => {
    const cells = row.cells, time = cells[1].firstChild;
    row.classList.toggle('open', !it.closed);
    put(cells[0], it.name); put(time, clock(at(it.opened))); time.dateTime = it.opened; time.title = it.opened;
    put(cells[2], it.closed ? span(it.lasted_ms) : `${span(it.lasted_ms)} so far`); put(cells[3], span(it.detected_ms));
    put(cells[4], it.detoured); put(cells[5], it.refused ? `${it.failed} + ${it.refused} refused` : it.failed); put(cells[6], it.last_cause && it.last_cause !== it.cause ? `${it.cause}; at last: ${it.last_cause}` : it.cause);
  });
}

const list = names => names.length < 2 ? names.join('') : `${names.slice(0, -1).join(', ')} and ${names[names.length - 1]}`;
function summary() {
  const away = doc.aliases.filter(it => it.target && it.detour), lost = doc.aliases.filter(it => !it.target);
  const out = [...doc.servers, ...doc.services].filter(it => ['down', 'recovering'].includes(it.state)), parts = [];
  if (out.length) parts.push(`${list(out.map(it => it.name))} ${out.length > 1 ? 'are' : 'is'} out.`);
  if (away.length) parts.push(`Requests ${list(away.map(it => `for ${it.name} go to ${it.target}`))}.`);
  if (lost.length) parts.push(`Nothing serves ${list(lost.map(it => it.name))}.`);
  const drained = doc.servers.filter(it => it.drained);
  if (drained.length) parts.push(`Drained: ${list(drained.map(it => it.name))}.`);
  return parts.join(' ');
}
function hero() {
  const words = { normal: ['up', 'All is well'], degraded: ['suspect', 'Degraded'], 'read-only': ['down', 'Read-only'], down: ['down', 'Down'] };
  let [state, says] = words[doc.mode] || ['unknown', doc.mode];
  if (doc.mode === 'normal' && doc.services.some(it => it.state === 'down')) [state, says] = ['suspect', 'Databases are well, a service is out'];
  mark($('hero'), state); mark($('heroicon'), state); put($('headline'), says);
  put($('subline'), summary() || 'Every alias is served by its own servers.');
  if (!$('heroicon').firstChild) $('heroicon').append(svg('svg', { viewBox: '0 0 16 16' }, svg('path', {})));
  draw($('heroicon').firstChild, state);
  keyed($('can'), [['Reads', doc.reads], ['Writes', doc.writes]].map(([key, can]) => ({ key, can })), item => {
    const node = el('li', '', glyph(), el('span', '', item.key));
    return node;
  }, (node, item) => { draw(node.firstChild, item.can ? 'up' : 'down'); put(node.lastChild, `${item.key} ${item.can ? 'work' : 'fail'}`); });
  const title = `${doc.mode === 'normal' ? '' : `${says} · `}pgdetour${doc.process.host ? ` · ${doc.process.host}` : ''}`;
  if (document.title !== title) {
    document.title = title;
    const colour = { up: '%232c7a50', suspect: '%23d9920f', down: '%23c8321f' }[state] || '%236a7078';
    $('icon').href = `data:image/svg+xml,<svg xmlns="${SVG}" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7" fill="${colour}"/></svg>`;
  }
}
function show() {
  $('board').hidden = false;
  // Of a young process a day would be an empty line.
  if (!chosen) choose([0.25, 1, 6].find(hours => now() - at(doc.process.started) < hours * HOUR) || 6);
  hero();
  put($('process'), [doc.process.host, `process ${doc.process.pid}`, `pgdetour ${doc.process.pgdetour}`].filter(Boolean).join(' · '));
  keyed($('servers'), named(doc.servers), card, fill);
  $('s-services').hidden = !doc.services.length;
  keyed($('services'), named(doc.services), card, fill);
  keyed($('aliases'), named(doc.aliases), route, lead);
  history([...doc.outages].reverse());
  $('unlock').hidden = !doc.actions;
  put($('unlock'), bearer ? 'Lock actions' : 'Unlock actions');
}

function contact() {
  const passed = performance.now() - heard, state = !doc ? 'wait' : passed > QUIET ? 'stale' : lost ? 'wait' : 'live';
  mark($('link'), state);
  document.body.classList.toggle('stale', state === 'stale');
  // Told to the second for the eye; not announced, or a screen reader would never be silent.
  if (state === 'stale') put($('linktext'), `no news for ${span(passed)}: this is how it was at ${clock(at(doc.at))}`);
  if (doc && state !== 'stale') put($('linktext'), lost ? 'reconnecting' : 'live');
  if (doc) document.querySelectorAll('.card').forEach(tick);
}

// Over the board, or in its place while nothing may be seen.
function ask(why, error) {
  $('askwhy').hidden = false; $('ask').hidden = false; $('cancel').hidden = !doc; $('board').hidden = !doc;
  put($('ask').querySelector('h1'), why); put($('go'), doc ? 'Unlock' : 'Show the status'); put($('askerror'), error);
  if (!doc) put($('linktext'), 'waiting for the token');
  $('token').focus();
}
function keep(value) {
  token = value;
  try { value ? sessionStorage.setItem('pgdetour-token', value) : sessionStorage.removeItem('pgdetour-token'); } catch { /* in memory then */ }
}
$('ask').onsubmit = event => {
  event.preventDefault();
  keep($('token').value.trim()); $('token').value = ''; $('ask').hidden = true;
  again();
};
$('cancel').onclick = () => { $('ask').hidden = true; $('unlock').focus(); };
$('unlock').onclick = () => { if (bearer) { keep(null); again(); } else ask(ACT); };

const headers = () => token ? { Authorization: `Bearer ${token}` } : {};
let quiet = 0;
function say(text) {
  put($('told'), text);
  clearTimeout(quiet);
  quiet = setTimeout(() => put($('told'), ''), 6000);
}
async function act(action, name, query, button) {
  button.disabled = true;
  try {
    const answer = await fetch(`${base}/actions/${action}/${encodeURIComponent(name)}${query}`, { method: 'POST', headers: headers(), credentials: 'omit' });
    if (answer.status === 401) { keep(null); bearer = false; show(); return ask(ACT, 'That is not the token any more.'); }
    const told = await answer.json().catch(() => ({}));
    say(answer.ok ? `${button.textContent}: ${name}. Done.` : `${button.textContent}: ${name}. ${told.error || `Failed (${answer.status})`}`);
  } catch { say(`${button.textContent}: ${name}. No answer.`); } finally { button.disabled = false; }
}

async function connect() {
  clearTimeout(timer);
  if (control) control.abort();
  const mine = control = new AbortController();
  let watch = 0;
  try {
    const answer = await fetch(`${base}/events`, { headers: { ...headers(), Accept: 'text/event-stream' }, signal: mine.signal, cache: 'no-store', credentials: 'omit' });
    if (answer.status === 401) {
      const wrong = token ? 'That is not the token.' : '';
      keep(doc = null);
      return ask('This status needs a token', wrong);
    }
    if (answer.status === 403) { put($('linktext'), 'closed'); return say('This status is closed: no token is configured, and details are not public.'); }
    if (!answer.ok) throw new Error(answer.status);
    bearer = answer.headers.get('x-pgdetour-bearer') === 'yes';
    if (token && !bearer) { keep(null); ask(ACT, 'That is not the token.'); }
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    for (;;) {
      clearTimeout(watch);
      watch = setTimeout(() => mine.abort(), QUIET + 2000);
      const { value, done } = await reader.read();
      if (done) break;
      const parts = (rest + value).split('\n\n');
      rest = parts.pop();
      const last = parts.pop();
      if (!last) continue;
      const data = last.split('\n').find(line => line.startsWith('data: '));
      if (data) { take(JSON.parse(data.slice(6))); tries = 0; }
    }
    throw new Error('ended');
  } catch {
    if (mine !== control) return;
    lost = true; contact();
    // A fleet of pages does not come back in step.
    timer = setTimeout(connect, Math.min(5000, 500 * 2 ** tries++) * (0.75 + Math.random() / 2));
  } finally { clearTimeout(watch); }
}
function take(status) {
  doc = status;
  heard = performance.now(); lost = false;
  skew = at(doc.at) - Date.now();
  $('cancel').hidden = false;
  show(); contact();
  const dot = $('link').firstChild;
  dot.classList.remove('beat'); void dot.offsetWidth; dot.classList.add('beat');
}

function choose(hours) {
  range = hours;
  document.querySelectorAll('[data-range]').forEach(button => button.setAttribute('aria-pressed', button.dataset.range == hours));
}
document.querySelectorAll('[data-range]').forEach(button => { button.onclick = () => { chosen = true; choose(+button.dataset.range); if (doc) show(); }; });
setInterval(contact, 1000);
function again() { tries = 0; connect(); }
addEventListener('online', again);
document.addEventListener('visibilitychange', () => { if (!document.hidden && doc && performance.now() - heard > QUIET) again(); });
connect();
