// Makes the pages live, and does what their buttons say through the API. Without it every figure is there all the same.
"use strict";
(() => {
  const root = document.documentElement;
  const stored = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;

  // Before the first paint, so that nothing flashes.
  root.classList.add("js");
  if (["light", "dark"].includes(stored())) root.dataset.theme = stored();

  const switchTheme = () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* it lasts as long as the page */ }
  };

  // --- a page's parts, replaced by newer ones ------------------------------------------------------------------------

  // Changes only what differs, so that the focus, a selection and a place in a list stay.
  const morph = (old, fresh) => {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
    if (old.nodeType !== Node.ELEMENT_NODE) { old.nodeValue = fresh.nodeValue; return; }
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of [...fresh.attributes]) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    const [was, is] = [[...old.childNodes], [...fresh.childNodes]];
    was.slice(is.length).forEach((node) => node.remove());
    is.forEach((node, index) => (was[index] ? morph(was[index], node) : old.append(node)));
  };

  const here = (part) => {
    const url = new URL(location.href);
    if (part) url.searchParams.set("part", part);
    return url.pathname + url.search;
  };

  const replace = async (address) => {
    const answer = await fetch(address, { headers: { Accept: "text/html" }, cache: "no-store" });
    // What can't be searched for has a page too, which says so.
    if (!answer.ok && answer.status !== 400) throw new Error(`the server answered ${answer.status}`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const fresh of page.querySelectorAll("[data-live]")) {
      const old = document.getElementById(fresh.id);
      if (old) morph(old, document.adoptNode(fresh));
    }
  };

  // One after the other, so that the last that was asked for is the one that stays.
  let loading = 0;
  let before = Promise.resolve();
  const load = (address) => {
    loading += 1;
    const now = before.then(() => replace(address));
    before = now.catch(() => {}).finally(() => { loading -= 1; });
    return now;
  };

  // --- live ----------------------------------------------------------------------------------------------------------

  // Charts, and lists, for which the store is read.
  const SELDOM_MS = 10_000;
  let drawn = Date.now();

  const pulse = (state, word) => {
    const it = document.getElementById("pulse");
    if (it.dataset.state === state) return;
    it.dataset.state = state;
    it.querySelector(".word").textContent = word;
  };

  // With an event where the server has just sent one.
  const tick = (event) => {
    if (loading || document.hidden || document.querySelector("dialog[open]")) return;
    const all = Date.now() - drawn >= SELDOM_MS;
    if (!all && location.pathname !== "/") {
      if (event) pulse("live", "Live");
      return;
    }
    if (all) drawn = Date.now();
    load(here(all ? "" : "figures")).then(() => pulse("live", "Live"), () => pulse("lost", "Lost"));
  };

  // One while the page is seen: a browser has few connections for all of its pages.
  let stream;
  const rest = () => { stream?.close(); stream = undefined; };
  const listen = () => {
    if (stream || document.hidden) return;
    const own = stream = new EventSource("/api/v1/stream");
    for (const kind of ["message", "status"]) own.addEventListener(kind, tick);
    own.addEventListener("error", () => {
      pulse("lost", "Lost");
      // The browser tries again by itself, unless it was refused.
      if (own !== stream || own.readyState !== EventSource.CLOSED) return;
      rest();
      setTimeout(() => { tick(); listen(); }, 5000);
    });
  };
  const look = () => { if (document.hidden) return rest(); tick(); listen(); };

  // --- actions -------------------------------------------------------------------------------------------------------

  const call = async (path, options) => {
    const answer = await fetch(`/api/v1/${path}`, { cache: "no-store", ...options });
    const said = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(said.error?.message ?? `the server answered ${answer.status}`);
    return said;
  };
  const ask = (path, body) => call(path, {
    method: "POST",
    headers: { "X-Roadstead": "1", "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });

  let hide;
  const toast = (text, bad) => {
    const it = document.getElementById("toast");
    it.textContent = text;
    it.classList.toggle("bad", Boolean(bad));
    it.classList.add("shown");
    clearTimeout(hide);
    hide = setTimeout(() => it.classList.remove("shown"), bad ? 12_000 : 5000);
  };

  const size = (bytes) => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let at = 0;
    while (bytes >= 1024 && at < units.length - 1) { bytes /= 1024; at += 1; }
    return `${at ? bytes.toPrecision(3) : bytes} ${units[at]}`;
  };
  const many = (count, what) => `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;

  const confirmed = (title, lines, yes) => new Promise((resolve) => {
    const dialog = document.getElementById("confirm");
    document.getElementById("confirm-title").textContent = title;
    document.getElementById("confirm-yes").textContent = yes;
    document.getElementById("confirm-text").replaceChildren(...lines.map((line) => {
      const p = document.createElement("p");
      p.textContent = line;
      return p;
    }));
    dialog.returnValue = "no";
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    dialog.showModal();
  });

  const problem = ({ reference, problem }) => `${reference}: ${problem}`;

  // Where nothing was done, the problem is all there is to say.
  const refused = (report, done = 0) => { if (!done && report.problems.length) throw new Error(problem(report.problems[0])); };

  // Where something was, the problems stand beside it.
  const told = (text, { problems }) => {
    if (!problems.length) return { text };
    const others = problems.length > 1 ? ` (and ${many(problems.length - 1, "other")})` : "";
    return { text: `${text}. Left out: ${problem(problems[0])}${others}`, bad: true };
  };

  const purge = async ({ reference, all }) => {
    const request = { references: [reference], all_tags: all !== undefined };
    const plan = await ask("purge", { ...request, dry_run: true });
    refused(plan, plan.tags.length + plan.objects.length);
    const lines = [`${many(plan.tags.length, "tag")} and ${many(plan.objects.length, "object")} go: ${size(plan.bytes)}.`];
    if (plan.kept.objects) lines.push(`${many(plan.kept.objects, "object")} (${size(plan.kept.bytes)}) stay, for other tags or pins need them.`);
    if (plan.problems.length) lines.push(told(`${many(plan.problems.length, "thing")} can't go`, plan).text);
    lines.push("The next pull fetches it again, which may cost a pull of your budget.");
    if (!(await confirmed(`Purge ${reference}?`, lines, "Purge"))) return;
    const done = await ask("purge", { ...request, dry_run: false });
    refused(done, done.tags.length + done.objects.length);
    return told(`Purged ${many(done.tags.length, "tag")}, ${size(done.bytes)}`, done);
  };

  // A request asks for 500 tags at most, and has 64 KiB; a tag has 128 characters.
  const batch = (reference) => Math.max(1, Math.min(500, Math.floor(60_000 / (reference.length + 132))));

  // The tags of a repository, batch by batch.
  const batches = async function* (repository) {
    let after = "";
    while (after !== undefined) {
      const page = await call(`tags?${new URLSearchParams({ repository, after, limit: batch(repository) })}`);
      yield page.tags.map(({ tag }) => `${repository}:${tag}`);
      after = page.next ?? undefined;
    }
  };

  const refresh = async ({ reference, all }) => {
    const report = { tags: [], problems: [] };
    for await (const references of all === undefined ? [[reference]] : batches(reference)) {
      if (!references.length) continue;
      const { tags, problems } = await ask("refresh", { references });
      report.tags.push(...tags);
      report.problems.push(...problems);
    }
    refused(report, report.tags.length);
    const moved = report.tags.filter((tag) => tag.found === "moved").length;
    return told(moved ? `${many(moved, "tag")} moved` : `${many(report.tags.length, "tag")} checked: unchanged`, report);
  };

  const offline = async ({ upstream }) => {
    const lines = ["What is cached is served from here, marked as stale; anything else fails until you go online again."];
    if (!(await confirmed(`Stop asking ${upstream}?`, lines, "Go offline"))) return;
    await ask("offline", { offline: true, upstream });
    return { text: `${upstream} is not asked any more` };
  };

  const actions = {
    purge,
    refresh,
    offline,
    online: async ({ upstream }) => { await ask("offline", { offline: false, upstream }); return { text: `${upstream} is asked again` }; },
    pin: async ({ reference }) => { refused(await ask("pin", { references: [reference] })); return { text: `Pinned ${reference}` }; },
    unpin: async ({ reference }) => { refused(await ask("unpin", { references: [reference] })); return { text: `Unpinned ${reference}` }; },
  };

  const act = async (button) => {
    button.disabled = true;
    try {
      const said = await actions[button.dataset.action](button.dataset);
      if (said) toast(said.text, said.bad);
    } catch (error) {
      toast(error.message, true);
    } finally {
      button.disabled = false;
      load(here("")).catch(() => {});
    }
  };

  // --- search --------------------------------------------------------------------------------------------------------

  const search = (field) => {
    if (location.pathname !== "/repositories") return;
    const url = new URL("/repositories", location.origin);
    if (field.value) url.searchParams.set("match", field.value);
    history.replaceState(null, "", url);
    load(here("")).catch((error) => toast(error.message, true));
  };

  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", switchTheme);
    document.addEventListener("click", (event) => {
      const button = event.target.closest("button[data-action]");
      if (button) act(button);
    });
    const field = document.getElementById("search");
    let wait;
    field.addEventListener("input", () => { clearTimeout(wait); wait = setTimeout(search, 200, field); });
    listen();
    document.addEventListener("visibilitychange", look);
    addEventListener("pagehide", rest);
    addEventListener("pageshow", (event) => { if (event.persisted) look(); });
  });
})();
