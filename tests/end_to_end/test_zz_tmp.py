import base64, shutil, threading
from .test_browser import *
from .test_browser import server
del test_jupyterlab, test_notebook, test_a_slow_kernel_says_what_it_waits_for, test_a_kernel_that_ends_says_why
class B(Browser):
    events=[]
    def __call__(self, method, **parameters):
        self._next += 1
        self._socket.send(json.dumps({"id": self._next, "method": method, "params": parameters}))
        while (answer := json.loads(self._socket.recv())).get("id") != self._next:
            if "webSocketFrame" in answer.get("method",""): self.events.append((time.time(), answer))
        return answer.get("result", {})
import json, re
@pytest.mark.timeout(400)
def test_it(engine, server, home):
    for n in range(10):
        B.events=[]; shutil.rmtree(home/"chromium", ignore_errors=True)
        with B(home) as browser:
            browser("Network.enable")
            browser.go(server.url("lab") + "&reset")
            browser.click(CARD)
            try: wait_for_kernel(server)
            except Exception as e: print(e, server.log.read_text()[-6000:]); continue
            run_cell(browser, "import os, sys; print('its last words', file=sys.__stderr__, flush=True); os._exit(5)")
            try:
                browser.wait_text(OUTPUT, "KernelEnded", 7)
                print(n, "ok")
            except AssertionError:
                print(n, "LOST")
                t0 = B.events[0][0]
                for t, e in B.events:
                    r = e["params"]["response"]
                    d = r["payloadData"] if r["opcode"] == 1 else base64.b64decode(r["payloadData"]).decode("latin1")
                    d = re.sub(r"[^ -~]+", " ", d)
                    print(round(t-t0,2), e["method"][22:], e["params"]["requestId"], d[-700:])
                break
        for k in server.rest("GET", "api/sessions"):
            try: server.rest("DELETE", "api/sessions/"+k["id"])
            except Exception as e: print("DELETE", e)
    print(server.log.read_text()[-3000:])
    assert 0
