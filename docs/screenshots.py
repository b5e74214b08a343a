"""Pictures of the explorer in JupyterLab, light and dark, for docs/images.

Run by ``make screenshots``. Needs Chromium: on the path as ``chromium``, or named by CHROMIUM.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import URLError
from urllib.request import urlopen

import nbformat
from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parent / "images"
PORT = 8899
SIZE = {"width": 1000, "height": 860}
CELLS = [
    'import actadd_lens as al\n\nmodel = al.load_model("testbed")',
    'prompt = "Anna sang the song. Ben talked about"\n'
    'al.explore(model, (" weddings", " "), prompt=prompt, layer=3)',
]
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]


@contextmanager
def lab(folder: Path, theme: str) -> Iterator[str]:
    """JupyterLab on a folder, in a theme: the address of its notebook."""
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(notebook, folder / "explorer.ipynb")
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "themes.jupyterlab-settings").write_text(json.dumps({"theme": theme}))
    news = settings / "notification.jupyterlab-settings"
    news.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={PORT}"]
    command += ["--allow-root", "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}"]
    places = {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "HF_HUB_OFFLINE": "1"}
    server = subprocess.Popen(
        command, env=os.environ | places, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(f"http://localhost:{PORT}/api")
        yield f"http://localhost:{PORT}/doc/tree/explorer.ipynb"
    finally:
        server.terminate()
        server.wait()


def _wait_for(address: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            urlopen(address).close()
            return
        except URLError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


def take(page: Page, address: str, picture: Path) -> None:
    """Run the notebook, turn a knob, and take its picture."""
    page.goto(address)
    page.get_by_text("| Idle").wait_for()  # what is run before the kernel is there is lost
    if page.locator(".jp-FileBrowser").is_visible():
        page.keyboard.press("Control+b")  # it takes the room
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    result = page.locator(".jp-OutputArea .actadd-lens")
    result.wait_for(timeout=120_000)
    before = result.inner_text()
    began = time.monotonic()
    knob = page.locator(".widget-slider", has_text="coefficient").locator(".noUi-handle")
    knob.focus()
    knob.press("ArrowRight")
    while result.inner_text() in (before, "running ..."):
        page.wait_for_timeout(20)
    print(f"{picture.name}: a turn of a knob is answered in {time.monotonic() - began:.2f} s")
    page.locator(".jp-OutputArea").last.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    page.screenshot(path=picture)


def main() -> None:
    """Take all pictures."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        sys.exit("no Chromium: install it, or name it: CHROMIUM=/path/to/chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=QUIET)
        for theme in ("Light", "Dark"):
            with TemporaryDirectory() as folder, lab(Path(folder), f"JupyterLab {theme}") as url:
                page = browser.new_page(viewport=SIZE, device_scale_factor=1.25)
                take(page, url, IMAGES / f"explorer_{theme.lower()}.png")
                page.close()
        browser.close()


if __name__ == "__main__":
    main()
