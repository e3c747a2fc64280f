#include <stddef.h>
#include "shared/runtime/interrupt_char.h"

mp_uint_t mp_hal_ticks_ms(void);
mp_uint_t mp_hal_ticks_us(void);
static inline mp_uint_t mp_hal_ticks_cpu(void) { return mp_hal_ticks_us(); }
