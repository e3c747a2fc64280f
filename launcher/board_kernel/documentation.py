"""A short manual, in our own words, of what boards have: MicroPython keeps no docstrings."""

from __future__ import annotations

from dataclasses import dataclass

from ..board.contract import BoardInfo


@dataclass(frozen=True)
class Documented:
    signature: str
    text: str


# name → signature | text.  Methods stand under the name of their class, without its module.
_PAGES = """
machine | The board's own hardware: pins, buses, timers, resets.
machine.Pin(id, mode=-1, pull=-1, value=None) | A pin. mode: Pin.IN, Pin.OUT, Pin.OPEN_DRAIN; pull: Pin.PULL_UP, Pin.PULL_DOWN or None.
Pin.value(x=None) | Without x: read the pin, 0 or 1. With x: set it.
Pin.on() | Set the pin high.
Pin.off() | Set the pin low.
Pin.irq(handler=None, trigger=Pin.IRQ_FALLING | Pin.IRQ_RISING) | Call handler(pin) when the level changes.
machine.ADC(pin) | An analogue input.
ADC.read_u16() | The voltage as 0 to 65535.
ADC.read() | The voltage as the converter gives it (ESP8266: 0 to 1023).
machine.PWM(pin, freq=0, duty_u16=0) | A pin that is switched on and off quickly: brightness, tones, servos.
PWM.freq(value=None) | The frequency in hertz.
PWM.duty_u16(value=None) | The share of the time that it is on, 0 to 65535.
machine.I2C(id, scl, sda, freq=400000) | An I2C bus: sensors and displays on two wires.
I2C.scan() | Addresses of the devices that answer.
I2C.readfrom(address, size) | Read bytes from a device.
I2C.readfrom_mem(address, register, size) | Read from a register of a device.
I2C.writeto(address, data) | Write bytes to a device.
I2C.writeto_mem(address, register, data) | Write to a register of a device.
machine.SoftI2C(scl, sda, freq=400000) | An I2C bus on any two pins.
machine.SPI(id, baudrate=1000000, polarity=0, phase=0) | An SPI bus.
machine.UART(id, baudrate=9600, tx=None, rx=None) | A serial line.
machine.Timer(id=-1) | Calls a function later, or again and again.
Timer.init(mode=Timer.PERIODIC, period=-1, callback=None) | Start it; period in milliseconds.
Timer.deinit() | Stop it.
machine.RTC() | The board's clock.
RTC.datetime(value=None) | (year, month, day, weekday, hours, minutes, seconds, subseconds); `%rtc --set` sets it from here.
machine.WDT(timeout=5000) | A watchdog: resets the board unless it is fed in time. It cannot be stopped.
machine.reset() | As the reset button. `%reset --hard` does it, and comes back.
machine.soft_reset() | A fresh interpreter. `%reset` does it.
machine.freq(hz=None) | The processor's clock in hertz.
machine.unique_id() | Bytes that no other board has.
machine.deepsleep(time_ms=None) | Sleep with everything off; waking is a reset.
machine.lightsleep(time_ms=None) | Sleep and go on afterwards.
time | Pauses and clocks.
time.sleep(seconds) | Do nothing for some seconds; fractions are possible.
time.sleep_ms(ms) | Do nothing for some milliseconds.
time.sleep_us(us) | Do nothing for some microseconds.
time.ticks_ms() | A counter of milliseconds that comes round; compare with ticks_diff.
time.ticks_us() | A counter of microseconds that comes round; compare with ticks_diff.
time.ticks_diff(new, old) | The time between two ticks, right also when the counter came round.
time.ticks_add(ticks, delta) | A later tick.
time.time() | Seconds by the board's clock, from 1970 or 2000.
time.localtime(seconds=None) | (year, month, day, hour, minute, second, weekday, yearday).
gc | Memory.
gc.collect() | Free what is no longer used.
gc.mem_free() | Bytes that are free.
gc.mem_alloc() | Bytes in use.
os | Files on the board. In cells `%ls`, `%cat`, `%put`, `%get` are easier.
os.listdir(path=".") | Names in a directory.
os.ilistdir(path=".") | Tuples (name, type, inode, size) of what is in a directory.
os.remove(path) | Delete a file.
os.mkdir(path) | Make a directory.
os.rmdir(path) | Remove an empty directory.
os.rename(old, new) | Give a file another name.
os.stat(path) | A tuple about a file; its size is number 6.
os.statvfs(path) | A tuple about a file system; `%df` reads it for you.
os.getcwd() | The current directory.
os.chdir(path) | Change the current directory.
os.uname() | What board and firmware this is.
sys | The interpreter itself.
sys.path | Where import looks.
sys.implementation | Name and version of the firmware's Python.
sys.print_exception(error) | Print a traceback.
micropython | The interpreter's inside.
micropython.mem_info() | Print how the memory is used.
micropython.const(value) | A constant, kept at compile time.
micropython.schedule(function, argument) | Call a function soon, out of an interrupt handler.
network | Wi-Fi and other networks.
network.WLAN(interface=network.STA_IF) | The Wi-Fi: STA_IF joins a network, AP_IF makes one.
WLAN.active(on=None) | Switch it on or off, or ask.
WLAN.connect(ssid, key) | Join a network.
WLAN.isconnected() | Whether it has joined.
WLAN.ifconfig() | (address, netmask, gateway, DNS server).
WLAN.scan() | The networks in reach.
neopixel | Coloured lights in a row (WS2812).
neopixel.NeoPixel(pin, n) | n lights at a pin: np[0] = (red, green, blue), then np.write().
NeoPixel.write() | Show what was set.
NeoPixel.fill(color) | All lights the same.
dht.DHT22(pin) | A sensor for temperature and humidity: measure(), then temperature(), humidity().
onewire.OneWire(pin) | A bus on one wire.
framebuf.FrameBuffer(buffer, width, height, format) | A picture in memory: pixel, line, rect, fill, text.
asyncio | Several things at a time, in turns: async, await, create_task, sleep_ms, gather.
struct.pack(format, *values) | Values to bytes.
struct.unpack(format, data) | Bytes to values.
json.dumps(value) | A value as JSON.
json.loads(text) | JSON as a value.
random.randint(a, b) | A random whole number from a to b.
random.random() | A random number from 0 to 1.
math | Sine, square root and so on.
esp.flash_size() | Bytes of flash.
microbit | The micro:bit: display, buttons, pins, sensors, images.
microbit.display | The 25 lights.
microbit.display.show(value, delay=400, wait=True, loop=False, clear=False) | Show an image, a letter, a number or several in turn.
microbit.display.scroll(text, delay=150, wait=True, loop=False) | Scroll a text.
microbit.display.set_pixel(x, y, value) | One light, 0 (off) to 9.
microbit.display.get_pixel(x, y) | How bright a light is, 0 to 9.
microbit.display.clear() | All lights off.
microbit.Image(text) | A picture: Image("09090:99999:99999:09990:00900") is a heart. Image.HEART and others are there.
microbit.button_a | The left button.
microbit.button_b | The right button.
microbit.button_a.is_pressed() | Whether it is pressed now.
microbit.button_a.was_pressed() | Whether it was pressed since you last asked.
microbit.accelerometer | Movement.
microbit.accelerometer.get_x() | Acceleration to the side, in thousandths of g.
microbit.accelerometer.get_values() | Acceleration (x, y, z).
microbit.compass.heading() | Degrees from north.
microbit.temperature() | The chip's temperature in degrees Celsius.
microbit.running_time() | Milliseconds since the board was switched on.
microbit.sleep(ms) | Do nothing for some milliseconds.
microbit.panic(n) | Stop with a sad face.
microbit.pin0 | A pin: read_digital(), write_digital(v), read_analog(), write_analog(v), is_touched().
music.play(music, pin=pin0) | Play notes such as ["c4:4", "d", "e"] or music.NYAN.
music.pitch(frequency, duration=-1) | A tone.
radio.on() | Switch the radio on.
radio.send(text) | Send to all micro:bits that listen.
radio.receive() | What was received, or None.
speech.say(words) | Speak English words.
digitalio.DigitalInOut(pin) | CircuitPython: a pin; direction, value, pull.
analogio.AnalogIn(pin) | CircuitPython: an analogue input; value is 0 to 65535.
board.LED | CircuitPython: the names of this board's pins are in the module board.
input(prompt="") | Asks in the notebook, and waits for the answer.
print(*values, sep=" ", end="\\n") | Prints. Numbers can be plotted while they come: %%plot.
help(value) | What the firmware says about a value. In a notebook: value?
"""

MICROBIT_MODULES = (
    *(
        "antigravity",
        "array",
        "audio",
        "builtins",
        "collections",
        "gc",
        "love",
        "machine",
        "math",
        "microbit",
        "micropython",
    ),
    *(
        "music",
        "neopixel",
        "os",
        "radio",
        "random",
        "speech",
        "struct",
        "sys",
        "this",
        "time",
        "utime",
        "ustruct",
    ),
)


def _read() -> dict[str, Documented]:
    pages = {}
    for line in _PAGES.strip().split("\n"):
        signature, _, text = line.rpartition(" | ")
        pages[signature.partition("(")[0]] = Documented(signature, text)
    return pages


PAGES = _read()


def find(name: str, kind: str = "", info: BoardInfo | None = None) -> Documented | None:
    """``kind``: the class of the value, if the board said it.  ``led.on`` is found under the class of ``led`` only
    by its last name, if just one class has that: the board cannot say whose method it is."""
    plain = name.removeprefix("u") if name.startswith("u") and name[1:].partition(".")[0] in PAGES else name
    if plain in PAGES:
        return PAGES[plain]
    for page, found in PAGES.items():
        module, _, last = page.rpartition(".")
        if (
            last == name
            and module
            and module.islower()
            and (info is None or name == kind or last[0].isupper())
        ):
            return found
    if kind in ("bound_method", "function", "method") and "." in name:
        last = name.rpartition(".")[2]
        methods = [found for page, found in PAGES.items() if page[0].isupper() and page.endswith(f".{last}")]
        return methods[0] if len(methods) == 1 else None
    return next((found for page, found in PAGES.items() if kind and page.rpartition(".")[2] == kind), None)
