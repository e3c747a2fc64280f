// What the files of this port share.
#include <stdint.h>
#include "py/mphal.h"
#include "py/runtime.h"

#define CPU_HZ 25000000

extern uint32_t serial_dropped;
void serial_begin(void);
void serial_interrupt(void);
