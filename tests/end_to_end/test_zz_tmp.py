import base64, shutil, json, re
from .test_browser import *
from .test_browser import server
del test_jupyterlab, test_notebook, test_a_slow_kernel_says_what_it_waits_for, test_a_kernel_that_ends_says_why
class B(Browser):
    events=[]
    def __call__(self, method, **parameters):
        self._next += 1
        self._socket.send(json.dumps({"id": self._next, "method": method, "params": parameters}))
        while (answer := json.loads(self._socket.recv())).get("id") != self._next:
            if answer.get("method","").startswith(("Network.webSocket", "Network.requestWill", "Network.response")): self.events.append((time.time(), answer))
        return answer.get("result", {})
@pytest.mark.parametrize("n", range(12))
def test_it(engine, server, home, n):
        B.events=[]
        with B(home) as browser:
            browser("Network.enable")
            open_a_notebook(server, browser)
            B.events.append((time.time(), "RUN"))
            run_cell(browser, "print('well')")
            B.events.append((time.time(), "RAN"))
            try:
                browser.wait_text(OUTPUT, "well", 7)
            except AssertionError:
                t0 = B.events[0][0]
                for t, e in B.events:
                    if isinstance(e, str): print(round(t-t0,2), e); continue
                    q = e["params"]
                    if "request" in q:
                        if "/api/" in q["request"]["url"] and "translations" not in q["request"]["url"] and "settings" not in q["request"]["url"]: print(round(t-t0,2), q["request"]["method"], q["request"]["url"], q["request"].get("postData"))
                        continue
                    r = q.get("response", {})
                    if "payloadData" not in r:
                        if "/api/" in r.get("url",""): print(round(t-t0,2), r.get("url"), r.get("status"))
                        elif "webSocket" in e["method"]: print(round(t-t0,2), e["method"], q.get("url"))
                        continue
                    d = r["payloadData"] if r["opcode"] == 1 else base64.b64decode(r["payloadData"]).decode("latin1")
                    d = re.sub(r"[^ -~]+", " ", d)
                    print(round(t-t0,2), e["method"][22:], e["params"]["requestId"], d[-500:])
                print(server.log.read_text()[-2500:])
                assert 0
