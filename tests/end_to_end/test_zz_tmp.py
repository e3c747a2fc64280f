import shutil
from .test_browser import *
from .test_browser import server
del test_jupyterlab, test_notebook, test_a_slow_kernel_says_what_it_waits_for, test_a_kernel_that_ends_says_why
@pytest.mark.timeout(500)
def test_it(engine, server, home):
    for n in range(9):
        for name in ("Python 3 (ipykernel)", NAME):
            for f in home.glob("*.ipynb"): f.unlink()
            mark = server.log.stat().st_size
            with Browser(home) as browser:
                browser.go(server.url("tree"))
                browser.choose(".jp-FileBrowser-toolbar .lm-MenuBar-item", "New", name)
                browser.follow()
                t=time.monotonic()
                try:
                    browser.wait_text(".jp-Toolbar-kernelName", name, 6)
                    print(n, name, "ok", round(time.monotonic()-t,1))
                except AssertionError as e:
                    print(n, name, "BAD", browser.evaluate("location.href"))
                    browser.screenshot(Path(f"/tmp/shots/nb{n}.png"))
                    print(server.log.read_text()[mark:][:3000])
                    print(*[p.read_text() for p in home.glob("*.ipynb")])
            shutil.rmtree(home/"chromium")
            for k in server.rest("GET", "api/sessions"): server.rest("DELETE", "api/sessions/"+k["id"])
    assert 0
