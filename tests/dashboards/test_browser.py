"""The dashboards in a real Chromium: text is text, addresses can be shared, runs arrive while one looks."""

import json
import re
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Dialog, Page, Request, expect
from support.chromium import PATIENCE_MS, chromium
from support.dashboards import READ_KEY, Dashboards, Store, engine_in, read_dsn
from support.hostile import CONTROLS_SHOWN, MARKUP
from support.recorded_runs import SECOND, Rows, add_run, connect, migrate, support_turns

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for the module."""
    with chromium() as running:
        yield running


class Visit:
    """A page that notes what it should never do."""

    def __init__(self, browser: Browser, scheme: str = "light") -> None:
        self.page: Page = browser.new_page(color_scheme=scheme, viewport={"width": 1440, "height": 1000})  # type: ignore[arg-type]
        self.page.set_default_timeout(PATIENCE_MS)
        self.outside: list[str] = []
        self.dialogs: list[str] = []
        self.page.on("request", self._note)
        self.page.on("dialog", self._dismiss)

    def _dismiss(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def _note(self, request: Request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "blob:", "data:")):
            self.outside.append(request.url)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """A fresh page."""
    found = Visit(browser)
    yield found
    found.page.close()


def test_the_prompt_of_a_run_is_read_off_its_page(visit: Visit, dashboards: Dashboards, store: Store) -> None:
    page = visit.page
    page.goto(f"{dashboards.url}/?agent=support&env=staging")
    page.locator("table.runs tbody tr", has_text="1.5.0").click()
    expect(page).to_have_url(re.compile(rf"/\?run={store.runs['support']}"))
    expect(page.get_by_text("Turn 1 of 12")).to_be_visible()
    expect(page.locator(".block", has_text="Where is my order W-1001?").first).to_be_visible()
    page.get_by_text("Next \u2192").click()
    expect(page.get_by_text("Turn 2 of 12")).to_be_visible()
    expect(page).to_have_url(re.compile("turn=2"))
    page.locator("table.spans tr", has_text="claude").nth(4).click()
    expect(page.get_by_text("Turn 5 of 12")).to_be_visible()
    page.go_back()
    page.get_by_text("\u2190 Runs").click()
    expect(page).to_have_url(re.compile(r"agent=support&env=staging|env=staging&agent=support"))
    assert visit.outside == []


def test_a_shared_address_opens_the_same_turn_and_tab(visit: Visit, dashboards: Dashboards, store: Store) -> None:
    page = visit.page
    page.goto(f"{dashboards.url}/?run={store.runs['support']}&turn=7&tab=Prompts")
    expect(page.get_by_text("You are the support agent of a small shop.").first).to_be_visible()
    page.get_by_text("Turn", exact=True).first.click()
    expect(page.get_by_text("Turn 7 of 12")).to_be_visible()


def test_a_row_is_a_real_link(visit: Visit, dashboards: Dashboards, store: Store) -> None:
    page = visit.page
    page.goto(f"{dashboards.url}/?env=staging")
    link = page.locator("table.runs a").first
    expect(link).to_be_visible()
    assert link.evaluate("a => a.href") == f"{dashboards.url}/?run={store.runs['support']}"


def test_filters_stand_in_the_address(visit: Visit, dashboards: Dashboards) -> None:
    page = visit.page
    page.goto(dashboards.url)
    box = page.get_by_placeholder("Words, ids, any text that was recorded")
    box.fill("xylophone-7")
    box.press("Enter")
    expect(page.locator("table.runs tbody tr")).to_have_count(1)
    expect(page.locator("table.runs tbody tr")).to_contain_text("helper")
    expect(page).to_have_url(re.compile(r"q=xylophone-7"))
    page.reload()
    expect(page.locator("table.runs tbody tr")).to_have_count(1)


@pytest.mark.parametrize("tab", ["Turn", "Prompts", "Record", "Context"])
def test_hostile_text_stays_text(tab: str, visit: Visit, dashboards: Dashboards, store: Store) -> None:
    page = visit.page
    page.goto(f"{dashboards.url}/?run={store.runs['hostile']}&turn=1&tab={tab}")
    expect(page.locator("h1")).to_contain_text(MARKUP[:100])
    if tab == "Context":
        page.wait_for_selector(".js-plotly-plot")
    else:
        expect(page.locator("pre, td", has_text=MARKUP).last).to_be_visible()
    if tab == "Turn":
        expect(page.get_by_text("What it answered")).to_be_visible()
        assert page.get_by_text(CONTROLS_SHOWN).count() >= 5
    assert_nothing_is_live(visit)


def test_hostile_text_in_the_list_and_the_filters_stays_text(
    visit: Visit, dashboards: Dashboards, store: Store
) -> None:
    page = visit.page
    page.goto(f"{dashboards.url}/?q=%3Cscript%3Edocument.title&range=7d")
    expect(page.locator("table.runs tbody tr")).to_have_count(1)
    expect(page.locator("table.runs tbody tr")).to_contain_text("<script>document.title='owned'</script>")
    page.get_by_test_id("stMultiSelect").first.click()
    expect(page.get_by_role("option", name=re.compile("script")).first).to_be_visible()
    page.get_by_role("option", name=re.compile("script")).first.click()
    expect(page.locator("table.runs tbody tr")).to_have_count(1)
    assert_nothing_is_live(visit)


def assert_nothing_is_live(visit: Visit) -> None:
    """No element, link, picture, formula, request or dialog came out of recorded text."""
    page = visit.page
    links = page.evaluate(
        """() => {
            const found = [];
            const walk = (root) => {
                for (const element of root.querySelectorAll('*')) {
                    if (element.shadowRoot) walk(element.shadowRoot);
                    const address = ['href', 'src', 'xlink:href'].map((name) => element.getAttribute(name)).join();
                    if (/evil|javascript:/.test(address)) found.push(element.outerHTML);
                    if (element.hasAttribute('onerror')) found.push(element.outerHTML);
                    if (element.classList.contains('katex')) found.push('formula');
                    if (element.tagName === 'SCRIPT' && element.textContent.includes('owned')) found.push('script');
                }
            };
            walk(document);
            return found;
        }"""
    )
    assert links == []
    assert page.title() != "owned"
    assert visit.dialogs == []
    assert visit.outside == []


def test_a_run_appears_grows_and_ends_while_one_looks(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The list finds a run that has just begun; its page follows it and stays where its reader is."""
    with engine_in(tmp_path_factory.mktemp("live")) as engine:
        client = connect(engine.write_dsn)
        migrate(client)
        dashboards = Dashboards(read_dsn(engine))
        visit = Visit(browser)
        try:
            page = visit.page
            page.goto(dashboards.wait().url)
            expect(page.get_by_text("No run has been recorded yet")).to_be_visible()
            start = time.time_ns() - 10 * SECOND

            def record(turns: int, outcome: str, version: int) -> str:
                rows = Rows()
                state = add_run(rows, 1, support_turns(9)[:turns], at=start, outcome=outcome, agent="newcomer")
                state.version = version
                rows.insert(client)
                return state.run_id

            run_id = record(2, "running", 1)
            row = page.locator("table.runs tbody tr", has_text="newcomer")
            expect(row).to_contain_text("running")
            row.click()
            expect(page.get_by_text("Turn 2 of 2")).to_be_visible()
            record(4, "running", 2)
            expect(page.get_by_text("Turn 2 of 4")).to_be_visible()
            expect(page.get_by_text("Newest turn: 4")).to_be_visible()
            record(5, "completed", 3)
            expect(page.locator(".badge", has_text="completed")).to_be_visible()
            expect(page.get_by_text("Turn 2 of 5")).to_be_visible()
            assert run_id in page.url
        finally:
            visit.page.close()
            dashboards.stop()


def test_a_page_comes_back_when_the_store_does(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    engine = engine_in(tmp_path_factory.mktemp("away")).start()
    dashboards = Dashboards(read_dsn(engine))
    visit = Visit(browser)
    try:
        client = connect(engine.write_dsn)
        migrate(client)
        rows = Rows()
        add_run(rows, 1, support_turns(2), at=time.time_ns() - 60 * SECOND, agent="survivor")
        rows.insert(client)
        engine.stop()
        page = visit.page
        page.goto(dashboards.wait().url)
        expect(page.get_by_text("The store does not answer").first).to_be_visible()
        assert READ_KEY not in page.content()
        engine.start()
        expect(page.locator("table.runs tbody tr", has_text="survivor")).to_be_visible()
    finally:
        visit.page.close()
        dashboards.stop()
        engine.stop()


def test_the_request_can_be_downloaded_exactly(visit: Visit, dashboards: Dashboards, store: Store) -> None:
    page = visit.page
    page.goto(f"{dashboards.url}/?run={store.runs['support']}&turn=2")
    expect(page.get_by_text("Turn 2 of 12")).to_be_visible()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Request as JSON").click()
    request = json.loads(waiting.value.path().read_text(encoding="utf-8"))
    assert [message["role"] for message in request["messages"]] == ["user", "assistant", "user"]
    assert request["system"][0]["cache_control"] == {"type": "ephemeral"}
    assert request["tools"][0]["name"] == "get_order"
    assert request["temperature"] == 0.2


def test_a_text_of_ten_megabytes_can_be_downloaded_whole(visit: Visit, dashboards: Dashboards, store: Store) -> None:
    page = visit.page
    page.goto(f"{dashboards.url}/?run={store.runs['big']}&turn=2")
    expect(page.get_by_text("Showing 20,000 of 10,485,760 characters").first).to_be_visible()
    with page.expect_download() as waiting:
        page.get_by_role("button", name=re.compile("10,485,760 characters")).first.click()
    assert waiting.value.path().stat().st_size >= 10_485_760


@pytest.mark.parametrize(("scheme", "lightness"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(18, 21, 27)")])
def test_light_and_dark(scheme: str, lightness: str, browser: Browser, dashboards: Dashboards) -> None:
    visit = Visit(browser, scheme)
    page = visit.page
    page.goto(dashboards.url)
    expect(page.locator("table.runs tbody tr").first).to_be_visible()
    background = page.locator("[data-testid=stApp]").evaluate("e => getComputedStyle(e).backgroundColor")
    assert background == lightness
    text = page.locator("table.runs tbody td.c-agent").first.evaluate("e => getComputedStyle(e).color")
    assert contrast(text, background) >= 7
    muted = page.locator("table.runs thead th").first.evaluate("e => getComputedStyle(e).color")
    assert contrast(muted, background) >= 4.5
    page.close()


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two CSS colours, as WCAG defines it."""

    def luminance(colour: str) -> float:
        channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_older_runs_are_pages_away(visit: Visit, dashboards: Dashboards) -> None:
    page = visit.page
    page.goto(dashboards.url)
    expect(page.locator("table.runs tbody tr")).to_have_count(50)
    newest = page.locator("table.runs tbody tr").all_inner_texts()
    page.get_by_role("button", name="Older").click()
    expect(page.locator("table.runs tbody tr")).to_have_count(19)
    assert not set(newest) & set(page.locator("table.runs tbody tr").all_inner_texts())
    page.get_by_role("button", name="Newest").click()
    expect(page.locator("table.runs tbody tr")).to_have_count(50)
