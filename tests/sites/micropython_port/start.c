// From reset to main(), and the clock.
#include "port.h"

extern uint32_t _stack_top, _data_image, _data_start, _data_end, _bss_start, _bss_end;
int main(void);
void Reset(void);

#define SYSTICK_CONTROL (*(volatile uint32_t *)0xe000e010)
#define SYSTICK_RELOAD (*(volatile uint32_t *)0xe000e014)
#define SYSTICK_VALUE (*(volatile uint32_t *)0xe000e018)
#define TICKS_PER_MS (CPU_HZ / 1000)

static volatile uint32_t milliseconds;

static void SysTick(void) { milliseconds++; }
static void Fault(void) { for (;;) {} }

__attribute__((section(".vectors"), used)) static const void *const vectors[] = {
    &_stack_top, Reset, [2 ... 10] = Fault, Fault, Fault, Fault, Fault, SysTick, serial_interrupt,
};

__attribute__((used)) void begin(void) {
    uint32_t *from = &_data_image;
    for (uint32_t *to = &_data_start; to < &_data_end;) { *to++ = *from++; }
    for (uint32_t *to = &_bss_start; to < &_bss_end;) { *to++ = 0; }
    SYSTICK_RELOAD = TICKS_PER_MS - 1;
    SYSTICK_VALUE = 0;
    SYSTICK_CONTROL = 7; // on, with its interrupt, from the processor's clock
    serial_begin();
    main();
}

__attribute__((naked)) void Reset(void) {
    __asm volatile ("ldr r0, =_stack_top\n mov sp, r0\n b begin");
}

mp_uint_t mp_hal_ticks_ms(void) { return milliseconds; }

mp_uint_t mp_hal_ticks_us(void) {
    uint32_t ms, left;
    do {
        ms = milliseconds;
        left = SYSTICK_VALUE;
    } while (ms != milliseconds);
    return ms * 1000 + (TICKS_PER_MS - 1 - left) / (CPU_HZ / 1000000);
}

uint64_t mp_hal_time_ns(void) { return (uint64_t)milliseconds * 1000000; }

void mp_hal_delay_ms(mp_uint_t wanted) {
    for (uint32_t began = milliseconds; milliseconds - began < wanted;) { mp_event_wait_ms(1); }
}

void mp_hal_delay_us(mp_uint_t wanted) {
    for (uint32_t began = mp_hal_ticks_us(); mp_hal_ticks_us() - began < wanted;) { mp_event_handle_nowait(); }
}
