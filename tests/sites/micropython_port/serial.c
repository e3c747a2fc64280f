// The serial line: a CMSDK UART, received by interrupt into a ring of 256 bytes that drops what does not fit, as the
// ESP8266's does.  QEMU does not pace it; the site does.
#include "port.h"
#include "py/ringbuf.h"
#include "py/stream.h"
#include "shared/runtime/interrupt_char.h"

typedef struct { volatile uint32_t data, state, control, interrupt, divider; } uart_t;
#define UART ((uart_t *)0x40004000)
#define NVIC_ENABLE (*(volatile uint32_t *)0xe000e100)
enum { TX_FULL = 1, RX_FULL = 2 };                              // state
enum { TX_ON = 1, RX_ON = 2, RX_INTERRUPT_ON = 8 };             // control
enum { RX_INTERRUPT = 2 };                                      // interrupt

static uint8_t space[256];
static ringbuf_t received = { space, sizeof(space), 0, 0 };
uint32_t serial_dropped;

void serial_begin(void) {
    UART->divider = CPU_HZ / 115200;
    UART->control = TX_ON | RX_ON | RX_INTERRUPT_ON;
    NVIC_ENABLE = 1;
}

void serial_interrupt(void) {
    UART->interrupt = RX_INTERRUPT;
    while (UART->state & RX_FULL) {
        int byte = UART->data & 0xff;
        if (byte == mp_interrupt_char) {
            mp_sched_keyboard_interrupt();
        } else if (ringbuf_put(&received, byte) < 0) {
            serial_dropped++;
        }
    }
}

int mp_hal_stdin_rx_chr(void) {
    int byte;
    while ((byte = ringbuf_get(&received)) < 0) { mp_event_wait_indefinite(); }
    return byte;
}

uintptr_t mp_hal_stdio_poll(uintptr_t wanted) {
    uintptr_t ready = wanted & MP_STREAM_POLL_WR;
    return ringbuf_avail(&received) ? ready | (wanted & MP_STREAM_POLL_RD) : ready;
}

mp_uint_t mp_hal_stdout_tx_strn(const char *text, size_t size) {
    for (size_t i = 0; i < size; i++) {
        while (UART->state & TX_FULL) {}
        UART->data = text[i];
    }
    return size;
}
