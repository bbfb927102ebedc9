"""Uses /docs as a person does, in Chromium without a window: opens the page, authorises with a key, sends a search, and looks
at the answer. What the page shows in the end goes into a file.

usage: SERVICE_API_KEY=… python3 try_explorer.py URL SCREENSHOT, with the packages of requirements.txt; URL is that of a service
without contexts
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import urllib.request
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support import expected_conditions as expected
from selenium.webdriver.support.wait import WebDriverWait

KEY = os.environ["SERVICE_API_KEY"]
CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
WAIT_SECONDS_MAX = 30
WINDOW = (1280, 1600)

NOTE = {
    "user_id": "0190d5a0-0000-7000-8000-000000000001",
    "context_type": "note",
    "key": "gnuchess",
    "content": {"title": "GNU Chess", "body": "Plays a full game of chess against you."},
    "metadata": {"source": "manual"},
}
SEARCH = {"query": "play chess against the computer", "limit": 3}


class Page:
    """The explorer in a browser; whatever is looked for is waited for."""

    def __init__(self, driver: webdriver.Chrome, url: str):
        self.driver = driver
        self.wait = WebDriverWait(driver, WAIT_SECONDS_MAX)
        driver.get(f"{url}/docs")

    def see(self, selector: str) -> WebElement:
        return self.wait.until(expected.visibility_of_element_located((By.CSS_SELECTOR, selector)), f"no {selector}")

    def click(self, selector: str) -> None:
        self.see(selector)
        self.wait.until(expected.element_to_be_clickable((By.CSS_SELECTOR, selector))).click()

    def authorise(self) -> None:
        self.click(".auth-wrapper .authorize")
        self.see(".modal-ux input").send_keys(KEY)
        self.click(".modal-ux .authorize")
        self.click(".modal-ux .btn-done")
        self.wait.until(expected.invisibility_of_element_located((By.CSS_SELECTOR, ".modal-ux")))

    def search(self) -> tuple[int, dict]:
        operation = "#operations-search-search_contexts"
        self.click(f"{operation} .opblock-summary-control")
        body = self.see(f"{operation} textarea.body-param__text")
        offered = json.loads(body.get_attribute("value"))
        assert offered.get("query"), f"the page offers no example to send: {offered}"
        body.clear()
        body.send_keys(json.dumps(SEARCH))
        self.click(f"{operation} .execute")
        answer = f"{operation} .live-responses-table tbody"
        status = int(self.see(f"{answer} .response-col_status").text.split()[0])
        return status, json.loads(self.see(f"{answer} .response-col_description code").text)

    def loaded(self) -> list[str]:
        return self.driver.execute_script("return performance.getEntries().map(entry => entry.name)")

    def screenshot(self, file: Path) -> None:
        self.driver.execute_script(
            "document.querySelector('#operations-search-search_contexts').scrollIntoView()"
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        assert self.driver.save_screenshot(str(file)), f"no screenshot in {file}"


def store_note(url: str) -> None:
    request = urllib.request.Request(
        f"{url}/v1/contexts?wait=ready",
        data=json.dumps(NOTE).encode(),
        headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=WAIT_SECONDS_MAX) as answer:
        assert answer.status == 201, answer.status


def browser() -> webdriver.Chrome:
    options = Options()
    options.binary_location = CHROMIUM
    # Its sandbox does not work for root, who CI often is; it shows one page, of this machine.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.add_argument("--window-size={},{}".format(*WINDOW))
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(DRIVER))


def main(url: str, screenshot: str) -> None:
    store_note(url)
    driver = browser()
    try:
        page = Page(driver, url)
        page.authorise()
        status, answer = page.search()
        assert status == 200, (status, answer)
        assert [hit["context"]["key"] for hit in answer["data"]] == ["gnuchess"], answer
        strangers = [name for name in page.loaded() if ":" in name and not name.startswith((url, "data:"))]
        assert not strangers, f"the page loads from elsewhere: {strangers}"
        complaints = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
        assert not complaints, f"the browser complains: {complaints}"
        page.screenshot(Path(screenshot))
    finally:
        driver.quit()
    print(f"the explorer searched and showed the answer: {screenshot}")


if __name__ == "__main__":
    main(*sys.argv[1:])
