// A MicroPython for QEMU's mps2-an385 that is, seen from its serial line, much like an ESP8266.
#include <stdint.h>
#include <alloca.h>

#define MICROPY_CONFIG_ROM_LEVEL (MICROPY_CONFIG_ROM_LEVEL_EXTRA_FEATURES)
#define MICROPY_HW_BOARD_NAME "mps2-an385 in QEMU"
#define MICROPY_HW_MCU_NAME "Cortex-M3"
#define MICROPY_PY_SYS_PLATFORM "mps2"

#define MICROPY_ENABLE_COMPILER (1)
#define MICROPY_ENABLE_GC (1)
#define MICROPY_ENABLE_FINALISER (1)
#define MICROPY_ENABLE_EMERGENCY_EXCEPTION_BUF (1)
#define MICROPY_ENABLE_SCHEDULER (1)
#define MICROPY_KBD_EXCEPTION (1)
#define MICROPY_LONGINT_IMPL (MICROPY_LONGINT_IMPL_MPZ)
#define MICROPY_FLOAT_IMPL (MICROPY_FLOAT_IMPL_FLOAT)
#define MICROPY_USE_INTERNAL_ERRNO (1)
#define MICROPY_ALLOC_PATH_MAX (128)
#define MICROPY_PERSISTENT_CODE_LOAD (1)
#define MICROPY_EMIT_THUMB (1)
#define MICROPY_EMIT_INLINE_THUMB (1)
#define MICROPY_MAKE_POINTER_CALLABLE(pointer) ((void *)((mp_uint_t)(pointer) | 1))

#define MICROPY_VFS (1)
#define MICROPY_READER_VFS (1)
#define MICROPY_PY_OS_UNAME (1)
#define MICROPY_PY_TIME (1)
#define MICROPY_PY_TIME_GMTIME_LOCALTIME_MKTIME (1)
#define MICROPY_PY_TIME_TIME_TIME_NS (1)
#define MICROPY_PY_TIME_INCLUDEFILE "modtime.c.inc"
#define MICROPY_PY_MACHINE (1)
#define MICROPY_PY_MACHINE_RESET (1)
#define MICROPY_PY_MACHINE_BARE_METAL_FUNCS (1)
#define MICROPY_PY_MACHINE_DISABLE_IRQ_ENABLE_IRQ (1)
#define MICROPY_PY_MACHINE_INCLUDEFILE "modmachine.c.inc"

typedef int32_t mp_int_t;
typedef uint32_t mp_uint_t;
typedef long mp_off_t;
#define MP_SSIZE_MAX (0x7fffffff)
#define UINT_FMT "%lu"
#define INT_FMT "%ld"
#define MP_NEED_LOG2 (1)
#define MP_STATE_PORT MP_STATE_VM

static inline uint32_t interrupts_off(void) {
    uint32_t former;
    __asm volatile ("mrs %0, primask\n cpsid i" : "=r" (former) : : "memory");
    return former;
}
static inline void interrupts_as(uint32_t former) { __asm volatile ("msr primask, %0" : : "r" (former) : "memory"); }
#define MICROPY_BEGIN_ATOMIC_SECTION() interrupts_off()
#define MICROPY_END_ATOMIC_SECTION(former) interrupts_as(former)
#define disable_irq interrupts_off
#define enable_irq interrupts_as
#define MICROPY_INTERNAL_WFE(timeout_ms) __asm volatile ("wfi")
