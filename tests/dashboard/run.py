#!/usr/bin/env python3
"""run.py ROADSTEAD HUB PICTURES: the dashboard in headless Chromium, before a simulated Docker Hub that is pulled from.

Checks what an operator sees and does, and that every page is sound: nothing is asked of another host, the console stays
empty, nothing is wider than the window at 360, 768 and 1440 px, axe-core finds no serious fault, in both themes. Pictures
of all that are written to PICTURES. `CHROMIUM` names the browser (default: /usr/bin/chromium).
"""

import os
import pathlib
import sys
import traceback
import urllib.parse

import axe_playwright_python
from playwright.sync_api import expect, sync_playwright

from stage import IMAGES, PATIENCE, Stage, eventually

AXE = (pathlib.Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
WIDTHS = (360, 768, 1440)
THEMES = ("light", "dark")
NODE = "/repositories/docker.io/library/node"


class Look:
    """A browser, and what it must not do."""

    def __init__(self, browser, stage):
        self.browser, self.stage, self.faults = browser, stage, []

    def open(self, path="/", width=1440, theme="light", **options):
        context = self.browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, **options)
        context.set_default_timeout(PATIENCE * 1000)
        page = context.new_page()
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.faults.append(f"{page.url}: {error}"))
        page.on("request", self._asked)
        page.goto(self.stage.admin + path)
        return page

    def _said(self, message):
        if message.type in ("error", "warning"):
            self.faults.append(f"{message.page.url}: console: {message.text}")

    def _asked(self, request):
        host = urllib.parse.urlsplit(request.url)
        if host.scheme != "data" and f"{host.scheme}://{host.netloc}" != self.stage.admin:
            self.faults.append(f"{request.url} was asked for")

    def settled(self):
        faults, self.faults = self.faults, []
        assert not faults, "; ".join(faults)


def live(page):
    expect(page.locator("#pulse .word")).to_have_text("Live")
    # A page that was loaded again has lost this.
    page.evaluate("window.sameAsBefore = true")


def ground(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def texts(page, of):
    """The words of each element, with one space wherever there are some."""
    return [" ".join(text.split()) for text in page.locator(of).all_text_contents()]


def size(count):
    units = ["B", "KiB", "MiB", "GiB"]
    while count >= 1023.5 and len(units) > 1:
        count, units = count / 1024, units[1:]
    digits = 0 if units[0] == "B" or count >= 99.95 else 1 if count >= 9.995 else 2
    return f"{count:.{digits}f} {units[0]}"


def share(part):
    if part is None:
        return "–"
    if part in (0, 1):
        return "100 %" if part else "0.0 %"
    return f"{min(max(100 * part, 0.1), 99.9):.1f} %"


def still_the_same(page):
    assert page.evaluate("window.sameAsBefore === true"), "the page was loaded again"


# --- checks ------------------------------------------------------------------------------------------------------------


def a_newcomer_is_told_what_to_do(look, stage):
    page = look.open()
    expect(page.locator("#newcomer")).to_contain_text(f"127.0.0.1:{stage.port}")
    expect(page.locator("#newcomer")).to_contain_text("registry-mirrors")
    live(page)
    stage.pull("library/alpine:3.20")
    expect(page.locator("#newcomer h2")).to_have_count(0)
    still_the_same(page)
    page.context.close()


def a_pull_is_seen_while_it_goes_on(look, stage):
    page = look.open()
    live(page)
    stage.fault("blobs", {"throttle": 3_000_000})
    stage.fault("cdn", {"throttle": 3_000_000})
    readers = [stage.pulling("nvidia/cuda:12.6", f"127.0.0.{last}") for last in (2, 3, 4)]
    expect(page.locator("#fills progress").first).to_be_visible()

    def layers():
        # Layers last for seconds; what is small is gone before it can be looked at twice.
        large = "bars => bars.filter(it => it.max > 1e6).map(it => [it.ariaLabel, it.getAttribute('value')])"
        return {name: int(value) for name, value in page.locator("#fills progress").evaluate_all(large)}

    name, seen = eventually("a layer's bar", layers).popitem()
    eventually(f"the bar of {name} grows", lambda: layers().get(name, 0) > seen)
    expect(page.locator("#fills")).to_contain_text("nvidia/cuda")
    page.screenshot(path=look.pictures / "a-pull-goes-on.png", full_page=True)
    stage.no_faults()
    for reader in readers:
        reader.join()
    expect(page.locator("#repositories")).to_contain_text("nvidia/cuda")
    expect(page.locator("#clients")).to_contain_text("127.0.0.3")
    still_the_same(page)
    page.context.close()


def figures_are_those_of_the_api(look, stage):
    page = look.open()
    live(page)
    for image in IMAGES:
        stage.pull(image)
    stage.traffic(3)

    compared = {}

    def agree():
        status = stage.api("status")
        totals, hub = status["totals"], status["budgets"][0]
        left = f"{hub['remaining']:,} of {hub['limit']:,}"
        spared = share(hub["saved"] / (hub["saved"] + hub["spent"]))
        compared["told"] = {
            "Pulls left": left,
            "Pulls saved": f"{totals['saved']:,}",
            "Hit ratio": f"{share(status['hit_ratio']['requests'])} of requests",
            "Traffic now": f"{size(status['traffic']['bytes_per_second'])}/s",
            "Served since the start": size(totals["bytes"]),
            "left": left,
            "spent": f"{hub['accounts'][0]['spent']:,}",
            "budget": f"{hub['spent']:,} spent, {hub['saved']:,} saved ({spared})",
        }
        tiles = dict(zip(texts(page, "#tiles h2"), texts(page, "#tiles .big"), strict=True))
        row = page.locator("#budget tbody tr").first
        compared["shown"] = tiles | {
            "left": texts(row, ".figure")[0].partition(" per ")[0],
            # Below it stands how many there are in an hour.
            "spent": row.locator("[data-name=Spent]").evaluate("it => it.firstChild.textContent"),
            "budget": texts(page, "#budget h3 small")[0].partition(";")[0],
        }
        return totals["saved"] > 0 and compared["told"] == compared["shown"]

    eventually(compared, agree)
    still_the_same(page)
    page.context.close()


def without_javascript_all_figures_are_there(look, stage):
    page = look.open(java_script_enabled=False)
    for section in ("tiles", "budget", "charts", "repositories", "clients", "upstreams", "machine", "problems"):
        expect(page.locator(f"#{section}")).to_be_visible()
    expect(page.locator("#repositories tbody tr").first).to_contain_text("/")
    expect(page.locator("#charts svg polyline").first).to_be_attached()
    page.get_by_role("link", name="Day").click()
    expect(page.locator("[aria-current=true]")).to_have_text("Day")
    page.goto(stage.admin + NODE)
    expect(page.locator("#tags tbody tr")).to_have_count(2)
    expect(page.get_by_role("button", name="Pin").first).to_be_hidden()
    page.context.close()


def a_search_shows_what_matches(look, stage):
    page = look.open("/repositories")
    expect(page.locator("#results tbody tr").nth(5)).to_be_visible()
    page.get_by_role("searchbox").press_sequentially("pyth")
    expect(page.locator("#results tbody tr")).to_have_count(1)
    expect(page.locator("#results")).to_contain_text("library/python")
    assert page.url.endswith("?match=pyth"), page.url
    page.get_by_role("searchbox").fill("<img src=x onerror=alert(1)>")
    expect(page.locator("#results .empty")).to_be_visible()
    assert page.locator("#results img").count() == 0
    page.goto(stage.admin + "/")
    page.get_by_role("searchbox").fill("grafana")
    page.get_by_role("searchbox").press("Enter")
    page.get_by_role("link", name="grafana/grafana").click()
    expect(page.locator("h1")).to_have_text("grafana/grafana")
    expect(page.locator("#tags")).to_contain_text("never moves")
    page.context.close()


def a_tag_is_pinned_refreshed_and_purged(look, stage):
    page = look.open(NODE)
    live(page)
    row = page.locator("#tags tbody tr").filter(has_text="lts-alpine")
    row.get_by_role("button", name="Pin").click()
    expect(row.locator(".pin")).to_have_text("pinned")
    assert [pin["name"] for pin in stage.api("pins")["pins"]] == ["docker.io/library/node:lts-alpine"]
    row.get_by_role("button", name="Unpin").click()
    expect(row.locator(".pin")).to_have_count(0)
    row.get_by_role("button", name="Refresh").click()
    expect(page.locator("#toast")).to_contain_text("checked: unchanged")
    expect(row).to_contain_text("fresh")

    row.get_by_role("button", name="Purge").click()
    expect(page.get_by_role("dialog")).to_contain_text("objects go")
    page.screenshot(path=look.pictures / "purge.png")
    page.get_by_role("button", name="Cancel").click()
    expect(row).to_be_visible()
    row.get_by_role("button", name="Purge").click()
    page.get_by_role("dialog").get_by_role("button", name="Purge").click()
    expect(row).to_have_count(0)
    tags = stage.api("tags?repository=library/node")["tags"]
    assert [tag["tag"] for tag in tags] == ["22"], tags
    still_the_same(page)
    stage.pull("library/node:lts-alpine")
    # Lists are loaded again every ten seconds.
    expect(row).to_be_visible(timeout=PATIENCE * 1000)

    page.get_by_role("button", name="Refresh all tags").click()
    expect(page.locator("#toast")).to_contain_text("2 tags checked")
    row.get_by_role("button", name="Pin").click()
    expect(row.locator(".pin")).to_have_text("pinned")
    page.get_by_role("button", name="Purge repository").click()
    expect(page.get_by_role("dialog")).to_contain_text("node:lts-alpine: it is pinned")
    page.get_by_role("dialog").get_by_role("button", name="Purge").click()
    expect(page.locator("#toast")).to_contain_text("Purged 1 tag")
    expect(page.locator("#toast")).to_contain_text("node:lts-alpine: it is pinned")
    expect(page.locator("#tags tbody tr")).to_have_count(1)
    row.get_by_role("button", name="Unpin").click()
    expect(row.locator(".pin")).to_have_count(0)
    stage.pull("library/node:22")
    stage.pull("library/redis:7")
    page.goto(stage.admin + "/repositories/docker.io/library/redis")
    page.get_by_role("button", name="Purge repository").click()
    page.get_by_role("dialog").get_by_role("button", name="Purge").click()
    expect(page.locator("#tags .empty")).to_be_visible()
    page.context.close()


def an_upstream_is_taken_offline_and_back(look, stage):
    page = look.open()
    live(page)
    upstream = page.locator("#upstreams > ul > li").filter(has_text="quay.io")
    upstream.get_by_role("button", name="Go offline").click()
    page.get_by_role("dialog").get_by_role("button", name="Go offline").click()
    expect(upstream).to_contain_text("offline by order")
    assert stage.api("upstreams")["upstreams"][1]["offline"] is True
    upstream.get_by_role("button", name="Go online").click()
    expect(upstream).to_contain_text("reachable")
    page.context.close()


def a_problem_is_shown_with_its_remedy(look, stage):
    page = look.open()
    live(page)
    stage.fault("manifests", "drop")
    for number in range(4):
        stage.pull(f"library/unseen:{number}")
    expect(page.locator("#problems .message").first).to_be_visible()
    expect(page.locator("#problems .remedy").first).to_be_visible()
    expect(page.locator("#upstreams")).to_contain_text("not asked")
    page.screenshot(path=look.pictures / "an-outage.png", full_page=True)
    stage.no_faults()
    still_the_same(page)
    page.context.close()


def the_theme_is_the_system_s_until_another_is_chosen_and_kept(look, stage):
    page = look.open(theme="dark")
    dark = ground(page)
    page.context.close()
    page = look.open(theme="light")
    light = ground(page)
    assert light != dark
    page.locator("#theme").click()
    assert ground(page) == dark
    page.goto(stage.admin + "/repositories")
    assert ground(page) == dark
    page.locator("#theme").click()
    assert ground(page) == light
    page.context.close()


def a_lost_server_is_told(look, stage):
    page = look.open()
    live(page)
    page.context.set_offline(True)
    expect(page.locator("#pulse .word")).to_have_text("Lost")
    page.context.set_offline(False)
    expect(page.locator("#pulse .word")).to_have_text("Live")
    look.faults = [fault for fault in look.faults if "ERR_INTERNET_DISCONNECTED" not in fault]
    page.context.close()


def there_is_no_such_page(look, stage):
    page = look.open("/repositories/nowhere.example/a")
    expect(page.locator("h1")).to_have_text("There is no such repository")
    page.context.close()
    # It is a 404 each time that the page is loaded again, too.
    look.faults = [fault for fault in look.faults if "404" not in fault]


def every_page_is_sound(look, stage):
    pages = {"overview": "/", "overview-week": "/?span=week", "repositories": "/repositories", "repository": NODE}
    pages |= {"nothing-found": "/repositories?match=nothing-of-that-name", "unknown": "/repositories/docker.io/a/b"}
    stage.fault("cdn", {"throttle": 400_000})
    stage.pull("library/redis:7")
    reader = stage.pulling("nvidia/cuda:12.6")
    wrong = []
    for name, path in pages.items():
        for width in WIDTHS:
            for theme in THEMES:
                page = look.open(path, width, theme)
                expect(page.locator("#pulse .word")).to_have_text("Live")
                where = f"{name} at {width} px, {theme}"
                wide = page.evaluate("document.documentElement.scrollWidth")
                if wide > width:
                    wrong.append(f"{where}: {wide} px wide")
                page.evaluate(AXE)
                found = page.evaluate("axe.run()")["violations"]
                wrong += [f"{where}: {it['id']}: {it['nodes'][0]['html'][:120]}" for it in found if it["impact"] in ("serious", "critical")]
                page.screenshot(path=look.pictures / f"{name}-{width}-{theme}.png", full_page=True)
                page.context.close()
    stage.no_faults()
    reader.join()
    assert not wrong, "\n".join(wrong)


CHECKS = [
    a_newcomer_is_told_what_to_do,
    a_pull_is_seen_while_it_goes_on,
    figures_are_those_of_the_api,
    without_javascript_all_figures_are_there,
    a_search_shows_what_matches,
    a_tag_is_pinned_refreshed_and_purged,
    an_upstream_is_taken_offline_and_back,
    the_theme_is_the_system_s_until_another_is_chosen_and_kept,
    there_is_no_such_page,
    every_page_is_sound,
    a_lost_server_is_told,
    a_problem_is_shown_with_its_remedy,
]


def main(roadstead, hub, pictures):
    pathlib.Path(pictures).mkdir(parents=True, exist_ok=True)
    only = os.environ.get("ONLY", "")
    failed = passed = 0
    stage = Stage(roadstead, hub)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"),
                # Root has no sandbox; what is looked at is our own.
                args=["--no-sandbox"] if os.geteuid() == 0 else [],
            )
            look = Look(browser, stage)
            look.pictures = pathlib.Path(pictures)
            for check in CHECKS:
                if only not in check.__name__:
                    continue
                name = check.__name__.replace("_", " ")
                try:
                    check(look, stage)
                    look.settled()
                    print(f"ok {name}", flush=True)
                    passed += 1
                except Exception:
                    print(f"FAIL {name}\n{traceback.format_exc()}", flush=True)
                    look.faults = []
                    stage.no_faults()
                    failed += 1
            browser.close()
    finally:
        stage.close(show_log=failed > 0)
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
