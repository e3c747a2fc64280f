// The module `flash`: 4 MiB of the board's PSRAM, which the site keeps in a file.  Like NOR flash: writing clears bits,
// erasing a block of 4096 bytes sets them.  And how many bytes the serial line has dropped.
#include <string.h>
#include "port.h"
#include "py/runtime.h"

#define START ((uint8_t *)0x21000000)
#define SIZE (4u << 20)
#define BLOCK 4096

static uint8_t *place(mp_obj_t offset, size_t size) {
    mp_uint_t at = mp_obj_get_int(offset);
    if (at > SIZE || size > SIZE - at) {
        mp_raise_ValueError(MP_ERROR_TEXT("outside of the flash"));
    }
    return START + at;
}

static mp_obj_t flash_read(mp_obj_t offset, mp_obj_t into) {
    mp_buffer_info_t buffer;
    mp_get_buffer_raise(into, &buffer, MP_BUFFER_WRITE);
    memcpy(buffer.buf, place(offset, buffer.len), buffer.len);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(flash_read_obj, flash_read);

static mp_obj_t flash_write(mp_obj_t offset, mp_obj_t from) {
    mp_buffer_info_t buffer;
    mp_get_buffer_raise(from, &buffer, MP_BUFFER_READ);
    uint8_t *to = place(offset, buffer.len);
    for (size_t i = 0; i < buffer.len; i++) { to[i] &= ((uint8_t *)buffer.buf)[i]; }
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(flash_write_obj, flash_write);

static mp_obj_t flash_erase(mp_obj_t block) {
    memset(place(MP_OBJ_NEW_SMALL_INT(mp_obj_get_int(block) * BLOCK), BLOCK), 0xff, BLOCK);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(flash_erase_obj, flash_erase);

static mp_obj_t flash_serial_dropped(void) { return mp_obj_new_int_from_uint(serial_dropped); }
static MP_DEFINE_CONST_FUN_OBJ_0(flash_serial_dropped_obj, flash_serial_dropped);

static const mp_rom_map_elem_t flash_globals_table[] = {
    { MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR_flash) },
    { MP_ROM_QSTR(MP_QSTR_SIZE), MP_ROM_INT(SIZE) },
    { MP_ROM_QSTR(MP_QSTR_read), MP_ROM_PTR(&flash_read_obj) },
    { MP_ROM_QSTR(MP_QSTR_write), MP_ROM_PTR(&flash_write_obj) },
    { MP_ROM_QSTR(MP_QSTR_erase), MP_ROM_PTR(&flash_erase_obj) },
    { MP_ROM_QSTR(MP_QSTR_serial_dropped), MP_ROM_PTR(&flash_serial_dropped_obj) },
};
static MP_DEFINE_CONST_DICT(flash_globals, flash_globals_table);

const mp_obj_module_t flash_module = {
    .base = { &mp_type_module },
    .globals = (mp_obj_dict_t *)&flash_globals,
};
MP_REGISTER_MODULE(MP_QSTR_flash, flash_module);
