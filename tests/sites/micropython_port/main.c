// One life after another, from soft reset to soft reset.
#include "port.h"
#include "py/gc.h"
#include "py/runtime.h"
#include "py/stackctrl.h"
#include "shared/runtime/gchelper.h"
#include "shared/runtime/pyexec.h"

#define HEAP_SIZE (40 * 1024) // about what an ESP8266 has
#define STACK_LIMIT (10 * 1024)

static uint32_t heap[HEAP_SIZE / sizeof(uint32_t)];

static int repl(void) {
    return pyexec_mode_kind == PYEXEC_MODE_RAW_REPL ? pyexec_raw_repl() : pyexec_friendly_repl();
}

static void one_life(void) {
    gc_init(heap, heap + MP_ARRAY_SIZE(heap));
    mp_init();
    pyexec_frozen_module("_boot.py", false);
    pyexec_file_if_exists("boot.py");
    if (pyexec_mode_kind == PYEXEC_MODE_FRIENDLY_REPL) { pyexec_file_if_exists("main.py"); }
    while (!repl()) {}
    mp_hal_stdout_tx_str("MPY: soft reboot\r\n");
    gc_sweep_all();
    mp_deinit();
}

int main(void) {
    mp_stack_ctrl_init();
    mp_stack_set_limit(STACK_LIMIT);
    for (;;) { one_life(); }
}

void gc_collect(void) {
    gc_collect_start();
    gc_helper_collect_regs_and_stack();
    gc_collect_end();
}

void nlr_jump_fail(void *value) {
    mp_hal_stdout_tx_str("FATAL: an exception with nowhere to go\r\n");
    for (;;) {}
}
